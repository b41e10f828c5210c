//! Commands, sense and the data by which a disk describes itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lungate_iscsi::pdu::LunField;
use lungate_iscsi::scsi::disk::{BlockLimits, Capacity, naa_designators};
use lungate_iscsi::scsi::{Command, Sense};

fuzz_target!(|input: ([u8; 16], &[u8])| {
    let (cdb, data) = input;
    if let Ok(command) = Command::parse(&cdb) {
        // What a device is sent is what was understood, whatever form it came in.
        if let (Ok(again), Command::Read(_) | Command::Write(_)) =
            (Command::parse(&command.to_cdb()), command)
        {
            assert_eq!(again, command);
        }
    }
    if let Some(sense) = Sense::parse(data) {
        assert_eq!(Sense::parse(&sense.to_bytes()), Some(sense));
    }
    let _ = Capacity::parse(data).map(|capacity| (capacity.to_10(), capacity.to_16()));
    let _ = BlockLimits::parse(data).map(BlockLimits::to_page);
    let _ = naa_designators(data);
    if let Some(field) = data.first_chunk() {
        let lun = LunField(*field);
        let _ = (lun.number(), lun.is_report_luns(), lun.to_string());
    }
});
