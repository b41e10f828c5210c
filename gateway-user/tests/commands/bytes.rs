//! Keys and values of the maps as bytes, and read from what bpftool shows.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::Value;

/// An address in 16 bytes.
pub(crate) fn address(of: IpAddr) -> Vec<u8> {
    match of {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Sixteen bytes of address, two of port in network byte order, two of nothing.
pub(crate) fn portal(text: &str) -> Vec<u8> {
    let portal: SocketAddr = text.parse().unwrap();
    let mut bytes = address(portal.ip());
    bytes.extend(portal.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// A mapping's value in layout 2: peer, flags, counter, segment size.
pub(crate) fn mapping(peer: &str, flags: u32, counter: u32, mss: u16) -> Vec<u8> {
    let mut bytes = portal(peer);
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(counter.to_ne_bytes());
    bytes.extend(mss.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// The bytes that bpftool shows of a key or a value.
pub(crate) fn shown(bytes: &Value) -> Vec<u8> {
    let byte =
        |text: &Value| u8::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    bytes.as_array().unwrap().iter().map(byte).collect()
}

/// The portal that a key or a value begins with.
pub(crate) fn shown_portal(bytes: &Value) -> SocketAddr {
    let bytes = shown(bytes);
    let address: [u8; 16] = bytes[..16].try_into().unwrap();
    let port = u16::from_be_bytes([bytes[16], bytes[17]]);
    SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port)
}
