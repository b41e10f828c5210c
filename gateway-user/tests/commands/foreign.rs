//! An XDP program that is not of any gateway.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Commands and types of bpf(2) (Linux `enum bpf_cmd`, `bpf_prog_type`, `bpf_attach_type`).
const PROG_LOAD: i64 = 5;
const OBJ_PIN: i64 = 6;
const LINK_CREATE: i64 = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;

/// The bytes of `union bpf_attr` that are used.
const SIZE: usize = 72;
type Attributes = [u8; SIZE];

/// "r0 = XDP_PASS; exit".
static PASS_ALL: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
static LICENSE: &[u8; 4] = b"GPL\0";

/// The program's name in the kernel.
pub(crate) const NAME: &str = "foreign";

/// The program on an interface, for as long as this lives.
pub(crate) struct Foreign {
    link: OwnedFd,
}

impl Foreign {
    /// Attaches it.
    pub(crate) fn attach(interface: &str) -> Self {
        let mut load = [0; SIZE];
        load[0..4].copy_from_slice(&PROG_TYPE_XDP.to_ne_bytes());
        load[4..8].copy_from_slice(&2_u32.to_ne_bytes());
        load[8..16].copy_from_slice(&(PASS_ALL.as_ptr() as u64).to_ne_bytes());
        load[16..24].copy_from_slice(&(LICENSE.as_ptr() as u64).to_ne_bytes());
        load[48..48 + NAME.len()].copy_from_slice(NAME.as_bytes());
        // A link takes another program only of the same attach type.
        load[68..72].copy_from_slice(&ATTACH_XDP.to_ne_bytes());
        let program = created(PROG_LOAD, &mut load);
        let name = CString::new(interface).unwrap();
        // SAFETY: the name ends with a zero and lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let mut link = [0; SIZE];
        link[0..4].copy_from_slice(&program.as_raw_fd().to_ne_bytes());
        link[4..8].copy_from_slice(&index.to_ne_bytes());
        link[8..12].copy_from_slice(&ATTACH_XDP.to_ne_bytes());
        Self { link: created(LINK_CREATE, &mut link) }
    }

    /// Pins its link, so that it stays as long as the pin does.
    pub(crate) fn pin(self, path: &Path) {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mut pin = [0; SIZE];
        pin[0..8].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
        pin[8..12].copy_from_slice(&self.link.as_raw_fd().to_ne_bytes());
        bpf(OBJ_PIN, &mut pin);
    }
}

/// bpf(2) for commands that give a file descriptor.
fn created(command: i64, attributes: &mut Attributes) -> OwnedFd {
    let fd = bpf(command, attributes);
    // SAFETY: the kernel has just given it to us.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

/// bpf(2).
fn bpf(command: i64, attributes: &mut Attributes) -> i64 {
    // SAFETY: the attributes live through the call, as does what they point to.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) };
    assert!(answer >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    answer
}
