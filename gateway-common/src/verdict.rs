//! What can become of a packet. Every reason has a counter.

/// Which way a translated packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a host: VIP to device portal.
    ToDevice,
    /// To a host: device portal to VIP.
    ToHost,
}

/// What the gateway does with a packet that does not just go its fast way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None of its business: the kernel gets it as it came.
    Passed,
    /// A mapping's, but the kernel has to go on with it.
    Handed,
    /// An error message about a mapping's packet, translated outside and inside.
    Errors,
    /// Meant for a VIP itself and answered in its place.
    Answered,
    /// Dropped.
    Dropped,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $kind:ident;)*) => {
        /// Why a packet did not just go its fast way.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        /// The number of reasons.
        #[expect(clippy::cast_possible_truncation, reason = "there are a few dozen")]
        pub const REASONS: u32 = [$(Reason::$name as u32,)*].len() as u32;

        impl Reason {
            /// Every reason, in the order of its counter.
            pub const ALL: [Self; REASONS as usize] = [$(Self::$name,)*];

            /// The name under which it is reported.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What is done.
            #[inline(always)]
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)*
                }
            }
        }
    };
}

reasons! {
    /// Not IP, or ARP and neighbour discovery for others.
    NotIp = "not_ip", Passed;
    /// IP, but neither TCP nor an error message about a mapping's packet.
    NotTcp = "not_tcp", Passed;
    /// TCP that no mapping knows.
    NoMapping = "no_mapping", Passed;
    /// From a device portal to the gateway itself.
    OwnTraffic = "own_traffic", Passed;
    /// Tags of a VLAN that no interface stands for.
    UnknownVlan = "unknown_vlan", Passed;
    /// The kernel does not forward (`ip_forward`).
    NotForwarding = "not_forwarding", Passed;
    /// The next hop's link address is not known yet; the kernel asks for it.
    NoNeighbour = "no_neighbour", Handed;
    /// It is time that the kernel sees whether the neighbour is still there.
    Confirm = "confirm", Handed;
    /// The next interface is one that only the kernel sends by: a tunnel, or one without the program.
    KernelRoute = "kernel_route", Handed;
    /// The hop limit ends here; the kernel says so to the sender.
    HopLimit = "hop_limit", Handed;
    /// Larger than the next link takes; the kernel says so to the sender, or cuts it up where that is allowed.
    TooBig = "too_big", Handed;
    /// There is no route to the peer; the kernel says so to the sender.
    NoRoute = "no_route", Handed;
    /// An error message on its way to a host.
    ErrorToHost = "error_to_host", Errors;
    /// An error message on its way to a device.
    ErrorToDevice = "error_to_device", Errors;
    /// ARP asked for a VIP.
    Arp = "arp", Answered;
    /// Neighbour discovery asked for a VIP.
    Solicitation = "solicitation", Answered;
    /// A VIP was pinged.
    Echo = "echo", Answered;
    /// A segment for a port of a VIP that is not mapped; answered with a reset.
    PortClosed = "port_closed", Answered;
    /// Headers that contradict themselves or end too early.
    Malformed = "malformed", Dropped;
    /// The mapping is frozen.
    Frozen = "frozen", Dropped;
    /// The host is not on the mapping's list.
    Refused = "refused", Dropped;
    /// A fragment, which cannot be told from others by its ports.
    Fragment = "fragment", Dropped;
    /// Opens a connection straight to a mapped device portal, past the VIP.
    PastVip = "past_vip", Dropped;
    /// To a VIP, but nothing that a VIP serves or answers.
    NotServed = "not_served", Dropped;
}

impl Reason {
    /// The place of its counter in `REASONS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Whether such packets are dropped.
    pub const fn is_drop(self) -> bool {
        matches!(self.kind(), Kind::Dropped)
    }
}
