//! What a packet's headers say. Only what a translation needs is looked at, and nothing is copied that can be read
//! again: the BPF virtual machine has 512 bytes of stack.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;

use crate::bytes::Packet;
use crate::table::{Address, MAX_TAGS, Portal, Tag, Word};
use crate::verdict::Reason;

/// EtherTypes (IEEE 802), as they lie in the header.
pub(crate) const IPV4: Word = 0x0800_u16.to_be();
pub(crate) const IPV6: Word = 0x86dd_u16.to_be();
pub(crate) const ARP: Word = 0x0806_u16.to_be();
const VLAN: Word = 0x8100_u16.to_be();
const SERVICE_VLAN: Word = 0x88a8_u16.to_be();

/// Protocol numbers (IANA).
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// More extension headers than any sender uses before TCP.
const MAX_EXTENSIONS: usize = 4;

/// The largest offset of a header; one less than a power of two, so that the verifier sees what a mask leaves.
pub const WITHIN_HEADERS: usize = 0x7ff;

/// Where the EtherType of a frame is, or its first tag.
pub(crate) const ETHERTYPE: usize = 12;
/// The bytes of a tag: its EtherType, priority and identifier.
pub(crate) const TAG: usize = 4;
/// A tag's identifier, and its priority (PCP and DEI, IEEE 802.1Q 9.6), as they lie in it.
pub(crate) const TAG_ID: Word = 0x0fff_u16.to_be();
pub(crate) const TAG_PRIORITY: Word = 0xf000_u16.to_be();

/// All headers up to the one behind IP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The link's.
    pub link: Link,
    /// IP's.
    pub ip: Ip,
}

/// The header's part that is the link's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// It is an Ethernet header; without one the packet begins at its IP header.
    pub is_ethernet: bool,
    /// How many tags the frame has.
    pub tags: usize,
    /// The tags, from the outer one on, without their priority.
    pub tag: [Tag; MAX_TAGS],
    /// What follows, as an EtherType.
    pub ethertype: Word,
    l3: u16,
}

impl Link {
    /// Where what follows begins, in bytes.
    #[inline(always)]
    pub const fn l3(&self) -> usize {
        self.l3 as usize & WITHIN_HEADERS
    }

    /// The one tag has no identifier, only a priority: the frame is in no VLAN.
    #[inline(always)]
    pub fn has_priority_only(&self) -> bool {
        self.tags == 1 && self.tag[0].id == 0
    }

    /// Whether the frame is in a VLAN.
    #[inline(always)]
    pub fn is_in_vlan(&self) -> bool {
        self.tags > 0 && !self.has_priority_only()
    }
}

/// Reads a frame's Ethernet header, tags included.
#[inline(always)]
pub fn ethernet(packet: &(impl Packet + ?Sized)) -> Result<Link, Reason> {
    let mut tag = [Tag::default(); MAX_TAGS];
    let [first] = packet.read(ETHERTYPE).ok_or(Reason::NotIp)?;
    if !is_tag(first) {
        return Ok(Link { is_ethernet: true, tags: 0, tag, ethertype: first, l3: 14 });
    }
    let [control, second] = packet.read(ETHERTYPE + 2).ok_or(Reason::NotIp)?;
    tag[0] = Tag { protocol: first, id: control & TAG_ID };
    if !is_tag(second) {
        return Ok(Link { is_ethernet: true, tags: 1, tag, ethertype: second, l3: 18 });
    }
    let [control, third] = packet.read(ETHERTYPE + TAG + 2).ok_or(Reason::NotIp)?;
    tag[1] = Tag { protocol: second, id: control & TAG_ID };
    Ok(Link { is_ethernet: true, tags: 2, tag, ethertype: third, l3: 22 })
}

/// Says of a packet without a link header what it is.
#[inline(always)]
pub fn no_link(packet: &(impl Packet + ?Sized)) -> Result<Link, Reason> {
    let [first] = packet.read(0).ok_or(Reason::NotIp)?;
    let ethertype = match first.to_ne_bytes()[0] >> 4 {
        4 => IPV4,
        6 => IPV6,
        _ => return Err(Reason::NotIp),
    };
    Ok(Link { is_ethernet: false, tags: 0, tag: [Tag::default(); MAX_TAGS], ethertype, l3: 0 })
}

#[inline(always)]
const fn is_tag(ethertype: Word) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}

