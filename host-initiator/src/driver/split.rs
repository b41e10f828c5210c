//! Which extents a range of the volume's blocks touches.

use lungate_catalog::units::{BlockCount, Lba};
use lungate_catalog::view::HostExtent;

/// The part of a range that lies in one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The extent's place in the volume's list.
    pub extent: usize,
    /// The first block, counted in the extent.
    pub lba: Lba,
    /// How many blocks.
    pub blocks: BlockCount,
    /// How many blocks of the whole range lie before this part.
    pub before: BlockCount,
}

/// Cuts `blocks` blocks from `lba` on at the borders of `extents`, which lie in order without gap or overlap.
/// Yields nothing for an empty range; ends early where the range leaves the volume (callers check that first).
/// Nothing is allocated.
pub fn split(extents: &[HostExtent], lba: Lba, blocks: BlockCount) -> impl Iterator<Item = Part> {
    let mut extent = extents
        .partition_point(|extent| extent.first_lba.checked_add(extent.blocks).is_some_and(|end| end <= lba));
    let mut before = BlockCount(0);
    std::iter::from_fn(move || {
        let left = blocks.0.checked_sub(before.0).filter(|&left| left > 0)?;
        let home = extents.get(extent)?;
        let at = lba.checked_add(before)?.checked_since(home.first_lba)?;
        let length = home.blocks.0.checked_sub(at.0)?.min(left);
        let part = Part { extent, lba: Lba(at.0), blocks: BlockCount(length), before };
        extent += 1;
        before = BlockCount(before.0 + length);
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use lungate_catalog::identity::Identity;
    use proptest::prelude::*;

    use super::*;

    fn extents(sizes: &[u64]) -> Vec<HostExtent> {
        let mut next = 0;
        let mut extent = |(i, &size): (usize, &u64)| {
            let first_lba = Lba(next);
            next += size;
            let port = u16::try_from(4001 + i).unwrap();
            HostExtent {
                port,
                first_lba,
                blocks: BlockCount(size),
                target_name: String::new(),
                identity: Identity::of_extent(uuid(), port),
            }
        };
        sizes.iter().enumerate().map(&mut extent).collect()
    }

    fn uuid() -> uuid::Uuid {
        uuid::Uuid::from_u128(7)
    }

    proptest! {
        #[test]
        fn parts_cover_the_range_in_order(
            sizes in prop::collection::vec(1_u64..50, 1..20), lba in 0_u64..1000, blocks in 0_u64..1000,
        ) {
            let total: u64 = sizes.iter().sum();
            let (lba, extents) = (lba % total, extents(&sizes));
            let blocks = blocks.min(total - lba);
            let mut next = lba;
            let mut last = None;
            for part in split(&extents, Lba(lba), BlockCount(blocks)) {
                let home = &extents[part.extent];
                prop_assert!(last.is_none_or(|last| part.extent == last + 1));
                prop_assert!(part.blocks.0 > 0);
                prop_assert_eq!(part.before.0, next - lba);
                prop_assert_eq!(home.first_lba.0 + part.lba.0, next);
                prop_assert!(part.lba.0 + part.blocks.0 <= home.blocks.0);
                next += part.blocks.0;
                last = Some(part.extent);
            }
            prop_assert_eq!(next, lba + blocks);
        }
    }

    #[test]
    fn the_edges_of_a_volume() {
        let extents = extents(&[10, 20, 30]);
        let parts = |lba, blocks| split(&extents, Lba(lba), BlockCount(blocks)).collect::<Vec<_>>();
        assert_eq!(parts(5, 0), []);
        assert_eq!(parts(9, 2).len(), 2);
        assert_eq!(parts(10, 20).len(), 1);
        assert_eq!(parts(0, 60).len(), 3);
        assert_eq!(
            parts(59, 1)[0],
            Part { extent: 2, lba: Lba(29), blocks: BlockCount(1), before: BlockCount(0) }
        );
        assert_eq!(parts(60, 1), []);
        assert_eq!(parts(u64::MAX, 1), []);
    }
}
