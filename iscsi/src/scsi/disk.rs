//! The data by which a disk describes itself (SPC-5, 6.7 and 7.7; SBC-4, 5.20 and 6.6).

/// VPD page codes (SPC-5, 7.7.1; SBC-4, 6.6.1).
#[expect(missing_docs, reason = "the names are the standards'")]
pub mod page {
    pub const SUPPORTED: u8 = 0x00;
    pub const SERIAL: u8 = 0x80;
    pub const IDENTIFICATION: u8 = 0x83;
    pub const BLOCK_LIMITS: u8 = 0xb0;
    pub const CHARACTERISTICS: u8 = 0xb1;
    pub const PROVISIONING: u8 = 0xb2;
}

/// Builds a VPD page around its body.
pub fn vpd(code: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0, code, length[0], length[1]], body].concat()
}

/// VPD 83 with a single designator: the unit's NAA, binary (SPC-5, 7.7.6).
pub fn identification(naa: [u8; 8]) -> Vec<u8> {
    let designator = [&[0x01, 0x03, 0x00, 8], naa.as_slice()].concat();
    vpd(page::IDENTIFICATION, &designator)
}

/// The body of a VPD page, whose header must say `code`.
pub fn vpd_body(data: &[u8], code: u8) -> Option<&[u8]> {
    let (head, body) = data.split_at_checked(4)?;
    (head[1] == code).then(|| body.get(..usize::from(u16::from_be_bytes([head[2], head[3]]))))?
}

/// The NAA designators of 8 bytes that VPD 83 gives to the logical unit.
pub fn naa_designators(data: &[u8]) -> Vec<[u8; 8]> {
    let mut found = Vec::new();
    let Some(mut rest) = vpd_body(data, page::IDENTIFICATION) else { return found };
    while let [_, kind, _, length, tail @ ..] = rest {
        let Some((designator, next)) = tail.split_at_checked(usize::from(*length)) else { break };
        // Association 00b (logical unit), type 3 (NAA).
        if kind & 0x3f == 0x03 {
            found.extend(<[u8; 8]>::try_from(designator));
        }
        rest = next;
    }
    found
}

/// What READ CAPACITY (16) says (SBC-4, 5.20.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The number of logical blocks; at least one.
    pub blocks: u64,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// LBPME: logical block provisioning is there.
    pub thin: bool,
    /// LBPRZ: unmapped blocks read as zeros.
    pub zeroing: bool,
}

impl Capacity {
    /// Reads READ CAPACITY (16) data; `None` where it is too short.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let last = u64::from_be_bytes(data.get(..8)?.try_into().ok()?);
        let block_size = u32::from_be_bytes(data.get(8..12)?.try_into().ok()?);
        let flags = data.get(14).copied().unwrap_or(0);
        let (thin, zeroing) = (flags & 0x80 != 0, flags & 0x40 != 0);
        Some(Self { blocks: last.checked_add(1)?, block_size, thin, zeroing })
    }

    /// READ CAPACITY (16) data, 32 bytes.
    pub fn to_16(self) -> Vec<u8> {
        let mut data = vec![0; 32];
        data[..8].copy_from_slice(&self.blocks.saturating_sub(1).to_be_bytes());
        data[8..12].copy_from_slice(&self.block_size.to_be_bytes());
        data[14] = u8::from(self.thin) << 7 | u8::from(self.zeroing) << 6;
        data
    }

    /// READ CAPACITY (10) data, 8 bytes; the largest number where the last LBA does not fit.
    pub fn to_10(self) -> Vec<u8> {
        let last = u32::try_from(self.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
        [last.to_be_bytes(), self.block_size.to_be_bytes()].concat()
    }
}

/// The limits of VPD B0 (SBC-4, 6.6.4), in blocks; 0 means "not said".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockLimits {
    /// MAXIMUM TRANSFER LENGTH.
    pub max_transfer: u32,
    /// OPTIMAL TRANSFER LENGTH.
    pub optimal_transfer: u32,
    /// MAXIMUM UNMAP LBA COUNT.
    pub max_unmap: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
    pub max_unmap_descriptors: u32,
    /// OPTIMAL UNMAP GRANULARITY.
    pub unmap_granularity: u32,
    /// MAXIMUM WRITE SAME LENGTH.
    pub max_write_same: u64,
}

impl BlockLimits {
    /// Reads VPD B0; `None` where it is not that page.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let body = vpd_body(data, page::BLOCK_LIMITS)?;
        let be32 =
            |at: usize| body.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        let max_write_same = body.get(32..40).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        Some(Self {
            max_transfer: be32(4),
            optimal_transfer: be32(8),
            max_unmap: be32(16),
            max_unmap_descriptors: be32(20),
            unmap_granularity: be32(24),
            max_write_same,
        })
    }

    /// VPD B0, 64 bytes.
    pub fn to_page(self) -> Vec<u8> {
        let mut body = vec![0; 60];
        // WSNZ stays 0: WRITE SAME of 0 blocks means "up to the end" and is carried out.
        body[4..8].copy_from_slice(&self.max_transfer.to_be_bytes());
        body[8..12].copy_from_slice(&self.optimal_transfer.to_be_bytes());
        body[16..20].copy_from_slice(&self.max_unmap.to_be_bytes());
        body[20..24].copy_from_slice(&self.max_unmap_descriptors.to_be_bytes());
        body[24..28].copy_from_slice(&self.unmap_granularity.to_be_bytes());
        body[32..40].copy_from_slice(&self.max_write_same.to_be_bytes());
        vpd(page::BLOCK_LIMITS, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_reads_back() {
        let capacity = Capacity { blocks: 1 << 40, block_size: 4096, thin: true, zeroing: false };
        assert_eq!(Capacity::parse(&capacity.to_16()), Some(capacity));
        assert_eq!(capacity.to_10(), [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]);
        let limits = BlockLimits {
            max_transfer: 1,
            optimal_transfer: 2,
            max_unmap: 3,
            max_unmap_descriptors: 4,
            unmap_granularity: 5,
            max_write_same: 6,
        };
        assert_eq!(BlockLimits::parse(&limits.to_page()), Some(limits));
        let naa = [0x30, 1, 2, 3, 4, 5, 6, 7];
        let page = identification(naa);
        assert_eq!(naa_designators(&page), [naa]);
        for cut in 0..page.len() {
            assert!(naa_designators(&page[..cut]).is_empty(), "cut at {cut}");
        }
    }
}
