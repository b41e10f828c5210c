//! A quick first look: which addresses may be in the table at all. Traffic that has nothing to do with a volume is
//! told apart by two bits, without a look into the hash maps.

use crate::table::Address;

/// The bits for each side; a power of two.
const BITS: u32 = 1 << 16;
const WORDS: usize = (BITS / 64) as usize;

/// A bit for each VIP and each device address, at a hash of it. A bit may be set for nothing; it is never missing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    vips: [u64; WORDS],
    devices: [u64; WORDS],
}

const _: () = assert!(size_of::<Filter>() == 16384);

impl Filter {
    /// A filter in which no address is.
    pub const EMPTY: Self = Self { vips: [0; WORDS], devices: [0; WORDS] };

    /// Adds a VIP.
    pub fn add_vip(&mut self, vip: Address) {
        let (word, bit) = place(vip);
        self.vips[word] |= bit;
    }

    /// Adds the address of a device, live or retired.
    pub fn add_device(&mut self, device: Address) {
        let (word, bit) = place(device);
        self.devices[word] |= bit;
    }

    /// Whether an address may be a VIP.
    #[inline(always)]
    pub fn may_be_vip(&self, address: Address) -> bool {
        let (word, bit) = place(address);
        self.vips[word] & bit != 0
    }

    /// Whether an address may be a device's.
    #[inline(always)]
    pub fn may_be_device(&self, address: Address) -> bool {
        let (word, bit) = place(address);
        self.devices[word] & bit != 0
    }
}

/// The word and the bit in it that stand for an address.
#[inline(always)]
fn place(address: Address) -> (usize, u64) {
    let hash = address.mix().wrapping_mul(0x9e37_79b1) >> 16;
    ((hash as usize / 64) & (WORDS - 1), 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found_on_its_side_only() {
        let mut filter = Filter::EMPTY;
        let address = |i: u32| Address::v4(i.to_be_bytes());
        for i in 0..1000 {
            filter.add_vip(address(0x0a00_0000 + i));
        }
        assert!((0..1000).all(|i| filter.may_be_vip(address(0x0a00_0000 + i))));
        assert!((0..1000).all(|i| !filter.may_be_device(address(0x0a00_0000 + i))));
        let wrong = (0..100_000).filter(|i| filter.may_be_vip(address(0xc0a8_0000 + i))).count();
        assert!(wrong < 4000, "{wrong} of 100,000 strangers pass the filter");
    }
}
