//! What the unit says of itself.

use lungate_iscsi::scsi::disk::{BlockLimits, Capacity, identification, page, vpd};
use lungate_iscsi::scsi::{Command, Sense};

use super::{MAX_TRANSFER, Medium, Reply, Unit};

/// Mode pages (SPC-5, 7.5; SBC-4, 6.5).
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const ALL_PAGES: u8 = 0x3f;
/// Page control (SPC-5, 6.14.1).
const CHANGEABLE: u8 = 1;
const SAVED: u8 = 3;

impl<M: Medium> Unit<M> {
    pub(super) fn describe(&self, command: Command) -> Result<Reply, Sense> {
        match command {
            Command::Inquiry { page: None, allocation } => {
                Ok(Reply::data(standard_inquiry(0x00), allocation))
            }
            Command::Inquiry { page: Some(code), allocation } => {
                let page = self.vpd_page(code).ok_or(Sense::INVALID_FIELD_IN_CDB)?;
                Ok(Reply::data(page, allocation))
            }
            Command::ReadCapacity10 => Ok(Reply::data(self.capacity().to_10(), 8)),
            Command::ReadCapacity16 { allocation } => Ok(Reply::data(self.capacity().to_16(), allocation)),
            Command::ReportLuns { select, allocation } => {
                let luns: &[u8] = match select {
                    // All LUNs but well-known ones, or all: LUN 0. Well-known ones only: none.
                    0 | 2 => &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    1 => &[0; 8],
                    _ => return Err(Sense::INVALID_FIELD_IN_CDB),
                };
                Ok(Reply::data(luns.to_vec(), allocation))
            }
            Command::RequestSense { descriptor: false, allocation } => {
                let nothing = Sense::new(lungate_iscsi::scsi::SenseKey::NoSense, 0);
                Ok(Reply::data(nothing.to_bytes(), allocation))
            }
            Command::RequestSense { descriptor: true, allocation } => {
                Ok(Reply::data(vec![0x72, 0, 0, 0, 0, 0, 0, 0], allocation))
            }
            Command::ModeSense { .. } => self.mode_sense(command),
            _ => Err(Sense::INVALID_OPCODE),
        }
    }

    /// The devices' limits and the unit's own, combined; in blocks.
    pub(super) fn limits(&self) -> BlockLimits {
        let devices = self.medium.limits();
        let own = u32::try_from(MAX_TRANSFER).unwrap_or(u32::MAX) / self.medium.view().block_size.get();
        let max_transfer = match devices.blocks.max_transfer {
            0 => own,
            theirs => theirs.min(own),
        };
        let blocks = if devices.thin {
            devices.blocks
        } else {
            BlockLimits { max_unmap: 0, max_unmap_descriptors: 0, unmap_granularity: 0, ..devices.blocks }
        };
        BlockLimits { max_transfer, ..blocks }
    }

    fn capacity(&self) -> Capacity {
        let view = self.medium.view();
        Capacity {
            blocks: view.blocks.0,
            block_size: view.block_size.get(),
            thin: self.medium.limits().thin,
            zeroing: false,
        }
    }

    fn vpd_page(&self, code: u8) -> Option<Vec<u8>> {
        let identity = &self.medium.view().identity;
        Some(match code {
            page::SUPPORTED => vpd(
                code,
                &[
                    page::SUPPORTED,
                    page::SERIAL,
                    page::IDENTIFICATION,
                    page::BLOCK_LIMITS,
                    page::CHARACTERISTICS,
                    page::PROVISIONING,
                ],
            ),
            page::SERIAL => vpd(code, identity.serial.as_bytes()),
            page::IDENTIFICATION => identification(identity.naa.bytes()),
            page::BLOCK_LIMITS => self.limits().to_page(),
            // The medium's rotation rate is not reported: the extents may lie on disks of every kind.
            page::CHARACTERISTICS => vpd(code, &[0; 60]),
            page::PROVISIONING => {
                // LBPU and LBPWS, and "thin", or nothing of it.
                let (flags, kind) = if self.medium.limits().thin { (0xc0, 2) } else { (0, 0) };
                vpd(code, &[0, flags, kind, 0])
            }
            _ => return None,
        })
    }

    fn mode_sense(&self, command: Command) -> Result<Reply, Sense> {
        let Command::ModeSense { ten, no_descriptor, control, page, subpage, allocation } = command else {
            return Err(Sense::INVALID_OPCODE);
        };
        if control == SAVED {
            return Err(Sense::SAVING_NOT_SUPPORTED);
        }
        if !matches!(subpage, 0 | 0xff) {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        let wanted = |code| page == code || page == ALL_PAGES;
        let mut pages = Vec::new();
        if wanted(CACHING) {
            // WCE: devices may cache, so those above must flush. Nothing can be changed.
            let flags = if control == CHANGEABLE { 0 } else { 0x04 };
            pages.extend([&[CACHING, 18, flags], [0; 17].as_slice()].concat());
        }
        if wanted(CONTROL) {
            pages.extend([&[CONTROL, 10], [0; 10].as_slice()].concat());
        }
        if pages.is_empty() {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        let descriptor = if no_descriptor { Vec::new() } else { self.block_descriptor() };
        // DPOFUA: reads and writes may ask for the medium itself.
        let dpofua = 0x10;
        let descriptor_length = u8::try_from(descriptor.len()).unwrap_or(0);
        let rest = descriptor.len() + pages.len();
        let header = if ten {
            let [high, low] = u16::try_from(rest + 6).unwrap_or(u16::MAX).to_be_bytes();
            vec![high, low, 0, dpofua, 0, 0, 0, descriptor_length]
        } else {
            vec![u8::try_from(rest + 3).unwrap_or(u8::MAX), 0, dpofua, descriptor_length]
        };
        Ok(Reply::data([header, descriptor, pages].concat(), allocation))
    }

    /// The short block descriptor (SBC-4, 6.5.2.2).
    fn block_descriptor(&self) -> Vec<u8> {
        let view = self.medium.view();
        let blocks = u32::try_from(view.blocks.0).unwrap_or(u32::MAX);
        [blocks.to_be_bytes(), view.block_size.get().to_be_bytes()].concat()
    }
}

/// Standard INQUIRY data for a LUN that is not there: qualifier 011b, type 1Fh.
pub(super) fn absent() -> Vec<u8> {
    standard_inquiry(0x7f)
}

fn standard_inquiry(peripheral: u8) -> Vec<u8> {
    let mut data = vec![0; 96];
    data[0] = peripheral;
    // SPC-4; response data format 2 with HISUP; the bytes that follow byte 4; CMDQUE.
    (data[2], data[3], data[4], data[7]) = (0x06, 0x12, 91, 0x02);
    data[8..16].copy_from_slice(b"LUNGATE ");
    data[16..32].copy_from_slice(b"VIRTUAL DISK    ");
    data[32..36].copy_from_slice(b"0001");
    // SAM-5, iSCSI, SPC-4, SBC-3 (SPC-5, table 148).
    for (i, version) in [0x00a0_u16, 0x0960, 0x0460, 0x04c0].into_iter().enumerate() {
        data[58 + 2 * i..60 + 2 * i].copy_from_slice(&version.to_be_bytes());
    }
    data
}
