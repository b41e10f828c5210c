//! PDUs in, PDUs out.

use lungate_catalog::identity::Identity;
use lungate_catalog::model::Backend;
use lungate_catalog::units::{BlockCount, BlockSize};
use lungate_iscsi::pdu::header::{
    AsyncMessage, DataIn, DataOut, LoginRequest, LoginResponse, NopIn, NopOut, ReadyToTransfer, Reject,
    ScsiCommand, ScsiResponse, TaskManagementRequest, TaskManagementResponse, TextRequest, TextResponse,
};
use lungate_iscsi::pdu::text::Keys;
use lungate_iscsi::pdu::{Bhs, LunField, Opcode, RESERVED_TAG};
use lungate_iscsi::scsi::disk::{identification, vpd};
use lungate_iscsi::scsi::{Cdb, Command};

use super::*;

const NAME: &str = "iqn.2026-11.io.lungate:v.4001";
const REAL_NAME: &str = "iqn.2026-11.example:disk300";
const HOST_LUN: LunField = LunField::ZERO;
/// LUN 0 as some initiators write it.
const FLAT_ZERO: LunField = LunField([0x40, 0, 0, 0, 0, 0, 0, 0]);
/// LUN 300 at the real target.
const REAL_LUN: LunField = LunField([0x41, 0x2c, 0, 0, 0, 0, 0, 0]);
const ABSENT: LunField = LunField([0x7f, 0xff, 0, 0, 0, 0, 0, 0]);
const OTHER_LUN: LunField = LunField([0, 7, 0, 0, 0, 0, 0, 0]);

fn identity() -> Identity {
    Identity {
        serial: "00112233445566778899aabbccddeeff".to_owned(),
        naa: "3123456789abcdef".parse().unwrap(),
    }
}

fn new() -> Rewriter {
    Rewriter::new(DevicePort {
        port: 5001,
        target_name: NAME.to_owned(),
        identity: identity(),
        backend: Backend {
            portal: "127.0.0.1:3260".parse().unwrap(),
            target_name: REAL_NAME.to_owned(),
            lun: 300,
        },
        blocks: BlockCount(1),
        block_size: BlockSize::B512,
    })
    .unwrap()
}

/// A session in full feature phase.
fn session() -> Rewriter {
    let mut rewriter = new();
    rewriter.login.full_feature = true;
    rewriter
}

fn pass(rewriter: &mut Rewriter, direction: Direction, mut bhs: Bhs) -> Bhs {
    rewriter.need(direction, &bhs).unwrap();
    rewriter.header(direction, &mut bhs).unwrap();
    bhs
}

fn pass_whole(rewriter: &mut Rewriter, direction: Direction, mut bhs: Bhs, data: &[u8]) -> (Bhs, Vec<u8>) {
    bhs.set_data_length(data.len());
    assert_eq!(rewriter.need(direction, &bhs).unwrap(), Need::Whole);
    let data = rewriter.whole(direction, &mut bhs, data).unwrap().0;
    (bhs, data)
}

fn command(lun: LunField, itt: u32, cdb: Cdb, expected: u32) -> Bhs {
    let mut command = ScsiCommand::new();
    command.flags = 0xc1;
    command.lun = lun;
    command.itt = itt.into();
    command.cmd_sn = itt.into();
    command.cdb = cdb;
    command.expected_data_length = expected.into();
    command.into_bhs()
}

fn with_lun(mut bhs: Bhs, lun: LunField) -> Bhs {
    bhs.set_lun(lun);
    bhs
}

