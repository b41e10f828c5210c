//! The task that owns a session's connection: one loop, no locks.

use std::collections::HashMap;
use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::{Completion, Task, Transfer};
use crate::login::initiator::LoggedIn;
use crate::login::params::Params;
use crate::payload::Payload;
use crate::pdu::header::{
    AsyncMessage, DataIn, DataOut, LogoutRequest, LogoutResponse, NopIn, NopOut, ReadyToTransfer, Reject,
    ScsiCommand, ScsiResponse,
};
use crate::pdu::{Bhs, LunField, Opcode, Pdu, PduReader, PduWriter, RESERVED_TAG};
use crate::scsi::{Sense, Status};

/// The tag of this side's own NOP-Outs and its logout; tasks never use it.
const OWN_TAG: u32 = 0xffff_fffe;

/// What the session's holder asks for.
#[derive(Debug)]
pub(super) enum Order {
    Execute { task: Task, reply: oneshot::Sender<Completion> },
    Logout,
}

/// A command that has no answer yet.
struct InFlight {
    lun: LunField,
    /// What is being written; R2Ts ask for pieces of it.
    out: Payload,
    /// What has been read, and how much is expected.
    data: Payload,
    expected: usize,
    reply: oneshot::Sender<Completion>,
}

pub(super) struct Connection {
    reader: PduReader<OwnedReadHalf>,
    writer: PduWriter<OwnedWriteHalf>,
    orders: mpsc::UnboundedReceiver<Order>,
    params: Params,
    keepalive: Duration,
    cmd_sn: u32,
    max_cmd_sn: u32,
    exp_stat_sn: u32,
    next_tag: u32,
    in_flight: HashMap<u32, InFlight>,
}

/// What a PDU from the target leads to.
type Handled = Result<(), String>;

impl Connection {
    pub(super) fn new(
        reader: PduReader<OwnedReadHalf>,
        writer: PduWriter<OwnedWriteHalf>,
        logged_in: LoggedIn,
        orders: mpsc::UnboundedReceiver<Order>,
        keepalive: Duration,
    ) -> Self {
        Self {
            reader,
            writer,
            orders,
            params: logged_in.params,
            keepalive,
            cmd_sn: logged_in.cmd_sn,
            max_cmd_sn: logged_in.max_cmd_sn,
            exp_stat_sn: logged_in.exp_stat_sn,
            next_tag: 0,
            in_flight: HashMap::new(),
        }
    }

    /// Runs until the connection ends, and says why it did. What is unanswered then stays so.
    pub(super) async fn run(mut self) -> String {
        let mut heard = Instant::now();
        let mut asked = false;
        loop {
            let window_open = (self.max_cmd_sn.wrapping_sub(self.cmd_sn).cast_signed()) >= 0;
            let handled = tokio::select! {
                pdu = self.reader.read() => {
                    (heard, asked) = (Instant::now(), false);
                    match pdu {
                        Ok(Some(pdu)) => self.handle(pdu),
                        Ok(None) => Err("the target closed the connection".to_owned()),
                        Err(error) => Err(error.to_string()),
                    }
                }
                sent = self.writer.flush(), if self.writer.has_queued() => {
                    sent.map_err(|error| format!("sending failed: {error}"))
                }
                order = self.orders.recv(), if window_open => match order {
                    Some(Order::Execute { task, reply }) => {
                        self.start(task, reply);
                        Ok(())
                    }
                    Some(Order::Logout) => {
                        self.queue_logout();
                        Ok(())
                    }
                    None => Err("it was ended on this side".to_owned()),
                },
                () = sleep_until(heard + self.keepalive * if asked { 2 } else { 1 }) => {
                    if asked {
                        Err(format!("the target was silent for {:?}", self.keepalive * 2))
                    } else {
                        asked = true;
                        self.queue_nop_out(LunField::ZERO, OWN_TAG, RESERVED_TAG, Payload::new());
                        Ok(())
                    }
                }
            };
            if let Err(why) = handled {
                return why;
            }
        }
    }

