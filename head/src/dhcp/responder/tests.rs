//! Answers to clients on the server's own segment (RFC 2131), and the server that all these tests ask.

mod boot;
mod relay;

use super::*;
use crate::boot::table::tests::{armed_node, node, table};
use crate::boot::{ClientArch, Loader, MacAddr};
use crate::dhcp::lease::DECLINE_HOLD;
use crate::dhcp::packet::tests::{MAC, Packet};
use dhcproto::Decodable as _;
use dhcproto::v4::Opcode;
use proptest::prelude::*;

const SERVER: [u8; 4] = [10, 77, 0, 1];
const OWN: [u8; 4] = [10, 77, 0, 11];
const RELAY: [u8; 4] = [10, 77, 0, 254];

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

/// One interface 10.77.0.1/24 with nodes n1 and n2, and BIOS and UEFI loaders.
struct Server {
    responder: Responder,
    facts: InterfaceFacts,
    now: Instant,
}

impl Server {
    fn new() -> Self {
        let table = table([armed_node(1), node(2)]);
        let loader = |arch, name: &str| Loader {
            arch,
            name: name.into(),
            bytes: b"loader"[..].into(),
        };
        let loaders = vec![
            loader(ClientArch::Bios, "undionly.kpxe"),
            loader(ClientArch::UefiX86_64, "ipxe.efi"),
        ];
        let loaders = Arc::new(Loaders::new(loaders).expect("two names"));
        let facts = InterfaceFacts {
            name: "br0".into(),
            index: 2,
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            addresses: vec!["10.77.0.1/24".parse().expect("an address")],
        };
        Server {
            responder: Responder::new(table, loaders, 8080),
            facts,
            now: Instant::now(),
        }
    }

    fn handle_on(&mut self, port: ServerPort, source: [u8; 4], bytes: &[u8]) -> Outcome {
        let source = SocketAddrV4::new(source.into(), 68);
        let ingress = Ingress {
            facts: &self.facts,
            port,
            source,
        };
        self.responder.handle_packet(ingress, bytes, self.now)
    }

    fn handle(&mut self, packet: Packet) -> Outcome {
        self.handle_on(ServerPort::Dhcp, [0; 4], &packet.build())
    }

    fn reply(&mut self, packet: Packet) -> (Message, Destination) {
        let reply = self.handle(packet).decision.expect("a reply");
        let message = decode(&reply);
        assert_eq!(message.opts().msg_type(), Some(reply.kind));
        (message, reply.to)
    }

    fn ignored(&mut self, packet: Packet) -> Ignored {
        self.handle(packet).decision.expect_err("silence")
    }
}

fn decode(reply: &Reply) -> Message {
    assert!(reply.bytes.len() >= 300, "{} bytes", reply.bytes.len());
    Message::decode(&mut dhcproto::Decoder::new(&reply.bytes)).expect("a message")
}

fn option(message: &Message, code: u8) -> Option<&DhcpOption> {
    message.opts().get(OptionCode::from(code))
}

fn file(message: &Message) -> String {
    let field = message.fname().unwrap_or_default();
    String::from_utf8_lossy(field)
        .trim_end_matches('\0')
        .to_owned()
}

fn selecting() -> Packet {
    Packet::new(REQUEST)
        .option(code::REQUESTED_ADDRESS, &OWN)
        .option(code::SERVER_ID, &SERVER)
}

fn pxe(packet: Packet, arch: u8) -> Packet {
    packet
        .option(code::VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001")
        .option(code::ARCHITECTURE, &[0, arch])
        .option(code::MACHINE_ID, &[0; 17])
}

#[test]
fn discover_gets_the_reserved_address_rfc_2131_section_4_3_1() {
    let (offer, to) = Server::new().reply(Packet::new(DISCOVER));
    assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!(
        (offer.opcode(), offer.xid()),
        (Opcode::BootReply, 0x1234_5678)
    );
    assert_eq!(
        (offer.yiaddr(), offer.ciaddr()),
        (OWN.into(), Ipv4Addr::UNSPECIFIED)
    );
    assert_eq!(
        (offer.chaddr(), offer.giaddr()),
        (&MAC.0[..], Ipv4Addr::UNSPECIFIED)
    );
    for (code, expect) in [
        (1, DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0))),
        (3, DhcpOption::Router(vec![SERVER.into()])),
        (6, DhcpOption::DomainNameServer(vec![SERVER.into()])),
        (12, DhcpOption::Hostname("n1".into())),
        (28, DhcpOption::BroadcastAddr(Ipv4Addr::new(10, 77, 0, 255))),
        (51, DhcpOption::AddressLeaseTime(86_400)),
        (54, DhcpOption::ServerIdentifier(SERVER.into())),
        (58, DhcpOption::Renewal(43_200)),
        (59, DhcpOption::Rebinding(75_600)),
    ] {
        assert_eq!(option(&offer, code), Some(&expect));
    }
    assert_eq!(option(&offer, code::BOOT_FILE), None);
    assert_eq!(
        to,
        Destination::Hardware {
            address: OWN.into(),
            mac: MAC
        }
    );
}

