//! DHCP packets: bytes into a checked [`Request`], replies into bytes (RFC 2131 section 2, RFC 2132, RFC 3396).
//!
//! `dhcproto` reads the fixed fields and encodes replies. What it would do with hostile bytes is caught here first: lengths,
//! operation, cookie, hardware address and the whole option area are checked before it sees a packet. Options are scanned
//! by ourselves, because `dhcproto` stops at the first one it cannot make sense of, ignores option overload (52) and joins
//! only adjacent pieces of a long option.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use dhcproto::v4::{self, Flags, HType, MessageType, OptionCode};
use dhcproto::{Encodable, Encoder};

use crate::boot::MacAddr;

use super::options::code;

/// The fixed fields and the cookie (RFC 2131 section 2).
pub(crate) const HEADER_BYTES: usize = 240;

/// Longest packet that is looked at; an Ethernet frame carries 1,472 bytes and no firmware sends fragments.
pub(crate) const MAX_PACKET_BYTES: usize = 2048;

/// BOOTP's vendor area had 64 bytes, and old relays and ROMs drop replies that are shorter (RFC 1542 section 2.1).
pub(crate) const MIN_REPLY_BYTES: usize = 300;

/// What every client takes in an IP datagram (RFC 2131 section 2), and the most we would send: one Ethernet frame.
const DATAGRAM_BYTES: std::ops::RangeInclusive<u16> = 576..=1500;

/// IPv4 and UDP headers, counted by option 57.
const IP_UDP_BYTES: usize = 28;

/// Relays a packet may have passed (RFC 1542 section 4.1.1); more is a loop.
const MAX_HOPS: u8 = 16;

const ETHERNET_BYTES: u8 = 6;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// Why bytes are no request that we could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Fewer bytes than the fixed fields.
    #[error("short")]
    Short,
    /// More than [`MAX_PACKET_BYTES`].
    #[error("long")]
    Long,
    /// Not a BOOTREQUEST: a reply of another server or of our own.
    #[error("not_request")]
    NotRequest,
    /// No DHCP cookie: plain BOOTP or noise.
    #[error("bad_cookie")]
    BadCookie,
    /// A hardware address that is no Ethernet station's.
    #[error("hardware_address")]
    HardwareAddress,
    /// More relays than [`MAX_HOPS`].
    #[error("hops")]
    Hops,
    /// An option that reaches beyond its field.
    #[error("option_overrun")]
    OptionOverrun,
    /// A fixed-length option of another length.
    #[error("option_length")]
    OptionLength,
    /// No option 53, or a type that clients do not send.
    #[error("message_type")]
    MessageType,
}

/// A packet of a client, checked.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// What the client wants: one of the six types that clients send.
    pub(crate) kind: MessageType,
    /// Transaction.
    pub(crate) xid: u32,
    /// Broadcast flag.
    pub(crate) flags: Flags,
    /// The address the client has and answers ARP for.
    pub(crate) ciaddr: Ipv4Addr,
    /// The relay's address.
    pub(crate) giaddr: Ipv4Addr,
    /// The client's port.
    pub(crate) chaddr: MacAddr,
    /// All options, overload and long options resolved.
    pub(crate) options: Options<'a>,
}

/// Options of one packet, each code once, its pieces joined in the order of RFC 3396 section 5.
#[derive(Debug, Default)]
pub(crate) struct Options<'a>(Vec<(u8, Cow<'a, [u8]>)>);

