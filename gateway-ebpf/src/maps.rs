//! The maps. Their sizes are set when they are created; those here are the smallest.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::btf_map;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::gateway::Kernel;
use lungate_gateway_common::headers::Headers;
use lungate_gateway_common::hop::Answer;
use lungate_gateway_common::table::{
    Access, Address, HOP_SLOTS, Hop, Interface, Mapping, Portal, Settings, Traffic, Vlan, Way, control,
};
use lungate_gateway_common::verdict::{Direction, REASONS as REASON_COUNT, Reason};

use crate::fib;

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

/// Headers on their way through [`Kernel::forget`].
#[btf_map]
static HEADERS: PerCpuArray<Headers, 1> = PerCpuArray::new();
/// The same for a number.
#[btf_map]
static NUMBER: PerCpuArray<u32, 1> = PerCpuArray::new();

/// The maps, and a context to ask the forwarding table with.
pub(crate) struct Maps {
    context: *mut c_void,
}

impl Maps {
    #[inline(always)]
    pub(crate) fn of(ctx: &impl EbpfContext) -> Self {
        Self::in_context(ctx.as_ptr())
    }

    #[inline(always)]
    pub(crate) fn in_context(context: *mut c_void) -> Self {
        Self { context }
    }
}

impl Kernel for Maps {
    #[inline(always)]
    fn forward(&self, portal: &Portal) -> Option<&Mapping> {
        // SAFETY: values are replaced whole, never changed in place; a reader sees an old or a new one.
        unsafe { FORWARD.get(portal) }
    }

    #[inline(always)]
    fn reverse(&self, portal: &Portal) -> Option<&Mapping> {
        // SAFETY: as for `forward`.
        unsafe { REVERSE.get(portal) }
    }

    #[inline(always)]
    fn is_vip(&self, address: &Address) -> bool {
        // SAFETY: the value is not looked at.
        unsafe { VIPS.get(address) }.is_some()
    }

    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        // SAFETY: the value is not looked at.
        unsafe { LOCAL.get(address) }.is_some()
    }

    #[inline(always)]
    fn is_listed(&self, access: Access) -> bool {
        ACCESS.get(&Key::new(Access::ALL_BITS, access)).is_some()
    }

    #[inline(always)]
    fn filter(&self) -> Option<&Filter> {
        FILTER.get(0)
    }

    #[inline(always)]
    fn interface(&self, index: u32) -> Option<&Interface> {
        // SAFETY: as for `forward`.
        unsafe { INTERFACES.get(&index) }
    }

    #[inline(always)]
    fn vlan(&self, vlan: &Vlan) -> Option<u32> {
        // SAFETY: as for `forward`.
        unsafe { VLANS.get(vlan) }.copied()
    }

    #[inline(always)]
    fn hop(&self, slot: u32) -> Option<&mut Hop> {
        // SAFETY: the place is this CPU's own, and nothing else writes it while the program runs.
        HOPS.get_ptr_mut(slot).map(|hop| unsafe { &mut *hop })
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a plain helper call.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn control(&self, place: u32) -> u64 {
        CONTROL.get(place).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn ask(&self, way: &Way, length: u16) -> Answer {
        fib::ask(self.context, way, length)
    }

    #[inline(always)]
    fn forget(&self, headers: Headers) -> Option<Headers> {
        let room = HEADERS.get_ptr_mut(0)?;
        // SAFETY: the place is this CPU's own, and holds headers once they are written.
        unsafe {
            room.write(headers);
            // What is read now is not what was written a moment ago, as far as the compiler knows.
            asm!("", options(nostack));
            Some(room.read())
        }
    }

    #[inline(always)]
    fn forget_number(&self, number: u32) -> Option<u32> {
        let room = NUMBER.get_ptr_mut(0)?;
        // SAFETY: as in `forget`.
        unsafe {
            room.write(number);
            asm!("", options(nostack));
            Some(room.read())
        }
    }

    #[inline(always)]
    fn count_traffic(&self, mapping: &Mapping, direction: Direction, bytes: u16) {
        let Some(traffic) = TRAFFIC.get_ptr_mut(mapping.counter()) else { return };
        // SAFETY: as for `hop`.
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

    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(packets) = REASONS.get_ptr_mut(reason.index()) {
            // SAFETY: as for `hop`.
            unsafe { *packets += 1 };
        }
    }
}

/// Whether somebody watches what is dropped.
#[inline(always)]
pub(crate) fn logs_drops() -> bool {
    CONTROL.get(control::LOG_DROPS).is_some_and(|on| *on != 0)
}