/// An IP header, extension headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// IPv6 instead of IPv4.
    pub is_v6: bool,
    l3: u16,
    l4: u16,
    /// What it carries (IANA).
    pub protocol: u8,
    /// Bytes of the IP packet, header included.
    pub length: u16,
    /// TTL or hop limit.
    pub hops: u8,
    /// TOS or traffic class.
    pub class: u8,
    /// Whether it is a part of a packet that was cut up.
    pub fragment: Fragment,
    /// Routers may cut it up: IPv4 without DF.
    pub may_be_cut: bool,
}

/// Whether a packet is a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    No,
    /// Its first part, with the ports of the whole.
    First,
    /// A later part, without ports.
    Later,
}

impl Ip {
    /// Where it begins, in bytes.
    #[inline(always)]
    pub const fn l3(&self) -> usize {
        self.l3 as usize & WITHIN_HEADERS
    }

    /// Where what it carries begins, in bytes.
    #[inline(always)]
    pub const fn l4(&self) -> usize {
        self.l4 as usize & WITHIN_HEADERS
    }

    /// Its bytes, options and extension headers included.
    #[inline(always)]
    pub const fn header(&self) -> usize {
        self.l4().wrapping_sub(self.l3())
    }

    /// An IPv4 header without options behind an Ethernet header without tags; whole, and not to be cut up.
    #[inline(always)]
    pub(crate) const fn plain_v4(length: u16, hops: u8, class: u8) -> Self {
        Self {
            is_v6: false,
            l3: 14,
            l4: 34,
            protocol: TCP,
            length,
            hops,
            class,
            fragment: Fragment::No,
            may_be_cut: false,
        }
    }

    /// An IPv6 header without extension headers behind an Ethernet header without tags.
    #[inline(always)]
    pub(crate) const fn plain_v6(length: u16, hops: u8, class: u8) -> Self {
        Self { is_v6: true, l4: 54, ..Self::plain_v4(length, hops, class) }
    }

    /// Where the source's address begins.
    #[inline(always)]
    pub const fn source_at(&self) -> usize {
        self.l3() + if self.is_v6 { 8 } else { 12 }
    }

    /// Where the destination's address begins.
    #[inline(always)]
    pub const fn destination_at(&self) -> usize {
        self.l3() + if self.is_v6 { 24 } else { 16 }
    }

    /// Without IPv4 options and IPv6 extension headers.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.header() == if self.is_v6 { Ipv6Hdr::LEN } else { Ipv4Hdr::LEN }
    }

    /// The source's address.
    #[inline(always)]
    pub fn source(&self, packet: &(impl Packet + ?Sized)) -> Option<Address> {
        self.address(packet, self.source_at())
    }

    /// The destination's address.
    #[inline(always)]
    pub fn destination(&self, packet: &(impl Packet + ?Sized)) -> Option<Address> {
        self.address(packet, self.destination_at())
    }

    /// Where a TCP segment comes from.
    #[inline(always)]
    pub fn source_portal(&self, packet: &(impl Packet + ?Sized)) -> Option<Portal> {
        let [port] = packet.read(self.l4())?;
        Some(Portal::new(self.source(packet)?, port))
    }

    /// Where a TCP segment goes.
    #[inline(always)]
    pub fn destination_portal(&self, packet: &(impl Packet + ?Sized)) -> Option<Portal> {
        let [port] = packet.read(self.l4() + 2)?;
        Some(Portal::new(self.destination(packet)?, port))
    }

    #[inline(always)]
    fn address(&self, packet: &(impl Packet + ?Sized), at: usize) -> Option<Address> {
        Some(if self.is_v6 {
            Address::from_v6_words(packet.read(at)?)
        } else {
            Address::from_v4_words(packet.read(at)?)
        })
    }

    /// Where the packet ends, in bytes.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.l3() + usize::from(self.length)
    }
}

