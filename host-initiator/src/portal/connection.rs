//! One session's connection in full feature phase: one loop, in which commands are started and their answers
//! sent; the commands themselves run beside it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use lungate_iscsi::login::params::Params;
use lungate_iscsi::login::target::Accepted;
use lungate_iscsi::payload::Payload;
use lungate_iscsi::pdu::header::{
    DataIn, DataOut, LogoutRequest, LogoutResponse, NopIn, NopOut, ReadyToTransfer, Reject, ScsiCommand,
    ScsiResponse, TaskManagementRequest, TaskManagementResponse, TextRequest, TextResponse,
};
use lungate_iscsi::pdu::text::Keys;
use lungate_iscsi::pdu::{Bhs, Opcode, Pdu, PduError, PduReader, PduWriter, RESERVED_TAG};
use lungate_iscsi::scsi::{Sense, Status};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::WINDOW;
use super::tasks::{Ask, Next, Request, Tasks};
use crate::unit::{MAX_TRANSFER, Medium, Nexus, Reply, Unit};

/// Reasons of a Reject (RFC 7143, 11.17.1).
const DATA_DIGEST_ERROR: u8 = 0x02;
const PROTOCOL_ERROR: u8 = 0x04;
const COMMAND_NOT_SUPPORTED: u8 = 0x05;

/// Task management functions and answers (RFC 7143, 11.5.1 and 11.6.1).
const ABORT_TASK: u8 = 1;
const ABORT_TASK_SET: u8 = 2;
const CLEAR_TASK_SET: u8 = 4;
const LOGICAL_UNIT_RESET: u8 = 5;
const TARGET_WARM_RESET: u8 = 6;
const FUNCTION_COMPLETE: u8 = 0;
const LUN_DOES_NOT_EXIST: u8 = 2;
const FUNCTION_NOT_SUPPORTED: u8 = 5;

/// Flags of responses that carry a residual count.
const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;

pub(super) struct Connection<M> {
    reader: PduReader<OwnedReadHalf>,
    out: Out,
    unit: Option<Arc<Unit<M>>>,
    nexus: Arc<Nexus>,
    /// What discovery shows: every target name, at the address that was asked.
    names: Vec<String>,
    local: SocketAddr,
    tasks: Tasks,
    /// Task management functions whose commands are still being carried out.
    managing: Vec<Managing>,
    done: (mpsc::UnboundedSender<Done>, mpsc::UnboundedReceiver<Done>),
}

/// A command that has been carried out.
struct Done {
    request: Request,
    reply: Reply,
}

/// A task management function that waits for the end of what it aborted, so that nothing lands after its answer.
struct Managing {
    itt: u32,
    pending: HashSet<u32>,
}

/// Why a connection cannot go on.
enum End {
    /// Said goodbye, or broke the rules.
    Because(String),
    /// Broke the rules, and is told so.
    Rejected(Bhs, u8, String),
}

impl<M: Medium> Connection<M> {
    pub(super) fn new(
        reader: PduReader<OwnedReadHalf>,
        writer: PduWriter<OwnedWriteHalf>,
        accepted: &Accepted,
        unit: Option<Arc<Unit<M>>>,
        nexus: Arc<Nexus>,
        names: Vec<String>,
        local: SocketAddr,
    ) -> Self {
        let out = Out {
            writer,
            params: accepted.params.clone(),
            stat_sn: accepted.stat_sn,
            exp_cmd_sn: accepted.exp_cmd_sn,
            outstanding: 0,
        };
        let (tasks, managing) = (Tasks::default(), Vec::new());
        Self { reader, out, unit, nexus, names, local, tasks, managing, done: mpsc::unbounded_channel() }
    }

