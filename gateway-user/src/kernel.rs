//! What this machine's kernel must be and allow.

use std::io;

use anyhow::{Result, bail};
use rustix::process::geteuid;
use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities};

/// The first kernel with everything that the gateway uses: tcx links.
pub(crate) const OLDEST: (u32, u32) = (6, 6);
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

fn is_privileged() -> bool {
    let Ok(sets) = capabilities(None) else { return geteuid().is_root() };
    let has = |set| sets.effective.contains(set);
    let bpf = has(CapabilitySet::BPF) && has(CapabilitySet::PERFMON) || has(CapabilitySet::SYS_ADMIN);
    bpf && has(CapabilitySet::NET_ADMIN)
}
