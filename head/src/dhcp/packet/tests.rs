use super::*;
use dhcproto::v4::{DhcpOption, Message, Opcode};
use proptest::prelude::*;

pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x4b, 0, 1]);

/// A request as firmware would send it, byte by byte, so that tests do not lean on the codec under test.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
}

impl Packet {
    /// Fixed fields and option 53; the end option is added by [`build`](Self::build).
    pub(crate) fn new(kind: u8) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&0x1234_5678u32.to_be_bytes());
        bytes[28..34].copy_from_slice(&MAC.0);
        bytes[236..240].copy_from_slice(&v4::MAGIC);
        Packet { bytes }.option(code::MESSAGE_TYPE, &[kind])
    }

    pub(crate) fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.bytes
            .extend_from_slice(&[code, u8::try_from(value.len()).expect("a short option")]);
        self.bytes.extend_from_slice(value);
        self
    }

    pub(crate) fn at(mut self, offset: usize, value: &[u8]) -> Self {
        self.bytes[offset..offset + value.len()].copy_from_slice(value);
        self
    }

    pub(crate) fn ciaddr(self, address: [u8; 4]) -> Self {
        self.at(12, &address)
    }

    pub(crate) fn giaddr(self, address: [u8; 4]) -> Self {
        self.at(24, &address)
    }

    pub(crate) fn broadcast(self) -> Self {
        self.at(10, &[0x80, 0])
    }

    pub(crate) fn mac(self, mac: MacAddr) -> Self {
        self.at(28, &mac.0)
    }

    pub(crate) fn build(mut self) -> Vec<u8> {
        self.bytes.push(code::END);
        self.bytes
    }
}

const DISCOVER: u8 = 1;

fn check(bytes: &[u8], expect: Malformed) {
    assert_eq!(Request::decode(bytes).expect_err("malformed"), expect);
}