    /// Runs until the connection ends, and says why it did. Commands under way then go on to their end, without
    /// an answer. `reset` is called when the initiator resets the unit.
    pub(super) async fn run(mut self, reset: impl Fn()) -> String {
        loop {
            let step = tokio::select! {
                pdu = self.reader.read() => match pdu {
                    Ok(Some(pdu)) => self.handle(pdu, &reset),
                    Ok(None) => Err(End::Because("the initiator closed the connection".to_owned())),
                    Err(PduError::DataDigest { bhs, got, computed }) => {
                        let why = format!("data digest {got:#010x}, computed {computed:#010x}");
                        Err(End::Rejected(bhs, DATA_DIGEST_ERROR, why))
                    }
                    Err(error @ PduError::Oversized { bhs, .. }) => {
                        Err(End::Rejected(bhs, PROTOCOL_ERROR, error.to_string()))
                    }
                    Err(error) => Err(End::Because(error.to_string())),
                },
                Some(done) = self.done.1.recv() => {
                    self.finish(done);
                    Ok(())
                }
                sent = self.out.writer.flush(), if self.out.writer.has_queued() => {
                    sent.map_err(|error| End::Because(format!("sending failed: {error}")))
                }
            };
            match step {
                Ok(()) => {}
                Err(End::Because(why)) => {
                    // An answer to a logout may be waiting; if the peer is gone, so be it.
                    let _ = self.out.writer.flush().await;
                    return why;
                }
                Err(End::Rejected(bhs, reason, why)) => {
                    self.out.reject(&bhs, reason);
                    let _ = self.out.writer.flush().await;
                    return format!("rejected {bhs:?}: {why}");
                }
            }
        }
    }

    fn handle(&mut self, pdu: Pdu, reset: &impl Fn()) -> Result<(), End> {
        let opcode = pdu.bhs.opcode();
        if self.unit.is_none()
            && !matches!(opcode, Opcode::TextRequest | Opcode::LogoutRequest | Opcode::NopOut)
        {
            return Err(End::Rejected(
                pdu.bhs,
                PROTOCOL_ERROR,
                "a discovery session takes text only".to_owned(),
            ));
        }
        let numbered = !matches!(opcode, Opcode::DataOut | Opcode::SnackRequest);
        if numbered && !self.count_command(&pdu.bhs)? {
            return Ok(());
        }
        match opcode {
            Opcode::ScsiCommand => self.command(pdu),
            Opcode::DataOut => self.data_out(pdu),
            Opcode::NopOut => {
                self.nop_out(&pdu);
                Ok(())
            }
            Opcode::TaskManagementRequest => {
                self.manage(&pdu.bhs, reset);
                Ok(())
            }
            Opcode::TextRequest => self.text(&pdu),
            Opcode::LogoutRequest => self.logout(&pdu.bhs),
            _ => Err(End::Rejected(pdu.bhs, COMMAND_NOT_SUPPORTED, format!("{opcode:?} is not served"))),
        }
    }

    /// Whether a request is the next one. With one connection a gap cannot be filled any more; what lies
    /// outside the window is passed over in silence (RFC 7143, 4.2.2.1).
    fn count_command(&mut self, bhs: &Bhs) -> Result<bool, End> {
        let ahead = bhs.sequence_number().wrapping_sub(self.out.exp_cmd_sn).cast_signed();
        if bhs.is_immediate() {
            return Ok(true);
        }
        match ahead {
            0 => {
                self.out.exp_cmd_sn = self.out.exp_cmd_sn.wrapping_add(1);
                Ok(true)
            }
            ..0 => Ok(false),
            _ => {
                let why = format!("CmdSN {} where {} was due", bhs.sequence_number(), self.out.exp_cmd_sn);
                Err(End::Rejected(*bhs, PROTOCOL_ERROR, why))
            }
        }
    }

