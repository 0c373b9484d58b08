//! What one fuzz input does; also run over the corpus by the head's own tests.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhcproto::{Decodable, Decoder, v4};

use crate::boot::{
    ArmedBoot, BootNode, BootTable, ClientArch, InterfaceFacts, Loader, Loaders, MacAddr,
};
use crate::dhcp::exchange::Destination;
use crate::dhcp::responder::{Ingress, Responder, ServerPort};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x4b, 0, 1]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Feeds a server with one node the datagrams of an input: port (odd: 4011), length (two bytes, high first), bytes.
///
/// # Panics
/// If a stranger is answered, or a reply is malformed, too long or for another address.
pub(crate) fn dhcp_handler(mut input: &[u8]) {
    let mut responder = responder();
    let facts = InterfaceFacts {
        name: "br0".into(),
        index: 2,
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        addresses: vec![ipnet::Ipv4Net::new_assert(SERVER, 24)],
    };
    let mut now = Instant::now();
    while let [port, high, low, rest @ ..] = input {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        input = rest;
        now += Duration::from_secs(7);
        let port = if port & 1 == 0 {
            ServerPort::Dhcp
        } else {
            ServerPort::Pxe
        };
        let ingress = Ingress {
            facts: &facts,
            port,
            source: SocketAddrV4::new(ADDRESS, 68),
        };
        if let Ok(reply) = responder.handle_packet(ingress, packet, now).decision {
            assert_eq!(
                packet.get(28..34),
                Some(&MAC.0[..]),
                "a stranger was answered"
            );
            assert!(
                (300..=1472).contains(&reply.bytes.len()),
                "{} bytes",
                reply.bytes.len()
            );
            let message = v4::Message::decode(&mut Decoder::new(&reply.bytes)).expect("a message");
            assert_eq!(message.opts().msg_type(), Some(reply.kind));
            assert!([ADDRESS, Ipv4Addr::UNSPECIFIED].contains(&message.yiaddr()));
            assert_eq!(reply.source, SERVER);
            if let Destination::Relay(relay) = reply.to {
                assert!(
                    facts.addresses[0].contains(&relay) && relay != SERVER,
                    "{relay}"
                );
            }
        }
    }
}

fn responder() -> Responder {
    let table = Arc::new(BootTable::default());
    table.replace_node(BootNode {
        name: "n1".parse().expect("a name"),
        id: uuid::Uuid::from_u128(1),
        mac: MAC,
        address: ipnet::Ipv4Net::new_assert(ADDRESS, 24),
        gateway: Some(SERVER),
        dns: vec![SERVER],
        loader: None,
        armed: Some(ArmedBoot {
            boot_id: uuid::Uuid::from_u128(2),
            grant_id: uuid::Uuid::from_u128(3),
        }),
        kernel: "/nonexistent/vmlinuz".into(),
        initramfs: "/nonexistent/initramfs".into(),
        append: "quiet".parse().expect("arguments"),
    });
    let bytes = b"loader"[..].into();
    let loader = Loader {
        arch: ClientArch::Bios,
        name: "undionly.kpxe".into(),
        bytes,
    };
    Responder::new(
        table,
        Arc::new(Loaders::new(vec![loader]).expect("one loader")),
        8080,
    )
}
