//! What only real sockets show; how single packets are decided is tested with the responder, real clients with the boot plane.

use super::*;
use crate::boot::netns::{self, Network};
use crate::boot::table::tests::{node, table};
use crate::boot::{BootNode, Loaders, interfaces_for_tests};
use crate::dhcp::packet::tests::Packet as Request;
use std::collections::BTreeSet;
use std::net::UdpSocket as StdSocket;

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

/// Nodes of the storm, in 10.77.0.0/16.
const STORM: u16 = 1_000;

fn storm_node(i: u16) -> BootNode {
    let [a, b] = i.to_be_bytes();
    let address = Ipv4Addr::new(10, 77, 128 + a, b);
    BootNode {
        name: format!("storm{i}").parse().expect("a name"),
        mac: MacAddr([0x52, 0x54, 0, 0x4c, a, b]),
        address: ipnet::Ipv4Net::new(address, 16).expect("a prefix"),
        ..node(1)
    }
}

/// A DHCP server on `boot0` (10.77.0.1/16) with node n1 and the storm's; runs until the runtime is dropped.
fn serve_here(
    network: &Network,
) -> (
    tokio::runtime::Runtime,
    tokio::sync::mpsc::Receiver<BootEvent>,
) {
    network.connect("52:54:00:4b:00:01");
    netns::sh("ip addr flush dev boot0; ip addr add 10.77.0.1/16 dev boot0");
    network.run("ip addr add 10.77.9.9/16 dev client0; ip route add default via 10.77.0.1");
    let table = table((0..STORM).map(storm_node).chain([node(1)]));
    let responder = Arc::new(Mutex::new(Responder::new(
        table,
        Arc::new(Loaders::default()),
        8080,
    )));
    let (events, receiver) = EventSender::channel();
    let stages = Arc::new(StageLog::new(events.clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    runtime.spawn(async move {
        let facts = interfaces_for_tests("boot0");
        serve(
            facts,
            responder,
            Notes { events, stages },
            CancellationToken::new(),
        )
        .await;
    });
    netns::until("DHCP serves", || {
        netns::sh("cat /proc/net/udp").contains(":0043 ")
    });
    (runtime, receiver)
}

/// A client's socket for replies that are broadcast.
fn client_socket() -> StdSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_broadcast(true).expect("broadcast");
    socket.set_recv_buffer_size(64 << 20).expect("a buffer");
    socket.bind_device(Some(b"client0")).expect("the device");
    socket
        .bind(
            &"0.0.0.0:68"
                .parse::<std::net::SocketAddr>()
                .expect("an address")
                .into(),
        )
        .expect("bound");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    socket.into()
}

fn send(socket: &StdSocket, bytes: &[u8]) {
    socket.send_to(bytes, "255.255.255.255:67").expect("sent");
}

/// The type and address of the next reply.
fn receive(socket: &StdSocket) -> Option<(u8, MacAddr, Ipv4Addr)> {
    let mut buffer = [0; 2048];
    let (length, _) = socket.recv_from(&mut buffer).ok()?;
    let kind = buffer[..length]
        .windows(3)
        .find(|window| window[..2] == [53, 1])?[2];
    let address: [u8; 4] = buffer[16..20].try_into().expect("four");
    Some((
        kind,
        MacAddr(buffer[28..34].try_into().expect("six")),
        address.into(),
    ))
}

#[test]
fn noise_and_floods_of_strangers_do_not_stop_the_service() {
    let test = "noise_and_floods_of_strangers_do_not_stop_the_service";
    let Some(network) = netns::enter(module_path!(), test, &[]) else {
        return;
    };
    let (_runtime, mut events) = serve_here(&network);
    network.inside(|| {
        let socket = client_socket();
        for length in [0, 1, 239, 240, 576, 1472, 2048, 2049, 20_000, 65_507] {
            send(&socket, &vec![0x63; length]);
        }
        for _ in 0..3 {
            for i in 0..20_000u32 {
                let [_, a, b, c] = i.to_be_bytes();
                send(
                    &socket,
                    &Request::new(DISCOVER)
                        .mac(MacAddr([2, 0, 9, a, b, c]))
                        .build(),
                );
            }
            // A node asks again until it is heard, as firmware does.
            let answered = (0..10).any(|_| {
                send(&socket, &Request::new(DISCOVER).broadcast().build());
                receive(&socket) == Some((2, node(1).mac, Ipv4Addr::new(10, 77, 0, 11)))
            });
            assert!(answered, "the node got no OFFER");
        }
    });
    let mut reported = BTreeSet::new();
    while let Ok(event) = events.try_recv() {
        if let BootEvent::PendingMachine(machine) = event {
            reported.insert(machine.mac);
        }
    }
    assert!(
        !reported.is_empty() && reported.len() <= crate::dhcp::lease::MAX_HELD,
        "{}",
        reported.len()
    );
}

#[test]
fn a_storm_of_nodes_all_get_their_own_address() {
    let test = "a_storm_of_nodes_all_get_their_own_address";
    let Some(network) = netns::enter(module_path!(), test, &[]) else {
        return;
    };
    let _server = serve_here(&network);
    let (elapsed, resends) = network.inside(storm);
    println!("{STORM} nodes in {elapsed:?}, {resends} packets sent again");
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
}

/// All nodes at once, each through DISCOVER and REQUEST; who hears nothing for half a second asks again.
fn storm() -> (Duration, u32) {
    let socket = client_socket();
    let started = Instant::now();
    let discover = |i| {
        Request::new(DISCOVER)
            .mac(storm_node(i).mac)
            .broadcast()
            .build()
    };
    let request = |i| {
        let node = storm_node(i);
        let packet = Request::new(REQUEST).mac(node.mac).broadcast();
        packet
            .option(50, &node.address.addr().octets())
            .option(54, &[10, 77, 0, 1])
            .build()
    };
    let mut waiting: BTreeSet<MacAddr> = (0..STORM).map(|i| storm_node(i).mac).collect();
    for i in 0..STORM {
        send(&socket, &discover(i));
    }
    let mut resends = 0;
    while !waiting.is_empty() {
        match receive(&socket) {
            Some((kind, mac, address)) => {
                let i = u16::from_be_bytes([mac.0[4], mac.0[5]]);
                assert_eq!(address, storm_node(i).address.addr());
                match kind {
                    2 => send(&socket, &request(i)),
                    _ => drop(waiting.remove(&mac)),
                }
            }
            None => {
                for &mac in &waiting {
                    send(&socket, &discover(u16::from_be_bytes([mac.0[4], mac.0[5]])));
                    resends += 1;
                }
            }
        }
    }
    (started.elapsed(), resends)
}
