use super::*;
use crate::boot::{BootTable, ClientArch, EventSender, Loader, Loaders, StageLog};
use crate::tftp::Sessions;
use std::sync::Arc;

const LOADER_BYTES: usize = 40_000;

/// A server on loopback and a client's socket. Tests of real clients are with the boot plane.
struct Server {
    address: SocketAddrV4,
    stop: CancellationToken,
    _runtime: tokio::runtime::Runtime,
}

fn start() -> Server {
    let loader = Loader {
        arch: ClientArch::Bios,
        name: "loader".into(),
        bytes: vec![7; LOADER_BYTES].into(),
    };
    let served = Served {
        table: Arc::new(BootTable::default()),
        loaders: Arc::new(Loaders::new(vec![loader]).expect("one")),
        stages: Arc::new(StageLog::new(EventSender::channel().0)),
        sessions: Arc::<Sessions>::default(),
        address: "127.0.0.1/8".parse().expect("an address"),
        http_port: 8080,
        sync_port: 31415,
    };
    // A free port, found by binding: the server itself takes no port 0, because nobody could find it.
    let free = UdpSocket::bind("127.0.0.1:0")
        .expect("a socket")
        .local_addr()
        .expect("its address");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let (runtime, stop) = (runtime.expect("a runtime"), CancellationToken::new());
    runtime.spawn(serve(served, free.port(), stop.clone()));
    let SocketAddr::V4(address) = free else {
        panic!("IPv4 was bound")
    };
    let server = Server {
        address,
        stop,
        _runtime: runtime,
    };
    let client = client();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while ask(&client, &server, &rrq("missing", &[])).is_none() {
        assert!(
            std::time::Instant::now() < deadline,
            "the server does not answer"
        );
    }
    server
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a timeout");
    client
}

fn request(opcode: u8, name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = vec![0, opcode];
    for text in [name, "octet"]
        .into_iter()
        .chain(options.iter().flat_map(|(name, value)| [*name, *value]))
    {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    }
    packet
}

fn rrq(name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    request(1, name, options)
}

/// The first packet of the answer.
fn ask(client: &UdpSocket, server: &Server, packet: &[u8]) -> Option<Vec<u8>> {
    client.send_to(packet, server.address).expect("sent");
    let mut buffer = vec![0; 70_000];
    let (length, from) = client.recv_from(&mut buffer).ok()?;
    assert_eq!(from.ip(), std::net::IpAddr::V4(*server.address.ip()));
    buffer.truncate(length);
    Some(buffer)
}

fn oack(options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = vec![0, 6];
    for text in options.iter().flat_map(|(name, value)| [name, value]) {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    }
    packet
}

#[test]
fn options_are_granted_within_bounds() {
    let server = start();
    for (asked, expect) in [
        (
            vec![("blksize", "65464"), ("windowsize", "65535")],
            Some(vec![("blksize", "1468"), ("windowsize", "16")]),
        ),
        (vec![("tsize", "0")], Some(vec![("tsize", "40000")])),
        (
            vec![("timeout", "255"), ("blksize", "8")],
            Some(vec![("blksize", "8")]),
        ),
        // Not a block size of RFC 2348: no option, so no OACK.
        (
            vec![("blksize", "1"), ("windowsize", "0"), ("unknown", "1")],
            None,
        ),
    ] {
        let reply = ask(&client(), &server, &rrq("loader", &asked)).expect("an answer");
        match expect {
            Some(options) => assert_eq!(reply, oack(&options), "{asked:?}"),
            None => assert_eq!(
                (&reply[..4], reply.len()),
                (&[0, 3, 0, 1][..], 516),
                "{asked:?}"
            ),
        }
    }
}

#[test]
fn bad_requests_get_an_error_or_silence() {
    let server = start();
    let error = |code: u8| Some(vec![0, 5, 0, code]);
    let kilobyte = "../".repeat(342);
    for (what, packet, expect) in [
        ("traversal", rrq("../../etc/passwd", &[]), error(2)),
        ("a kilobyte", rrq(&kilobyte, &[]), error(2)),
        ("write", request(2, "loader", &[]), error(2)),
        ("write outside", request(2, "../x", &[]), error(2)),
        ("missing", rrq("etc/passwd", &[]), error(1)),
        ("NUL in the name", b"\0\x01lo\0ader\0octet\0".to_vec(), None),
        ("no mode", b"\0\x01loader\0".to_vec(), None),
        ("not text", b"\0\x01\xff\xfe\0octet\0".to_vec(), None),
        (
            "half an option",
            b"\0\x01loader\0octet\0blksize\0".to_vec(),
            None,
        ),
        ("data", vec![0, 3, 0, 1], None),
        ("unknown operation", vec![0, 99], None),
        ("one byte", vec![0], None),
        ("nothing", vec![], None),
        (
            "8 kB",
            [rrq("loader", &[]), vec![b'a'; 8192]].concat(),
            None,
        ),
    ] {
        let reply = ask(&client(), &server, &packet);
        assert_eq!(reply.map(|reply| reply[..4].to_vec()), expect, "{what}");
    }
    assert!(
        ask(&client(), &server, &rrq("loader", &[])).is_some(),
        "it still serves"
    );
}

#[test]
fn acknowledgments_of_others_and_doubles_change_nothing() {
    let server = start();
    let client = client();
    client
        .send_to(&rrq("loader", &[]), server.address)
        .expect("sent");
    let mut buffer = [0; 600];
    let (_, tid) = client.recv_from(&mut buffer).expect("block 1");
    let stranger = self::client();
    let ack = |socket: &UdpSocket, block: u8| socket.send_to(&[0, 4, 0, block], tid).expect("sent");
    ack(&stranger, 1);
    assert!(
        stranger.recv_from(&mut buffer).is_err(),
        "a stranger was answered"
    );
    // Block 1 comes again, because nobody acknowledged it; two acknowledgments then bring block 2 once (sorcerer's apprentice).
    let block = |buffer: &[u8]| u16::from_be_bytes([buffer[2], buffer[3]]);
    client.recv_from(&mut buffer).expect("block 1 again");
    assert_eq!(block(&buffer), 1);
    ack(&client, 1);
    ack(&client, 1);
    client.recv_from(&mut buffer).expect("block 2");
    assert_eq!(block(&buffer), 2);
    assert!(client.recv_from(&mut buffer).is_err(), "block 2 came twice");
}

#[test]
fn a_client_that_vanishes_frees_its_session() {
    let server = start();
    let client = client();
    let packet = rrq("loader", &[("tsize", "0")]);
    assert!(ask(&client, &server, &packet).is_some());
    // What firmware does that only wants the size: the crate does not hear it and repeats itself, but not for long.
    let mut buffer = [0; 600];
    let mut repeats = 0;
    let longest = TIMEOUT * (RETRIES + 3);
    let started = std::time::Instant::now();
    while started.elapsed() < longest {
        repeats += u32::from(client.recv_from(&mut buffer).is_ok());
    }
    // The last packet says that it gives up.
    assert_eq!(repeats, RETRIES + 1);
    assert_eq!(buffer[..2], [0, 5]);
    let again = ask(&client, &server, &packet).expect("the same port is served again");
    assert_eq!(again, oack(&[("tsize", "40000")]));
}
