//! The gateway with steps left out, to see what each of them takes: every program has one step more than the one
//! before it. What is left out is taken as known, so the way through the gateway stays the same.

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lungate_gateway_common::bytes::{Change, Packet};
use lungate_gateway_common::filter::Filter;
use lungate_gateway_common::gateway::{Hook, Kernel, Outcome, run};
use lungate_gateway_common::headers::{Headers, Ip};
use lungate_gateway_common::hop::Answer;
use lungate_gateway_common::index::Bucket;
use lungate_gateway_common::quick;
use lungate_gateway_common::table::{
    Access, Address, Hop, Interface, Mapping, Portal, Vlan, Way, Word, control,
};
use lungate_gateway_common::verdict::{Direction, Reason};

use crate::frame::Frame;
use crate::head::Head;
use crate::maps::Maps;

/// The mapping of every packet while the table is left out.
#[btf_map]
static LINE: Array<Mapping, 1> = Array::new();
/// The next hop of every packet while its place is not looked for.
#[btf_map]
static PLACE: Array<Hop, 1> = Array::new();

/// The steps, in the order in which they are added.
const HEADERS: u32 = 1;
const FILTER: u32 = 2;
const DECIDE: u32 = 3;
const TABLE: u32 = 4;
const HOPS: u32 = 5;
const CLOCK: u32 = 6;
const WRITE: u32 = 7;
const COUNT: u32 = 8;
const SEND: u32 = 9;

macro_rules! steps {
    ($($name:ident = $steps:ident;)*) => {
        $(
            #[xdp(frags)]
            pub fn $name(ctx: XdpContext) -> u32 {
                up_to::<$steps>(&ctx)
            }
        )*
    };
}

steps! {
    step_headers = HEADERS;
    step_filter = FILTER;
    step_decide = DECIDE;
    step_table = TABLE;
    step_hops = HOPS;
    step_clock = CLOCK;
    step_write = WRITE;
    step_count = COUNT;
    step_send = SEND;
}

#[inline(always)]
fn up_to<const STEPS: u32>(ctx: &XdpContext) -> u32 {
    match quick_v4::<STEPS>(ctx) {
        // SAFETY: a plain helper call; an interface that does not exist makes the packet a counted drop.
        Some(Outcome::Redirect(interface)) if STEPS >= SEND => unsafe { bpf_redirect(interface, 0) as u32 },
        Some(Outcome::Redirect(_) | Outcome::SendBack) => XDP_TX,
        // Once, so that the next hop is known.
        None if STEPS >= DECIDE => whole::<STEPS>(ctx.ctx),
        _ => XDP_PASS,
    }
}

/// The gateway's quick way, which is that of nearly every packet.
#[inline(always)]
fn quick_v4<const STEPS: u32>(ctx: &XdpContext) -> Option<Outcome> {
    let mut head = Kept::<_, STEPS>(Head::<{ quick::V4_HEADERS }>::of(ctx)?);
    if !quick::is_v4(&head) {
        return None;
    }
    // SAFETY: the context is valid for as long as the program runs.
    let ingress = unsafe { (*ctx.ctx).ingress_ifindex };
    quick::v4(&mut head, &Known::<STEPS>(Maps::of(ctx)), ingress)
}

/// Its whole way.
#[inline(never)]
fn whole<const STEPS: u32>(context: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(context);
    // SAFETY: the context is valid for as long as the program runs.
    let hook = Hook::Frame(unsafe { (*context).ingress_ifindex });
    run(&mut Kept::<_, STEPS>(Frame::of(&ctx)), &Known::<STEPS>(Maps::of(&ctx)), hook);
    XDP_PASS
}

/// The maps, as far as they are not left out.
struct Known<const STEPS: u32>(Maps);

impl<const STEPS: u32> Kernel for Known<STEPS> {
    #[inline(always)]
    fn forward(&self, portal: &Portal) -> Option<&Mapping> {
        match STEPS {
            TABLE.. => self.0.forward(portal),
            DECIDE => LINE.get(0),
            // No mapping ends the way here.
            _ => None,
        }
    }

