//! Relays, and nodes of other subnets.

use super::*;

#[test]
fn relays_are_answered_and_option_82_comes_back_rfc_3046() {
    let mut server = Server::new();
    let agent = [1, 3, b'e', b'0', b'1', 9, 2, 0xff, 0xfe, 2, 1, 7];
    let (offer, to) = server.reply(
        Packet::new(DISCOVER)
            .giaddr(RELAY)
            .option(code::RELAY_AGENT, &agent),
    );
    assert_eq!(to, Destination::Relay(RELAY.into()));
    assert_eq!(offer.giaddr(), Ipv4Addr::from(RELAY));
    let reply = server.handle(
        Packet::new(DISCOVER)
            .giaddr(RELAY)
            .option(code::RELAY_AGENT, &agent),
    );
    let bytes = reply.decision.expect("a reply").bytes;
    let mut expect = vec![82, agent.len() as u8];
    expect.extend_from_slice(&agent);
    expect.push(code::END);
    let copies = bytes
        .windows(agent.len())
        .filter(|window| *window == agent)
        .count();
    assert_eq!(copies, 1);
    assert!(
        bytes.windows(expect.len()).any(|window| window == expect),
        "byte for byte, and last"
    );
}

#[test]
fn relays_that_cannot_be_are_refused() {
    let mut server = Server::new();
    for giaddr in [
        SERVER,
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255; 4],
        [0, 0, 0, 1],
    ] {
        assert_eq!(
            server.ignored(Packet::new(DISCOVER).giaddr(giaddr)),
            Ignored::BadRelay,
            "{giaddr:?}"
        );
    }
    assert_eq!(
        server.ignored(Packet::new(DISCOVER).giaddr([10, 78, 0, 1])),
        Ignored::WrongSubnet
    );
}

#[test]
fn a_node_of_another_subnet_is_not_served_here() {
    let mut server = Server::new();
    let elsewhere = BootNode {
        address: "10.78.0.5/24".parse().expect("an address"),
        ..node(1)
    };
    server.responder.table.replace_node(elsewhere);
    assert_eq!(server.ignored(Packet::new(DISCOVER)), Ignored::WrongSubnet);
    // Behind a relay in its subnet it is.
    let (offer, _) = server.reply(Packet::new(DISCOVER).giaddr([10, 78, 0, 1]));
    assert_eq!(offer.yiaddr(), Ipv4Addr::new(10, 78, 0, 5));
}
