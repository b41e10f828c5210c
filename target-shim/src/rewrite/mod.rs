//! What changes in a PDU on its way through: the LUN, the target's name, and the few payloads in which a LUN
//! tells who it is. Nothing here waits or does I/O, so all of it can be tested with bytes in and bytes out.
//!
//! The shim never answers in the real target's place once a session is in full feature phase: an answer of its
//! own would consume a StatSN and leave the target waiting for a CmdSN. It forwards what the target will answer,
//! and edits that answer.

mod text;
mod to_host;
mod to_target;

use std::collections::HashMap;

use lungate_catalog::view::DevicePort;
use lungate_iscsi::login::LoginStatus;
use lungate_iscsi::pdu::{Bhs, Digests, LunField, Opcode};
use text::Joiner;

/// The longest data segment during login (RFC 7143, 13.12).
const LOGIN_SEGMENT: usize = 8192;
/// The longest data segment that is held whole to be edited: text, and descriptions of a LUN.
const EDITED_SEGMENT: usize = 64 * 1024;

/// Where a PDU is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToTarget,
    ToHost,
}

/// How much of a PDU must be there before it can be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Its header; the data passes as it comes.
    Header,
    /// All of it.
    Whole,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Violation {
    /// The login is refused with this status.
    #[error("login refused: {}: {why}", status.meaning())]
    Refused {
        /// What the host is told.
        status: LoginStatus,
        /// What the log is told.
        why: String,
    },
    /// The peer broke the protocol.
    #[error("{0}")]
    Protocol(String),
}

/// The host's first login request is whole: this is who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Initiator {
    pub(crate) name: String,
    pub(crate) isid: [u8; 6],
}

/// One connection's translation, both directions.
#[derive(Debug)]
pub(crate) struct Rewriter {
    port: DevicePort,
    real_lun: LunField,
    /// A LUN that the real target does not have: it answers commands to it as SAM says.
    absent_lun: LunField,
    login: Login,
    /// Commands and task management functions without an answer, by their tags.
    tasks: HashMap<u32, Task>,
    /// The LUN that the target gave with its last transfer tag for a NOP or a text exchange.
    tagged: Option<(u32, LunField)>,
}

#[derive(Debug, Default)]
struct Login {
    full_feature: bool,
    /// What is in force in full feature phase.
    digests: Digests,
    initiator: Option<String>,
    discovery: bool,
    target_named: bool,
    /// The first request has been seen to its end.
    introduced: bool,
    /// The host offered DefaultTime2Wait=0.
    no_wait: bool,
    from_host: Joiner,
    from_target: Joiner,
    /// The longest data segments that target and host take.
    target_segment: Option<usize>,
    host_segment: Option<usize>,
}

/// What is known of a request until its answer has passed.
#[derive(Debug)]
struct Task {
    /// The request as the host wrote it.
    sent: Bhs,
    cmd_sn: u32,
    kind: TaskKind,
    /// Sequences of data that the target still waits for.
    awaiting_data: u32,
}

#[derive(Debug)]
enum TaskKind {
    /// Passes as it is.
    Plain,
    /// Its data is replaced.
    Described { data: Vec<u8>, expected: usize, replaced: bool },
    /// A task management function: what it ends when it succeeds.
    Management(Ends),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Nothing,
    One(u32),
    AllBefore(u32),
}

impl Rewriter {
    /// The translation of a new connection to `port`; `None` where its LUN has no wire form.
    pub(crate) fn new(port: DevicePort) -> Option<Self> {
        let lun = port.backend.lun;
        let absent = if lun == lungate_iscsi::pdu::lun::MAX_FLAT {
            lun - 1
        } else {
            lungate_iscsi::pdu::lun::MAX_FLAT
        };
        Some(Self {
            real_lun: LunField::from_number(lun)?,
            absent_lun: LunField::from_number(absent)?,
            port,
            login: Login::default(),
            tasks: HashMap::new(),
            tagged: None,
        })
    }