impl<'a> Options<'a> {
    /// The value of an option; an empty one counts as absent.
    pub(crate) fn get(&self, code: u8) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(c, value)| *c == code && !value.is_empty())
            .map(|(_, value)| &**value)
    }

    /// The value of an option that is an address.
    pub(crate) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.get(code)?.try_into().ok()?;
        Some(octets.into())
    }

    /// The value of an option that is a 16-bit number; the first of several.
    pub(crate) fn number(&self, code: u8) -> Option<u16> {
        let &[high, low, ..] = self.get(code)? else {
            return None;
        };
        Some(u16::from_be_bytes([high, low]))
    }

    fn scan(&mut self, field: &'a [u8]) -> Result<(), Malformed> {
        let mut rest = field;
        while let [code, after @ ..] = rest {
            match *code {
                code::PAD => rest = after,
                code::END => break,
                code => {
                    let [length, after @ ..] = after else {
                        return Err(Malformed::OptionOverrun);
                    };
                    let (value, after) = after
                        .split_at_checked(usize::from(*length))
                        .ok_or(Malformed::OptionOverrun)?;
                    self.append(code, value);
                    rest = after;
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, code: u8, piece: &'a [u8]) {
        match self.0.iter_mut().find(|(c, _)| *c == code) {
            Some((_, value)) => value.to_mut().extend_from_slice(piece),
            None => self.0.push((code, Cow::Borrowed(piece))),
        }
    }

    /// Options whose wrong length would change what a request means.
    fn check_lengths(&self) -> Result<(), Malformed> {
        let fixed = [
            (code::REQUESTED_ADDRESS, 4),
            (code::OVERLOAD, 1),
            (code::MESSAGE_TYPE, 1),
            (code::SERVER_ID, 4),
            (code::MAX_MESSAGE_SIZE, 2),
        ];
        // These go back to the sender as they came, in one piece.
        let echoed = [code::CLIENT_ID, code::RELAY_AGENT, code::MACHINE_ID];
        let length_is = |code, right: &dyn Fn(usize) -> bool| {
            self.get(code).is_none_or(|value| right(value.len()))
        };
        let right = fixed
            .iter()
            .all(|&(code, length)| length_is(code, &|len| len == length))
            && echoed
                .iter()
                .all(|&code| length_is(code, &|len| len <= usize::from(u8::MAX)));
        if right {
            Ok(())
        } else {
            Err(Malformed::OptionLength)
        }
    }
}

impl<'a> Request<'a> {
    /// Decodes a packet of a client.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_BYTES {
            return Err(Malformed::Short);
        }
        if bytes.len() > MAX_PACKET_BYTES {
            return Err(Malformed::Long);
        }
        if bytes[HEADER_BYTES - v4::MAGIC.len()..HEADER_BYTES] != v4::MAGIC {
            return Err(Malformed::BadCookie);
        }
        let header = v4::borrowed::Message::new(bytes).map_err(|_| Malformed::Short)?;
        if header.opcode() != v4::Opcode::BootRequest {
            return Err(Malformed::NotRequest);
        }
        // `chaddr()` slices by `hlen` without a check of its own.
        if header.htype() != HType::Eth || header.hlen() != ETHERNET_BYTES {
            return Err(Malformed::HardwareAddress);
        }
        let chaddr = MacAddr(
            header
                .chaddr()
                .try_into()
                .map_err(|_| Malformed::HardwareAddress)?,
        );
        if !chaddr.is_station() {
            return Err(Malformed::HardwareAddress);
        }
        if header.hops() > MAX_HOPS {
            return Err(Malformed::Hops);
        }
        let options = read_options(bytes)?;
        let kind = match options.get(code::MESSAGE_TYPE) {
            Some(&[kind]) => MessageType::from(kind),
            _ => return Err(Malformed::MessageType),
        };
        match kind {
            MessageType::Discover
            | MessageType::Request
            | MessageType::Decline
            | MessageType::Release
            | MessageType::Inform => {}
            _ => return Err(Malformed::MessageType),
        }
        Ok(Request {
            kind,
            xid: header.xid(),
            flags: header.flags(),
            ciaddr: header.ciaddr(),
            giaddr: header.giaddr(),
            chaddr,
            options,
        })
    }

    /// The longest DHCP message this client takes.
    pub(crate) fn reply_limit(&self) -> usize {
        let datagram = self
            .options
            .number(code::MAX_MESSAGE_SIZE)
            .unwrap_or(*DATAGRAM_BYTES.start());
        usize::from(datagram.clamp(*DATAGRAM_BYTES.start(), *DATAGRAM_BYTES.end())) - IP_UDP_BYTES
    }
}

/// Reads the option field, then `file` and `sname` where option 52 says so (RFC 2131 section 4.1).
fn read_options(bytes: &[u8]) -> Result<Options<'_>, Malformed> {
    let mut options = Options::default();
    options.scan(&bytes[HEADER_BYTES..])?;
    options.check_lengths()?;
    let (file, sname) = match options.get(code::OVERLOAD) {
        None => (false, false),
        Some([1]) => (true, false),
        Some([2]) => (false, true),
        Some([3]) => (true, true),
        Some(_) => return Err(Malformed::OptionLength),
    };
    if file {
        options.scan(&bytes[FILE])?;
    }
    if sname {
        options.scan(&bytes[SNAME])?;
    }
    options.check_lengths()?;
    Ok(options)
}

/// Options to leave out of a reply that is too long, the least needed first.
const EXPENDABLE: [OptionCode; 6] = [
    OptionCode::BroadcastAddr,
    OptionCode::Hostname,
    OptionCode::TFTPServerName,
    OptionCode::DomainNameServer,
    OptionCode::ClientMachineIdentifier,
    OptionCode::ClientIdentifier,
];

/// Encodes a reply, padded to [`MIN_REPLY_BYTES`]; none if it cannot be made to fit into `limit`.
///
/// `relay_agent` is the request's option 82, which goes back byte for byte and last (RFC 3046 section 2.2). `dhcproto` would
/// sort its suboptions, or write it twice if it was given as an unknown option.
pub(crate) fn encode(
    mut reply: v4::Message,
    relay_agent: Option<&[u8]>,
    limit: usize,
) -> Option<Vec<u8>> {
    let mut expendable = EXPENDABLE.into_iter();
    loop {
        let mut bytes = Vec::with_capacity(512);
        reply.encode(&mut Encoder::new(&mut bytes)).ok()?;
        if let Some(agent) = relay_agent {
            let end = bytes.pop();
            debug_assert_eq!(end, Some(code::END));
            bytes.extend_from_slice(&[code::RELAY_AGENT, u8::try_from(agent.len()).ok()?]);
            bytes.extend_from_slice(agent);
            bytes.push(code::END);
        }
        if bytes.len() <= limit {
            bytes.resize(bytes.len().max(MIN_REPLY_BYTES), 0);
            return Some(bytes);
        }
        let next = expendable.find(|code| reply.opts().contains(*code))?;
        reply.opts_mut().remove(next);
    }
}

#[cfg(test)]
pub(crate) mod tests;
