//! The BPF object: loads the programs with their maps pinned, or with those that are pinned already.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::{MapInfo, MapType};
use aya::programs::{Program, ProgramError, ProgramInfo, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::index::{Bucket, buckets};
use lungate_gateway_common::table::{
    Access, Address, HOP_SLOTS, Hop, Interface, Mapping, Portal, Settings, Traffic, Vlan, control, map,
};
use lungate_gateway_common::verdict::REASONS;

use crate::pins::Pins;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lungate-gateway"));

/// The name of the program for frames, in the object and in the kernel.
pub(crate) const PROGRAM: &str = "lungate";
/// That of the program for packets that come in without Ethernet headers.
pub(crate) const TUNNEL_PROGRAM: &str = "lungate_tunnel";
/// That of the program for the kernel's own error messages.
pub(crate) const EGRESS_PROGRAM: &str = "lungate_egress";
/// The program that tells the time; see `clock`.
pub(crate) const CLOCK_PROGRAM: &str = "lungate_clock";
/// The gateway's own addresses at most.
const MAX_LOCAL: u32 = 1024;
/// Interfaces at most, VLANs included.
const MAX_INTERFACES: u32 = 4096;
/// Device portals for each mapping: its present one, and one that it has left.
pub(crate) const PORTALS_PER_MAPPING: u32 = 2;
/// Prefixes in access lists for each mapping, on average.
pub(crate) const PREFIXES_PER_MAPPING: u32 = 4;

/// What a map must look like.
struct Shape {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

fn shapes(max_mappings: u32) -> [Shape; 14] {
    let shape = |name, kind, key, value, entries| Shape { name, kind, key, value, entries };
    let (portal, mapping) = (size_of::<Portal>(), size_of::<Mapping>());
    [
        shape(map::FORWARD, MapType::Hash, portal, mapping, max_mappings),
        shape(map::REVERSE, MapType::Hash, portal, mapping, max_mappings.saturating_mul(PORTALS_PER_MAPPING)),
        shape(
            map::ACCESS,
            MapType::LpmTrie,
            4 + size_of::<Access>(),
            4,
            max_mappings.saturating_mul(PREFIXES_PER_MAPPING),
        ),
        shape(map::LOCAL, MapType::Hash, size_of::<Address>(), 4, MAX_LOCAL),
        shape(map::TRAFFIC, MapType::PerCpuArray, 4, size_of::<Traffic>(), max_mappings),
        shape(map::REASONS, MapType::PerCpuArray, 4, 8, REASONS),
        shape(map::VIPS, MapType::Hash, size_of::<Address>(), 4, max_mappings),
        shape(map::INTERFACES, MapType::Hash, 4, size_of::<Interface>(), MAX_INTERFACES),
        shape(map::VLANS, MapType::Hash, size_of::<Vlan>(), 4, MAX_INTERFACES),
        shape(map::INDEX, MapType::Array, 4, size_of::<Bucket>(), buckets(max_mappings)),
        shape(map::FILTER, MapType::Array, 4, size_of::<Filter>(), 1),
        shape(map::HOPS, MapType::PerCpuArray, 4, size_of::<Hop>(), HOP_SLOTS),
        shape(map::CONTROL, MapType::Array, 4, 8, control::PLACES),
        shape(map::SETTINGS, MapType::Array, 4, size_of::<Settings>(), 1),
    ]
}

/// What the maps take of the kernel's memory, in bytes.
pub(crate) struct Memory {
    max_mappings: u32,
    /// At once.
    fixed: u64,
    /// At most, as access lists grow.
    lists: u64,
}

/// What the maps for so many mappings take.
pub(crate) fn memory(max_mappings: u32) -> Memory {
    let cpus = u64::try_from(aya::util::nr_cpus().unwrap_or(1)).unwrap_or(1);
    let mut memory = Memory { max_mappings, fixed: 0, lists: 0 };
    for shape in shapes(max_mappings) {
        let (key, value) = ((shape.key as u64).next_multiple_of(8), (shape.value as u64).next_multiple_of(8));
        let entries = u64::from(shape.entries);
        match shape.kind {
            // Linux `struct htab_elem`, one spare for each CPU, and `struct bucket`.
            MapType::Hash => {
                memory.fixed += (entries + cpus) * (48 + key + value) + entries.next_power_of_two() * 16;
            }
            MapType::PerCpuArray => memory.fixed += entries * (value * cpus + 8),
            // Linux `struct lpm_trie_node`, in slabs of the next size; at most one between two entries.
            MapType::LpmTrie => memory.lists += entries * 2 * (40 + key + value).next_multiple_of(32),
            _ => memory.fixed += entries * value,
        }
    }
    memory
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let Self { max_mappings, fixed, lists } = self;
        write!(
            f,
            "the table holds {max_mappings} mappings and takes {} MiB of the kernel's memory, and up to {} MiB more for access lists",
            mebibytes(*fixed),
            mebibytes(*lists)
        )
    }
}

/// Loads the programs. Where maps are pinned they are used, after their shape was checked.
pub(crate) fn load(pins: &Pins, max_mappings: u32) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    let shapes = shapes(max_mappings);
    for shape in &shapes {
        loader.map_max_entries(shape.name, shape.entries).map_pin_path(shape.name, pins.map(shape.name));
    }
    let index_mask = buckets(max_mappings) - 1;
    loader.override_global("INDEX_MASK", &index_mask, true);
    let mut ebpf = loader.load(OBJECT).context("cannot create the gateway's maps")?;
    let refused = |name: &'static str| move || format!("the kernel refused the gateway's program {name}");
    program::<Xdp>(&mut ebpf, PROGRAM)?.load().with_context(refused(PROGRAM))?;
    for name in [TUNNEL_PROGRAM, EGRESS_PROGRAM, CLOCK_PROGRAM] {
        program::<SchedClassifier>(&mut ebpf, name)?.load().with_context(refused(name))?;
    }
    Ok(ebpf)
}

/// A program of a loaded object.
pub(crate) fn program<'a, T: 'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program =
        ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name:?}"))?;
    Ok(program.try_into()?)
}

/// The capacity of the pinned maps, all of which must look as this build expects.
pub(crate) fn pinned_capacity(pins: &Pins) -> Result<u32> {
    let forward = info(&pins.map(map::FORWARD))?;
    let max_mappings = forward.max_entries();
    for shape in shapes(max_mappings) {
        let path = pins.map(shape.name);
        let found = info(&path)?;
        let found = (found.map_type()?, found.key_size(), found.value_size(), found.max_entries());
        let width = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let wanted = (shape.kind, width(shape.key), width(shape.value), shape.entries);
        if found != wanted {
            bail!(
                "{} is not a map of this lungate: type, key and value size in bytes and entries are {found:?}, {wanted:?} is needed; unload it with the lungate that loaded it",
                path.display()
            );
        }
    }
    Ok(max_mappings)
}

/// The name of a loaded program, for messages.
pub(crate) fn program_name(id: u32) -> String {
    let programs = aya::programs::loaded_programs();
    let found = programs.filter_map(Result::ok).find(|program: &ProgramInfo| program.id() == id);
    found.and_then(|program| program.name_as_str().map(str::to_owned)).unwrap_or_else(|| "?".to_owned())
}

fn info(path: &Path) -> Result<MapInfo> {
    MapInfo::from_pin(path).with_context(|| format!("cannot open the pinned map {}", path.display()))
}