#[test]
fn replies_go_where_rfc_2131_section_4_1_sends_them() {
    let mut server = Server::new();
    assert_eq!(
        server.reply(Packet::new(DISCOVER).broadcast()).1,
        Destination::Broadcast
    );
    assert_eq!(
        server
            .reply(Packet::new(DISCOVER).giaddr(RELAY).broadcast())
            .1,
        Destination::Relay(RELAY.into())
    );
    let renewing = Packet::new(REQUEST).ciaddr(OWN);
    let client = Destination::Client(SocketAddrV4::new(OWN.into(), 68));
    assert_eq!(server.reply(renewing.clone()).1, client);
    assert_eq!(server.reply(renewing.broadcast()).1, client);
}

/// RFC 2131 section 4.3.2 and table 4: what a REQUEST means, and what it gets.
#[test]
fn request_in_every_state() {
    use MessageType::{Ack, Nak};
    let other = [10, 77, 0, 99];
    let request = || Packet::new(REQUEST);
    let requested = |packet: Packet, address| packet.option(code::REQUESTED_ADDRESS, address);
    for (state, packet, expect) in [
        ("selecting us", selecting(), Ok(Ack)),
        (
            "selecting us, wrong address",
            requested(request(), &other).option(code::SERVER_ID, &SERVER),
            Ok(Nak),
        ),
        (
            "selecting another",
            requested(request(), &OWN).option(code::SERVER_ID, &other),
            Err(Ignored::OtherServer),
        ),
        ("init-reboot", requested(request(), &OWN), Ok(Ack)),
        (
            "init-reboot, wrong address",
            requested(request(), &other),
            Ok(Nak),
        ),
        (
            "init-reboot, wrong net",
            requested(request(), &[192, 168, 1, 5]),
            Ok(Nak),
        ),
        ("renewing or rebinding", request().ciaddr(OWN), Ok(Ack)),
        ("renewing, wrong address", request().ciaddr(other), Ok(Nak)),
        (
            "renewing with server id",
            request().ciaddr(OWN).option(code::SERVER_ID, &SERVER),
            Ok(Ack),
        ),
        (
            "both addresses",
            requested(request().ciaddr(OWN), &OWN),
            Ok(Ack),
        ),
        (
            "two different addresses",
            requested(request().ciaddr(other), &OWN),
            Ok(Nak),
        ),
        ("no address", request(), Err(Ignored::NoAddress)),
        (
            "no address, server id",
            request().option(code::SERVER_ID, &SERVER),
            Err(Ignored::NoAddress),
        ),
    ] {
        let decision = Server::new().handle(packet).decision;
        assert_eq!(decision.map(|reply| reply.kind), expect, "{state}");
    }
}

#[test]
fn a_nak_goes_to_everybody_and_holds_nothing_else() {
    let wrong = || Packet::new(REQUEST).option(code::REQUESTED_ADDRESS, &[10, 77, 0, 99]);
    let (nak, to) = Server::new().reply(wrong());
    assert_eq!(to, Destination::Broadcast);
    assert_eq!(
        (nak.yiaddr(), nak.siaddr(), nak.ciaddr()),
        ([0; 4].into(), [0; 4].into(), [0; 4].into())
    );
    assert_eq!(option(&nak, 51), None);
    let (nak, to) = Server::new().reply(wrong().giaddr(RELAY));
    assert_eq!(to, Destination::Relay(RELAY.into()));
    assert!(
        nak.flags().broadcast(),
        "the relay must broadcast it (section 4.3.2)"
    );
}

