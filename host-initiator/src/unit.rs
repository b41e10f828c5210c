//! The volume as a SCSI logical unit: takes commands, gives status, sense and data. Its identity is the volume's
//! and has nothing to do with the devices behind it.

mod describe;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use lungate_catalog::units::{BlockCount, Lba};
use lungate_catalog::view::HostView;
use lungate_iscsi::payload::Payload;
use lungate_iscsi::pdu::LunField;
use lungate_iscsi::scsi::cdb::{Blocks, CdbError};
use lungate_iscsi::scsi::{Cdb, Command, Sense, Status};

use crate::driver::{Driver, Limits, Operation};

/// The most bytes that one command may move: what the portal is ready to hold for it.
pub const MAX_TRANSFER: usize = 16 * 1024 * 1024;

/// What holds the blocks: the driver, or memory in tests.
pub trait Medium: Send + Sync + 'static {
    /// The volume.
    fn view(&self) -> &HostView;
    /// What it allows.
    fn limits(&self) -> Limits;
    /// Carries out one operation, as [`Driver::execute`] does.
    fn execute(
        &self,
        operation: &Operation,
        lba: Lba,
        blocks: BlockCount,
        data: &Payload,
    ) -> impl Future<Output = Result<Payload, Sense>> + Send;
}

impl Medium for Driver {
    fn view(&self) -> &HostView {
        Self::view(self)
    }

    fn limits(&self) -> Limits {
        Self::limits(self)
    }

    fn execute(
        &self,
        operation: &Operation,
        lba: Lba,
        blocks: BlockCount,
        data: &Payload,
    ) -> impl Future<Output = Result<Payload, Sense>> + Send {
        Self::execute(self, operation, lba, blocks, data)
    }
}

/// A volume that commands can be sent to.
#[derive(Debug)]
pub struct Unit<M> {
    medium: M,
}

/// What one initiator port has to be told before its next command (SAM-5, 5.14).
#[derive(Debug)]
pub struct Nexus {
    reset: AtomicBool,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: Status,
    /// The condition, with CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Data for the initiator.
    pub data: Payload,
    /// How many bytes from the initiator the command needs.
    pub needed: usize,
}

impl Default for Nexus {
    /// A nexus that has just come into being: its first command is told so.
    fn default() -> Self {
        Self { reset: AtomicBool::new(true) }
    }
}

impl Nexus {
    /// Lets the next command be told that the unit was reset.
    pub fn set_reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

impl<M: Medium> Unit<M> {
    /// A unit on a medium.
    pub fn new(medium: M) -> Self {
        Self { medium }
    }

    /// The medium.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// The medium, back again.
    pub fn into_medium(self) -> M {
        self.medium
    }

    /// Carries out a command. The future must be run to its end ([`Driver::execute`] says why).
    pub async fn execute(&self, nexus: &Nexus, lun: LunField, cdb: &Cdb, data: &Payload) -> Reply {
        let command = match Command::parse(cdb) {
            Ok(command) => command,
            Err(_) if lun != LunField::ZERO => return Reply::check(Sense::LUN_NOT_SUPPORTED),
            Err(CdbError::UnknownOpcode) => return Reply::check(Sense::INVALID_OPCODE),
            Err(CdbError::InvalidField) => return Reply::check(Sense::INVALID_FIELD_IN_CDB),
        };
        if lun.number() != Some(0) {
            return self.absent(lun, command);
        }
        let tells_attention = !matches!(
            command,
            Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. }
        );
        if tells_attention && nexus.reset.swap(false, Ordering::Relaxed) {
            return Reply::check(Sense::RESET_OCCURRED);
        }
        self.carry_out(command, data).await.unwrap_or_else(Reply::check)
    }

    /// A logical unit that is not there (SPC-5, 6.7.2; SAM-5, 5.12).
    fn absent(&self, lun: LunField, command: Command) -> Reply {
        match command {
            Command::Inquiry { page: None, allocation } => Reply::data(describe::absent(), allocation),
            Command::ReportLuns { .. } if lun.is_report_luns() => {
                self.describe(command).unwrap_or_else(Reply::check)
            }
            Command::RequestSense { allocation, .. } => {
                Reply::data(Sense::LUN_NOT_SUPPORTED.to_bytes(), allocation)
            }
            _ => Reply::check(Sense::LUN_NOT_SUPPORTED),
        }
    }

    async fn carry_out(&self, command: Command, data: &Payload) -> Result<Reply, Sense> {
        match command {
            Command::TestUnitReady | Command::StartStop => Ok(Reply::good()),
            Command::Read(blocks) => self.read(blocks).await,
            Command::Write(blocks) => self.write(Operation::Write { fua: blocks.fua }, blocks, data).await,
            Command::WriteAndVerify(blocks) => self.write(Operation::WriteAndVerify, blocks, data).await,
            Command::Verify { blocks, compare: true } => self.write(Operation::Compare, blocks, data).await,
            Command::Verify { blocks, compare: false } => {
                let range = self.range(blocks)?;
                self.run(Operation::Verify, range, &Payload::new(), 0).await
            }
            Command::SynchronizeCache(blocks) => {
                let range = self.range_to_end(blocks)?;
                self.run(Operation::Flush, range, &Payload::new(), 0).await
            }
            Command::WriteSame { blocks, unmap, no_data } => {
                self.write_same(blocks, unmap, no_data, data).await
            }
            Command::Unmap { anchor: false, length } => self.unmap(usize::from(length), data).await,
            Command::Unmap { anchor: true, .. } => Err(Sense::INVALID_FIELD_IN_CDB),
            _ => self.describe(command),
        }
    }