#[test]
fn fixed_fields_are_read() {
    let bytes = Packet::new(DISCOVER)
        .ciaddr([10, 0, 0, 1])
        .giaddr([10, 0, 0, 2])
        .broadcast()
        .build();
    let request = Request::decode(&bytes).expect("a request");
    assert_eq!(request.kind, MessageType::Discover);
    assert_eq!(request.xid, 0x1234_5678);
    assert_eq!(request.ciaddr, Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(request.giaddr, Ipv4Addr::new(10, 0, 0, 2));
    assert!(request.flags.broadcast());
    assert_eq!(request.chaddr, MAC);
}

#[test]
fn every_cut_of_a_packet_is_refused_or_read() {
    let bytes = Packet::new(DISCOVER)
        .option(code::VENDOR_CLASS, b"PXEClient")
        .build();
    for length in 0..HEADER_BYTES {
        check(&bytes[..length], Malformed::Short);
    }
    check(&bytes[..HEADER_BYTES], Malformed::MessageType);
    check(&bytes[..HEADER_BYTES + 1], Malformed::OptionOverrun);
    check(&bytes[..HEADER_BYTES + 2], Malformed::OptionOverrun);
    // Without the end option, which old firmware forgets.
    assert!(Request::decode(&bytes[..bytes.len() - 1]).is_ok());
    check(&bytes[..bytes.len() - 2], Malformed::OptionOverrun);
}

#[test]
fn packets_that_no_ethernet_client_sends_are_refused() {
    let packet = || Packet::new(DISCOVER);
    check(&packet().at(0, &[2]).build(), Malformed::NotRequest);
    check(&packet().at(0, &[0]).build(), Malformed::NotRequest);
    check(&packet().at(236, &[0; 4]).build(), Malformed::BadCookie);
    for length in [0, 1, 5, 7, 16, 17, 200, 255] {
        check(
            &packet().at(2, &[length]).build(),
            Malformed::HardwareAddress,
        );
    }
    check(&packet().at(1, &[32]).build(), Malformed::HardwareAddress);
    check(
        &packet().mac(MacAddr::BROADCAST).build(),
        Malformed::HardwareAddress,
    );
    check(
        &packet().mac(MacAddr([0; 6])).build(),
        Malformed::HardwareAddress,
    );
    check(&packet().at(3, &[17]).build(), Malformed::Hops);
    assert!(Request::decode(&packet().at(3, &[16]).build()).is_ok());
    for kind in [0, 2, 5, 6, 9, 10, 13, 255] {
        check(&Packet::new(kind).build(), Malformed::MessageType);
    }
    let mut long = packet().build();
    long.resize(MAX_PACKET_BYTES, 0);
    assert!(Request::decode(&long).is_ok());
    long.push(0);
    check(&long, Malformed::Long);
}

#[test]
fn options_of_a_wrong_length_are_refused() {
    for (option, value) in [
        (code::REQUESTED_ADDRESS, &[10, 0, 0][..]),
        (code::REQUESTED_ADDRESS, &[10, 0, 0, 1, 5]),
        (code::SERVER_ID, &[1]),
        (code::MAX_MESSAGE_SIZE, &[1]),
        (code::OVERLOAD, &[1, 2]),
        (code::OVERLOAD, &[4]),
        (code::OVERLOAD, &[0]),
        // With the first one, option 53 has two bytes.
        (code::MESSAGE_TYPE, &[1]),
    ] {
        check(
            &Packet::new(DISCOVER).option(option, value).build(),
            Malformed::OptionLength,
        );
    }
}

#[test]
fn an_option_of_length_zero_counts_as_absent() {
    let bytes = Packet::new(DISCOVER)
        .option(code::REQUESTED_ADDRESS, &[])
        .option(code::VENDOR_CLASS, &[])
        .option(code::HOSTNAME, b"n1")
        .build();
    let request = Request::decode(&bytes).expect("a request");
    assert_eq!(request.options.get(code::REQUESTED_ADDRESS), None);
    assert_eq!(request.options.get(code::VENDOR_CLASS), None);
    assert_eq!(request.options.get(code::HOSTNAME), Some(&b"n1"[..]));
}

#[test]
fn bytes_that_are_no_text_hide_nothing_behind_them() {
    let bytes = Packet::new(DISCOVER)
        .option(code::HOSTNAME, &[0xff, 0xfe])
        .option(code::ARCHITECTURE, &[0, 9])
        .option(94, &[1, 2])
        .option(code::USER_CLASS, b"iPXE")
        .build();
    let request = Request::decode(&bytes).expect("a request");
    assert_eq!(request.options.number(code::ARCHITECTURE), Some(9));
    assert_eq!(request.options.get(code::USER_CLASS), Some(&b"iPXE"[..]));
}

#[test]
fn pieces_of_a_long_option_are_joined_rfc_3396_section_5() {
    let bytes = Packet::new(DISCOVER)
        .option(43, &[b'a'; 255])
        .option(code::HOSTNAME, b"n1")
        .option(43, b"b")
        .build();
    let request = Request::decode(&bytes).expect("a request");
    let joined = request.options.get(43).expect("joined");
    assert_eq!((joined.len(), joined[254], joined[255]), (256, b'a', b'b'));
}

#[test]
fn overload_reads_file_then_sname_rfc_2131_section_4_1() {
    let file = [code::HOSTNAME, 1, b'f', code::END];
    let sname = [
        code::HOSTNAME,
        1,
        b's',
        code::VENDOR_CLASS,
        1,
        b'v',
        code::END,
    ];
    let packet = |overload: u8| {
        Packet::new(DISCOVER)
            .at(108, &file)
            .at(44, &sname)
            .option(code::OVERLOAD, &[overload])
            .build()
    };
    for (overload, hostname, class) in [
        (1, &b"f"[..], None),
        (2, b"s", Some(&b"v"[..])),
        (3, b"fs", Some(b"v")),
    ] {
        let bytes = packet(overload);
        let request = Request::decode(&bytes).expect("a request");
        assert_eq!(
            request.options.get(code::HOSTNAME),
            Some(hostname),
            "{overload}"
        );
        assert_eq!(request.options.get(code::VENDOR_CLASS), class, "{overload}");
    }
    // The file field has 128 bytes; an option in it may not borrow from what follows.
    let overrun = Packet::new(DISCOVER)
        .at(108, &[0; 126])
        .at(234, &[12, 5])
        .option(code::OVERLOAD, &[1])
        .build();
    check(&overrun, Malformed::OptionOverrun);
    // Overload inside an overloaded field: two values, so the length is wrong, and no recursion.
    let nested = Packet::new(DISCOVER)
        .at(108, &[code::OVERLOAD, 1, 1, code::END])
        .option(code::OVERLOAD, &[1])
        .build();
    check(&nested, Malformed::OptionLength);
}

#[test]
fn echoed_options_must_fit_one_option() {
    let bytes = Packet::new(DISCOVER)
        .option(code::RELAY_AGENT, &[1; 255])
        .option(code::RELAY_AGENT, &[1])
        .build();
    check(&bytes, Malformed::OptionLength);
}

#[test]
fn the_reply_limit_follows_option_57_within_reason() {
    let limit = |value: Option<u16>| {
        let packet = Packet::new(DISCOVER);
        let packet = match value {
            Some(value) => packet.option(code::MAX_MESSAGE_SIZE, &value.to_be_bytes()),
            None => packet,
        };
        Request::decode(&packet.build())
            .expect("a request")
            .reply_limit()
    };
    assert_eq!(limit(None), 548);
    assert_eq!(limit(Some(0)), 548);
    assert_eq!(limit(Some(1260)), 1232);
    assert_eq!(limit(Some(65535)), 1472);
}

#[test]
fn replies_are_padded_and_shrink_to_fit() {
    let mut reply = Message::new_with_id(
        1,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        &MAC.0,
    );
    reply.set_opcode(Opcode::BootReply);
    reply
        .opts_mut()
        .insert(DhcpOption::MessageType(MessageType::Ack));
    let short = encode(reply.clone(), None, 548).expect("fits");
    assert_eq!(short.len(), MIN_REPLY_BYTES);
    reply
        .opts_mut()
        .insert(DhcpOption::ClientIdentifier(vec![7; 200]));
    reply
        .opts_mut()
        .insert(DhcpOption::Hostname("n".repeat(63)));
    assert!(encode(reply.clone(), None, 1472).expect("fits").len() > 500);
    let cut = encode(reply.clone(), None, 460).expect("fits without the host name");
    assert!(cut.len() > 440 && cut.len() <= 460, "{}", cut.len());
    assert_eq!(encode(reply, None, 240), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = Request::decode(&bytes);
    }

    #[test]
    fn arbitrary_options_never_panic(
        kind in 1u8..9,
        fields in proptest::collection::vec(any::<u8>(), 192),
        options in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = Packet::new(kind).at(44, &fields).bytes;
        bytes.extend_from_slice(&options);
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert!((548..=1472).contains(&request.reply_limit()));
        }
    }
}
