//! What this machine's kernel must be and allow.

use std::fs;
use std::io;

use anyhow::{Result, bail};
use libc::c_long;
use rustix::process::geteuid;
use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities};

use crate::batch;

/// The first kernel with everything that the gateway uses: tcx links.
pub(crate) const OLDEST: (u32, u32) = (6, 6);
/// Which commands of membarrier(2) there are.
const MEMBARRIER_CMD_QUERY: c_long = 0;
/// Its command that waits for a grace period of RCU.
const MEMBARRIER_CMD_GLOBAL: c_long = 1;
const NEEDED: &str = "root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";

/// Refuses to load on a kernel that is too old, or without the privilege to do so.
pub(crate) fn check() -> Result<()> {
    let found = version();
    if found < OLDEST {
        let ((major, minor), (least, than)) = (found, OLDEST);
        bail!("this is Linux {major}.{minor}; Linux {least}.{than} or later is needed");
    }
    if !is_privileged() {
        bail!("loading programs needs {NEEDED}");
    }
    Ok(())
}

/// The kernel's version, as far as it can be read.
pub(crate) fn version() -> (u32, u32) {
    let uname = uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What to do about an error that comes from missing privilege, to follow its text; empty for others.
pub(crate) fn hint(error: &anyhow::Error) -> String {
    let denied = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    });
    if denied && !is_privileged() { format!("; this needs {NEEDED}") } else { String::new() }
}

/// Waits until every program has ended that runs now: one grace period of RCU, some milliseconds.
pub(crate) fn wait_for_programs() -> io::Result<()> {
    can_wait_for_programs()?;
    batch::timed(|| membarrier(MEMBARRIER_CMD_GLOBAL).map(drop))
}

/// Whether the kernel can wait so.
pub(crate) fn can_wait_for_programs() -> io::Result<()> {
    // Where one CPU is all there is, the kernel does not wait: a program that runs has ended before anybody else
    // runs. Where programs are preempted like everything else that is not so.
    let is_realtime = fs::read_to_string("/sys/kernel/realtime").is_ok_and(|on| on.trim() == "1");
    // SAFETY: it takes a number and gives one.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    let commands = membarrier(MEMBARRIER_CMD_QUERY)?;
    if commands & MEMBARRIER_CMD_GLOBAL == 0 || is_realtime && cpus < 2 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(())
}

/// membarrier(2), by the numbers of uapi `linux/membarrier.h`.
fn membarrier(command: c_long) -> io::Result<c_long> {
    const NO_FLAGS: c_long = 0;
    // SAFETY: it takes numbers alone.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, command, NO_FLAGS, NO_FLAGS) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn is_privileged() -> bool {
    let Ok(sets) = capabilities(None) else { return geteuid().is_root() };
    let has = |set| sets.effective.contains(set);
    let bpf = has(CapabilitySet::BPF) && has(CapabilitySet::PERFMON) || has(CapabilitySet::SYS_ADMIN);
    bpf && has(CapabilitySet::NET_ADMIN)
}
