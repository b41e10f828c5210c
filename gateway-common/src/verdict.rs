//! What can become of a packet. Every reason has a counter.

/// Which way a translated packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a host: VIP to device portal.
    ToDevice,
    /// To a host: device portal to VIP.
    ToHost,
}

/// Why a packet was not translated, or not on the fast way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Passed: not IP, or behind tags that are not looked through.
    NotIp = 0,
    /// Passed: IP, but not TCP.
    NotTcp = 1,
    /// Passed: TCP that no mapping knows.
    NoMapping = 2,
    /// Passed: from a device portal to the gateway itself.
    OwnTraffic = 3,
    /// Passed as it came: its hop limit ends here, and the kernel says so to the sender.
    HopLimit = 4,
    /// Translated and handed to the kernel: the next hop's link address is not known yet.
    NoNeighbour = 5,
    /// Passed as it came: the kernel does not forward (`ip_forward`).
    NotForwarding = 6,
    /// Dropped: headers that contradict themselves or end too early.
    Malformed = 7,
    /// Dropped: the mapping is frozen.
    Frozen = 8,
    /// Dropped: the host is not on the mapping's list.
    Refused = 9,
    /// Dropped: a fragment, which cannot be told from others by its ports.
    Fragment = 10,
    /// Dropped: opens a connection straight to a mapped device portal, past the VIP.
    PastVip = 11,
    /// Dropped: there is no route to the peer.
    NoRoute = 12,
    /// Dropped: larger than the next link takes.
    TooBig = 13,
}

/// The number of reasons.
pub const REASONS: u32 = 14;

impl Reason {
    /// Every reason, in the order of its counter.
    pub const ALL: [Self; REASONS as usize] = [
        Self::NotIp,
        Self::NotTcp,
        Self::NoMapping,
        Self::OwnTraffic,
        Self::HopLimit,
        Self::NoNeighbour,
        Self::NotForwarding,
        Self::Malformed,
        Self::Frozen,
        Self::Refused,
        Self::Fragment,
        Self::PastVip,
        Self::NoRoute,
        Self::TooBig,
    ];

    /// The place of its counter in `REASONS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Whether such packets are dropped.
    pub const fn is_drop(self) -> bool {
        self.index() >= Self::Malformed.index()
    }

    /// The name under which it is reported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::NoMapping => "no_mapping",
            Self::OwnTraffic => "own_traffic",
            Self::HopLimit => "hop_limit",
            Self::NoNeighbour => "no_neighbour",
            Self::NotForwarding => "not_forwarding",
            Self::Malformed => "malformed",
            Self::Frozen => "frozen",
            Self::Refused => "refused",
            Self::Fragment => "fragment",
            Self::PastVip => "past_vip",
            Self::NoRoute => "no_route",
            Self::TooBig => "too_big",
        }
    }
}
