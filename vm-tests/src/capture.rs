//! The packets on the cluster's bridge, in a pcap file that tcpdump and Wireshark read (draft-ietf-opsawg-pcap).
//!
//! tcpdump itself cannot run here: it insists on becoming another user, and the namespace has only one. Small packets are kept
//! whole, of large ones the headers: kernels and images would fill the disk.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::fd::AsRawFd,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
        sockopt,
    },
    sys::time::{TimeVal, TimeValLike},
};

/// Packets up to this size are kept whole: all but the segments of a bulk transfer.
const WHOLE_BYTES: usize = 1400;
/// What is kept of larger ones: every protocol's headers.
const HEADER_BYTES: usize = 256;
/// The largest packet: segmentation offload hands over 64 KiB at once.
const PACKET_MAX: usize = 1 << 17;
/// The file's size at which recording ends: a thousand boots.
const FILE_MAX: usize = 256 << 20;
/// How long a packet may wait to be seen in the file.
const FLUSH: Duration = Duration::from_millis(200);
/// Link type Ethernet.
const ETHERNET: u32 = 1;

/// Records `interface` into `file` from a thread of its own, as long as the process lives.
pub fn start(interface: &str, file: &Path) -> Result<()> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .context("cannot open a packet socket")?;
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(FLUSH.as_millis() as i64),
    )?;
    let mut out = BufWriter::new(File::create(file)?);
    out.write_all(&file_header())?;
    out.flush()?;
    thread::spawn(move || {
        let mut packet = vec![0; PACKET_MAX];
        let (mut written, mut flushed) = (0, Instant::now());
        while written < FILE_MAX {
            match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut packet) {
                Ok((length, Some(from))) if from.ifindex() == index as usize => {
                    let record = record(&packet[..length]);
                    written += record.len();
                    if let Err(error) = out.write_all(&record) {
                        eprintln!("supervisor: capture: {error}");
                        return;
                    }
                }
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => {
                    eprintln!("supervisor: capture: {error}");
                    return;
                }
            }
            if flushed.elapsed() >= FLUSH {
                flushed = Instant::now();
                out.flush().ok();
            }
        }
    });
    Ok(())
}

/// Magic number of microsecond files in this machine's byte order, version 2.4, no offset, longest packet, link type.
fn file_header() -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(0xa1b2_c3d4_u32.to_ne_bytes());
    header.extend(2_u16.to_ne_bytes());
    header.extend(4_u16.to_ne_bytes());
    header.extend([0; 8]);
    header.extend((PACKET_MAX as u32).to_ne_bytes());
    header.extend(ETHERNET.to_ne_bytes());
    header
}

fn record(packet: &[u8]) -> Vec<u8> {
    let kept = match packet.len() {
        length @ ..=WHOLE_BYTES => length,
        _ => HEADER_BYTES,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut record = Vec::with_capacity(16 + kept);
    // The format's seconds end in 2106.
    record.extend((now.as_secs() as u32).to_ne_bytes());
    record.extend(now.subsec_micros().to_ne_bytes());
    record.extend((kept as u32).to_ne_bytes());
    record.extend((packet.len() as u32).to_ne_bytes());
    record.extend(&packet[..kept]);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_packets_are_whole_and_large_ones_are_cut() {
        let lengths = |size: usize| {
            let record = record(&vec![7; size]);
            let number = |at: usize| {
                u32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
            };
            (number(8) as usize, number(12) as usize, record.len())
        };
        assert_eq!(
            lengths(WHOLE_BYTES),
            (WHOLE_BYTES, WHOLE_BYTES, 16 + WHOLE_BYTES)
        );
        assert_eq!(
            lengths(WHOLE_BYTES + 1),
            (HEADER_BYTES, WHOLE_BYTES + 1, 16 + HEADER_BYTES)
        );
        assert_eq!(file_header().len(), 24);
    }
}
