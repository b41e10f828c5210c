//! Both roles of a login against a peer that sends anything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lungate_iscsi::login::initiator::{Identity, login};
use lungate_iscsi::login::params::Offer;
use lungate_iscsi::login::target::accept;
use lungate_iscsi::pdu::text::Keys;
use lungate_iscsi::pdu::{PduReader, PduWriter};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(keys) = Keys::parse(bytes) {
        assert_eq!(Keys::parse(&keys.to_bytes()).as_ref(), Ok(&keys));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let offer = Offer::default();
        let mut writer = PduWriter::new(tokio::io::sink());
        let _ = accept(&mut PduReader::new(bytes), &mut writer, &offer, 32, |_| Ok(1)).await;
        let identity = Identity {
            initiator_name: "iqn.i".to_owned(),
            target_name: Some("iqn.t".to_owned()),
            isid: [0x80; 6],
        };
        let _ = login(&mut PduReader::new(bytes), &mut writer, &identity, &offer).await;
    });
});
