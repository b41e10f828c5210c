//! Command descriptor blocks (SPC-5, 6; SBC-4, 5).

/// Sixteen bytes as they stand in a SCSI Command PDU; shorter CDBs are padded with zeros.
pub type Cdb = [u8; 16];

/// Operation codes.
#[expect(missing_docs, reason = "the names are the standards'")]
pub mod opcode {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const WRITE_AND_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const WRITE_AND_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const WRITE_AND_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
}

/// READ CAPACITY (16), a service action of [`opcode::SERVICE_ACTION_IN_16`].
const READ_CAPACITY_16: u8 = 0x10;
/// The FUA bit of reads and writes of 10 bytes and more (SBC-4, 5.15).
const FUA: u8 = 0x08;

/// A command that this project's own parts understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Is the unit ready?
    TestUnitReady,
    /// Sense data on demand.
    RequestSense {
        /// Descriptor format instead of fixed.
        descriptor: bool,
        /// Bytes that fit.
        allocation: u32,
    },
    /// What the unit is.
    Inquiry {
        /// The VPD page; `None` for the standard data.
        page: Option<u8>,
        /// Bytes that fit.
        allocation: u32,
    },
    /// READ CAPACITY (10).
    ReadCapacity10,
    /// READ CAPACITY (16).
    ReadCapacity16 {
        /// Bytes that fit.
        allocation: u32,
    },
    /// MODE SENSE.
    ModeSense {
        /// The 10-byte form, with its longer header.
        ten: bool,
        /// No block descriptor.
        no_descriptor: bool,
        /// Page control: current 0, changeable 1, default 2, saved 3.
        control: u8,
        /// Page code.
        page: u8,
        /// Subpage code.
        subpage: u8,
        /// Bytes that fit.
        allocation: u32,
    },
    /// The LUNs behind this target port.
    ReportLuns {
        /// SELECT REPORT.
        select: u8,
        /// Bytes that fit.
        allocation: u32,
    },
    /// START STOP UNIT.
    StartStop,
    /// Medium to initiator.
    Read(Blocks),
    /// Initiator to medium.
    Write(Blocks),
    /// Initiator to medium, read back and compared there.
    WriteAndVerify(Blocks),
    /// Compare with the medium.
    Verify {
        /// Which blocks.
        blocks: Blocks,
        /// BYTCHK 01b: data comes along to be compared.
        compare: bool,
    },
    /// Cache to medium; 0 blocks means up to the end.
    SynchronizeCache(Blocks),
    /// One block, again and again; 0 blocks means up to the end.
    WriteSame {
        /// Which blocks.
        blocks: Blocks,
        /// Unmap them instead.
        unmap: bool,
        /// NDOB: no block comes along, zeros are meant.
        no_data: bool,
    },
    /// Ranges that are no longer needed.
    Unmap {
        /// ANCHOR.
        anchor: bool,
        /// Bytes of the parameter list.
        length: u16,
    },
}

/// A range of logical blocks, and whether the medium itself must be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The first logical block.
    pub lba: u64,
    /// How many.
    pub count: u32,
    /// FUA.
    pub fua: bool,
}

/// Why a CDB is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CdbError {
    /// No command that is known here.
    UnknownOpcode,
    /// A field has a value that is not supported.
    InvalidField,
}

