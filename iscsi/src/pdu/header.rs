//! The basic header segment (BHS): 48 bytes, big-endian, one view for each opcode (RFC 7143, 11).

use std::fmt;

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_mut, transmute_ref};

use super::lun::LunField;

/// The tag that means "none" (RFC 7143, 11.2.1.8 and 11.7.4).
pub const RESERVED_TAG: u32 = 0xffff_ffff;
/// The bytes of a basic header segment.
pub const BHS_LENGTH: usize = 48;

/// A basic header segment as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct Bhs(pub [u8; BHS_LENGTH]);

/// A typed view of a header; all are 48 bytes of plain data.
pub trait Header: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Sized {
    /// The opcode whose layout this is.
    const OPCODE: Opcode;
}

/// What a PDU is (RFC 7143, 11.2.1.2): six bits, without the immediate bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Opcode {
    NopOut,
    ScsiCommand,
    TaskManagementRequest,
    LoginRequest,
    TextRequest,
    DataOut,
    LogoutRequest,
    SnackRequest,
    NopIn,
    ScsiResponse,
    TaskManagementResponse,
    LoginResponse,
    TextResponse,
    DataIn,
    LogoutResponse,
    ReadyToTransfer,
    AsyncMessage,
    Reject,
    /// None of the above.
    Unknown(u8),
}

const OPCODES: [(Opcode, u8); 18] = [
    (Opcode::NopOut, 0x00),
    (Opcode::ScsiCommand, 0x01),
    (Opcode::TaskManagementRequest, 0x02),
    (Opcode::LoginRequest, 0x03),
    (Opcode::TextRequest, 0x04),
    (Opcode::DataOut, 0x05),
    (Opcode::LogoutRequest, 0x06),
    (Opcode::SnackRequest, 0x10),
    (Opcode::NopIn, 0x20),
    (Opcode::ScsiResponse, 0x21),
    (Opcode::TaskManagementResponse, 0x22),
    (Opcode::LoginResponse, 0x23),
    (Opcode::TextResponse, 0x24),
    (Opcode::DataIn, 0x25),
    (Opcode::LogoutResponse, 0x26),
    (Opcode::ReadyToTransfer, 0x31),
    (Opcode::AsyncMessage, 0x32),
    (Opcode::Reject, 0x3f),
];

impl Opcode {
    /// The opcode of these six bits.
    pub fn from_bits(bits: u8) -> Self {
        let bits = bits & 0x3f;
        OPCODES.iter().find(|(_, b)| *b == bits).map_or(Self::Unknown(bits), |(opcode, _)| *opcode)
    }

    /// The six bits of this opcode.
    pub fn bits(self) -> u8 {
        match self {
            Self::Unknown(bits) => bits & 0x3f,
            known => OPCODES.iter().find(|(opcode, _)| *opcode == known).map_or(0x3f, |(_, bits)| *bits),
        }
    }
}

impl Bhs {
    /// A header of zeros but for the opcode.
    pub fn of(opcode: Opcode) -> Self {
        let mut bytes = [0; BHS_LENGTH];
        bytes[0] = opcode.bits();
        Self(bytes)
    }

    /// What the PDU is.
    pub fn opcode(&self) -> Opcode {
        Opcode::from_bits(self.0[0])
    }

    /// The I bit of a request: delivered at once, without consuming a CmdSN (RFC 7143, 11.2.1.1).
    pub fn is_immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    /// Sets the I bit.
    pub fn set_immediate(&mut self, immediate: bool) {
        self.0[0] = self.0[0] & !0x40 | u8::from(immediate) << 6;
    }

    /// Byte 1: the F bit and what each opcode puts beside it.
    pub fn flags(&self) -> u8 {
        self.0[1]
    }

    /// The F (or T) bit.
    pub fn is_final(&self) -> bool {
        self.0[1] & 0x80 != 0
    }

