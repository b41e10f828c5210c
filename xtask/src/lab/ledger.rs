//! What a lab has made, in order, and how it is undone: when the lab is dropped, when a step fails, and on Ctrl-C.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::step::output;

/// How long a process may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(3);
/// The exit status of a command that SIGINT has ended.
const INTERRUPTED: i32 = 130;

/// Something that was made.
#[derive(Debug)]
enum Made {
    Process(String, Child),
    Namespace(String),
    Folder(PathBuf),
    /// Everything below it is pinned and goes when it is removed.
    Pins(PathBuf),
}

/// What a lab has made.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    made: Mutex<Vec<Made>>,
}

/// The ledgers of this process, for signals.
static LEDGERS: Mutex<Vec<Weak<Ledger>>> = Mutex::new(Vec::new());
static SIGNALS: Once = Once::new();

impl Ledger {
    /// An empty ledger that is undone on SIGINT and SIGTERM, too.
    pub(crate) fn open() -> Arc<Self> {
        SIGNALS.call_once(watch_signals);
        let ledger = Arc::new(Self::default());
        lock(&LEDGERS).push(Arc::downgrade(&ledger));
        ledger
    }

    pub(super) fn namespace(&self, name: &str) -> Result<()> {
        output(Command::new("ip").args(["netns", "add", name])).context("cannot make a network namespace")?;
        lock(&self.made).push(Made::Namespace(name.to_owned()));
        Ok(())
    }

    pub(super) fn folder(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        lock(&self.made).push(Made::Folder(path.to_owned()));
        Ok(())
    }

    /// Notes a folder of pins that another program will make.
    pub(crate) fn pins(&self, path: &Path) {
        lock(&self.made).push(Made::Pins(path.to_owned()));
    }

    /// Starts a process. It ends with this one unless it is to be kept.
    pub(super) fn process(&self, name: &str, command: &mut Command, keep: bool) -> Result<u32> {
        if !keep {
            // SAFETY: prctl is async-signal-safe and touches nothing but the new process.
            unsafe {
                command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                })
            };
        }
        // A Ctrl-C at the terminal is for this process, which ends the others in order.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = child.id();
        lock(&self.made).push(Made::Process(name.to_owned(), child));
        Ok(pid)
    }

    /// Ends a process by its name: with SIGTERM, or at once.
    pub(super) fn end(&self, name: &str, at_once: bool) -> Result<()> {
        let mut made = lock(&self.made);
        let at = made.iter().position(|made| matches!(made, Made::Process(other, _) if other == name));
        let Some(at) = at else { bail!("no process {name} is running in the lab") };
        if let Made::Process(_, mut child) = made.remove(at) {
            end(&mut child, if at_once { Duration::ZERO } else { PATIENCE });
        }
        Ok(())
    }

    /// Whether a process has ended by itself, and how.
    pub(super) fn ended(&self, name: &str) -> Option<String> {
        lock(&self.made).iter_mut().find_map(|made| match made {
            Made::Process(other, child) if other == name => {
                child.try_wait().ok().flatten().map(|status| status.to_string())
            }
            _ => None,
        })
    }

    /// Undoes everything, the last thing first.
    pub(crate) fn undo(&self) {
        while let Some(made) = { lock(&self.made).pop() } {
            match made {
                Made::Process(_, mut child) => end(&mut child, PATIENCE),
                Made::Namespace(name) => {
                    let _ = output(Command::new("ip").args(["netns", "del", &name]));
                }
                Made::Folder(path) => {
                    let _ = std::fs::remove_dir_all(path);
                }
                Made::Pins(path) => remove_pins(&path),
            }
        }
    }

    /// Lets everything stand.
    pub(super) fn keep(&self) {
        lock(&self.made).clear();
    }
}

/// Removes a folder of a BPF file system with what is pinned in it.
pub(crate) fn remove_pins(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            remove_pins(&path);
        } else {
            let _ = std::fs::remove_file(path);
        }
    }
    let _ = std::fs::remove_dir(folder);
}

fn end(child: &mut Child, patience: Duration) {
    if patience > Duration::ZERO
        && let Ok(pid) = i32::try_from(child.id())
    {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn watch_signals() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            eprintln!("\ninterrupted: taking the lab down");
            for ledger in lock(&LEDGERS).iter().filter_map(Weak::upgrade) {
                ledger.undo();
            }
            std::process::exit(INTERRUPTED);
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
