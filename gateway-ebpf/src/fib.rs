//! The kernel's forwarding table, asked for one packet.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Lookup,
};
use aya_ebpf::helpers::bpf_fib_lookup;
use lungate_gateway_common::hop::Answer;
use lungate_gateway_common::table::{Way, Word};

/// Address families (Linux `AF_INET`, `AF_INET6`) and TCP's number.
const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;

/// Asks for the way of a packet of `length` bytes.
#[inline(always)]
pub(crate) fn ask(context: *mut c_void, lookup: &mut Lookup, way: &Way, length: u16) -> Answer {
    // SAFETY: the structure is plain data, for which zeros are a value.
    *lookup = unsafe { core::mem::zeroed() };
    let (source, destination) = (way.source(), way.destination());
    lookup.l4_protocol = TCP;
    lookup.ifindex = way.ingress();
    lookup.__bindgen_anon_1.tot_len = length;
    if !way.is_v6() {
        lookup.family = INET;
        lookup.__bindgen_anon_2.tos = way.class();
        lookup.__bindgen_anon_3.ipv4_src = source.longs()[3];
        lookup.__bindgen_anon_4.ipv4_dst = destination.longs()[3];
    } else {
        lookup.family = INET6;
        lookup.__bindgen_anon_2.flowinfo = (u32::from(way.class()) << 20).to_be();
        lookup.__bindgen_anon_3.ipv6_src = source.longs();
        lookup.__bindgen_anon_4.ipv6_dst = destination.longs();
    }
    let size = size_of::<Lookup>() as i32;
    // SAFETY: context and structure live through the call, and the size is the structure's.
    let found = unsafe { bpf_fib_lookup(context, &raw mut *lookup, size, 0) };
    match found as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => {
            let ([a, b, c], [d, e, f]) = (link(lookup.dmac), link(lookup.smac));
            // SAFETY: after an answer the field is the route's MTU.
            let mtu = unsafe { lookup.__bindgen_anon_1.mtu_result };
            Answer::By { interface: lookup.ifindex, link: [a, b, c, d, e, f], mtu }
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => Answer::NoNeighbour,
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Answer::TooBig,
        BPF_FIB_LKUP_RET_FWD_DISABLED => Answer::NotForwarding,
        _ => Answer::NoRoute,
    }
}

#[inline(always)]
fn link([a, b, c, d, e, f]: [u8; 6]) -> [Word; 3] {
    [Word::from_ne_bytes([a, b]), Word::from_ne_bytes([c, d]), Word::from_ne_bytes([e, f])]
}