    /// Bytes of additional header segments: TotalAHSLength times 4 (RFC 7143, 11.2.1.5).
    pub fn ahs_length(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    /// Bytes of the data segment, without padding (RFC 7143, 11.2.1.6).
    pub fn data_length(&self) -> usize {
        usize::from(self.0[5]) << 16 | usize::from(self.0[6]) << 8 | usize::from(self.0[7])
    }

    /// Sets the length of the data segment; below 2^24.
    pub fn set_data_length(&mut self, length: usize) {
        debug_assert!(length < 1 << 24, "a data segment has a 24-bit length");
        #[expect(clippy::cast_possible_truncation, reason = "the three low bytes are what the field holds")]
        let bytes = [(length >> 16) as u8, (length >> 8) as u8, length as u8];
        self.0[5..8].copy_from_slice(&bytes);
    }

    /// Bytes 8 to 15, which most PDUs use for the LUN.
    pub fn lun(&self) -> LunField {
        let mut lun = [0; 8];
        lun.copy_from_slice(&self.0[8..16]);
        LunField(lun)
    }

    /// Sets bytes 8 to 15.
    pub fn set_lun(&mut self, lun: LunField) {
        self.0[8..16].copy_from_slice(&lun.0);
    }

    /// The initiator task tag (RFC 7143, 11.2.1.8).
    pub fn itt(&self) -> u32 {
        self.u32_at(16)
    }

    /// Bytes 20 to 23, where most PDUs have the target transfer tag.
    pub fn ttt(&self) -> u32 {
        self.u32_at(20)
    }

    /// Bytes 24 to 27: CmdSN of a request, StatSN of a response.
    pub fn sequence_number(&self) -> u32 {
        self.u32_at(24)
    }

    /// This header seen as `H`; `None` where the opcode is another.
    pub fn view<H: Header>(&self) -> Option<&H> {
        (self.opcode() == H::OPCODE).then(|| H::ref_from_bytes(&self.0).ok()).flatten()
    }

    fn u32_at(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_be_bytes(bytes)
    }
}

impl fmt::Debug for Bhs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} itt {:#x} data {}", self.opcode(), self.itt(), self.data_length())
    }
}

/// Declares the view of one opcode: its fields in wire order, 48 bytes together.
macro_rules! header {
    ($(#[$doc:meta])* $name:ident, $opcode:ident, { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        #[expect(missing_docs, reason = "fields are named as in the RFC's clause given above")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        const _: () = assert!(size_of::<$name>() == BHS_LENGTH);

        impl Header for $name {
            const OPCODE: Opcode = Opcode::$opcode;
        }

        impl $name {
            /// A header of zeros but for the opcode.
            pub fn new() -> Self {
                Self::from_bhs(Bhs::of(Opcode::$opcode))
            }

            /// These bytes, whatever opcode they say.
            pub fn from_bhs(bhs: Bhs) -> Self {
                zerocopy::transmute!(bhs.0)
            }

            /// The bytes of this header.
            pub fn into_bhs(self) -> Bhs {
                Bhs(zerocopy::transmute!(self))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }
    };
}

header!(
    /// SCSI Command (RFC 7143, 11.3). Flags: F 0x80, R 0x40, W 0x20, task attribute 0x07.
    ScsiCommand, ScsiCommand, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        itt: U32, expected_data_length: U32, cmd_sn: U32, exp_stat_sn: U32, cdb: [u8; 16],
    }
);
header!(
    /// SCSI Response (RFC 7143, 11.4). Flags: 0x80, bidirectional residual 0x18, overflow 0x04,
    /// underflow 0x02.
    ScsiResponse, ScsiResponse, {
        opcode: u8, flags: u8, response: u8, status: u8, total_ahs_length: u8, data_length: [u8; 3],
        reserved: [u8; 8], itt: U32, snack_tag: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        exp_data_sn: U32, bidi_residual_count: U32, residual_count: U32,
    }
);
header!(
    /// Task Management Function Request (RFC 7143, 11.5). Flags: 0x80 and the function.
    TaskManagementRequest, TaskManagementRequest, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        itt: U32, referenced_task_tag: U32, cmd_sn: U32, exp_stat_sn: U32, ref_cmd_sn: U32, exp_data_sn: U32,
        reserved_2: [u8; 8],
    }
);
header!(
    /// Task Management Function Response (RFC 7143, 11.6).
    TaskManagementResponse, TaskManagementResponse, {
        opcode: u8, flags: u8, response: u8, reserved: u8, total_ahs_length: u8, data_length: [u8; 3],
        reserved_2: [u8; 8], itt: U32, reserved_3: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        reserved_4: [u8; 12],
    }
);
header!(
    /// Data-Out (RFC 7143, 11.7). Flags: F 0x80.
    DataOut, DataOut, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        itt: U32, ttt: U32, reserved_2: U32, exp_stat_sn: U32, reserved_3: U32, data_sn: U32,
        buffer_offset: U32, reserved_4: U32,
    }
);
header!(
    /// Data-In (RFC 7143, 11.7). Flags: F 0x80, A 0x40, O 0x04, U 0x02, S 0x01.
    DataIn, DataIn, {
        opcode: u8, flags: u8, reserved: u8, status: u8, total_ahs_length: u8, data_length: [u8; 3],
        lun: LunField, itt: U32, ttt: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, data_sn: U32,
        buffer_offset: U32, residual_count: U32,
    }
);
header!(
    /// Ready To Transfer (RFC 7143, 11.8).
    ReadyToTransfer, ReadyToTransfer, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        itt: U32, ttt: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, r2t_sn: U32, buffer_offset: U32,
        desired_data_length: U32,
    }
);
header!(
    /// Asynchronous Message (RFC 7143, 11.9).
    AsyncMessage, AsyncMessage, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        tag: U32, reserved_2: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, event: u8, vendor_code: u8,
        parameter_1: U16, parameter_2: U16, parameter_3: U16, reserved_3: U32,
    }
);
header!(
    /// Text Request (RFC 7143, 11.10). Flags: F 0x80, C 0x40.
    TextRequest, TextRequest, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        itt: U32, ttt: U32, cmd_sn: U32, exp_stat_sn: U32, reserved_2: [u8; 16],
    }
);
header!(
    /// Text Response (RFC 7143, 11.11). Flags: F 0x80, C 0x40.
    TextResponse, TextResponse, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        itt: U32, ttt: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, reserved_2: [u8; 12],
    }
);
header!(
    /// Login Request (RFC 7143, 11.12). Flags: T 0x80, C 0x40, CSG 0x0c, NSG 0x03.
    LoginRequest, LoginRequest, {
        opcode: u8, flags: u8, version_max: u8, version_min: u8, total_ahs_length: u8, data_length: [u8; 3],
        isid: [u8; 6], tsih: U16, itt: U32, cid: U16, reserved: U16, cmd_sn: U32, exp_stat_sn: U32,
        reserved_2: [u8; 16],
    }
);
header!(
    /// Login Response (RFC 7143, 11.13). Flags as in the request.
    LoginResponse, LoginResponse, {
        opcode: u8, flags: u8, version_max: u8, version_active: u8, total_ahs_length: u8,
        data_length: [u8; 3], isid: [u8; 6], tsih: U16, itt: U32, reserved: U32, stat_sn: U32,
        exp_cmd_sn: U32, max_cmd_sn: U32, status_class: u8, status_detail: u8, reserved_2: [u8; 10],
    }
);
header!(
    /// Logout Request (RFC 7143, 11.14). Flags: 0x80 and the reason.
    LogoutRequest, LogoutRequest, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3],
        reserved_2: [u8; 8], itt: U32, cid: U16, reserved_3: U16, cmd_sn: U32, exp_stat_sn: U32,
        reserved_4: [u8; 16],
    }
);
header!(
    /// Logout Response (RFC 7143, 11.15).
    LogoutResponse, LogoutResponse, {
        opcode: u8, flags: u8, response: u8, reserved: u8, total_ahs_length: u8, data_length: [u8; 3],
        reserved_2: [u8; 8], itt: U32, reserved_3: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        reserved_4: U32, time2wait: U16, time2retain: U16, reserved_5: U32,
    }
);
header!(
    /// Reject (RFC 7143, 11.17). Its data is the header that was rejected.
    Reject, Reject, {
        opcode: u8, flags: u8, reason: u8, reserved: u8, total_ahs_length: u8, data_length: [u8; 3],
        reserved_2: [u8; 8], tag: U32, reserved_3: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32,
        data_sn: U32, reserved_4: [u8; 8],
    }
);
header!(
    /// NOP-Out (RFC 7143, 11.18).
    NopOut, NopOut, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        itt: U32, ttt: U32, cmd_sn: U32, exp_stat_sn: U32, reserved_2: [u8; 16],
    }
);
header!(
    /// NOP-In (RFC 7143, 11.19).
    NopIn, NopIn, {
        opcode: u8, flags: u8, reserved: [u8; 2], total_ahs_length: u8, data_length: [u8; 3], lun: LunField,
        itt: U32, ttt: U32, stat_sn: U32, exp_cmd_sn: U32, max_cmd_sn: U32, reserved_2: [u8; 12],
    }
);

