//! Network namespaces without names: they end with the process, whatever ends it.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, unshare_unsafe};

use crate::step::output;

/// A network namespace; it lives as long as something of it is open.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
}

impl Namespace {
    pub(super) fn new() -> Result<Self> {
        let make = || {
            // SAFETY: only the network namespace of this thread changes, and the thread ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("cannot make a network namespace")?;
            Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
        };
        on_a_thread(make)
    }

    /// A path by which other processes reach it.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// A command in it.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a script in it.
    pub(super) fn shell(&self, script: &str) -> Result<String> {
        output(self.command("sh").args(["-ec", script]))
    }

    /// Runs a closure in it.
    pub(super) fn within<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace")?;
            run()
        })
    }
}

/// The number of an interface in this thread's namespace.
pub(super) fn interface(name: &str) -> Result<u32> {
    let text = CString::new(name)?;
    // SAFETY: the name is a string that lives through the call.
    match unsafe { libc::if_nametoindex(text.as_ptr()) } {
        0 => Err(std::io::Error::last_os_error()).with_context(|| format!("there is no interface {name}")),
        index => Ok(index),
    }
}

/// Runs a closure on a thread that ends with it.
fn on_a_thread<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
}