#[test]
fn the_lun_of_every_request_becomes_the_real_one() {
    use Direction::ToTarget;
    let tagged = |opcode| {
        let mut bhs = Bhs::of(opcode);
        bhs.0[20..24].copy_from_slice(&7_u32.to_be_bytes());
        bhs
    };
    let mut abort = TaskManagementRequest::new();
    abort.flags = 0x81;
    let requests = [
        command(HOST_LUN, 1, Command::TestUnitReady.to_cdb(), 0),
        DataOut::new().into_bhs(),
        abort.into_bhs(),
        Bhs::of(Opcode::SnackRequest),
        tagged(Opcode::NopOut),
    ];
    for request in requests {
        for (host, real) in
            [(HOST_LUN, REAL_LUN), (FLAT_ZERO, REAL_LUN), (OTHER_LUN, ABSENT), (REAL_LUN, ABSENT)]
        {
            let out = pass(&mut session(), ToTarget, with_lun(request, host));
            assert_eq!(out, with_lun(request, real), "{request:?} {host:?}");
        }
    }
    // Without a transfer tag the field is reserved.
    let mut nop = NopOut::new();
    nop.ttt = RESERVED_TAG.into();
    assert_eq!(pass(&mut session(), ToTarget, nop.into_bhs()), nop.into_bhs());
}

#[test]
fn answers_carry_the_lun_as_the_host_wrote_it() {
    for host in [HOST_LUN, FLAT_ZERO] {
        let mut rewriter = session();
        pass(&mut rewriter, Direction::ToTarget, command(host, 9, Command::TestUnitReady.to_cdb(), 0));
        let tagged = |mut bhs: Bhs| {
            bhs.0[16..20].copy_from_slice(&9_u32.to_be_bytes());
            with_lun(bhs, REAL_LUN)
        };
        for answer in [ReadyToTransfer::new().into_bhs(), DataIn::new().into_bhs()] {
            let out = pass(&mut rewriter, Direction::ToHost, tagged(answer));
            assert_eq!(out.lun(), host, "{answer:?}");
            let zero = pass(&mut rewriter, Direction::ToHost, with_lun(tagged(answer), LunField::ZERO));
            assert_eq!(zero.lun(), LunField::ZERO);
        }
    }
}

#[test]
fn a_lun_beside_a_transfer_tag_goes_back_as_it_came() {
    for from_target in [REAL_LUN, LunField::ZERO] {
        let mut rewriter = session();
        let mut nop_in = NopIn::new();
        (nop_in.lun, nop_in.ttt) = (from_target, 77.into());
        let shown = pass(&mut rewriter, Direction::ToHost, nop_in.into_bhs());
        assert_eq!(shown.lun(), LunField::ZERO);
        let mut nop_out = NopOut::new();
        (nop_out.lun, nop_out.ttt) = (shown.lun(), 77.into());
        assert_eq!(pass(&mut rewriter, Direction::ToTarget, nop_out.into_bhs()).lun(), from_target);
    }
}

#[test]
fn events_of_other_luns_are_nobodys() {
    for (real, shown) in [(REAL_LUN, LunField::ZERO), (OTHER_LUN, ABSENT), (LunField::ZERO, LunField::ZERO)] {
        let event = with_lun(AsyncMessage::new().into_bhs(), real);
        assert_eq!(pass(&mut session(), Direction::ToHost, event).lun(), shown);
    }
}

#[test]
fn target_resets_become_a_reset_of_the_one_lun() {
    for function in [6, 7] {
        let mut rewriter = session();
        let busy = command(HOST_LUN, 3, Command::TestUnitReady.to_cdb(), 0);
        pass(&mut rewriter, Direction::ToTarget, busy);
        let mut reset = TaskManagementRequest::new();
        reset.flags = 0x80 | function;
        (reset.itt, reset.cmd_sn) = (4.into(), 4.into());
        let out = pass(&mut rewriter, Direction::ToTarget, reset.into_bhs());
        assert_eq!((out.flags(), out.lun()), (0x85, REAL_LUN));
        assert!(rewriter.is_busy());
        let mut done = TaskManagementResponse::new();
        done.itt = 4.into();
        pass(&mut rewriter, Direction::ToHost, done.into_bhs());
        assert!(!rewriter.is_busy(), "what was reset will not be answered");
    }
}

