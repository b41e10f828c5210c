//! Target to host.

use lungate_iscsi::login::LoginStatus;
use lungate_iscsi::pdu::header::{
    BHS_LENGTH, DataIn, LoginResponse, Reject, ScsiResponse, TaskManagementResponse, TextResponse,
};
use lungate_iscsi::pdu::text::Keys;
use lungate_iscsi::pdu::{Bhs, LunField, Opcode, RESERVED_TAG};

use super::text::number;
use super::{Ends, Rewriter, Task, TaskKind, Violation};

const CONTINUE: u8 = 0x40;
/// Residual flags of Data-In and SCSI Response (RFC 7143, 11.4.1).
const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;
const STATUS: u8 = 0x01;
/// Reasons of a Reject after which the task lives on (RFC 7143, 11.17.1).
const DATA_DIGEST_ERROR: u8 = 0x02;
const TASK_IN_PROGRESS: u8 = 0x07;

impl Rewriter {
    pub(super) fn header_to_host(&mut self, bhs: &mut Bhs) {
        let itt = bhs.itt();
        match bhs.opcode() {
            Opcode::ScsiResponse => {
                if let Some(task) = self.tasks.remove(&itt) {
                    set_residual(bhs, &task);
                }
            }
            Opcode::DataIn => {
                bhs.set_lun(self.to_host_form(bhs.lun(), itt));
                if bhs.flags() & STATUS != 0 {
                    self.tasks.remove(&itt);
                }
            }
            Opcode::ReadyToTransfer => {
                bhs.set_lun(self.to_host_form(bhs.lun(), itt));
                if let Some(task) = self.tasks.get_mut(&itt) {
                    task.awaiting_data += 1;
                }
            }
            Opcode::TaskManagementResponse => {
                let succeeded = bhs.view::<TaskManagementResponse>().is_some_and(|r| r.response == 0);
                if let Some(Task { kind: TaskKind::Management(ends), .. }) = self.tasks.remove(&itt)
                    && succeeded
                {
                    self.forget(ends);
                }
            }
            Opcode::NopIn if bhs.ttt() != RESERVED_TAG => self.keep_tagged(bhs),
            // Events of this LUN are LUN 0's; those of another are nobody's here.
            Opcode::AsyncMessage if bhs.lun() == self.real_lun => bhs.set_lun(LunField::ZERO),
            Opcode::AsyncMessage if bhs.lun() != LunField::ZERO => bhs.set_lun(self.absent_lun),
            _ => {}
        }
    }

    pub(super) fn whole_to_host(&mut self, bhs: &mut Bhs, data: &[u8]) -> Result<Vec<u8>, Violation> {
        match bhs.opcode() {
            Opcode::LoginResponse => self.login_response(bhs, data),
            Opcode::TextResponse => self.text_response(bhs, data),
            Opcode::DataIn => self.described(bhs, data),
            Opcode::Reject => Ok(self.reject(bhs, data)),
            _ => Ok(data.to_vec()),
        }
    }

    /// A LUN of the target in the form in which the host wrote it; zero stays zero.
    fn to_host_form(&self, lun: LunField, itt: u32) -> LunField {
        if lun == LunField::ZERO {
            return lun;
        }
        self.tasks.get(&itt).map_or(LunField::ZERO, |task| task.sent.lun())
    }

    /// The LUN beside a transfer tag is kept: the host returns both, and must return what the target sent.
    fn keep_tagged(&mut self, bhs: &mut Bhs) {
        self.tagged = Some((bhs.ttt(), bhs.lun()));
        bhs.set_lun(LunField::ZERO);
    }

    fn forget(&mut self, ends: Ends) {
        match ends {
            Ends::Nothing => {}
            Ends::One(tag) => {
                self.tasks.remove(&tag);
            }
            Ends::AllBefore(cmd_sn) => {
                let is_before = |task: &Task| task.cmd_sn.wrapping_sub(cmd_sn).cast_signed() < 0;
                self.tasks.retain(|_, task| !is_before(task));
            }
        }
    }

    fn login_response(&mut self, bhs: &mut Bhs, data: &[u8]) -> Result<Vec<u8>, Violation> {
        let Some(response) = bhs.view::<LoginResponse>().copied() else { return Ok(data.to_vec()) };
        let is_last = response.flags & CONTINUE == 0;
        let mut keys = self.login.from_target.join(data, is_last)?;
        if response.status_class == 1 {
            // A redirection would name the real target's address.
            let why =
                format!("the real target redirects to {}", keys.get("TargetAddress").unwrap_or("nowhere"));
            return Err(Violation::Refused { status: LoginStatus::SERVICE_UNAVAILABLE, why });
        }
        self.login.note_digests(&keys);
        if let Some(length) = keys.get("MaxRecvDataSegmentLength") {
            self.login.target_segment = number(length);
        }
        keys.retain(|key, _| !matches!(key, "TargetAddress" | "TargetAlias"));
        keys.replace("TargetName", &self.port.target_name);
        // The larger offer would win (RFC 7143, 13.15), and 2 s is what targets offer. Waiting is there so that
        // a target can clean up; here the shim itself holds a new login until that is done.
        if self.login.no_wait {
            keys.replace("DefaultTime2Wait", "0");
        }
        // T, and the next stage is full feature phase.
        if response.status_class == 0 && response.flags & 0x83 == 0x83 {
            self.login.full_feature = true;
        }
        Ok(keys.to_bytes())
    }