impl Bhs {
    /// The window fields that every response carries: StatSN, ExpCmdSN, MaxCmdSN.
    pub fn set_response_numbers(&mut self, stat_sn: u32, exp_cmd_sn: u32, max_cmd_sn: u32) {
        let response: &mut NopIn = transmute_mut!(&mut self.0);
        response.stat_sn = stat_sn.into();
        response.exp_cmd_sn = exp_cmd_sn.into();
        response.max_cmd_sn = max_cmd_sn.into();
    }

    /// ExpCmdSN and MaxCmdSN of a response (RFC 7143, 4.2.2.1).
    pub fn command_window(&self) -> (u32, u32) {
        let response: &NopIn = transmute_ref!(&self.0);
        (response.exp_cmd_sn.get(), response.max_cmd_sn.get())
    }

    /// CmdSN and ExpStatSN of a request.
    pub fn set_request_numbers(&mut self, cmd_sn: u32, exp_stat_sn: u32) {
        let request: &mut NopOut = transmute_mut!(&mut self.0);
        request.cmd_sn = cmd_sn.into();
        request.exp_stat_sn = exp_stat_sn.into();
    }

    /// ExpStatSN of a request.
    pub fn set_exp_stat_sn(&mut self, exp_stat_sn: u32) {
        let request: &mut NopOut = transmute_mut!(&mut self.0);
        request.exp_stat_sn = exp_stat_sn.into();
    }
}