impl Command {
    /// Reads a CDB.
    pub fn parse(cdb: &Cdb) -> Result<Self, CdbError> {
        use opcode::*;
        let be16 = |at: usize| u16::from_be_bytes([cdb[at], cdb[at + 1]]);
        let be32 = |at: usize| u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]]);
        Ok(match cdb[0] {
            TEST_UNIT_READY => Self::TestUnitReady,
            REQUEST_SENSE => {
                Self::RequestSense { descriptor: cdb[1] & 1 != 0, allocation: u32::from(cdb[4]) }
            }
            INQUIRY => {
                let page = (cdb[1] & 1 != 0).then_some(cdb[2]);
                if page.is_none() && cdb[2] != 0 || cdb[1] & 2 != 0 {
                    return Err(CdbError::InvalidField);
                }
                Self::Inquiry { page, allocation: u32::from(be16(3)) }
            }
            READ_CAPACITY_10 => Self::ReadCapacity10,
            SERVICE_ACTION_IN_16 if cdb[1] & 0x1f == READ_CAPACITY_16 => {
                Self::ReadCapacity16 { allocation: be32(10) }
            }
            SERVICE_ACTION_IN_16 => return Err(CdbError::InvalidField),
            MODE_SENSE_6 | MODE_SENSE_10 => Self::ModeSense {
                ten: cdb[0] == MODE_SENSE_10,
                no_descriptor: cdb[1] & 8 != 0,
                control: cdb[2] >> 6,
                page: cdb[2] & 0x3f,
                subpage: cdb[3],
                allocation: if cdb[0] == MODE_SENSE_10 { u32::from(be16(7)) } else { u32::from(cdb[4]) },
            },
            REPORT_LUNS => Self::ReportLuns { select: cdb[2], allocation: be32(6) },
            START_STOP_UNIT => Self::StartStop,
            READ_6 | READ_10 | READ_12 | READ_16 => Self::Read(Blocks::parse(cdb)),
            WRITE_6 | WRITE_10 | WRITE_12 | WRITE_16 => Self::Write(Blocks::parse(cdb)),
            WRITE_AND_VERIFY_10 | WRITE_AND_VERIFY_12 | WRITE_AND_VERIFY_16 => {
                Self::WriteAndVerify(Blocks { fua: false, ..Blocks::parse(cdb) })
            }
            VERIFY_10 | VERIFY_12 | VERIFY_16 => {
                let blocks = Blocks { fua: false, ..Blocks::parse(cdb) };
                match cdb[1] >> 1 & 3 {
                    0b00 => Self::Verify { blocks, compare: false },
                    0b01 => Self::Verify { blocks, compare: true },
                    _ => return Err(CdbError::InvalidField),
                }
            }
            SYNCHRONIZE_CACHE_10 | SYNCHRONIZE_CACHE_16 => {
                Self::SynchronizeCache(Blocks { fua: false, ..Blocks::parse(cdb) })
            }
            WRITE_SAME_10 | WRITE_SAME_16 => {
                let blocks = Blocks { fua: false, ..Blocks::parse(cdb) };
                // PBDATA and LBDATA (obsolete since SBC-3), and ANCHOR without UNMAP.
                if cdb[1] & 0x06 != 0 || cdb[1] & 0x18 == 0x10 {
                    return Err(CdbError::InvalidField);
                }
                Self::WriteSame { blocks, unmap: cdb[1] & 8 != 0, no_data: cdb[1] & 1 != 0 }
            }
            UNMAP => Self::Unmap { anchor: cdb[1] & 1 != 0, length: be16(7) },
            _ => return Err(CdbError::UnknownOpcode),
        })
    }

    /// The CDB for an extent's device: reads and writes in their 16-byte forms.
    pub fn to_cdb(&self) -> Cdb {
        use opcode::*;
        let mut cdb = [0; 16];
        match *self {
            Self::TestUnitReady => cdb[0] = TEST_UNIT_READY,
            Self::RequestSense { descriptor, allocation } => {
                cdb[0] = REQUEST_SENSE;
                cdb[1] = u8::from(descriptor);
                cdb[4] = allocation.try_into().unwrap_or(u8::MAX);
            }
            Self::Inquiry { page, allocation } => {
                cdb[0] = INQUIRY;
                cdb[1] = u8::from(page.is_some());
                cdb[2] = page.unwrap_or(0);
                put16(&mut cdb, 3, allocation);
            }
            Self::ReadCapacity10 => cdb[0] = READ_CAPACITY_10,
            Self::ReadCapacity16 { allocation } => {
                (cdb[0], cdb[1]) = (SERVICE_ACTION_IN_16, READ_CAPACITY_16);
                cdb[10..14].copy_from_slice(&allocation.to_be_bytes());
            }
            Self::ModeSense { ten, no_descriptor, control, page, subpage, allocation } => {
                cdb[0] = if ten { MODE_SENSE_10 } else { MODE_SENSE_6 };
                cdb[1] = u8::from(no_descriptor) << 3;
                cdb[2] = control << 6 | page & 0x3f;
                cdb[3] = subpage;
                if ten {
                    put16(&mut cdb, 7, allocation);
                } else {
                    cdb[4] = allocation.try_into().unwrap_or(u8::MAX);
                }
            }
            Self::ReportLuns { select, allocation } => {
                (cdb[0], cdb[2]) = (REPORT_LUNS, select);
                cdb[6..10].copy_from_slice(&allocation.to_be_bytes());
            }
            Self::StartStop => (cdb[0], cdb[4]) = (START_STOP_UNIT, 1),
            Self::Read(blocks) => blocks.put(&mut cdb, READ_16),
            Self::Write(blocks) => blocks.put(&mut cdb, WRITE_16),
            Self::WriteAndVerify(blocks) => blocks.put(&mut cdb, WRITE_AND_VERIFY_16),
            Self::Verify { blocks, compare } => {
                blocks.put(&mut cdb, VERIFY_16);
                cdb[1] |= u8::from(compare) << 1;
            }
            Self::SynchronizeCache(blocks) => blocks.put(&mut cdb, SYNCHRONIZE_CACHE_16),
            Self::WriteSame { blocks, unmap, no_data } => {
                blocks.put(&mut cdb, WRITE_SAME_16);
                cdb[1] |= u8::from(unmap) << 3 | u8::from(no_data);
            }
            Self::Unmap { anchor, length } => {
                (cdb[0], cdb[1]) = (UNMAP, u8::from(anchor));
                cdb[7..9].copy_from_slice(&length.to_be_bytes());
            }
        }
        cdb
    }
}