    fn start(&mut self, task: Task, reply: oneshot::Sender<Completion>) {
        let tag = self.free_tag();
        let mut command = ScsiCommand::new();
        command.lun = task.lun;
        command.itt = tag.into();
        command.cdb = task.cdb;
        command.cmd_sn = self.cmd_sn.into();
        command.exp_stat_sn = self.exp_stat_sn.into();
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        // F, and the SIMPLE task attribute.
        command.flags = 0x80 | 0x01;
        let (mut out, mut expected) = (Payload::new(), 0);
        match task.transfer {
            Transfer::None => {}
            Transfer::In(length) => {
                command.flags |= 0x40;
                command.expected_data_length = length.into();
                expected = length as usize;
            }
            Transfer::Out(payload) => {
                command.flags |= 0x20;
                command.expected_data_length = u32::try_from(payload.len()).unwrap_or(u32::MAX).into();
                out = payload;
            }
        }
        let segment = self.params.max_send_segment as usize;
        let burst = (self.params.first_burst as usize).min(out.len());
        let immediate = if self.params.immediate_data { burst.min(segment) } else { 0 };
        let unsolicited = if self.params.initial_r2t { immediate } else { burst };
        if unsolicited > immediate {
            command.flags &= !0x80;
        }
        self.writer.queue(command.into_bhs(), out.slice(0..immediate).pieces());
        self.queue_burst(tag, task.lun, RESERVED_TAG, &out, immediate, unsolicited);
        self.in_flight.insert(tag, InFlight { lun: task.lun, out, data: Payload::new(), expected, reply });
    }

    /// Queues the Data-Outs of `out[from..to]`.
    fn queue_burst(&mut self, tag: u32, lun: LunField, ttt: u32, out: &Payload, from: usize, to: usize) {
        let segment = self.params.max_send_segment as usize;
        let (mut offset, mut data_sn) = (from, 0_u32);
        while offset < to {
            let end = to.min(offset + segment);
            let mut data_out = DataOut::new();
            data_out.flags = if end == to { 0x80 } else { 0 };
            data_out.lun = lun;
            data_out.itt = tag.into();
            data_out.ttt = ttt.into();
            data_out.exp_stat_sn = self.exp_stat_sn.into();
            data_out.data_sn = data_sn.into();
            data_out.buffer_offset = u32::try_from(offset).unwrap_or(u32::MAX).into();
            self.writer.queue(data_out.into_bhs(), out.slice(offset..end).pieces());
            offset = end;
            data_sn += 1;
        }
    }

    fn queue_nop_out(&mut self, lun: LunField, itt: u32, ttt: u32, data: Payload) {
        let mut nop = NopOut::new();
        nop.opcode |= 0x40;
        nop.flags = 0x80;
        nop.lun = lun;
        nop.itt = itt.into();
        nop.ttt = ttt.into();
        nop.cmd_sn = self.cmd_sn.into();
        nop.exp_stat_sn = self.exp_stat_sn.into();
        self.writer.queue(nop.into_bhs(), data.pieces());
    }

    fn queue_logout(&mut self) {
        let mut logout = LogoutRequest::new();
        logout.opcode |= 0x40;
        // Reason 0: close the session.
        logout.flags = 0x80;
        logout.itt = OWN_TAG.into();
        logout.cmd_sn = self.cmd_sn.into();
        logout.exp_stat_sn = self.exp_stat_sn.into();
        self.writer.queue(logout.into_bhs(), &[]);
    }

    fn free_tag(&mut self) -> u32 {
        loop {
            let tag = self.next_tag;
            self.next_tag = self.next_tag.wrapping_add(1) & 0x7fff_ffff;
            if !self.in_flight.contains_key(&tag) {
                return tag;
            }
        }
    }

    fn handle(&mut self, pdu: Pdu) -> Handled {
        let (_, max_cmd_sn) = pdu.bhs.command_window();
        // Only forward, in serial arithmetic (RFC 7143, 4.2.2.1).
        if max_cmd_sn.wrapping_sub(self.max_cmd_sn).cast_signed() > 0 {
            self.max_cmd_sn = max_cmd_sn;
        }
        match pdu.bhs.opcode() {
            Opcode::DataIn => self.data_in(pdu),
            Opcode::ScsiResponse => self.response(pdu),
            Opcode::ReadyToTransfer => self.ready(&pdu.bhs),
            Opcode::NopIn => self.nop_in(pdu),
            Opcode::AsyncMessage => self.async_message(&pdu.bhs),
            Opcode::LogoutResponse => {
                let response = pdu.bhs.view::<LogoutResponse>().map_or(0, |logout| logout.response);
                Err(format!("logged out (response {response})"))
            }
            Opcode::Reject => {
                let reason = pdu.bhs.view::<Reject>().map_or(0, |reject| reject.reason);
                Err(format!("the target rejected a PDU, reason {reason:#04x}"))
            }
            _ => Err(format!("the target sent what a target does not send here: {:?}", pdu.bhs)),
        }
    }

