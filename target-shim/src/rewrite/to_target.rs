//! Host to target.

use lungate_iscsi::login::LoginStatus;
use lungate_iscsi::pdu::header::{DataOut, LoginRequest, ScsiCommand, TaskManagementRequest, TextRequest};
use lungate_iscsi::pdu::text::Keys;
use lungate_iscsi::pdu::{Bhs, LunField, Opcode, RESERVED_TAG};
use lungate_iscsi::scsi::cdb::opcode;
use lungate_iscsi::scsi::disk::{identification, page, vpd};
use lungate_iscsi::scsi::{Cdb, Command};

use super::text::number;
use super::{Ends, Initiator, Rewriter, Task, TaskKind, Violation};

const CONTINUE: u8 = 0x40;
/// What the real target is asked for at most where its data is replaced: with it the answer always fits one
/// Data-In, whose data segment may have at least 512 bytes (RFC 7143, 13.12).
const DESCRIBED_ALLOCATION: u16 = 512;

/// Task management functions (RFC 7143, 11.5.1).
mod function {
    pub(super) const ABORT_TASK: u8 = 1;
    pub(super) const ABORT_TASK_SET: u8 = 2;
    pub(super) const CLEAR_TASK_SET: u8 = 4;
    pub(super) const LOGICAL_UNIT_RESET: u8 = 5;
    pub(super) const TARGET_WARM_RESET: u8 = 6;
    pub(super) const TARGET_COLD_RESET: u8 = 7;
}

impl Rewriter {
    pub(super) fn header_to_target(&mut self, bhs: &mut Bhs) {
        match bhs.opcode() {
            Opcode::ScsiCommand => self.command(bhs),
            Opcode::TaskManagementRequest => self.management(bhs),
            Opcode::DataOut => {
                bhs.set_lun(self.to_real(bhs.lun()));
                if let Some(data_out) = bhs.view::<DataOut>()
                    && data_out.flags & 0x80 != 0
                    && let Some(task) = self.tasks.get_mut(&data_out.itt.get())
                {
                    task.awaiting_data = task.awaiting_data.saturating_sub(1);
                }
            }
            Opcode::SnackRequest => bhs.set_lun(self.to_real(bhs.lun())),
            Opcode::NopOut if bhs.ttt() != RESERVED_TAG => self.give_back(bhs),
            _ => {}
        }
    }

    pub(super) fn whole_to_target(
        &mut self,
        bhs: &mut Bhs,
        data: &[u8],
    ) -> Result<(Vec<u8>, Option<Initiator>), Violation> {
        match (bhs.view::<LoginRequest>(), bhs.view::<TextRequest>()) {
            (Some(request), _) => {
                let (flags, isid) = (request.flags, request.isid);
                self.login_request(flags, isid, data)
            }
            (_, Some(request)) => {
                let is_last = request.flags & CONTINUE == 0;
                if request.ttt.get() != RESERVED_TAG {
                    self.give_back(bhs);
                }
                let mut keys = self.login.from_host.join(data, is_last)?;
                if keys.get("SendTargets").is_some_and(|name| name == self.port.target_name) {
                    keys.replace("SendTargets", &self.port.backend.target_name);
                }
                Ok((keys.to_bytes(), None))
            }
            _ => Ok((data.to_vec(), None)),
        }
    }

    /// What the host's LUN is at the real target.
    fn to_real(&self, host: LunField) -> LunField {
        if host.number() == Some(0) { self.real_lun } else { self.absent_lun }
    }

    /// The LUN that came with a transfer tag goes back as the target sent it.
    fn give_back(&self, bhs: &mut Bhs) {
        match self.tagged {
            Some((ttt, lun)) if ttt == bhs.ttt() => bhs.set_lun(lun),
            _ => bhs.set_lun(self.to_real(bhs.lun())),
        }
    }

    fn command(&mut self, bhs: &mut Bhs) {
        let Some(mut command) = bhs.view::<ScsiCommand>().copied() else { return };
        let sent = *bhs;
        command.lun = self.to_real(sent.lun());
        // REPORT LUNS may go to its well-known unit; the answer is edited either way.
        if command.cdb[0] == opcode::REPORT_LUNS && sent.lun().is_report_luns() {
            command.lun = self.real_lun;
        }
        let is_present = command.lun == self.real_lun;
        let kind = match describe(&mut command.cdb, is_present, &self.port.identity) {
            None => TaskKind::Plain,
            Some(data) => {
                let expected = command.expected_data_length.get() as usize;
                TaskKind::Described { data, expected, replaced: false }
            }
        };
        // Unsolicited data follows where the F bit is off.
        let awaiting_data = u32::from(command.flags & 0x80 == 0);
        let task = Task { sent, cmd_sn: command.cmd_sn.get(), kind, awaiting_data };
        self.tasks.insert(command.itt.get(), task);
        *bhs = command.into_bhs();
    }

