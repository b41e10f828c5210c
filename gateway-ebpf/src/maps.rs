//! The maps. Their sizes are set when they are created; those here are the smallest.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::table::{
    Access, Address, HOP_SLOTS, Hop, Interface, Mapping, Portal, Settings, Traffic, Vlan, control,
};
use lungate_gateway_common::verdict::{Direction, REASONS as REASON_COUNT, Reason};

#[btf_map]
static FORWARD: HashMap<Portal, Mapping, 1> = HashMap::new();
#[btf_map]
static REVERSE: HashMap<Portal, Mapping, 1> = HashMap::new();
#[btf_map]
static VIPS: HashMap<Address, u32, 1> = HashMap::new();
#[btf_map]
static ACCESS: LpmTrie<Access, u32, 1> = LpmTrie::new();
#[btf_map]
static LOCAL: HashMap<Address, u32, 1024> = HashMap::new();
#[btf_map]
static INTERFACES: HashMap<u32, Interface, 4096> = HashMap::new();
#[btf_map]
static VLANS: HashMap<Vlan, u32, 4096> = HashMap::new();
#[btf_map]
static FILTER: Array<Filter, 1> = Array::new();
#[btf_map]
static HOPS: PerCpuArray<Hop, { HOP_SLOTS as usize }> = PerCpuArray::new();
#[btf_map]
static CONTROL: Array<u64, { control::PLACES as usize }> = Array::new();
#[btf_map]
static TRAFFIC: PerCpuArray<Traffic, 1> = PerCpuArray::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { REASON_COUNT as usize }> = PerCpuArray::new();
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

#[inline(always)]
pub(crate) fn forward(portal: &Portal) -> Option<&'static Mapping> {
    // SAFETY: values are replaced whole, never changed in place; a reader sees an old or a new one.
    unsafe { FORWARD.get(portal) }
}

#[inline(always)]
pub(crate) fn reverse(portal: &Portal) -> Option<&'static Mapping> {
    // SAFETY: as for `forward`.
    unsafe { REVERSE.get(portal) }
}

/// Whether a host is on a mapping's list.
#[inline(always)]
pub(crate) fn may_use(mapping: &Mapping, host: Address) -> bool {
    ACCESS.get(&Key::new(Access::ALL_BITS, Access::new(mapping.counter(), host))).is_some()
}

/// Whether an address is the gateway's own.
#[inline(always)]
pub(crate) fn is_local(address: &Address) -> bool {
    // SAFETY: the value is not looked at.
    unsafe { LOCAL.get(address) }.is_some()
}

/// Counts a packet of a mapping.
#[inline(always)]
pub(crate) fn count_traffic(mapping: &Mapping, direction: Direction, bytes: u16) {
    let Some(traffic) = TRAFFIC.get_ptr_mut(mapping.counter()) else { return };
    // SAFETY: the slot is this CPU's own, and nothing else writes it while the program runs.
    let traffic = unsafe { &mut *traffic };
    match direction {
        Direction::ToDevice => {
            traffic.to_device_packets += 1;
            traffic.to_device_bytes += u64::from(bytes);
        }
        Direction::ToHost => {
            traffic.to_host_packets += 1;
            traffic.to_host_bytes += u64::from(bytes);
        }
    }
}

/// Counts a packet that was not translated, or not on the fast way.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(packets) = REASONS.get_ptr_mut(reason.index()) {
        // SAFETY: the slot is this CPU's own, and nothing else writes it while the program runs.
        unsafe { *packets += 1 };
    }
}

/// Whether somebody watches what is dropped.
#[inline(always)]
pub(crate) fn logs_drops() -> bool {
    CONTROL.get(control::LOG_DROPS).is_some_and(|on| *on != 0)
}