    async fn read(&self, blocks: Blocks) -> Result<Reply, Sense> {
        let (lba, count) = self.range(blocks)?;
        self.transfer_length(count)?;
        let data =
            self.medium.execute(&Operation::Read { fua: blocks.fua }, lba, count, &Payload::new()).await?;
        Ok(Reply { data, ..Reply::good() })
    }

    async fn write(&self, operation: Operation, blocks: Blocks, data: &Payload) -> Result<Reply, Sense> {
        let range = self.range(blocks)?;
        let needed = self.transfer_length(range.1)?;
        if data.len() < needed {
            return Err(Sense::DATA_MISSING);
        }
        self.run(operation, range, &data.slice(0..needed), needed).await
    }

    async fn write_same(
        &self,
        blocks: Blocks,
        unmap: bool,
        no_data: bool,
        data: &Payload,
    ) -> Result<Reply, Sense> {
        if unmap && !self.medium.limits().thin {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        let range = self.range_to_end(blocks)?;
        let size = self.medium.view().block_size.get() as usize;
        let (block, needed) = if no_data { (vec![0; size].into(), 0) } else { (data.slice(0..size), size) };
        if block.len() < size {
            return Err(Sense::DATA_MISSING);
        }
        self.run(Operation::WriteSame { unmap }, range, &block, needed).await
    }

    /// UNMAP with its parameter list (SBC-4, 5.35.2): one descriptor after the other.
    async fn unmap(&self, length: usize, data: &Payload) -> Result<Reply, Sense> {
        if !self.medium.limits().thin {
            return Err(Sense::INVALID_OPCODE);
        }
        let list = data.slice(0..length).into_bytes();
        if length == 0 {
            return Ok(Reply::good());
        }
        let described = list.get(2..4).map(|l| usize::from(u16::from_be_bytes([l[0], l[1]])));
        let descriptors = described.and_then(|described| list.get(8..)?.get(..described));
        let descriptors = descriptors.ok_or(Sense::PARAMETER_LIST_LENGTH)?;
        for descriptor in descriptors.chunks_exact(16) {
            let (lba, rest) = descriptor.split_at(8);
            let lba = lba.iter().fold(0, |n, &b| n << 8 | u64::from(b));
            let count = rest[..4].iter().fold(0, |n, &b| n << 8 | u32::from(b));
            let range = self.range(Blocks { lba, count, fua: false })?;
            self.medium.execute(&Operation::Unmap, range.0, range.1, &Payload::new()).await?;
        }
        Ok(Reply { needed: length, ..Reply::good() })
    }

    async fn run(
        &self,
        operation: Operation,
        (lba, blocks): (Lba, BlockCount),
        data: &Payload,
        needed: usize,
    ) -> Result<Reply, Sense> {
        self.medium.execute(&operation, lba, blocks, data).await?;
        Ok(Reply { needed, ..Reply::good() })
    }

    /// The range, where it lies in the volume.
    fn range(&self, blocks: Blocks) -> Result<(Lba, BlockCount), Sense> {
        let (lba, count) = (Lba(blocks.lba), BlockCount(u64::from(blocks.count)));
        match lba.checked_add(count) {
            Some(end) if end.0 <= self.medium.view().blocks.0 => Ok((lba, count)),
            _ => Err(Sense::LBA_OUT_OF_RANGE),
        }
    }

    /// The same for commands in which no blocks mean all that follow.
    fn range_to_end(&self, blocks: Blocks) -> Result<(Lba, BlockCount), Sense> {
        let (lba, count) = self.range(blocks)?;
        match (count, self.medium.view().blocks.0.checked_sub(lba.0)) {
            (BlockCount(0), Some(left)) => Ok((lba, BlockCount(left))),
            _ => Ok((lba, count)),
        }
    }

    /// The bytes of a transfer, where the unit takes that many at once.
    fn transfer_length(&self, blocks: BlockCount) -> Result<usize, Sense> {
        let bytes =
            blocks.bytes(self.medium.view().block_size).and_then(|bytes| usize::try_from(bytes.0).ok());
        let limit = u64::from(self.limits().max_transfer);
        bytes.filter(|_| blocks.0 <= limit).ok_or(Sense::INVALID_FIELD_IN_CDB)
    }
}

impl Reply {
    fn good() -> Self {
        Self { status: Status::Good, sense: None, data: Payload::new(), needed: 0 }
    }

    fn check(sense: Sense) -> Self {
        Self { status: Status::CheckCondition, sense: Some(sense), ..Self::good() }
    }

    /// Data cut to what the initiator has room for (SPC-5, 4.2.5.6).
    fn data(mut data: Vec<u8>, allocation: u32) -> Self {
        data.truncate(allocation as usize);
        Self { data: data.into(), ..Self::good() }
    }
}

#[cfg(test)]
mod tests;
