//! The maps. Their sizes are set when they are created; those here are the smallest.

use core::arch::asm;
use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::btf_map;
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::gateway::Kernel;
use lungate_gateway_common::headers::{Headers, Ip};
use lungate_gateway_common::hop::Answer;
use lungate_gateway_common::index::{Bucket, place};
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
static INDEX: Array<Bucket, 1> = Array::new();
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

/// The buckets of `INDEX`, less one; set when the program is loaded.
#[unsafe(no_mangle)]
static INDEX_MASK: u32 = 0;

/// Headers on their way through [`Kernel::forget`].
#[btf_map]
static HEADERS: PerCpuArray<Headers, 1> = PerCpuArray::new();
/// The same for the header of a quoted packet, and for a number.
#[btf_map]
static QUOTED: PerCpuArray<Ip, 1> = PerCpuArray::new();
#[btf_map]
static NUMBER: PerCpuArray<u32, 1> = PerCpuArray::new();

/// What is asked of the forwarding table, and what it says.
#[btf_map]
static LOOKUP: PerCpuArray<bpf_fib_lookup, 1> = PerCpuArray::new();

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
        on_stack(portal_words(portal), |key| unsafe { FORWARD.get(&*key.cast()) })
    }

    #[inline(always)]
    fn reverse(&self, portal: &Portal) -> Option<&Mapping> {
        // SAFETY: as for `forward`.
        on_stack(portal_words(portal), |key| unsafe { REVERSE.get(&*key.cast()) })
    }

    #[inline(always)]
    fn bucket(&self, portal: &Portal) -> Option<&Bucket> {
        // SAFETY: the place is a static's; what it holds is set before the program runs, so the compiler must not know.
        let mask = unsafe { (&raw const INDEX_MASK).read_volatile() };
        INDEX.get(place(portal, mask))
    }

    #[inline(always)]
    fn is_vip(&self, address: &Address) -> bool {
        // SAFETY: the value is not looked at.
        on_stack(address_words(*address), |key| unsafe { VIPS.get(&*key.cast()) }).is_some()
    }

    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        // SAFETY: the value is not looked at.
        on_stack(address_words(*address), |key| unsafe { LOCAL.get(&*key.cast()) }).is_some()
    }

    #[inline(always)]
    fn is_listed(&self, access: Access) -> bool {
        let [low, high] = address_words(access.host());
        let words = [pair(Access::ALL_BITS, access.counter()), low, high];
        // SAFETY: the words are a key's, and live through the call.
        on_stack(words, |key| ACCESS.get(unsafe { &*key.cast::<Key<Access>>() })).is_some()
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
        let [outer, inner] = vlan.tag.map(|tag| u32::from(tag.protocol) | u32::from(tag.id) << 16);
        let words = [pair(vlan.parent, outer), u64::from(inner)];
        // SAFETY: as for `forward`.
        on_stack(words, |key| unsafe { VLANS.get(&*key.cast()) }).copied()
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
    fn ticks(&self) -> u64 {
        // SAFETY: a plain helper call, which the kernel replaces by a load.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn control(&self, place: u32) -> u64 {
        CONTROL.get(place).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn ask(&self, way: &Way, length: u16) -> Answer {
        let Some(lookup) = LOOKUP.get_ptr_mut(0) else { return Answer::NoRoute };
        // SAFETY: as for `hop`.
        fib::ask(self.context, unsafe { &mut *lookup }, way, length)
    }

    #[inline(always)]
    fn forget(&self, headers: Headers) -> Option<&Headers> {
        // SAFETY: the place is this CPU's own.
        unsafe { through(HEADERS.get_ptr_mut(0)?, headers) }
    }

    #[inline(always)]
    fn forget_quoted(&self, quoted: Ip) -> Option<&Ip> {
        // SAFETY: as in `forget`.
        unsafe { through(QUOTED.get_ptr_mut(0)?, quoted) }
    }

    #[inline(always)]
    fn forget_number(&self, number: u32) -> Option<u32> {
        // SAFETY: as in `forget`.
        unsafe { through(NUMBER.get_ptr_mut(0)?, number) }.copied()
    }

    #[inline(always)]
    fn count_traffic(&self, counter: u32, direction: Direction, bytes: u16) {
        let Some(traffic) = TRAFFIC.get_ptr_mut(counter) else { return };
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

/// Runs a look-up with a key on the stack. The compiler may write 8 bytes to any address, but the verifier takes that
/// on the stack only where they are aligned, so the key is written word by word, and not otherwise.
#[inline(always)]
fn on_stack<const N: usize, T>(words: [u64; N], look_up: impl FnOnce(*const [u64; N]) -> T) -> T {
    let mut key = MaybeUninit::<[u64; N]>::uninit();
    let start = key.as_mut_ptr().cast::<u64>();
    let mut i = 0;
    while i < N {
        // SAFETY: the place is the array's own.
        unsafe { start.add(i).write_volatile(words[i]) };
        i += 1;
    }
    look_up(key.as_ptr())
}

/// A portal as it lies in memory.
#[inline(always)]
fn portal_words(portal: &Portal) -> [u64; 3] {
    let [low, high] = address_words(portal.address());
    [low, high, u64::from(portal.port())]
}

/// An address as it lies in memory.
#[inline(always)]
fn address_words(address: Address) -> [u64; 2] {
    let [a, b, c, d] = address.longs();
    [pair(a, b), pair(c, d)]
}

/// Two words of 4 bytes as they lie in memory; the programs are for machines whose first byte is the lowest.
#[inline(always)]
fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

/// Writes something to a place of a map and reads it there: what is read is not what was written a moment ago, as far
/// as compiler and verifier know.
///
/// # Safety
///
/// Nothing else may use the place while what is read there is in use.
#[inline(always)]
unsafe fn through<'a, T>(place: *mut T, what: T) -> Option<&'a T> {
    // SAFETY: the place is a map's, and of the type.
    unsafe {
        place.write(what);
        asm!("", options(nostack));
        Some(&*place)
    }
}
