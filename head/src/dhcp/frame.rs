//! Ethernet, IPv4 and UDP around a DHCP reply, for clients that have no address to answer ARP with; pure.
//!
//! ```text
//! 0        6        12     14            34         42
//! +--------+--------+------+-------------+----------+--------------
//! | to MAC | our MAC| 0800 | IPv4 (20)   | UDP (8)  | DHCP message
//! +--------+--------+------+-------------+----------+--------------
//! ```
//! RFC 894, RFC 791 section 3.1, RFC 768.

use std::net::Ipv4Addr;

use dhcproto::v4::{CLIENT_PORT, SERVER_PORT};

use crate::boot::MacAddr;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const IP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;
/// Don't fragment: a reply is never longer than the frame the client takes.
const FLAGS: [u8; 2] = [0x40, 0x00];

/// One end of the datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// Hardware address.
    pub(crate) mac: MacAddr,
    /// IP address.
    pub(crate) address: Ipv4Addr,
}

/// A frame with a reply from our port 67 to the client's port 68; `message` must fit one datagram.
pub(crate) fn udp_frame(from: End, to: End, message: &[u8]) -> Vec<u8> {
    let udp_bytes = (UDP_HEADER_BYTES + message.len()) as u16;
    let ip_bytes = IP_HEADER_BYTES as u16 + udp_bytes;
    let mut frame = Vec::with_capacity(14 + usize::from(ip_bytes));
    frame.extend_from_slice(&to.mac.0);
    frame.extend_from_slice(&from.mac.0);
    frame.extend_from_slice(&ETHERTYPE_IPV4);

    let ip_at = frame.len();
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&ip_bytes.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&FLAGS);
    frame.extend_from_slice(&[TIME_TO_LIVE, PROTOCOL_UDP, 0, 0]);
    frame.extend_from_slice(&from.address.octets());
    frame.extend_from_slice(&to.address.octets());
    let checksum = !fold(sum(&frame[ip_at..]));
    frame[ip_at + 10..ip_at + 12].copy_from_slice(&checksum.to_be_bytes());

    let udp_at = frame.len();
    frame.extend_from_slice(&SERVER_PORT.to_be_bytes());
    frame.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    frame.extend_from_slice(&udp_bytes.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(message);
    let pseudo = sum(&from.address.octets())
        + sum(&to.address.octets())
        + u64::from(PROTOCOL_UDP)
        + u64::from(udp_bytes);
    // A checksum of zero would say that there is none.
    let checksum = match !fold(pseudo + sum(&frame[udp_at..])) {
        0 => 0xffff,
        checksum => checksum,
    };
    frame[udp_at + 6..udp_at + 8].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Sum of 16-bit words, an odd byte at the end padded with zero (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let odd = rest.first().map_or(0, |&byte| u64::from(byte) << 8);
    words
        .iter()
        .map(|&word| u64::from(u16::from_be_bytes(word)))
        .sum::<u64>()
        + odd
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (End, End) {
        let from = End {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            address: Ipv4Addr::new(192, 168, 0, 1),
        };
        let to = End {
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            address: Ipv4Addr::new(192, 168, 0, 199),
        };
        (from, to)
    }

    #[test]
    fn header_checksum_of_a_known_packet() {
        // The header of a common textbook example: 0x45 00 00 73 00 00 40 00 40 11 b8 61 c0 a8 00 01 c0 a8 00 c7.
        let (from, to) = ends();
        let frame = udp_frame(from, to, &[0; 0x73 - 28]);
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8,
            0, 0xc7,
        ];
        assert_eq!(frame[14..34], header);
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(frame[34..38], [0, 67, 0, 68]);
    }

    proptest::proptest! {
        #[test]
        fn checksums_verify_at_the_receiver(message in proptest::collection::vec(proptest::num::u8::ANY, 0..1472)) {
            let (from, to) = ends();
            let frame = udp_frame(from, to, &message);
            proptest::prop_assert_eq!(fold(sum(&frame[14..34])), 0xffff);
            let udp = &frame[34..];
            let pseudo = sum(&frame[26..34]) + 17 + udp.len() as u64;
            proptest::prop_assert_eq!(fold(pseudo + sum(udp)), 0xffff);
            proptest::prop_assert_eq!(&udp[8..], &message[..]);
        }
    }
}
