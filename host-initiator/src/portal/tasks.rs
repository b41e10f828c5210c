//! The commands of a session that have no answer yet: those whose data is still coming, and those that are being
//! carried out.

use std::collections::{HashMap, HashSet, VecDeque};

use lungate_iscsi::payload::Payload;
use lungate_iscsi::pdu::LunField;
use lungate_iscsi::scsi::Cdb;

use crate::unit::MAX_TRANSFER;

/// Bytes that may be asked for at once, over all commands: what the session can make this side hold.
const SOLICITED_BUDGET: usize = 4 * MAX_TRANSFER;

/// A command as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) itt: u32,
    pub(super) lun: LunField,
    pub(super) cdb: Cdb,
    /// Expected data transfer length, in bytes.
    pub(super) expected: usize,
    /// The initiator sends data.
    pub(super) writes: bool,
    /// Its length counts against the budget.
    pub(super) counted: bool,
}

/// A command whose data is coming.
#[derive(Debug)]
struct Collecting {
    request: Request,
    data: Payload,
    /// More comes without being asked for.
    unsolicited: bool,
    /// The end of what has been asked for, and the transfer tag that asked.
    solicited: Option<(u32, usize)>,
    r2t_sn: u32,
}

/// What to do next for a command whose data is coming.
#[derive(Debug)]
pub(super) enum Next {
    /// Wait for more.
    Wait,
    /// Ask for a range of its data.
    Ask(Ask),
    /// Carry it out.
    CarryOut(Request, Payload),
}

/// An R2T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) itt: u32,
    pub(super) ttt: u32,
    pub(super) lun: LunField,
    pub(super) r2t_sn: u32,
    pub(super) offset: usize,
    pub(super) length: usize,
}

/// All of a session's commands.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    collecting: HashMap<u32, Collecting>,
    /// Commands that wait until the budget allows to ask for their data.
    waiting: VecDeque<u32>,
    solicited: usize,
    next_ttt: u32,
    running: HashSet<u32>,
    /// Running commands whose answers nobody wants any more.
    aborted: HashSet<u32>,
}

impl Tasks {
    /// Whether the tag is in use.
    pub(super) fn contains(&self, itt: u32) -> bool {
        self.collecting.contains_key(&itt) || self.running.contains(&itt)
    }

    /// How many have no answer.
    pub(super) fn len(&self) -> usize {
        self.collecting.len() + self.running.len()
    }

    /// A new command, with what data came along; `unsolicited` where more follows unasked.
    pub(super) fn start(&mut self, request: Request, data: Payload, unsolicited: bool, burst: usize) -> Next {
        if !request.writes || data.len() >= request.expected && !unsolicited {
            self.running.insert(request.itt);
            return Next::CarryOut(request, data);
        }
        let itt = request.itt;
        let task = Collecting { request, data, unsolicited, solicited: None, r2t_sn: 0 };
        self.collecting.insert(itt, task);
        self.advance(itt, burst)
    }

    /// Data for a command: where it belongs, and whether it ends its sequence.
    pub(super) fn data(
        &mut self,
        itt: u32,
        ttt: Option<u32>,
        offset: usize,
        piece: bytes::Bytes,
        is_final: bool,
        burst: usize,
    ) -> Result<Next, String> {
        // Data of a command that has been answered already, with an error, is thrown away.
        let Some(task) = self.collecting.get_mut(&itt) else { return Ok(Next::Wait) };
        let end = offset + piece.len();
        let allowed = match (ttt, task.solicited) {
            (None, _) if task.unsolicited => task.request.expected,
            (Some(ttt), Some((asked, end))) if ttt == asked => end,
            _ => return Err(format!("data for task {itt:#x} that nobody asked for")),
        };
        if offset != task.data.len() || end > allowed {
            return Err(format!(
                "data for task {itt:#x} at {offset} to {end}, where {} to {allowed} was due",
                task.data.len()
            ));
        }
        task.data.push(piece);
        if !is_final {
            return Ok(Next::Wait);
        }
        if ttt.is_none() {
            task.unsolicited = false;
        } else if let Some((_, asked_end)) = task.solicited.take()
            && end != asked_end
        {
            return Err(format!("data for task {itt:#x} ends at {end}, {asked_end} was asked for"));
        }
        Ok(self.advance(itt, burst))
    }

    /// What a command needs next.
    fn advance(&mut self, itt: u32, burst: usize) -> Next {
        let Some(task) = self.collecting.get_mut(&itt) else { return Next::Wait };
        if task.unsolicited || task.solicited.is_some() {
            return Next::Wait;
        }
        let (offset, expected) = (task.data.len(), task.request.expected);
        if offset >= expected {
            return self.complete(itt);
        }
        // The first R2T commits this side to hold the whole command.
        if task.r2t_sn == 0 {
            if self.solicited > 0 && self.solicited + expected > SOLICITED_BUDGET {
                self.waiting.push_back(itt);
                return Next::Wait;
            }
            self.solicited += expected;
            task.request.counted = true;
        }
        let length = (expected - offset).min(burst);
        let ttt = self.next_ttt;
        self.next_ttt = self.next_ttt.wrapping_add(1) & 0x7fff_ffff;
        task.solicited = Some((ttt, offset + length));
        let r2t_sn = task.r2t_sn;
        task.r2t_sn += 1;
        Next::Ask(Ask { itt, ttt, lun: task.request.lun, r2t_sn, offset, length })
    }

    fn complete(&mut self, itt: u32) -> Next {
        let Some(task) = self.collecting.remove(&itt) else { return Next::Wait };
        self.running.insert(itt);
        Next::CarryOut(task.request, task.data)
    }

    /// A command has been carried out: gives back its share of the budget. False where its answer is not wanted.
    pub(super) fn finish(&mut self, request: &Request) -> bool {
        self.running.remove(&request.itt);
        if request.counted {
            self.solicited = self.solicited.saturating_sub(request.expected);
        }
        !self.aborted.remove(&request.itt)
    }

    /// A command that waited for the budget, where there is room for it now.
    pub(super) fn next_waiting(&mut self, burst: usize) -> Next {
        while let Some(itt) = self.waiting.pop_front() {
            if self.collecting.contains_key(&itt) {
                return self.advance(itt, burst);
            }
        }
        Next::Wait
    }

    /// Ends commands: those whose data is still coming are forgotten; the answers of those being carried out
    /// will not be sent. Gives the tags of the latter.
    pub(super) fn abort(&mut self, only: Option<u32>) -> HashSet<u32> {
        let wanted = |itt: &u32| only.is_none_or(|only| only == *itt);
        let freed: usize = self
            .collecting
            .extract_if(|itt, _| wanted(itt))
            .map(|(_, task)| if task.request.counted { task.request.expected } else { 0 })
            .sum();
        self.solicited = self.solicited.saturating_sub(freed);
        let running: HashSet<u32> = self.running.iter().copied().filter(wanted).collect();
        self.aborted.extend(&running);
        running
    }
}
