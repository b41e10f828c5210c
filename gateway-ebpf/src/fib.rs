//! The kernel's forwarding table, asked for one packet.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_PROHIBIT, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNREACHABLE,
    bpf_fib_lookup as Lookup,
};
use aya_ebpf::helpers::bpf_fib_lookup;
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::packet::Flow;
use lungate_gateway_common::table::{Address, Word};

/// Address families (Linux `AF_INET`, `AF_INET6`) and TCP's number.
const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;

/// Where a packet goes next.
pub(crate) enum Hop {
    /// Out of an interface, from and to these link addresses.
    Known { interface: u32, destination: [Word; 3], source: [Word; 3] },
    /// The neighbour's link address has to be asked for.
    NoNeighbour,
    /// Nowhere.
    NoRoute,
    /// Through a link that is too narrow.
    TooBig,
    /// The kernel does not forward, or the packet is for itself.
    NotForwarding,
}

/// Asks for the way of a packet with these addresses, as it will be.
#[inline(always)]
pub(crate) fn next_hop(ctx: &XdpContext, flow: &Flow, source: Address, destination: Address) -> Hop {
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut lookup: Lookup = unsafe { core::mem::zeroed() };
    lookup.family = if flow.is_v6 { INET6 } else { INET };
    lookup.l4_protocol = TCP;
    // SAFETY: the context is valid for as long as the program runs.
    lookup.ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    lookup.__bindgen_anon_1.tot_len = flow.length;
    if flow.is_v6 {
        lookup.__bindgen_anon_3.ipv6_src = words(source);
        lookup.__bindgen_anon_4.ipv6_dst = words(destination);
    } else {
        lookup.__bindgen_anon_3.ipv4_src = word(source, 6);
        lookup.__bindgen_anon_4.ipv4_dst = word(destination, 6);
    }
    let size = size_of::<Lookup>() as i32;
    // SAFETY: context and structure live through the call, and the size is the structure's.
    let found = unsafe { bpf_fib_lookup(ctx.as_ptr(), &raw mut lookup, size, 0) };
    match found as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => Hop::Known {
            interface: lookup.ifindex,
            destination: link(lookup.dmac),
            source: link(lookup.smac),
        },
        BPF_FIB_LKUP_RET_NO_NEIGH => Hop::NoNeighbour,
        BPF_FIB_LKUP_RET_BLACKHOLE | BPF_FIB_LKUP_RET_UNREACHABLE | BPF_FIB_LKUP_RET_PROHIBIT => Hop::NoRoute,
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Hop::TooBig,
        _ => Hop::NotForwarding,
    }
}

/// An IPv6 address as the four 32-bit words that the kernel wants, in network byte order.
#[inline(always)]
fn words(address: Address) -> [u32; 4] {
    [word(address, 0), word(address, 2), word(address, 4), word(address, 6)]
}

/// Four bytes of an address, in network byte order.
#[inline(always)]
fn word(address: Address, at: usize) -> u32 {
    let words = address.words();
    let ([a, b], [c, d]) = (words[at].to_ne_bytes(), words[at + 1].to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
fn link([a, b, c, d, e, f]: [u8; 6]) -> [Word; 3] {
    [Word::from_ne_bytes([a, b]), Word::from_ne_bytes([c, d]), Word::from_ne_bytes([e, f])]
}