    #[inline(always)]
    fn reverse(&self, portal: &Portal) -> Option<&Mapping> {
        self.0.reverse(portal)
    }

    #[inline(always)]
    fn bucket(&self, portal: &Portal) -> Option<&Bucket> {
        if STEPS >= TABLE { self.0.bucket(portal) } else { None }
    }

    #[inline(always)]
    fn is_vip(&self, address: &Address) -> bool {
        STEPS >= DECIDE && self.0.is_vip(address)
    }

    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        self.0.is_local(address)
    }

    #[inline(always)]
    fn is_listed(&self, access: Access) -> bool {
        self.0.is_listed(access)
    }

    #[inline(always)]
    fn filter(&self) -> Option<&Filter> {
        if STEPS >= FILTER { self.0.filter() } else { None }
    }

    #[inline(always)]
    fn interface(&self, index: u32) -> Option<&Interface> {
        self.0.interface(index)
    }

    #[inline(always)]
    fn vlan(&self, vlan: &Vlan) -> Option<u32> {
        self.0.vlan(vlan)
    }

    #[inline(always)]
    fn hop(&self, slot: u32) -> Option<&mut Hop> {
        if STEPS >= HOPS {
            return self.0.hop(slot);
        }
        // SAFETY: one CPU at a time is measured, and nothing else writes the place while the program runs.
        PLACE.get_ptr_mut(0).map(|hop| unsafe { &mut *hop })
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        if STEPS >= CLOCK { self.0.now() } else { 0 }
    }

    #[inline(always)]
    fn ticks(&self) -> u64 {
        if STEPS >= CLOCK { self.0.ticks() } else { 0 }
    }

    #[inline(always)]
    fn control(&self, place: u32) -> u64 {
        match place {
            _ if STEPS >= CLOCK => self.0.control(place),
            control::WATCHED_UNTIL => u64::MAX,
            _ => 0,
        }
    }

    #[inline(always)]
    fn ask(&self, way: &Way, length: u16) -> Answer {
        self.0.ask(way, length)
    }

    #[inline(always)]
    fn forget(&self, headers: Headers) -> Option<&Headers> {
        self.0.forget(headers)
    }

    #[inline(always)]
    fn forget_quoted(&self, quoted: Ip) -> Option<&Ip> {
        self.0.forget_quoted(quoted)
    }

    #[inline(always)]
    fn forget_number(&self, number: u32) -> Option<u32> {
        self.0.forget_number(number)
    }

    #[inline(always)]
    fn count_traffic(&self, counter: u32, direction: Direction, bytes: u16) {
        if STEPS >= COUNT {
            self.0.count_traffic(counter, direction, bytes);
        }
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        self.0.count(reason);
    }
}

/// A packet that stays as it is while writing is left out.
struct Kept<P, const STEPS: u32>(P);

impl<P: Packet, const STEPS: u32> Packet for Kept<P, STEPS> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[Word; N]> {
        self.0.read(offset)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, words: [Word; N]) -> Option<()> {
        if STEPS >= WRITE { self.0.write(offset, words) } else { Some(()) }
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        self.0.has(length)
    }

    #[inline(always)]
    fn shift(&mut self, by: i32) -> Option<()> {
        self.0.shift(by)
    }

    #[inline(always)]
    fn cut(&mut self, length: usize) -> Option<()> {
        self.0.cut(length)
    }

    #[inline(always)]
    fn clamp_mss(&mut self, _: &impl Kernel, _: &Ip, _: usize, _: u16) -> Option<()> {
        // No packet here opens a connection.
        Some(())
    }

    #[inline(always)]
    fn update_header(&mut self, offset: usize, change: Change) -> Option<()> {
        if STEPS >= WRITE { self.0.update_header(offset, change) } else { Some(()) }
    }

    #[inline(always)]
    fn update_segment(&mut self, offset: usize, pseudo: Change, own: Change, is_v6: bool) -> Option<()> {
        if STEPS >= WRITE { self.0.update_segment(offset, pseudo, own, is_v6) } else { Some(()) }
    }
}
