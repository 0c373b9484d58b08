//! Claim: sync frames that are replayed, bit-flipped, truncated, reflected or made up change nothing on head and node; the head counts
//! every one of them.

use std::{fs, net::Ipv4Addr, thread, time::Duration};

use vm_tests::{cluster::Cluster, network};

use crate::lab::{self, NODES, SOON};

/// Where both ends of sync frames are on the head.
const SYNC_PORT: u16 = 31415;

/// Frames of each kind.
const EACH: usize = 8;

/// A node that has fallen for a frame shows within its dead timer of 10 s.
const WATCHED: Duration = Duration::from_secs(12);

#[test]
fn spoofed_sync_is_dropped() {
    lab::claim("spoofed_sync_is_dropped", |cluster, _| {
        let address = network::node_address(cluster.machine("n1").expect("n1").index);
        let mut seen = Vec::new();
        cluster
            .wait(SOON, "frames of both directions are captured", || {
                seen = frames(&fs::read(cluster.files.capture())?);
                let from = |ip: Ipv4Addr| seen.iter().filter(|frame| frame.from.0 == ip).count();
                Ok(from(address) >= EACH
                    && seen.iter().filter(|f| f.to.0 == address).count() >= EACH)
            })
            .expect("frames");
        let up: Vec<&Frame> = seen
            .iter()
            .rev()
            .filter(|frame| frame.from.0 == address)
            .take(EACH)
            .collect();
        let down: Vec<&Frame> = seen
            .iter()
            .rev()
            .filter(|frame| frame.to.0 == address)
            .take(EACH)
            .collect();
        let node_port = up[0].from.1;

        let resets = cluster.all_resets().expect("counts");
        let dropped = || {
            cluster
                .metric("kraken_sync_dropped_total", "")
                .expect("a metric")
        };
        let before = dropped();
        let mut sent = 0;
        for (own, other) in up.iter().zip(&down) {
            for forged in forgeries(&own.payload, &other.payload) {
                send(cluster, (network::HEAD, SYNC_PORT), &forged);
                sent += 1;
            }
            for forged in forgeries(&other.payload, &own.payload) {
                send(cluster, (address, node_port), &forged);
            }
        }
        cluster
            .wait(SOON, "the head has counted them all", || {
                Ok(dropped() >= before + f64::from(sent))
            })
            .expect("drops");
        let starts = cluster.known("n1", "/host/agent_starts").expect("a count");
        let until = std::time::Instant::now() + WATCHED;
        while std::time::Instant::now() < until {
            for node in NODES {
                assert!(cluster.is_up(node).expect("a state"), "{node} is as it was");
            }
            thread::sleep(Duration::from_secs(1));
        }
        assert_eq!(
            cluster.known("n1", "/host/agent_starts").expect("a count"),
            starts,
            "the agent lives"
        );
        assert_eq!(
            cluster.all_resets().expect("counts"),
            resets,
            "no power action"
        );
    });
}

/// What somebody without the key can make of a genuine frame and of one that goes the other way.
fn forgeries(genuine: &[u8], other_way: &[u8]) -> Vec<Vec<u8>> {
    let flipped = |at: usize| {
        let mut bytes = genuine.to_vec();
        bytes[at] ^= 0x40;
        bytes
    };
    let mut later = genuine.to_vec();
    // The counter of a frame that is yet to come.
    later[12] = later[12].wrapping_add(100);
    let mut made_up = genuine[..20].to_vec();
    made_up.extend([0x5a; 60]);
    vec![
        genuine.to_vec(),
        flipped(0),
        flipped(4),
        flipped(genuine.len() - 1),
        flipped(24),
        genuine[..19].to_vec(),
        genuine[..genuine.len() - 1].to_vec(),
        other_way.to_vec(),
        later,
        made_up,
    ]
}

fn send(cluster: &Cluster, to: (Ipv4Addr, u16), payload: &[u8]) {
    let lab = env!("CARGO_BIN_EXE_kraken-lab");
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    let to = format!("{}:{}", to.0, to.1);
    let argv = [
        lab,
        "net",
        "udp",
        "--from",
        "10.77.0.1:0",
        "--to",
        &to,
        "--silent",
        &hex,
    ];
    let output = cluster.run(&argv, SOON).expect("a sender");
    assert_eq!(output.code, 0, "{}", output.stderr);
}

struct Frame {
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    payload: Vec<u8>,
}

/// The whole UDP payloads on the sync port in a capture (pcap, Ethernet, IPv4 without options).
fn frames(capture: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut rest = capture.get(24..).unwrap_or_default();
    while let Some(header) = rest.get(..16) {
        let length = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
                as usize
        };
        let (kept, whole) = (length(8), length(12));
        let Some(packet) = rest.get(16..16 + kept) else {
            break;
        };
        rest = &rest[16 + kept..];
        let is_udp =
            packet.len() > 42 && packet[12..14] == [8, 0] && packet[14] == 0x45 && packet[23] == 17;
        if !is_udp || kept != whole {
            continue;
        }
        let ip =
            |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (from, to) = ((ip(26), number(34)), (ip(30), number(36)));
        let payload = usize::from(number(38)).saturating_sub(8);
        if let (true, Some(bytes)) = (
            from.1 == SYNC_PORT || to.1 == SYNC_PORT,
            packet.get(42..42 + payload),
        ) {
            found.push(Frame {
                from,
                to,
                payload: bytes.to_vec(),
            });
        }
    }
    found
}