    fn command(&mut self, pdu: Pdu) -> Result<(), End> {
        let Some(command) = pdu.bhs.view::<ScsiCommand>().copied() else { return Ok(()) };
        let itt = command.itt.get();
        if self.tasks.contains(itt) || itt == RESERVED_TAG {
            let why = format!("task tag {itt:#x} is in use or reserved");
            return Err(End::Rejected(pdu.bhs, PROTOCOL_ERROR, why));
        }
        let writes = command.flags & 0x20 != 0;
        let unsolicited = command.flags & 0x80 == 0;
        if unsolicited && (self.out.params.initial_r2t || !writes) || !pdu.data.is_empty() && !writes {
            let why = "it brings or announces data that was not negotiated".to_owned();
            return Err(End::Rejected(pdu.bhs, PROTOCOL_ERROR, why));
        }
        let expected = command.expected_data_length.get() as usize;
        let request = Request { itt, lun: command.lun, cdb: command.cdb, expected, writes, counted: false };
        if writes && expected > MAX_TRANSFER || pdu.data.len() > expected {
            let reply = Reply {
                status: Status::CheckCondition,
                sense: Some(Sense::INVALID_FIELD_IN_CDB),
                data: Payload::new(),
                needed: 0,
            };
            self.out.respond(&request, reply);
            return Ok(());
        }
        let next = self.tasks.start(request, pdu.data.into(), unsolicited, self.burst());
        self.out.outstanding = self.tasks.len();
        self.go_on(next);
        Ok(())
    }

    fn data_out(&mut self, pdu: Pdu) -> Result<(), End> {
        let Some(header) = pdu.bhs.view::<DataOut>().copied() else { return Ok(()) };
        let ttt = Some(header.ttt.get()).filter(|&ttt| ttt != RESERVED_TAG);
        let (offset, is_final) = (header.buffer_offset.get() as usize, header.flags & 0x80 != 0);
        let burst = self.burst();
        let next = self.tasks.data(header.itt.get(), ttt, offset, pdu.data, is_final, burst);
        self.go_on(next.map_err(|why| End::Rejected(pdu.bhs, PROTOCOL_ERROR, why))?);
        Ok(())
    }

    fn go_on(&mut self, next: Next) {
        match next {
            Next::Wait => {}
            Next::Ask(ask) => self.out.ask(ask),
            Next::CarryOut(request, data) => {
                let Some(unit) = self.unit.clone() else { return };
                let (nexus, done) = (Arc::clone(&self.nexus), self.done.0.clone());
                tokio::spawn(async move {
                    let reply = unit.execute(&nexus, request.lun, &request.cdb, &data).await;
                    // The connection may be gone; the command was carried out all the same.
                    let _ = done.send(Done { request, reply });
                });
            }
        }
    }

    fn finish(&mut self, done: Done) {
        let is_wanted = self.tasks.finish(&done.request);
        self.out.outstanding = self.tasks.len();
        let itt = done.request.itt;
        if is_wanted {
            self.out.respond(&done.request, done.reply);
        }
        let next = self.tasks.next_waiting(self.burst());
        self.go_on(next);
        for managing in &mut self.managing {
            managing.pending.remove(&itt);
        }
        for managing in self.managing.extract_if(.., |managing| managing.pending.is_empty()) {
            self.out.managed(managing.itt, FUNCTION_COMPLETE);
        }
    }

    fn manage(&mut self, bhs: &Bhs, reset: &impl Fn()) {
        let Some(request) = bhs.view::<TaskManagementRequest>() else { return };
        let itt = request.itt.get();
        let function = request.flags & 0x7f;
        let only = match function {
            ABORT_TASK => Some(request.referenced_task_tag.get()),
            ABORT_TASK_SET | CLEAR_TASK_SET | LOGICAL_UNIT_RESET | TARGET_WARM_RESET => None,
            _ => return self.out.managed(itt, FUNCTION_NOT_SUPPORTED),
        };
        if function != TARGET_WARM_RESET && request.lun.number() != Some(0) {
            return self.out.managed(itt, LUN_DOES_NOT_EXIST);
        }
        if matches!(function, LOGICAL_UNIT_RESET | TARGET_WARM_RESET) {
            self.nexus.set_reset();
            reset();
        }
        let pending = self.tasks.abort(only);
        self.out.outstanding = self.tasks.len();
        if pending.is_empty() {
            self.out.managed(itt, FUNCTION_COMPLETE);
        } else {
            self.managing.push(Managing { itt, pending });
        }
    }

