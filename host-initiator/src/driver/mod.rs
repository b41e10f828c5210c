//! Maps commands for the volume to commands for its extents: one iSCSI connection for each block range.

mod overlap;
mod path;
mod probe;
pub mod split;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use lungate_catalog::units::{BlockCount, Lba};
use lungate_catalog::view::HostView;
use lungate_iscsi::initiator::{Task, Transfer};
use lungate_iscsi::payload::Payload;
use lungate_iscsi::pdu::LunField;
use lungate_iscsi::scsi::cdb::Blocks;
use lungate_iscsi::scsi::disk::BlockLimits;
use lungate_iscsi::scsi::{Command, Sense};
use tokio::time::Instant;

use overlap::Access;
use path::Path;
pub use path::{PathConfig, PathStatus};
use split::{Part, split};

/// How to reach a volume.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// The initiator name of every session.
    pub initiator_name: String,
    /// Tells apart several drivers of one initiator: each has ISIDs of its own, the same after each start.
    pub instance: String,
    /// How long a command may take, lost connections included.
    pub command_timeout: Duration,
    /// How long attaching may take.
    pub attach_timeout: Duration,
}

/// A volume, attached: a session to each of its extents.
#[derive(Debug)]
pub struct Driver {
    view: HostView,
    paths: Vec<Arc<Path>>,
    limits: Limits,
    command_timeout: Duration,
}

/// What the devices together allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The lowest limits of all extents; 0 means "not said".
    pub blocks: BlockLimits,
    /// Every extent can unmap.
    pub thin: bool,
}

/// What to do with a range of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read it.
    Read {
        /// From the medium itself.
        fua: bool,
    },
    /// Write it.
    Write {
        /// Down to the medium itself.
        fua: bool,
    },
    /// Write it and check it at the device.
    WriteAndVerify,
    /// Check that it can be read.
    Verify,
    /// Compare it with the data.
    Compare,
    /// Fill it with the one block that the data is.
    WriteSame {
        /// Unmap it instead, where the device can.
        unmap: bool,
    },
    /// Forget it.
    Unmap,
    /// Move it from caches to the medium.
    Flush,
}

/// Why a volume cannot be attached.
#[derive(Debug, thiserror::Error)]
#[error("extent {vip}:{port} (blocks {first} to {last}): {why}")]
pub struct AttachError {
    vip: std::net::IpAddr,
    port: u16,
    first: Lba,
    last: u64,
    why: String,
}

impl Driver {
    /// Opens a session to every extent and holds its identity and size against the catalog.
    pub async fn attach(view: HostView, config: &DriverConfig) -> Result<Self, AttachError> {
        let deadline = Instant::now() + config.attach_timeout;
        let open = view.extents.iter().map(|extent| {
            let path = Path::open(PathConfig::new(&view, extent, config));
            async move {
                match path.ready(deadline).await {
                    Ok(()) => Ok(path),
                    Err(why) => Err(AttachError {
                        vip: view.vip,
                        port: extent.port,
                        first: extent.first_lba,
                        last: extent.first_lba.0.saturating_add(extent.blocks.0).saturating_sub(1),
                        why,
                    }),
                }
            }
        });
        let paths = try_join_all(open).await?;
        let limits = combine(paths.iter().filter_map(|path| path.found()));
        Ok(Self { paths, limits, command_timeout: config.command_timeout, view })
    }

    /// The volume.
    pub fn view(&self) -> &HostView {
        &self.view
    }

    /// What the devices together allow.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Each extent's state, in order.
    pub fn status(&self) -> Vec<PathStatus> {
        self.paths.iter().map(|path| path.status()).collect()
    }

    /// Says goodbye to every device. A driver that is just dropped closes its connections.
    pub async fn detach(self) {
        join_all(self.paths.iter().map(|path| path.close())).await;
    }

    /// Carries out one operation on a range of the volume, in parallel on every extent that it touches.
    ///
    /// `data` is what the operation needs: `blocks` blocks to write or compare, one block for WRITE SAME, nothing
    /// else. The result is what was read, in order. Where parts fail, the condition of the first one in the order
    /// of LBAs is the command's, and an LBA in it is the volume's.
    ///
    /// The range must lie in the volume. The future must be run to its end: dropping it would let later commands
    /// overtake what is still under way.
    pub async fn execute(
        &self,
        operation: &Operation,
        lba: Lba,
        blocks: BlockCount,
        data: &Payload,
    ) -> Result<Payload, Sense> {
        let deadline = Instant::now() + self.command_timeout;
        let mut parts = split(&self.view.extents, lba, blocks);
        let Some(first) = parts.next() else { return Ok(Payload::new()) };
        let Some(second) = parts.next() else {
            return self.part(operation, first, data, deadline).await;
        };
        let all = [first, second].into_iter().chain(parts);
        let results = join_all(all.map(|part| self.part(operation, part, data, deadline))).await;
        let mut gathered = Payload::new();
        for result in results {
            gathered.append(result?);
        }
        Ok(gathered)
    }