    /// Discovery shows the one target, without an address: "where you asked" (RFC 7143, appendix C).
    fn text_response(&mut self, bhs: &mut Bhs, data: &[u8]) -> Result<Vec<u8>, Violation> {
        let Some(response) = bhs.view::<TextResponse>().copied() else { return Ok(data.to_vec()) };
        if response.ttt.get() != RESERVED_TAG {
            self.keep_tagged(bhs);
        }
        let is_last = response.flags & CONTINUE == 0;
        let keys = self.login.from_target.join(data, is_last)?;
        let real = self.port.backend.target_name.as_str();
        let mut shown = Keys::new();
        for (key, value) in keys.iter() {
            match key {
                "TargetName" if value == real => shown.push(key, &self.port.target_name),
                "TargetName" | "TargetAddress" | "TargetAlias" => {}
                _ => shown.push(key, value),
            }
        }
        Ok(shown.to_bytes())
    }

    /// The answer to a question of identity.
    fn described(&mut self, bhs: &mut Bhs, data: &[u8]) -> Result<Vec<u8>, Violation> {
        let Some(mut header) = bhs.view::<DataIn>().copied() else { return Ok(data.to_vec()) };
        let itt = header.itt.get();
        header.lun = self.to_host_form(header.lun, itt);
        let Some(task) = self.tasks.get_mut(&itt) else { return Ok(data.to_vec()) };
        let TaskKind::Described { data: described, expected, replaced } = &mut task.kind else {
            return Ok(data.to_vec());
        };
        if *replaced || header.buffer_offset.get() != 0 {
            let what = "the real target split a description of at most 512 bytes over several Data-Ins";
            return Err(Violation::Protocol(what.to_owned()));
        }
        *replaced = true;
        let shown = described[..described.len().min(*expected)].to_vec();
        *bhs = header.into_bhs();
        if header.flags & STATUS != 0
            && let Some(task) = self.tasks.remove(&itt)
        {
            set_residual(bhs, &task);
        }
        Ok(shown)
    }

    /// A Reject carries the header that was rejected; the host gets it as it sent it. Nothing follows for a
    /// request that was rejected whole (RFC 7143, 11.17.1): the task is over. Where only its immediate data was
    /// bad, or its tag stands for an earlier task, an answer is still to come.
    fn reject(&mut self, bhs: &Bhs, data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        let Some(copy) = data.first_chunk_mut::<BHS_LENGTH>() else { return data };
        let mut rejected = Bhs(*copy);
        let reason = bhs.view::<Reject>().map_or(0, |reject| reject.reason);
        match self.tasks.get(&rejected.itt()) {
            Some(task) if task.sent.opcode() == rejected.opcode() => {
                rejected = task.sent;
                if !matches!(reason, DATA_DIGEST_ERROR | TASK_IN_PROGRESS) {
                    self.tasks.remove(&rejected.itt());
                }
            }
            Some(task) => rejected.set_lun(task.sent.lun()),
            None if rejected.lun() == self.real_lun => rejected.set_lun(LunField::ZERO),
            None => {}
        }
        *copy = rejected.0;
        data
    }
}

/// Where data was replaced, the residual count is that of what was put in its place. Data-In and SCSI Response
/// have flags and count at the same offsets.
fn set_residual(bhs: &mut Bhs, task: &Task) {
    let TaskKind::Described { data, expected, replaced: true } = &task.kind else { return };
    let (flag, residual) = match (data.len(), *expected) {
        (length, expected) if length < expected => (UNDERFLOW, expected - length),
        (length, expected) if length > expected => (OVERFLOW, length - expected),
        _ => (0, 0),
    };
    let count = u32::try_from(residual).unwrap_or(u32::MAX).into();
    if let Some(mut response) = bhs.view::<ScsiResponse>().copied() {
        response.flags = response.flags & !(OVERFLOW | UNDERFLOW) | flag;
        response.residual_count = count;
        *bhs = response.into_bhs();
    } else if let Some(mut data_in) = bhs.view::<DataIn>().copied() {
        data_in.flags = data_in.flags & !(OVERFLOW | UNDERFLOW) | flag;
        data_in.residual_count = count;
        *bhs = data_in.into_bhs();
    }
}