    fn nop_out(&mut self, pdu: &Pdu) {
        let Some(request) = pdu.bhs.view::<NopOut>() else { return };
        // Without a task tag it only confirms a StatSN.
        if request.itt.get() == RESERVED_TAG {
            return;
        }
        let mut response = NopIn::new();
        response.flags = 0x80;
        response.lun = request.lun;
        response.itt = request.itt;
        response.ttt = RESERVED_TAG.into();
        let mut data: Payload = pdu.data.clone().into();
        data.truncate(self.out.params.max_send_segment as usize);
        self.out.queue(response.into_bhs(), true, data.pieces());
    }

    /// SendTargets (RFC 7143, appendix C): every volume in a discovery session, the own one in a normal session.
    fn text(&mut self, pdu: &Pdu) -> Result<(), End> {
        let Some(request) = pdu.bhs.view::<TextRequest>() else { return Ok(()) };
        if request.flags & 0x40 != 0 {
            let why = "text over several PDUs is not served".to_owned();
            return Err(End::Rejected(pdu.bhs, PROTOCOL_ERROR, why));
        }
        let keys = Keys::parse(&pdu.data)
            .map_err(|error| End::Rejected(pdu.bhs, PROTOCOL_ERROR, error.to_string()))?;
        let own = self.unit.as_ref().map(|unit| unit.medium().view().target_name.as_str());
        let mut answers = Keys::new();
        for (key, value) in keys.iter() {
            if key != "SendTargets" {
                answers.push(key, "NotUnderstood");
                continue;
            }
            let shown = self.names.iter().filter(|name| match (value, own) {
                ("All", None) => true,
                ("", Some(own)) => *name == own,
                (wanted, None) => *name == wanted,
                (wanted, Some(own)) => *name == wanted && wanted == own,
            });
            for name in shown {
                answers.push("TargetName", name);
                answers.push("TargetAddress", format!("{},1", self.local));
            }
        }
        let mut response = TextResponse::new();
        response.flags = 0x80;
        response.itt = request.itt;
        response.ttt = RESERVED_TAG.into();
        self.out.queue(response.into_bhs(), true, &[Bytes::from(answers.to_bytes())]);
        Ok(())
    }

    fn logout(&mut self, bhs: &Bhs) -> Result<(), End> {
        let Some(request) = bhs.view::<LogoutRequest>() else { return Ok(()) };
        let mut response = LogoutResponse::new();
        response.flags = 0x80;
        response.itt = request.itt;
        self.out.queue(response.into_bhs(), true, &[]);
        Err(End::Because("logged out".to_owned()))
    }

    fn burst(&self) -> usize {
        self.out.params.max_burst as usize
    }
}

/// What goes to the initiator, with the numbers that every response carries.
struct Out {
    writer: PduWriter<OwnedWriteHalf>,
    params: Params,
    stat_sn: u32,
    exp_cmd_sn: u32,
    outstanding: usize,
}

impl Out {
    /// Queues a response; one that carries a status takes a StatSN.
    fn queue(&mut self, mut bhs: Bhs, has_status: bool, data: &[Bytes]) {
        let outstanding = u32::try_from(self.outstanding).unwrap_or(WINDOW).min(WINDOW);
        let max_cmd_sn = self.exp_cmd_sn.wrapping_add(WINDOW - outstanding).wrapping_sub(1);
        bhs.set_response_numbers(self.stat_sn, self.exp_cmd_sn, max_cmd_sn);
        if has_status {
            self.stat_sn = self.stat_sn.wrapping_add(1);
        }
        self.writer.queue(bhs, data);
    }