#[test]
fn unknown_machines_get_silence_and_a_place_on_the_list() {
    let mut server = Server::new();
    let stranger = MacAddr([0x52, 0x54, 0, 0x4b, 0, 9]);
    let outcome = server.handle(Packet::new(DISCOVER).mac(stranger));
    assert_eq!(outcome.decision, Err(Ignored::UnknownMachine));
    match outcome.note {
        Some(Note::Pending(machine)) => assert_eq!(machine.mac, stranger),
        other => panic!("no report: {other:?}"),
    }
    for kind in [DISCOVER, REQUEST, INFORM, DECLINE, RELEASE] {
        let outcome = server.handle(Packet::new(kind).mac(stranger).ciaddr(OWN));
        assert_eq!(outcome.decision, Err(Ignored::UnknownMachine));
        assert_eq!(outcome.note, None, "reported already");
    }
    assert_eq!(server.responder.held(), 1);
    // Enrolled: the next packet is answered and the machine leaves the list.
    server.responder.table.replace_node(BootNode {
        mac: stranger,
        ..node(9)
    });
    assert_eq!(
        server.reply(Packet::new(DISCOVER).mac(stranger)).0.yiaddr(),
        Ipv4Addr::new(10, 77, 0, 19)
    );
    assert_eq!(server.responder.held(), 0);
}

#[test]
fn a_flood_of_made_up_machines_is_bounded_and_known_nodes_are_served() {
    let mut server = Server::new();
    let mut full = 0;
    for i in 0..5_000u16 {
        let [a, b] = i.to_be_bytes();
        let packet = Packet::new(DISCOVER).mac(MacAddr([0x02, 1, 2, 3, a, b]));
        full += u32::from(server.ignored(packet) == Ignored::HoldingListFull);
    }
    assert_eq!(server.responder.held(), crate::dhcp::lease::MAX_HELD);
    assert_eq!(full, 5_000 - crate::dhcp::lease::MAX_HELD as u32);
    assert_eq!(
        server.reply(Packet::new(DISCOVER)).0.yiaddr(),
        Ipv4Addr::from(OWN)
    );
}