#[test]
fn a_lun_says_who_it_is_in_the_catalogs_words() {
    let luns = [[0, 0, 0, 8, 0, 0, 0, 0], [0; 8]].concat();
    let inquiry = |page| Command::Inquiry { page: Some(page), allocation: 0 };
    let questions = [
        (inquiry(0x80), vpd(0x80, identity().serial.as_bytes())),
        (inquiry(0x83), identification(identity().naa.bytes())),
        (Command::ReportLuns { select: 0, allocation: 0 }, luns),
    ];
    for (question, answer) in questions {
        for allocation in [0_u32, 4, 16, 36, 255, 4096, 65_535] {
            for expected in [allocation, allocation / 2, allocation + 100] {
                for in_data in [true, false] {
                    let asked = match question {
                        Command::Inquiry { page, .. } => Command::Inquiry { page, allocation },
                        Command::ReportLuns { select, .. } => Command::ReportLuns { select, allocation },
                        other => other,
                    };
                    check_description(asked, &answer, allocation, expected, in_data);
                }
            }
        }
    }
}

/// The real target answers with 60 bytes of its own, status with the data or behind it.
fn check_description(asked: Command, answer: &[u8], allocation: u32, expected: u32, in_data: bool) {
    let what = format!("{asked:?}, {expected} bytes expected");
    let mut rewriter = session();
    let forwarded = pass(&mut rewriter, Direction::ToTarget, command(HOST_LUN, 5, asked.to_cdb(), expected));
    let forwarded = forwarded.view::<ScsiCommand>().unwrap().cdb;
    match Command::parse(&forwarded).unwrap() {
        Command::Inquiry { allocation: lowered, .. } | Command::ReportLuns { allocation: lowered, .. } => {
            assert_eq!(lowered, allocation.min(512), "{what}");
        }
        other => panic!("{what} became {other:?}"),
    }
    let wanted = answer.len().min(allocation as usize);
    let shown = wanted.min(expected as usize);
    let mut data_in = DataIn::new();
    data_in.itt = 5.into();
    data_in.flags = if in_data { 0x81 } else { 0x80 };
    let (data_in, data) = pass_whole(&mut rewriter, Direction::ToHost, data_in.into_bhs(), &[0xee; 60]);
    assert_eq!(data, answer[..shown], "{what}");
    let (flags, residual) = if in_data {
        let last = data_in.view::<DataIn>().unwrap();
        (last.flags, last.residual_count.get())
    } else {
        let mut response = ScsiResponse::new();
        response.itt = 5.into();
        let response = pass(&mut rewriter, Direction::ToHost, response.into_bhs());
        let response = response.view::<ScsiResponse>().unwrap();
        (response.flags, response.residual_count.get())
    };
    let expected = expected as usize;
    let flag = match wanted.cmp(&expected) {
        std::cmp::Ordering::Less => 0x02,
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater => 0x04,
    };
    assert_eq!((flags & 0x06, residual as usize), (flag, wanted.abs_diff(expected)), "{what}");
    assert!(!rewriter.is_busy(), "{what}");
}

#[test]
fn an_error_instead_of_a_description_passes() {
    let mut rewriter = session();
    let asked = Command::Inquiry { page: Some(0x83), allocation: 255 };
    pass(&mut rewriter, Direction::ToTarget, command(HOST_LUN, 5, asked.to_cdb(), 255));
    let mut response = ScsiResponse::new();
    (response.itt, response.status, response.flags) = (5.into(), 2, 0x82);
    response.residual_count = 255.into();
    assert_eq!(pass(&mut rewriter, Direction::ToHost, response.into_bhs()), response.into_bhs());
}

#[test]
fn a_rejected_header_comes_back_as_the_host_sent_it() {
    let mut rewriter = session();
    let sent = command(FLAT_ZERO, 5, Command::TestUnitReady.to_cdb(), 0);
    let forwarded = pass(&mut rewriter, Direction::ToTarget, sent);
    let reject = Reject::new().into_bhs();
    let (_, data) = pass_whole(&mut rewriter, Direction::ToHost, reject, &forwarded.0);
    assert_eq!(data, sent.0);
}

fn keys(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs.iter().copied().collect::<Keys>().to_bytes()
}

fn login(is_last: bool) -> Bhs {
    let mut request = LoginRequest::new();
    request.flags = if is_last { 0x87 } else { 0x44 };
    request.isid = [1, 2, 3, 4, 5, 6];
    request.into_bhs()
}

