use super::*;

const MAC: Mac = Mac([0x52, 0x54, 0, 0x4b, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn reply(client: &Client, kind: MessageType, last: u8, lease: u32) -> Vec<u8> {
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootReply)
        .set_xid(client.xid)
        .set_chaddr(&MAC.0)
        .set_yiaddr(Ipv4Addr::new(10, 77, 0, last));
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(SERVER));
    options.insert(DhcpOption::AddressLeaseTime(lease));
    options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
    options.insert(DhcpOption::Router(vec![SERVER]));
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

/// Kind, destination and requested address of the packet that is to be sent next.
fn sent(client: &mut Client) -> (MessageType, Ipv4Addr, Option<Ipv4Addr>) {
    let Some(Output::Send(bytes, to)) = client.poll_output() else {
        panic!("nothing to send")
    };
    assert!(bytes.len() >= 300);
    let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
    let Some(DhcpOption::MessageType(kind)) = message.opts().get(OptionCode::MessageType) else {
        panic!("no kind")
    };
    let requested = match message.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(ip)) => Some(*ip),
        _ => None,
    };
    assert_eq!(
        message.flags().broadcast(),
        message.ciaddr().is_unspecified()
    );
    (*kind, to, requested)
}

fn bound(lease: u32) -> Client {
    let mut client = Client::new(MAC, 7, s(0));
    assert_eq!(
        sent(&mut client),
        (MessageType::Discover, Ipv4Addr::BROADCAST, None)
    );
    client.handle_packet(&reply(&client, MessageType::Offer, 11, lease), s(1));
    let wanted = Some(Ipv4Addr::new(10, 77, 0, 11));
    assert_eq!(
        sent(&mut client),
        (MessageType::Request, Ipv4Addr::BROADCAST, wanted)
    );
    client.handle_packet(&reply(&client, MessageType::Ack, 11, lease), s(1));
    let Some(Output::Bound(got)) = client.poll_output() else {
        panic!("not bound")
    };
    assert_eq!(got.address.to_string(), "10.77.0.11/24");
    assert_eq!(got.gateway, Some(SERVER));
    assert_eq!(client.poll_output(), None);
    client
}

#[test]
fn four_packets_make_a_lease() {
    let client = bound(3600);
    assert_eq!(client.poll_timeout(), s(1801), "T1");
}

#[test]
fn discover_is_sent_again_ever_more_slowly() {
    let mut client = Client::new(MAC, 255, s(0));
    let mut waits = Vec::new();
    let mut now = s(0);
    for _ in 0..8 {
        assert_eq!(sent(&mut client).0, MessageType::Discover);
        waits.push(client.poll_timeout() - now);
        now = client.poll_timeout();
        client.handle_timeout(now);
    }
    assert!(waits[0] >= RESEND_FIRST && waits[0] <= RESEND_FIRST * 9 / 8);
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(waits[7] <= RESEND_MAX * 9 / 8);
}

#[test]
fn a_lease_is_renewed_at_half_time_by_its_server() {
    let mut client = bound(3600);
    client.handle_timeout(s(1801));
    assert_eq!(sent(&mut client), (MessageType::Request, SERVER, None));
    client.handle_packet(&reply(&client, MessageType::Ack, 11, 3600), s(1802));
    assert_eq!(client.poll_output(), None, "nothing changed");
    assert_eq!(client.poll_timeout(), s(3602));
}

#[test]
fn a_silent_server_is_replaced_and_in_the_end_the_address_is_lost() {
    let mut client = bound(800);
    let (mut unicast, mut broadcast, mut lost) = (0, 0, false);
    while !lost {
        let now = client.poll_timeout();
        assert!(now <= s(801));
        client.handle_timeout(now);
        while let Some(output) = client.poll_output() {
            match output {
                Output::Send(_, SERVER) => unicast += 1,
                Output::Send(_, Ipv4Addr::BROADCAST) => broadcast += 1,
                Output::Lost => lost = true,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(unicast >= 2 && broadcast >= 1, "{unicast} {broadcast}");
    client.handle_timeout(client.poll_timeout());
    assert_eq!(sent(&mut client).0, MessageType::Discover);
}

#[test]
fn a_refusal_begins_anew_but_not_at_once() {
    let mut client = Client::new(MAC, 7, s(0));
    sent(&mut client);
    client.handle_packet(&reply(&client, MessageType::Offer, 11, 60), s(1));
    sent(&mut client);
    client.handle_packet(&reply(&client, MessageType::Nak, 11, 60), s(1));
    assert_eq!(client.poll_output(), None);
    assert_eq!(client.poll_timeout(), s(1) + RESEND_FIRST);
}

#[test]
fn an_address_that_changes_is_lost_first() {
    let mut client = bound(3600);
    client.handle_timeout(s(1801));
    sent(&mut client);
    client.handle_packet(&reply(&client, MessageType::Ack, 12, 3600), s(1802));
    assert_eq!(client.poll_output(), Some(Output::Lost));
    assert!(
        matches!(client.poll_output(), Some(Output::Bound(lease)) if lease.address.ip.octets()[3] == 12)
    );
}

#[test]
fn packets_of_others_and_broken_ones_are_ignored() {
    let mut client = Client::new(MAC, 7, s(0));
    sent(&mut client);
    let good = reply(&client, MessageType::Offer, 11, 60);
    for (at, value) in [(0, 1), (2, 255), (2, 16), (7, 9), (33, 9), (236, 0)] {
        let mut bad = good.clone();
        bad[at] = value;
        client.handle_packet(&bad, s(1));
    }
    for length in 0..good.len() {
        let mut other = client.clone();
        other.handle_packet(&good[..length], s(1));
    }
    let mut client_id = good.clone();
    client_id.truncate(240);
    client_id.extend([53, 0, 54, 200, 255]);
    client.handle_packet(&client_id, s(1));
    client.handle_packet(&reply(&client, MessageType::Ack, 11, 60), s(1));
    assert_eq!(client.poll_output(), None);
    assert_eq!(client.state, State::Selecting);
}

#[test]
fn leases_must_make_sense() {
    let client = Client::new(MAC, 7, s(0));
    let (_, lease) = read_reply(&reply(&client, MessageType::Offer, 11, 0), 7, MAC).unwrap();
    assert_eq!(lease.unwrap().time, LEASE_MIN);
    let mut nobody = reply(&client, MessageType::Offer, 11, 60);
    nobody[16..20].fill(0);
    assert_eq!(read_reply(&nobody, 7, MAC).unwrap().1, None);
}