#[test]
fn inform_gets_everything_but_an_address_rfc_2131_section_4_3_5() {
    let mut server = Server::new();
    let (ack, to) = server.reply(Packet::new(INFORM).ciaddr([10, 77, 0, 42]));
    assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(ack.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(ack.ciaddr(), Ipv4Addr::new(10, 77, 0, 42));
    assert_eq!((option(&ack, 51), option(&ack, 58)), (None, None));
    assert!(option(&ack, 1).is_some());
    assert_eq!(
        to,
        Destination::Client("10.77.0.42:68".parse().expect("an address"))
    );
    assert_eq!(server.ignored(Packet::new(INFORM)), Ignored::NoAddress);
    for elsewhere in [[192, 0, 2, 1], SERVER, [10, 77, 0, 255], [255; 4]] {
        assert_eq!(
            server.ignored(Packet::new(INFORM).ciaddr(elsewhere)),
            Ignored::NotItsAddress,
            "{elsewhere:?}"
        );
    }
}

#[test]
fn decline_holds_the_address_back_for_a_while_rfc_2131_section_4_3_3() {
    let mut server = Server::new();
    let decline = || {
        Packet::new(DECLINE)
            .option(code::REQUESTED_ADDRESS, &OWN)
            .option(code::SERVER_ID, &SERVER)
    };
    let outcome = server.handle(decline());
    assert_eq!(outcome.decision, Err(Ignored::Decline));
    assert!(matches!(outcome.note, Some(Note::AddressInUse(_))));
    assert_eq!(server.ignored(Packet::new(DISCOVER)), Ignored::Declined);
    assert_eq!(server.ignored(selecting()), Ignored::Declined);
    server.now += DECLINE_HOLD;
    assert_eq!(
        server.reply(Packet::new(DISCOVER)).0.yiaddr(),
        Ipv4Addr::from(OWN)
    );
}

#[test]
fn decline_and_release_of_what_is_anothers_change_nothing() {
    let mut server = Server::new();
    let n2 = [10, 77, 0, 12];
    let decline = |address| Packet::new(DECLINE).option(code::REQUESTED_ADDRESS, address);
    assert_eq!(server.ignored(decline(&n2)), Ignored::NotItsAddress);
    assert_eq!(server.ignored(Packet::new(DECLINE)), Ignored::NotItsAddress);
    assert_eq!(
        server.ignored(decline(&OWN).option(code::SERVER_ID, &n2)),
        Ignored::OtherServer
    );
    assert_eq!(
        server.ignored(Packet::new(RELEASE).ciaddr(n2)),
        Ignored::NotItsAddress
    );
    assert_eq!(
        server.ignored(
            Packet::new(RELEASE)
                .ciaddr(OWN)
                .option(code::SERVER_ID, &n2)
        ),
        Ignored::OtherServer
    );
    assert_eq!(
        server.ignored(
            Packet::new(RELEASE)
                .ciaddr(OWN)
                .option(code::SERVER_ID, &SERVER)
        ),
        Ignored::Release
    );
    for mac in [MAC, node(2).mac] {
        assert!(
            server
                .handle(Packet::new(DISCOVER).mac(mac))
                .decision
                .is_ok(),
            "{mac}"
        );
    }
}

#[test]
fn the_client_id_comes_back_rfc_6842() {
    let (offer, _) =
        Server::new().reply(Packet::new(DISCOVER).option(code::CLIENT_ID, &[255, 1, 2, 3]));
    assert_eq!(
        option(&offer, 61),
        Some(&DhcpOption::ClientIdentifier(vec![255, 1, 2, 3]))
    );
}

#[test]
fn a_reply_keeps_to_the_size_the_client_takes() {
    let crowded = pxe(selecting(), 0)
        .option(code::CLIENT_ID, &[1; 255])
        .option(code::PARAMETER_LIST, &[66, 67]);
    for size in [576u16, 1500] {
        let packet = crowded
            .clone()
            .option(code::MAX_MESSAGE_SIZE, &size.to_be_bytes());
        let reply = Server::new().handle(packet).decision.expect("a reply");
        assert!(
            reply.bytes.len() + 28 <= usize::from(size),
            "{} of {size}",
            reply.bytes.len()
        );
        assert_eq!(file(&decode(&reply)), "undionly.kpxe");
    }
    let huge = Packet::new(DISCOVER)
        .giaddr(RELAY)
        .option(code::RELAY_AGENT, &[9; 255]);
    assert!(
        Server::new()
            .handle(huge)
            .decision
            .expect("fits into 548")
            .bytes
            .len()
            <= 548
    );
}

#[test]
fn every_reason_has_its_own_name() {
    let reasons = [
        Ignored::Malformed(Malformed::Short),
        Ignored::UnknownMachine,
        Ignored::HoldingListFull,
        Ignored::WrongSubnet,
        Ignored::BadRelay,
        Ignored::OtherServer,
        Ignored::Declined,
        Ignored::Decline,
        Ignored::NotItsAddress,
        Ignored::Release,
    ];
    let names: std::collections::BTreeSet<_> = reasons.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), reasons.len());
    assert!(names.contains("short") && names.contains("unknown_machine"));
}

#[test]
fn the_fuzz_corpus_is_handled() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/dhcp_handler");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        crate::dhcp::replay::dhcp_handler(&std::fs::read(path).expect("an input"));
        inputs += 1;
    }
    assert!(inputs >= 16, "{inputs} inputs");
}

proptest! {
    #[test]
    fn any_packet_gets_a_valid_reply_or_a_reason(
        kind in 0u8..10,
        known in any::<bool>(),
        ciaddr in any::<[u8; 4]>(),
        giaddr in prop_oneof![Just([0; 4]), Just(RELAY), any::<[u8; 4]>()],
        options in proptest::collection::vec(any::<u8>(), 0..300),
        pxe_port in any::<bool>(),
    ) {
        let mut server = Server::new();
        let mac = if known { MAC } else { MacAddr([2, 9, 9, 9, 9, 9]) };
        let mut bytes = Packet::new(kind).mac(mac).ciaddr(ciaddr).giaddr(giaddr).bytes;
        bytes.extend_from_slice(&options);
        let port = if pxe_port { ServerPort::Pxe } else { ServerPort::Dhcp };
        if let Ok(reply) = server.handle_on(port, OWN, &bytes).decision {
            let message = decode(&reply);
            prop_assert!(known, "a stranger was answered");
            prop_assert!(message.yiaddr() == Ipv4Addr::UNSPECIFIED || message.yiaddr() == Ipv4Addr::from(OWN));
            prop_assert_eq!(message.xid(), 0x1234_5678);
        }
    }
}