impl Blocks {
    /// The range of a CDB, by the length of its command group (SPC-5, 4.2.5.1).
    fn parse(cdb: &Cdb) -> Self {
        let be = |range: std::ops::Range<usize>| cdb[range].iter().fold(0_u64, |n, &b| n << 8 | u64::from(b));
        #[expect(clippy::cast_possible_truncation, reason = "at most four bytes are folded")]
        let count = |range| be(range) as u32;
        let fua = cdb[1] & FUA != 0;
        match cdb[0] >> 5 {
            // A count of 0 means 256 in the 6-byte forms, which have no FUA (SBC-4, 5.14).
            0 => Self {
                lba: be(1..4) & 0x1f_ffff,
                count: if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) },
                fua: false,
            },
            1 | 2 => Self { lba: be(2..6), count: count(7..9), fua },
            5 => Self { lba: be(2..6), count: count(6..10), fua },
            _ => Self { lba: be(2..10), count: count(10..14), fua },
        }
    }

    fn put(self, cdb: &mut Cdb, opcode: u8) {
        cdb[0] = opcode;
        cdb[1] = if self.fua { FUA } else { 0 };
        cdb[2..10].copy_from_slice(&self.lba.to_be_bytes());
        cdb[10..14].copy_from_slice(&self.count.to_be_bytes());
    }
}

fn put16(cdb: &mut Cdb, at: usize, value: u32) {
    let value: u16 = value.try_into().unwrap_or(u16::MAX);
    cdb[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks() -> impl Strategy<Value = Blocks> {
        (any::<u64>(), any::<u32>(), any::<bool>()).prop_map(|(lba, count, fua)| Blocks { lba, count, fua })
    }

    proptest! {
        #[test]
        fn built_commands_parse_back(blocks in blocks(), flag: bool, small in 0_u32..256, page in 0_u8..64) {
            let no_fua = Blocks { fua: false, ..blocks };
            for command in [
                Command::Read(blocks),
                Command::Write(blocks),
                Command::WriteAndVerify(no_fua),
                Command::Verify { blocks: no_fua, compare: flag },
                Command::SynchronizeCache(no_fua),
                Command::WriteSame { blocks: no_fua, unmap: flag, no_data: flag },
                Command::Unmap { anchor: flag, length: 24 },
                Command::Inquiry { page: flag.then_some(page), allocation: small },
                Command::ReadCapacity16 { allocation: small },
                Command::ReportLuns { select: page, allocation: small },
                Command::ModeSense { ten: flag, no_descriptor: flag, control: 2, page, subpage: 0, allocation: small },
                Command::RequestSense { descriptor: flag, allocation: small },
            ] {
                prop_assert_eq!(Command::parse(&command.to_cdb()), Ok(command));
            }
        }

        #[test]
        fn any_bytes_parse_or_are_refused(cdb: [u8; 16]) {
            let _ = Command::parse(&cdb);
        }
    }

    #[test]
    fn every_length_of_a_read_is_understood() {
        let parse = |bytes: &[u8]| {
            let mut cdb = [0; 16];
            cdb[..bytes.len()].copy_from_slice(bytes);
            Command::parse(&cdb)
        };
        let read = |lba, count, fua| Ok(Command::Read(Blocks { lba, count, fua }));
        assert_eq!(parse(&[0x08, 0xff, 0x02, 0x03, 0]), read(0x1f_0203, 256, false));
        assert_eq!(parse(&[0x28, 8, 0, 0, 1, 0, 0, 0, 9, 0]), read(256, 9, true));
        assert_eq!(parse(&[0xa8, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]), read(256, 65_536, false));
        assert_eq!(parse(&[0x88, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]), read(1 << 56, 5, false));
        assert_eq!(parse(&[0xc7]), Err(CdbError::UnknownOpcode));
        assert_eq!(parse(&[0x12, 0, 0x80]), Err(CdbError::InvalidField));
    }
}
