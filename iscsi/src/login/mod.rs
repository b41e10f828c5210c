//! The login phase (RFC 7143, 6): what is negotiated, and both sides of the exchange.
//!
//! Authentication is not part of it yet: `AuthMethod=None` is all that is offered or accepted, and a peer that
//! insists on more is refused by the protocol's own status.

pub mod initiator;
pub mod params;
pub mod target;

use crate::pdu::stream::PduError;
use crate::pdu::text::TextError;

/// Login stages (RFC 7143, 11.12.3).
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;
const TRANSIT: u8 = 0x80;
const CONTINUE: u8 = 0x40;
/// The most exchanges that a login may take; real ones take two to five.
const MAX_EXCHANGES: usize = 32;

/// The status of a Login Response: class and detail (RFC 7143, 11.13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginStatus(pub u8, pub u8);

impl LoginStatus {
    /// Success.
    pub const SUCCESS: Self = Self(0, 0);
    /// The request makes no sense.
    pub const INITIATOR_ERROR: Self = Self(2, 0);
    /// Authentication failed, or is asked for and not there.
    pub const AUTHENTICATION_FAILURE: Self = Self(2, 1);
    /// No such target.
    pub const NOT_FOUND: Self = Self(2, 3);
    /// No common protocol version.
    pub const UNSUPPORTED_VERSION: Self = Self(2, 5);
    /// A session has one connection here.
    pub const TOO_MANY_CONNECTIONS: Self = Self(2, 6);
    /// A required key was not given.
    pub const MISSING_PARAMETER: Self = Self(2, 7);
    /// Neither Discovery nor Normal.
    pub const SESSION_TYPE_UNSUPPORTED: Self = Self(2, 9);
    /// TSIH of a session that is not there.
    pub const SESSION_DOES_NOT_EXIST: Self = Self(2, 10);
    /// The target cannot be reached at the moment.
    pub const SERVICE_UNAVAILABLE: Self = Self(3, 1);

    /// What the RFC calls it.
    pub const fn meaning(self) -> &'static str {
        match (self.0, self.1) {
            (0, 0) => "success",
            (1, _) => "redirection",
            (2, 0) => "initiator error",
            (2, 1) => "authentication failure",
            (2, 2) => "not authorised",
            (2, 3) => "target not found",
            (2, 4) => "target removed",
            (2, 5) => "unsupported version",
            (2, 6) => "too many connections",
            (2, 7) => "missing parameter",
            (2, 8) => "cannot include in session",
            (2, 9) => "session type not supported",
            (2, 10) => "session does not exist",
            (2, 11) => "invalid during login",
            (3, 0) => "target error",
            (3, 1) => "service unavailable",
            (3, 2) => "out of resources",
            _ => "unknown status",
        }
    }
}

/// Why a login did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The connection or its framing failed.
    #[error(transparent)]
    Pdu(#[from] PduError),
    /// The peer closed the connection.
    #[error("the peer closed the connection during login")]
    Closed,
    /// The peer said no.
    #[error("login refused: {} (class {}, detail {})", .0.meaning(), .0.0, .0.1)]
    Refused(LoginStatus),
    /// The peer's text is broken.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The peer's value for a key is outside the key's rules.
    #[error(transparent)]
    Key(#[from] params::KeyError),
    /// The peer broke the exchange's rules.
    #[error("login: {0}")]
    Protocol(String),
}

impl From<std::io::Error> for LoginError {
    fn from(error: std::io::Error) -> Self {
        Self::Pdu(error.into())
    }
}

/// The flags of a login header: T, C, current and next stage.
fn flags(transit: bool, current: u8, next: u8) -> u8 {
    if transit { TRANSIT | current << 2 | next } else { current << 2 }
}