    async fn part(
        &self,
        operation: &Operation,
        part: Part,
        data: &Payload,
        deadline: Instant,
    ) -> Result<Payload, Sense> {
        let (Some(path), Some(extent)) = (self.paths.get(part.extent), self.view.extents.get(part.extent))
        else {
            return Err(Sense::INTERNAL_FAILURE);
        };
        let task = self.task(operation, part, data).ok_or(Sense::INVALID_FIELD_IN_CDB)?;
        let access = match operation {
            Operation::Read { .. } | Operation::Verify | Operation::Compare => Access::Read,
            Operation::Flush => Access::None,
            _ => Access::Write,
        };
        let result = path.execute(task, access, part.lba, part.blocks, deadline).await;
        result.map_err(|sense| match sense.information {
            Some(lba) => sense.at(extent.first_lba.0.saturating_add(lba)),
            None => sense,
        })
    }

    /// The command for one extent; `None` where the part is longer than a command can say.
    fn task(&self, operation: &Operation, part: Part, data: &Payload) -> Option<Task> {
        let count = u32::try_from(part.blocks.0).ok()?;
        let blocks = Blocks { lba: part.lba.0, count, fua: false };
        let size = self.view.block_size;
        let length = usize::try_from(part.blocks.bytes(size)?.0).ok()?;
        let own_data = || {
            let start = usize::try_from(part.before.bytes(size)?.0).ok()?;
            Some(Transfer::Out(data.slice(start..start.checked_add(length)?)))
        };
        let (command, transfer) = match *operation {
            Operation::Read { fua } => {
                (Command::Read(Blocks { fua, ..blocks }), Transfer::In(u32::try_from(length).ok()?))
            }
            Operation::Write { fua } => (Command::Write(Blocks { fua, ..blocks }), own_data()?),
            Operation::WriteAndVerify => (Command::WriteAndVerify(blocks), own_data()?),
            Operation::Verify => (Command::Verify { blocks, compare: false }, Transfer::None),
            Operation::Compare => (Command::Verify { blocks, compare: true }, own_data()?),
            Operation::WriteSame { unmap } => {
                (Command::WriteSame { blocks, unmap, no_data: false }, Transfer::Out(data.clone()))
            }
            Operation::Unmap => {
                let list = unmap_list(blocks);
                (Command::Unmap { anchor: false, length: 24 }, Transfer::Out(list.into()))
            }
            Operation::Flush => (Command::SynchronizeCache(blocks), Transfer::None),
        };
        Some(Task { lun: LunField::ZERO, cdb: command.to_cdb(), transfer })
    }
}

/// The parameter list of UNMAP for one range (SBC-4, 5.35.2).
fn unmap_list(blocks: Blocks) -> Vec<u8> {
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend_from_slice(&blocks.lba.to_be_bytes());
    list.extend_from_slice(&blocks.count.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    list
}

/// The lowest of what each extent says, "not said" aside; granularity is the largest.
fn combine(found: impl Iterator<Item = probe::Found>) -> Limits {
    fn low<T: Ord + Default>(a: T, b: T) -> T {
        if a == T::default() || b == T::default() { a.max(b) } else { a.min(b) }
    }
    let start = Limits { blocks: BlockLimits::default(), thin: true };
    found.fold(start, |Limits { blocks: a, thin }, found| {
        let b = found.limits;
        Limits {
            blocks: BlockLimits {
                max_transfer: low(a.max_transfer, b.max_transfer),
                optimal_transfer: low(a.optimal_transfer, b.optimal_transfer),
                max_unmap: low(a.max_unmap, b.max_unmap),
                max_unmap_descriptors: low(a.max_unmap_descriptors, b.max_unmap_descriptors),
                unmap_granularity: a.unmap_granularity.max(b.unmap_granularity),
                max_write_same: low(a.max_write_same, b.max_write_same),
            },
            thin: thin && found.capacity.thin,
        }
    })
}
