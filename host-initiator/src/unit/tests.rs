//! The unit on a medium in memory, against plain bytes.

use std::sync::Mutex;

use lungate_catalog::identity::Identity;
use lungate_catalog::units::BlockSize;
use lungate_iscsi::scsi::SenseKey;
use lungate_iscsi::scsi::disk::{BlockLimits, naa_designators};
use proptest::prelude::*;

use super::*;

const BLOCKS: u64 = 64;

struct Memory {
    view: HostView,
    bytes: Mutex<Vec<u8>>,
}

impl Medium for Memory {
    fn view(&self) -> &HostView {
        &self.view
    }

    fn limits(&self) -> Limits {
        Limits { blocks: BlockLimits::default(), thin: true }
    }

    async fn execute(
        &self,
        operation: &Operation,
        lba: Lba,
        blocks: BlockCount,
        data: &Payload,
    ) -> Result<Payload, Sense> {
        let range = usize::try_from(lba.0 * 512).unwrap()..usize::try_from((lba.0 + blocks.0) * 512).unwrap();
        let mut bytes = self.bytes.lock().unwrap();
        let place = &mut bytes[range];
        let data = data.clone().into_bytes();
        match operation {
            Operation::Read { .. } => return Ok(place.to_vec().into()),
            Operation::Write { .. } | Operation::WriteAndVerify => place.copy_from_slice(&data),
            Operation::WriteSame { .. } => {
                place.chunks_mut(512).for_each(|block| block.copy_from_slice(&data))
            }
            Operation::Unmap => place.fill(0),
            Operation::Compare if *place != *data => return Err(Sense::MISCOMPARE),
            Operation::Compare | Operation::Verify | Operation::Flush => {}
        }
        Ok(Payload::new())
    }
}

fn unit() -> Unit<Memory> {
    let view = HostView {
        name: "v".into(),
        target_name: "iqn.2026-11.io.lungate:v".into(),
        identity: Identity::of_volume(uuid::Uuid::from_u128(1)),
        vip: [10, 0, 0, 1].into(),
        block_size: BlockSize::B512,
        blocks: BlockCount(BLOCKS),
        extents: Vec::new(),
    };
    Unit::new(Memory { view, bytes: Mutex::new(vec![0; 512 * 64]) })
}

fn run(unit: &Unit<Memory>, cdb: &Cdb, data: &Payload) -> Reply {
    let nexus = Nexus { reset: AtomicBool::new(false) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(unit.execute(&nexus, LunField::ZERO, cdb, data))
}

fn sense(unit: &Unit<Memory>, command: Command, data: &[u8]) -> Option<Sense> {
    run(unit, &command.to_cdb(), &data.to_vec().into()).sense
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        writes in prop::collection::vec((0..BLOCKS, 1_u32..16, any::<u8>(), 0_u8..4), 1..20),
    ) {
        let unit = unit();
        let mut truth = vec![0_u8; 512 * 64];
        for (lba, count, byte, how) in writes {
            let blocks = Blocks { lba, count, fua: false };
            let length = 512 * count as usize;
            let (command, data) = match how {
                0 => (Command::Write(blocks), vec![byte; length]),
                1 => (Command::WriteAndVerify(blocks), vec![byte; length]),
                2 => (Command::WriteSame { blocks, unmap: false, no_data: false }, vec![byte; 512]),
                _ => (Command::WriteSame { blocks, unmap: false, no_data: true }, vec![]),
            };
            let reply = run(&unit, &command.to_cdb(), &data.into());
            if lba + u64::from(count) > BLOCKS {
                prop_assert_eq!(reply.sense, Some(Sense::LBA_OUT_OF_RANGE));
            } else {
                prop_assert_eq!(reply.status, Status::Good);
                let start = usize::try_from(lba).unwrap() * 512;
                truth[start..start + length].fill(if how == 3 { 0 } else { byte });
            }
        }
        let all = Command::Read(Blocks { lba: 0, count: 64, fua: true });
        prop_assert_eq!(run(&unit, &all.to_cdb(), &Payload::new()).data.into_bytes(), truth);
    }

    #[test]
    fn any_cdb_gets_an_answer(cdb: [u8; 16], data in prop::collection::vec(any::<u8>(), 0..64)) {
        run(&unit(), &cdb, &data.into());
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let unit = unit();
    let blocks = |lba, count| Blocks { lba, count, fua: false };
    assert_eq!(sense(&unit, Command::Read(blocks(BLOCKS, 1)), &[]), Some(Sense::LBA_OUT_OF_RANGE));
    assert_eq!(sense(&unit, Command::Read(blocks(u64::MAX, 2)), &[]), Some(Sense::LBA_OUT_OF_RANGE));
    assert_eq!(sense(&unit, Command::Write(blocks(0, 2)), &[0; 512]), Some(Sense::DATA_MISSING));
    let compare = Command::Verify { blocks: blocks(0, 1), compare: true };
    assert_eq!(sense(&unit, compare, &[1; 512]).map(|s| s.key), Some(SenseKey::Miscompare));
    assert_eq!(run(&unit, &[0xff; 16], &Payload::new()).sense, Some(Sense::INVALID_OPCODE));
    let saved = Command::ModeSense {
        ten: false,
        no_descriptor: false,
        control: 3,
        page: 8,
        subpage: 0,
        allocation: 99,
    };
    assert_eq!(sense(&unit, saved, &[]), Some(Sense::SAVING_NOT_SUPPORTED));
}

#[test]
fn identity_is_the_volumes() {
    let unit = unit();
    let inquire = |code| {
        let command = Command::Inquiry { page: Some(code), allocation: 255 };
        run(&unit, &command.to_cdb(), &Payload::new()).data.into_bytes()
    };
    let identity = &unit.medium().view.identity;
    assert_eq!(&inquire(0x80)[4..], identity.serial.as_bytes());
    assert_eq!(naa_designators(&inquire(0x83)), [identity.naa.bytes()]);
    for code in &inquire(0x00)[4..] {
        assert_eq!(inquire(*code)[1], *code);
    }
}

#[test]
fn a_new_nexus_is_told_of_the_reset_once() {
    let unit = unit();
    let nexus = Nexus::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ready = || {
        let cdb = Command::TestUnitReady.to_cdb();
        runtime.block_on(unit.execute(&nexus, LunField::ZERO, &cdb, &Payload::new())).sense
    };
    assert_eq!(ready(), Some(Sense::RESET_OCCURRED));
    assert_eq!(ready(), None);
}