    /// Functions that would reach other LUNs are narrowed to this one: both target resets become a reset of
    /// the logical unit.
    fn management(&mut self, bhs: &mut Bhs) {
        let Some(mut request) = bhs.view::<TaskManagementRequest>().copied() else { return };
        let sent = *bhs;
        let cmd_sn = request.cmd_sn.get();
        let ends = match request.flags & 0x7f {
            function::TARGET_WARM_RESET | function::TARGET_COLD_RESET => {
                request.flags = 0x80 | function::LOGICAL_UNIT_RESET;
                request.lun = self.real_lun;
                Ends::AllBefore(cmd_sn)
            }
            other => {
                request.lun = self.to_real(sent.lun());
                match other {
                    _ if request.lun != self.real_lun => Ends::Nothing,
                    function::ABORT_TASK => Ends::One(request.referenced_task_tag.get()),
                    function::ABORT_TASK_SET | function::CLEAR_TASK_SET | function::LOGICAL_UNIT_RESET => {
                        Ends::AllBefore(cmd_sn)
                    }
                    _ => Ends::Nothing,
                }
            }
        };
        let task = Task { sent, cmd_sn, kind: TaskKind::Management(ends), awaiting_data: 0 };
        self.tasks.insert(request.itt.get(), task);
        *bhs = request.into_bhs();
    }

    fn login_request(
        &mut self,
        flags: u8,
        isid: [u8; 6],
        data: &[u8],
    ) -> Result<(Vec<u8>, Option<Initiator>), Violation> {
        let is_last = flags & CONTINUE == 0;
        let mut keys = self.login.from_host.join(data, is_last)?;
        self.name_target(&mut keys)?;
        // A second connection of a session has its ISID, and here that means that the first one is replaced.
        keys.replace("MaxConnections", "1");
        let login = &mut self.login;
        if let Some(name) = keys.get("InitiatorName") {
            login.initiator = Some(name.to_owned());
        }
        login.no_wait |= keys.get("DefaultTime2Wait") == Some("0");
        if let Some(length) = keys.get("MaxRecvDataSegmentLength") {
            login.host_segment = number(length);
        }
        login.note_digests(&keys);
        let introduced = is_last && !login.introduced;
        if !introduced {
            return Ok((keys.to_bytes(), None));
        }
        login.introduced = true;
        let missing = |key: &str| Violation::Refused {
            status: LoginStatus::MISSING_PARAMETER,
            why: format!("no {key}"),
        };
        let name = login.initiator.clone().ok_or_else(|| missing("InitiatorName"))?;
        if !login.discovery && !login.target_named {
            return Err(missing("TargetName"));
        }
        Ok((keys.to_bytes(), Some(Initiator { name, isid })))
    }

    /// The port's target name becomes the real target's.
    fn name_target(&mut self, keys: &mut Keys) -> Result<(), Violation> {
        if keys.get("SessionType") == Some("Discovery") {
            self.login.discovery = true;
        }
        let Some(name) = keys.get("TargetName") else { return Ok(()) };
        if name != self.port.target_name {
            let why = format!("{name:?} is not the target of this port");
            return Err(Violation::Refused { status: LoginStatus::NOT_FOUND, why });
        }
        self.login.target_named = true;
        keys.replace("TargetName", &self.port.backend.target_name);
        Ok(())
    }
}

impl super::Login {
    /// The last value that either side names is the result: an offer is answered with one of its choices.
    pub(super) fn note_digests(&mut self, keys: &Keys) {
        if let Some(value) = keys.get("HeaderDigest") {
            self.digests.header = value == "CRC32C";
        }
        if let Some(value) = keys.get("DataDigest") {
            self.digests.data = value == "CRC32C";
        }
    }
}

/// Where a command asks a LUN who it is: what it shall say, cut to what the command has room for. The allocation
/// length is lowered so that the real target's own answer stays short.
fn describe(
    cdb: &mut Cdb,
    is_present: bool,
    identity: &lungate_catalog::identity::Identity,
) -> Option<Vec<u8>> {
    let (mut data, allocation) = match Command::parse(cdb).ok()? {
        Command::Inquiry { page: Some(page::SERIAL), allocation } if is_present => {
            (vpd(page::SERIAL, identity.serial.as_bytes()), allocation)
        }
        Command::Inquiry { page: Some(page::IDENTIFICATION), allocation } if is_present => {
            (identification(identity.naa.bytes()), allocation)
        }
        // One entry of 8 bytes, LUN 0 (SPC-5, 6.33).
        Command::ReportLuns { allocation, .. } => ([[0, 0, 0, 8, 0, 0, 0, 0], [0; 8]].concat(), allocation),
        _ => return None,
    };
    data.truncate(allocation as usize);
    let lowered = u16::try_from(allocation).unwrap_or(u16::MAX).min(DESCRIBED_ALLOCATION);
    if cdb[0] == opcode::REPORT_LUNS {
        cdb[6..10].copy_from_slice(&u32::from(lowered).to_be_bytes());
    } else {
        cdb[3..5].copy_from_slice(&lowered.to_be_bytes());
    }
    Some(data)
}
