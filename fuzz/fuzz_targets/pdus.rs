//! A stream of bytes as PDUs: every one that is read is written again as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lungate_iscsi::pdu::{Digests, PduReader, PduWriter};

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (header, data, bytes) = input;
    let digests = Digests { header, data };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut reader = PduReader::new(bytes);
        reader.digests = digests;
        while let Ok(Some(pdu)) = reader.read().await {
            let mut writer = PduWriter::new(Vec::new());
            writer.digests = digests;
            writer.write(pdu.bhs, &[pdu.data.clone()]).await.expect("memory takes everything");
            let written = std::mem::take(writer.stream_mut());
            let mut again = PduReader::new(&written[..]);
            again.digests = digests;
            let again = again.read().await.expect("what was written is whole").expect("and there");
            assert_eq!(again.data, pdu.data);
            assert_eq!(again.bhs.0[8..], pdu.bhs.0[8..]);
        }
    });
});