#[test]
fn names_are_replaced_wherever_a_login_is_cut() {
    let text =
        keys(&[("InitiatorName", "iqn.host"), ("TargetName", NAME), ("DefaultTime2Wait", "0"), ("X-y", "z")]);
    let expected = keys(&[
        ("InitiatorName", "iqn.host"),
        ("TargetName", REAL_NAME),
        ("DefaultTime2Wait", "0"),
        ("X-y", "z"),
    ]);
    for cut in 0..=text.len() {
        let mut rewriter = new();
        let (_, first) = pass_whole(&mut rewriter, Direction::ToTarget, login(false), &text[..cut]);
        let mut last = login(true);
        last.set_data_length(text.len() - cut);
        let (second, initiator) = rewriter.whole(Direction::ToTarget, &mut last, &text[cut..]).unwrap();
        assert_eq!([first, second].concat(), expected, "cut at {cut}");
        let known = Initiator { name: "iqn.host".to_owned(), isid: [1, 2, 3, 4, 5, 6] };
        assert_eq!(initiator, Some(known), "cut at {cut}");
    }
}

#[test]
fn logins_that_make_no_sense_are_refused() {
    let refused =
        |pairs: &[(&str, &str)]| match new().whole(Direction::ToTarget, &mut login(true), &keys(pairs)) {
            Err(Violation::Refused { status, .. }) => status,
            other => panic!("{other:?}"),
        };
    let host = ("InitiatorName", "iqn.host");
    assert_eq!(refused(&[host, ("TargetName", "iqn.other")]), LoginStatus::NOT_FOUND);
    assert_eq!(refused(&[host]), LoginStatus::MISSING_PARAMETER);
    assert_eq!(refused(&[("TargetName", NAME)]), LoginStatus::MISSING_PARAMETER);
    let mut redirect = LoginResponse::new();
    redirect.status_class = 1;
    let address = keys(&[("TargetAddress", "192.0.2.1:3260,1")]);
    let answer = new().whole(Direction::ToHost, &mut redirect.into_bhs(), &address);
    assert!(
        matches!(answer, Err(Violation::Refused { status: LoginStatus::SERVICE_UNAVAILABLE, .. })),
        "{answer:?}"
    );
}

#[test]
fn the_end_of_a_login_tells_nothing_of_the_real_target() {
    let mut rewriter = new();
    let offer = [
        ("InitiatorName", "iqn.h"),
        ("TargetName", NAME),
        ("DefaultTime2Wait", "0"),
        ("HeaderDigest", "CRC32C,None"),
    ];
    pass_whole(&mut rewriter, Direction::ToTarget, login(true), &keys(&offer));
    let mut response = LoginResponse::new();
    response.flags = 0x87;
    let answer = [
        ("TargetAlias", "secret"),
        ("TargetAddress", "192.0.2.1:3260,1"),
        ("DefaultTime2Wait", "2"),
        ("HeaderDigest", "CRC32C"),
        ("MaxRecvDataSegmentLength", "65536"),
    ];
    let (_, shown) = pass_whole(&mut rewriter, Direction::ToHost, response.into_bhs(), &keys(&answer));
    let expected =
        [("DefaultTime2Wait", "0"), ("HeaderDigest", "CRC32C"), ("MaxRecvDataSegmentLength", "65536")];
    assert_eq!(shown, keys(&expected));
    assert!(rewriter.is_full_feature() && rewriter.digests().header && !rewriter.digests().data);
    // From here on the target's own limit holds, and a second login has no place.
    let mut data_out = DataOut::new().into_bhs();
    data_out.set_data_length(65_537);
    assert!(rewriter.need(Direction::ToTarget, &data_out).is_err());
    assert!(rewriter.need(Direction::ToTarget, &login(true)).is_err());
}

#[test]
fn discovery_shows_one_name_and_no_address() {
    let mut rewriter = session();
    let mut request = TextRequest::new();
    (request.flags, request.ttt) = (0x80, RESERVED_TAG.into());
    for (asked, forwarded) in [("All", "All"), ("", ""), (NAME, REAL_NAME)] {
        let (_, data) = pass_whole(
            &mut rewriter,
            Direction::ToTarget,
            request.into_bhs(),
            &keys(&[("SendTargets", asked)]),
        );
        assert_eq!(data, keys(&[("SendTargets", forwarded)]));
    }
    let mut response = TextResponse::new();
    (response.flags, response.ttt) = (0x80, RESERVED_TAG.into());
    let answer = b"TargetName=iqn.other\0TargetAddress=192.0.2.1:3260,1\0TargetName=iqn.2026-11.example:disk300\0TargetAddress=192.0.2.1:3260,1\0";
    let (_, shown) = pass_whole(&mut rewriter, Direction::ToHost, response.into_bhs(), answer);
    assert_eq!(shown, keys(&[("TargetName", NAME)]));
}