/// Reads the IP header that begins at `l3`. Its length is taken as it is said: a quoted packet is not there whole.
#[inline(always)]
pub fn ip(packet: &(impl Packet + ?Sized), ethertype: Word, l3: usize) -> Result<Ip, Reason> {
    match ethertype {
        IPV4 => ipv4(packet, l3),
        IPV6 => ipv6(packet, l3),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn ipv4(packet: &(impl Packet + ?Sized), l3: usize) -> Result<Ip, Reason> {
    let [first, length] = packet.read(l3).ok_or(Reason::Malformed)?;
    let [version, class] = first.to_ne_bytes();
    let header = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header < Ipv4Hdr::LEN {
        return Err(Reason::Malformed);
    }
    let [fragment, hops_protocol] = packet.read(l3 + 6).ok_or(Reason::Malformed)?;
    // All of it, so that what carries no ports has ends, too.
    let [_] = packet.read(l3 + 18).ok_or(Reason::Malformed)?;
    if !packet.has(l3 + header) {
        return Err(Reason::Malformed);
    }
    let [hops, protocol] = hops_protocol.to_ne_bytes();
    let fragment = u16::from_be(fragment);
    Ok(Ip {
        is_v6: false,
        l3: offset(l3)?,
        l4: offset(l3 + header)?,
        protocol,
        length: u16::from_be(length),
        hops,
        class,
        fragment: match fragment {
            f if f & 0x1fff != 0 => Fragment::Later,
            f if f & 0x2000 != 0 => Fragment::First,
            _ => Fragment::No,
        },
        may_be_cut: fragment & 0x4000 == 0,
    })
}

#[inline(always)]
fn ipv6(packet: &(impl Packet + ?Sized), l3: usize) -> Result<Ip, Reason> {
    let [first] = packet.read(l3).ok_or(Reason::Malformed)?;
    let [high, low] = first.to_ne_bytes();
    if high >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let [payload, next_hops] = packet.read(l3 + 4).ok_or(Reason::Malformed)?;
    let [_] = packet.read(l3 + 38).ok_or(Reason::Malformed)?;
    let [mut protocol, hops] = next_hops.to_ne_bytes();
    let mut l4 = l3 + Ipv6Hdr::LEN;
    let mut fragment = Fragment::No;
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                // Length in units of 8 bytes, the first not counted (RFC 8200, 4.3).
                let [extension, specific] = packet.read(l4).ok_or(Reason::Malformed)?;
                let [following, length] = extension.to_ne_bytes();
                // With segments left the packet is for a router on its way, and its checksum for another
                // address than the one in its header (RFC 8200, 4.4 and 8.1).
                if protocol == ROUTING && specific.to_ne_bytes()[1] != 0 {
                    break;
                }
                protocol = following;
                l4 += (usize::from(length) + 1) * 8;
            }
            FRAGMENT => {
                let [extension, offset] = packet.read(l4).ok_or(Reason::Malformed)?;
                protocol = extension.to_ne_bytes()[0];
                l4 += 8;
                match u16::from_be(offset) {
                    f if f & 0xfff8 != 0 => {
                        fragment = Fragment::Later;
                        break;
                    }
                    // The only fragment is a whole packet (RFC 6946).
                    f if f & 1 == 0 => {}
                    _ => fragment = Fragment::First,
                }
            }
            _ => break,
        }
    }
    let length = u16::from_be(payload).checked_add(40).ok_or(Reason::Malformed)?;
    let class = (high << 4) | (low >> 4);
    Ok(Ip {
        is_v6: true,
        l3: offset(l3)?,
        l4: offset(l4)?,
        protocol,
        length,
        hops,
        class,
        fragment,
        may_be_cut: false,
    })
}

/// An offset within the headers. Those that go on for longer than any sender's are broken.
#[inline(always)]
fn offset(at: usize) -> Result<u16, Reason> {
    if at > WITHIN_HEADERS {
        return Err(Reason::Malformed);
    }
    u16::try_from(at).map_err(|_| Reason::Malformed)
}

/// TCP flags in byte 13 of its header (RFC 9293, 3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// What a TCP header says, its ports and checksum aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Bytes of the header, options included.
    pub header: usize,
    /// Its flags.
    pub flags: u8,
}

impl Tcp {
    /// It opens a connection: SYN without ACK.
    #[inline(always)]
    pub const fn is_opening(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }
}

/// Reads the TCP header of a packet that is there whole.
#[inline(always)]
pub fn tcp(packet: &(impl Packet + ?Sized), ip: &Ip) -> Result<Tcp, Reason> {
    if usize::from(ip.length) < ip.header() + TcpHdr::LEN || !packet.has(ip.end()) {
        return Err(Reason::Malformed);
    }
    let [offset_flags, _, _, _] = packet.read(ip.l4() + 12).ok_or(Reason::Malformed)?;
    let [offset, flags] = offset_flags.to_ne_bytes();
    let header = usize::from(offset >> 4) * 4;
    if header < TcpHdr::LEN || usize::from(ip.length) < ip.header() + header {
        return Err(Reason::Malformed);
    }
    Ok(Tcp { header, flags })
}