    /// The digests in force.
    pub(crate) fn digests(&self) -> Digests {
        if self.login.full_feature { self.login.digests } else { Digests::default() }
    }

    /// Whether the login phase is over.
    pub(crate) fn is_full_feature(&self) -> bool {
        self.login.full_feature
    }

    /// Whether the target still works at something whose data it has. Without the host nothing more can come
    /// for the others.
    pub(crate) fn is_busy(&self) -> bool {
        self.tasks.values().any(|task| task.awaiting_data == 0)
    }

    /// The host is gone in the middle of this task's data: the target waits for the rest in vain.
    pub(crate) fn cut_off(&mut self, itt: u32) {
        if let Some(task) = self.tasks.get_mut(&itt) {
            task.awaiting_data = task.awaiting_data.saturating_add(1);
        }
    }

    /// How much of a PDU is needed, or why it must not pass.
    pub(crate) fn need(&self, direction: Direction, bhs: &Bhs) -> Result<Need, Violation> {
        let opcode = bhs.opcode();
        self.check_phase(direction, opcode)?;
        let need = match (direction, opcode) {
            (Direction::ToTarget, Opcode::LoginRequest | Opcode::TextRequest)
            | (Direction::ToHost, Opcode::LoginResponse | Opcode::TextResponse | Opcode::Reject) => {
                Need::Whole
            }
            (Direction::ToHost, Opcode::DataIn) => match self.tasks.get(&bhs.itt()) {
                Some(Task { kind: TaskKind::Described { .. }, .. }) => Need::Whole,
                _ => Need::Header,
            },
            _ => Need::Header,
        };
        let declared = match direction {
            Direction::ToTarget => self.login.target_segment,
            Direction::ToHost => self.login.host_segment,
        };
        let limit = match (self.login.full_feature, need) {
            (false, _) => LOGIN_SEGMENT,
            (true, Need::Whole) => EDITED_SEGMENT,
            (true, Need::Header) => declared.unwrap_or(LOGIN_SEGMENT),
        };
        if bhs.data_length() > limit {
            let what = format!(
                "{bhs:?}: a data segment of {} bytes where at most {limit} are allowed",
                bhs.data_length()
            );
            return Err(Violation::Protocol(what));
        }
        Ok(need)
    }

    /// Edits a header whose data passes as it is.
    pub(crate) fn header(&mut self, direction: Direction, bhs: &mut Bhs) -> Result<(), Violation> {
        match direction {
            Direction::ToTarget => self.header_to_target(bhs),
            Direction::ToHost => self.header_to_host(bhs),
        }
        Ok(())
    }

    /// Edits a whole PDU and gives its new data; says who the host is, once, when that is known.
    pub(crate) fn whole(
        &mut self,
        direction: Direction,
        bhs: &mut Bhs,
        data: &[u8],
    ) -> Result<(Vec<u8>, Option<Initiator>), Violation> {
        match direction {
            Direction::ToTarget => self.whole_to_target(bhs, data),
            Direction::ToHost => Ok((self.whole_to_host(bhs, data)?, None)),
        }
    }

    fn check_phase(&self, direction: Direction, opcode: Opcode) -> Result<(), Violation> {
        let is_login = matches!(opcode, Opcode::LoginRequest | Opcode::LoginResponse);
        let from_host = matches!(
            opcode,
            Opcode::NopOut
                | Opcode::ScsiCommand
                | Opcode::TaskManagementRequest
                | Opcode::LoginRequest
                | Opcode::TextRequest
                | Opcode::DataOut
                | Opcode::LogoutRequest
                | Opcode::SnackRequest
        );
        let known = !matches!(opcode, Opcode::Unknown(_));
        if !known || from_host != (direction == Direction::ToTarget) {
            return Err(Violation::Protocol(format!("{opcode:?} does not belong in this direction")));
        }
        if is_login == self.login.full_feature {
            let phase = if is_login { "after" } else { "before the end of" };
            return Err(Violation::Protocol(format!("{opcode:?} {phase} the login phase")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