    fn data_in(&mut self, pdu: Pdu) -> Handled {
        let Some(header) = pdu.bhs.view::<DataIn>() else { return Ok(()) };
        let tag = header.itt.get();
        let Some(task) = self.in_flight.get_mut(&tag) else {
            return Err(format!("data for the unknown task {tag:#x}"));
        };
        // Data comes in order: this side negotiates nothing else.
        let (offset, end) = (header.buffer_offset.get() as usize, task.data.len() + pdu.data.len());
        if offset != task.data.len() || end > task.expected {
            return Err(format!(
                "data of task {tag:#x} at {offset}+{}, where {} of {} bytes had come",
                pdu.data.len(),
                task.data.len(),
                task.expected
            ));
        }
        task.data.push(pdu.data.clone());
        if header.flags & 0x01 != 0 {
            self.count_status(header.stat_sn.get())?;
            self.complete(tag, header.status.into(), None);
        }
        Ok(())
    }

    fn response(&mut self, pdu: Pdu) -> Handled {
        let Some(header) = pdu.bhs.view::<ScsiResponse>() else { return Ok(()) };
        self.count_status(header.stat_sn.get())?;
        let tag = header.itt.get();
        if !self.in_flight.contains_key(&tag) {
            return Err(format!("an answer to the unknown task {tag:#x}"));
        }
        // Response code 1: target failure, no status (RFC 7143, 11.4.3).
        if header.response != 0 {
            self.complete(tag, Status::CheckCondition, Some(Sense::INTERNAL_FAILURE));
            return Ok(());
        }
        // The sense data stands behind its length (RFC 7143, 11.4.7.2).
        let sense = pdu.data.split_at_checked(2).and_then(|(length, rest)| {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            Sense::parse(rest.get(..length)?)
        });
        self.complete(tag, header.status.into(), sense);
        Ok(())
    }

    fn ready(&mut self, bhs: &Bhs) -> Handled {
        let Some(header) = bhs.view::<ReadyToTransfer>().copied() else { return Ok(()) };
        let tag = header.itt.get();
        let Some(task) = self.in_flight.get(&tag) else {
            return Err(format!("an R2T for the unknown task {tag:#x}"));
        };
        let from = header.buffer_offset.get() as usize;
        let to = from.saturating_add(header.desired_data_length.get() as usize);
        if to > task.out.len() || from == to {
            return Err(format!(
                "an R2T for bytes {from} to {to} of task {tag:#x}, which has {}",
                task.out.len()
            ));
        }
        let (lun, out) = (task.lun, task.out.clone());
        self.queue_burst(tag, lun, header.ttt.get(), &out, from, to);
        Ok(())
    }

    fn nop_in(&mut self, pdu: Pdu) -> Handled {
        let Some(header) = pdu.bhs.view::<NopIn>() else { return Ok(()) };
        if header.itt.get() != RESERVED_TAG {
            self.count_status(header.stat_sn.get())?;
        }
        if header.ttt.get() != RESERVED_TAG {
            self.queue_nop_out(header.lun, RESERVED_TAG, header.ttt.get(), pdu.data.clone().into());
        }
        Ok(())
    }

    fn async_message(&mut self, bhs: &Bhs) -> Handled {
        let Some(header) = bhs.view::<AsyncMessage>() else { return Ok(()) };
        self.count_status(header.stat_sn.get())?;
        match header.event {
            // Logout wanted, connection or session about to be dropped (RFC 7143, 11.9.1).
            1 => {
                self.queue_logout();
                Ok(())
            }
            2 | 3 => Err(format!("the target announced its end (event {})", header.event)),
            _ => Ok(()),
        }
    }

    /// Every status has the next number; a gap is a lost answer (RFC 7143, 7.1.4.1).
    fn count_status(&mut self, stat_sn: u32) -> Handled {
        if stat_sn != self.exp_stat_sn {
            return Err(format!("StatSN {stat_sn} where {} was due", self.exp_stat_sn));
        }
        self.exp_stat_sn = stat_sn.wrapping_add(1);
        Ok(())
    }

    fn complete(&mut self, tag: u32, status: Status, sense: Option<Sense>) {
        if let Some(task) = self.in_flight.remove(&tag) {
            // Nobody may be waiting any more; that is theirs to decide.
            let _ = task.reply.send(Completion { status, sense, data: task.data });
        }
    }
}