#[test]
fn pdus_out_of_place_are_refused() {
    for (direction, opcode) in [
        (Direction::ToTarget, Opcode::DataIn),
        (Direction::ToHost, Opcode::ScsiCommand),
        (Direction::ToTarget, Opcode::Unknown(0x3e)),
        (Direction::ToTarget, Opcode::LoginRequest),
    ] {
        assert!(session().need(direction, &Bhs::of(opcode)).is_err(), "{opcode:?}");
    }
    assert!(new().need(Direction::ToTarget, &Bhs::of(Opcode::ScsiCommand)).is_err());
    let mut long = login(true);
    long.set_data_length(8193);
    assert!(new().need(Direction::ToTarget, &long).is_err());
}

#[test]
fn a_hexadecimal_segment_length_is_understood() {
    let mut rewriter = new();
    let offer =
        keys(&[("InitiatorName", "iqn.a"), ("TargetName", NAME), ("MaxRecvDataSegmentLength", "0x40000")]);
    pass_whole(&mut rewriter, Direction::ToTarget, login(true), &offer);
    rewriter.login.full_feature = true;
    let mut data_in = DataIn::new().into_bhs();
    data_in.set_data_length(16384);
    assert!(rewriter.need(Direction::ToHost, &data_in).is_ok());
}

#[test]
fn nothing_is_awaited_for_a_rejected_command() {
    let mut rewriter = session();
    let on_wire =
        pass(&mut rewriter, Direction::ToTarget, command(HOST_LUN, 7, Command::TestUnitReady.to_cdb(), 0));
    pass_whole(&mut rewriter, Direction::ToHost, Reject::new().into_bhs(), &on_wire.0);
    assert!(!rewriter.is_busy());
}

#[test]
fn a_rejected_reset_comes_back_as_the_host_sent_it() {
    let mut rewriter = session();
    let mut reset = TaskManagementRequest::new();
    reset.itt = 9.into();
    reset.flags = 0x80 | 6;
    let sent = reset.into_bhs();
    let on_wire = pass(&mut rewriter, Direction::ToTarget, sent);
    let (_, copy) = pass_whole(&mut rewriter, Direction::ToHost, Reject::new().into_bhs(), &on_wire.0);
    assert_eq!(copy, sent.0);
}

#[test]
fn a_rejected_inquiry_comes_back_as_the_host_sent_it() {
    let mut rewriter = session();
    let cdb = Command::Inquiry { page: Some(0x83), allocation: 4096 }.to_cdb();
    let sent = command(HOST_LUN, 7, cdb, 4096);
    let on_wire = pass(&mut rewriter, Direction::ToTarget, sent);
    let (_, copy) = pass_whole(&mut rewriter, Direction::ToHost, Reject::new().into_bhs(), &on_wire.0);
    assert_eq!(copy, sent.0);
}

#[test]
fn a_session_gets_one_connection() {
    let mut rewriter = new();
    let offer = keys(&[("InitiatorName", "iqn.a"), ("TargetName", NAME), ("MaxConnections", "4")]);
    let (_, out) = pass_whole(&mut rewriter, Direction::ToTarget, login(true), &offer);
    assert_eq!(Keys::parse(&out).unwrap().get("MaxConnections"), Some("1"));
}

#[test]
fn nothing_is_awaited_for_data_that_was_cut_off() {
    let mut rewriter = session();
    pass(&mut rewriter, Direction::ToTarget, command(HOST_LUN, 7, Command::TestUnitReady.to_cdb(), 0));
    assert!(rewriter.is_busy());
    rewriter.cut_off(7);
    assert!(!rewriter.is_busy());
}
