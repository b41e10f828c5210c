//! An XDP program that lets everything pass. A veth end without any is not woken for frames that the other end sends
//! back (`XDP_TX`): they wait until something else comes. Real network cards send at once.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Result, ensure};

/// Commands, types and flags of bpf(2) (Linux `enum bpf_cmd`, `bpf_prog_type`, `bpf_attach_type`).
const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const HAS_FRAGS: u32 = 1 << 5;

/// "r0 = XDP_PASS; exit".
static PASS_ALL: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
static LICENSE: &[u8; 4] = b"GPL\0";

/// The bytes of `union bpf_attr` that are used.
type Attributes = [u8; 72];

/// Attaches it to an interface of this thread's network namespace, for as long as the answer lives.
pub(crate) fn pass_all(interface: &str) -> Result<OwnedFd> {
    let mut load = [0; 72];
    load[0..4].copy_from_slice(&PROG_TYPE_XDP.to_ne_bytes());
    load[4..8].copy_from_slice(&2_u32.to_ne_bytes());
    load[8..16].copy_from_slice(&(PASS_ALL.as_ptr() as u64).to_ne_bytes());
    load[16..24].copy_from_slice(&(LICENSE.as_ptr() as u64).to_ne_bytes());
    load[44..48].copy_from_slice(&HAS_FRAGS.to_ne_bytes());
    load[68..72].copy_from_slice(&ATTACH_XDP.to_ne_bytes());
    let program = created(PROG_LOAD, &mut load)?;
    let name = CString::new(interface)?;
    // SAFETY: the name ends with a zero and lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let mut link = [0; 72];
    link[0..4].copy_from_slice(&program.as_raw_fd().to_ne_bytes());
    link[4..8].copy_from_slice(&index.to_ne_bytes());
    link[8..12].copy_from_slice(&ATTACH_XDP.to_ne_bytes());
    created(LINK_CREATE, &mut link)
}

/// bpf(2) for commands that give a file descriptor.
fn created(command: i64, attributes: &mut Attributes) -> Result<OwnedFd> {
    // SAFETY: the attributes live through the call, as does what they point to.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) };
    ensure!(fd >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}