    fn ask(&mut self, ask: Ask) {
        let mut r2t = ReadyToTransfer::new();
        r2t.flags = 0x80;
        r2t.lun = ask.lun;
        r2t.itt = ask.itt.into();
        r2t.ttt = ask.ttt.into();
        r2t.r2t_sn = ask.r2t_sn.into();
        r2t.buffer_offset = u32::try_from(ask.offset).unwrap_or(u32::MAX).into();
        r2t.desired_data_length = u32::try_from(ask.length).unwrap_or(u32::MAX).into();
        self.queue(r2t.into_bhs(), false, &[]);
    }

    fn managed(&mut self, itt: u32, response_code: u8) {
        let mut response = TaskManagementResponse::new();
        response.flags = 0x80;
        response.response = response_code;
        response.itt = itt.into();
        self.queue(response.into_bhs(), true, &[]);
    }

    /// A Reject carries the header that it rejects (RFC 7143, 11.17).
    fn reject(&mut self, bhs: &Bhs, reason: u8) {
        let mut reject = Reject::new();
        reject.flags = 0x80;
        reject.reason = reason;
        reject.tag = RESERVED_TAG.into();
        self.queue(reject.into_bhs(), true, &[Bytes::copy_from_slice(&bhs.0)]);
    }

    /// Data and status of a command. Good status travels with the last piece of data.
    fn respond(&mut self, request: &Request, mut reply: Reply) {
        let moved = if request.writes { reply.needed } else { reply.data.len() };
        let (flag, residual) = match (moved, request.expected) {
            _ if reply.status != Status::Good => (0, 0),
            (moved, expected) if moved < expected => (UNDERFLOW, expected - moved),
            (moved, expected) if moved > expected => (OVERFLOW, moved - expected),
            _ => (0, 0),
        };
        let residual = u32::try_from(residual).unwrap_or(u32::MAX);
        reply.data.truncate(request.expected);
        let collapses = reply.status == Status::Good;
        if !request.writes && !reply.data.is_empty() {
            self.data_in(request, &reply.data, collapses.then_some((flag, residual)));
            if collapses {
                return;
            }
        }
        let mut response = ScsiResponse::new();
        response.flags = 0x80 | flag;
        response.status = reply.status.into();
        response.itt = request.itt.into();
        response.residual_count = residual.into();
        let sense = reply.sense.map(|sense| {
            let sense = sense.to_bytes();
            let length = u16::try_from(sense.len()).unwrap_or(0).to_be_bytes();
            Bytes::from([length.as_slice(), &sense].concat())
        });
        self.queue(response.into_bhs(), true, sense.as_slice());
    }

    /// Data in segments that the initiator takes, the F bit at the end of each burst.
    fn data_in(&mut self, request: &Request, data: &Payload, status: Option<(u8, u32)>) {
        let segment = self.params.max_send_segment as usize;
        let burst = self.params.max_burst as usize;
        let (mut offset, mut data_sn) = (0, 0_u32);
        while offset < data.len() {
            let burst_end = (offset / burst + 1) * burst;
            let end = data.len().min(offset + segment).min(burst_end);
            let is_last = end == data.len();
            let mut data_in = DataIn::new();
            data_in.itt = request.itt.into();
            data_in.ttt = RESERVED_TAG.into();
            data_in.data_sn = data_sn.into();
            data_in.buffer_offset = u32::try_from(offset).unwrap_or(u32::MAX).into();
            if is_last || end == burst_end {
                data_in.flags |= 0x80;
            }
            let has_status = is_last && status.is_some();
            if let Some((flag, residual)) = status.filter(|_| is_last) {
                data_in.flags |= 0x01 | flag;
                data_in.residual_count = residual.into();
            }
            self.queue(data_in.into_bhs(), has_status, data.slice(offset..end).pieces());
            offset = end;
            data_sn += 1;
        }
    }
}
