//! A DHCP client (RFC 2131), for nodes whose boot script gives no address.
//!
//! [`Client`] is the state machine of RFC 2131, figure 5, without INIT-REBOOT: a node keeps nothing from one boot to the next.
//! `socket` moves its packets. The codec is dhcproto, behind [`read_reply`], which looks at the few things that we need and trusts none.
//!
//! ```text
//!  Init ──DISCOVER──▶ Selecting ──REQUEST──▶ Requesting ──ACK──▶ Bound ──T1──▶ Renewing ──T2──▶ Rebinding
//!   ▲                                            │ NAK                         ACK: Bound      ACK: Bound
//!   └────────────────────────────────────────────┴───────────── NAK, end of lease ──────────────────┘
//! ```

mod socket;

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};

pub(crate) use self::socket::{Running, obtain};
use crate::cmdline::{Cidr, Mac};

/// First wait for an answer; doubles (RFC 2131, 4.1, which says 4 s: a booting node has no time for that, and one segment no need).
const RESEND_FIRST: Duration = Duration::from_millis(500);
/// Longest wait for an answer.
const RESEND_MAX: Duration = Duration::from_secs(16);
/// Requests that go unanswered before we begin anew.
const REQUEST_TRIES: u32 = 4;
/// Least time between two tries to renew (RFC 2131, 4.4.5).
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// Shortest lease that we believe; a server that says less would keep us busy with nothing else.
const LEASE_MIN: Duration = Duration::from_secs(30);
/// Fixed part of a packet with the magic cookie (RFC 2131, 2).
const MIN_PACKET: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// What a server granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Our address.
    pub(crate) address: Cidr,
    /// Where everything else goes.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Who granted it.
    pub(crate) server: Ipv4Addr,
    /// For how long.
    pub(crate) time: Duration,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send to port 67 of this address.
    Send(Vec<u8>, Ipv4Addr),
    /// Use this address; said again when a renewal changes anything.
    Bound(Lease),
    /// The address is no longer ours.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Selecting,
    Requesting(Lease),
    Bound { lease: Lease, since: Duration },
    Renewing { lease: Lease, since: Duration },
    Rebinding { lease: Lease, since: Duration },
}

/// One interface's client. Times are durations since any origin; calls come in the order of time.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    mac: Mac,
    xid: u32,
    state: State,
    tries: u32,
    timeout: Duration,
    begun: Duration,
    outputs: Vec<Output>,
}

impl Client {
    /// A client that asks at once. `chance` is its transaction id and spreads its resends.
    pub(crate) fn new(mac: Mac, chance: u32, now: Duration) -> Self {
        let mut client = Self {
            mac,
            xid: chance,
            state: State::Selecting,
            tries: 0,
            timeout: now,
            begun: now,
            outputs: Vec::new(),
        };
        client.handle_timeout(now);
        client
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        (!self.outputs.is_empty()).then(|| self.outputs.remove(0))
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Duration {
        self.timeout
    }

    /// The time has come.
    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        if now < self.timeout {
            return;
        }
        match self.state {
            State::Selecting => self.send(MessageType::Discover, now),
            State::Requesting(_) if self.tries >= REQUEST_TRIES => self.restart(now),
            State::Requesting(_) => self.send(MessageType::Request, now),
            State::Bound { lease, since } => {
                self.state = State::Renewing { lease, since };
                self.tries = 0;
                self.renew(lease.server, since + lease.time * 7 / 8, now);
            }
            State::Renewing { lease, since } if now >= since + lease.time * 7 / 8 => {
                self.state = State::Rebinding { lease, since };
                self.renew(Ipv4Addr::BROADCAST, since + lease.time, now);
            }
            State::Renewing { lease, since } => {
                self.renew(lease.server, since + lease.time * 7 / 8, now)
            }
            State::Rebinding { lease, since } if now >= since + lease.time => {
                self.outputs.push(Output::Lost);
                self.restart(now);
            }
            State::Rebinding { lease, since } => {
                self.renew(Ipv4Addr::BROADCAST, since + lease.time, now)
            }
        }
    }

    /// A packet came in on port 68.
    pub(crate) fn handle_packet(&mut self, packet: &[u8], now: Duration) {
        let Some((kind, offer)) = read_reply(packet, self.xid, self.mac) else {
            return;
        };
        match (kind, self.state) {
            (MessageType::Offer, State::Selecting) => {
                let Some(lease) = offer else { return };
                self.state = State::Requesting(lease);
                self.tries = 0;
                self.send(MessageType::Request, now);
            }
            (MessageType::Ack, State::Requesting(_)) => {
                if let Some(lease) = offer {
                    self.bind(lease, None, now);
                }
            }
            (
                MessageType::Ack,
                State::Renewing { lease: old, .. } | State::Rebinding { lease: old, .. },
            ) => {
                if let Some(lease) = offer {
                    self.bind(lease, Some(old), now);
                }
            }
            (MessageType::Nak, State::Requesting(_)) => self.restart(now),
            (MessageType::Nak, State::Renewing { .. } | State::Rebinding { .. }) => {
                self.outputs.push(Output::Lost);
                self.restart(now);
            }
            _ => {}
        }
    }

    fn bind(&mut self, lease: Lease, old: Option<Lease>, now: Duration) {
        self.state = State::Bound { lease, since: now };
        self.timeout = now + lease.time / 2;
        self.tries = 0;
        if old.is_some_and(|old| old.address != lease.address) {
            self.outputs.push(Output::Lost);
        }
        if old.is_none_or(|old| old.address != lease.address || old.gateway != lease.gateway) {
            self.outputs.push(Output::Bound(lease));
        }
    }

    fn restart(&mut self, now: Duration) {
        self.state = State::Selecting;
        self.tries = 0;
        self.xid = self.xid.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.begun = now;
        // Not at once: a server that refuses us for ever must not be flooded.
        self.timeout = now + RESEND_FIRST;
    }

    /// Half of what is left until `end`, as RFC 2131, 4.4.5 wants it.
    fn renew(&mut self, to: Ipv4Addr, end: Duration, now: Duration) {
        let packet = self.packet(MessageType::Request, now);
        self.outputs.push(Output::Send(packet, to));
        let wait = (end.saturating_sub(now) / 2).max(RENEW_AGAIN);
        self.timeout = (now + wait).min(end.max(now));
        if self.timeout == now {
            self.timeout = now + RESEND_FIRST;
        }
    }

    fn send(&mut self, kind: MessageType, now: Duration) {
        let packet = self.packet(kind, now);
        self.outputs.push(Output::Send(packet, Ipv4Addr::BROADCAST));
        let wait = RESEND_FIRST
            .saturating_mul(1 << self.tries.min(8))
            .min(RESEND_MAX);
        // A storm of nodes that lose power together must not stay in step: up to an eighth later, by transaction id.
        let spread = wait / 8 * (self.xid % 256) / 256;
        self.tries = self.tries.saturating_add(1);
        self.timeout = now + wait + spread;
    }

    fn packet(&self, kind: MessageType, now: Duration) -> Vec<u8> {
        let mut message = Message::default();
        message
            .set_opcode(Opcode::BootRequest)
            .set_xid(self.xid)
            .set_secs(u16::try_from(now.saturating_sub(self.begun).as_secs()).unwrap_or(u16::MAX))
            .set_chaddr(&self.mac.0);
        // Without an address we hear broadcasts only.
        match self.state {
            State::Bound { lease, .. }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. } => {
                message.set_ciaddr(lease.address.ip);
            }
            State::Selecting | State::Requesting(_) => {
                message.set_flags(Flags::default().set_broadcast());
            }
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        let mut client_id = vec![1];
        client_id.extend_from_slice(&self.mac.0);
        options.insert(DhcpOption::ClientIdentifier(client_id));
        options.insert(DhcpOption::ClassIdentifier(b"kraken-agent".to_vec()));
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::AddressLeaseTime,
        ]));
        if let State::Requesting(lease) = self.state {
            options.insert(DhcpOption::RequestedIpAddress(lease.address.ip));
            options.insert(DhcpOption::ServerIdentifier(lease.server));
        }
        let mut bytes = Vec::with_capacity(300);
        if message.encode(&mut Encoder::new(&mut bytes)).is_err() {
            bytes.clear();
        }
        // Relays drop what is shorter than BOOTP's 300 bytes (RFC 1542, 2.1).
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }
}

/// The kind of a reply to this transaction, and the lease in it if it holds a usable one.
///
/// Looks at the raw bytes first: dhcproto panics on the hardware address of a packet whose `hlen` is above 16.
fn read_reply(packet: &[u8], xid: u32, mac: Mac) -> Option<(MessageType, Option<Lease>)> {
    let fits = packet.len() >= MIN_PACKET
        && packet[0] == 2
        && packet[2] == 6
        && packet[4..8] == xid.to_be_bytes()
        && packet[28..34] == mac.0
        && packet[236..240] == MAGIC;
    if !fits {
        return None;
    }
    let message = Message::decode(&mut Decoder::new(packet)).ok()?;
    let options = message.opts();
    let Some(DhcpOption::MessageType(kind)) = options.get(OptionCode::MessageType) else {
        return None;
    };
    Some((*kind, read_lease(&message)))
}

fn read_lease(message: &Message) -> Option<Lease> {
    let options = message.opts();
    let Some(DhcpOption::ServerIdentifier(server)) = options.get(OptionCode::ServerIdentifier)
    else {
        return None;
    };
    let Some(DhcpOption::AddressLeaseTime(seconds)) = options.get(OptionCode::AddressLeaseTime)
    else {
        return None;
    };
    let ip = message.yiaddr();
    let prefix = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask))
            if u32::from(*mask).leading_ones() == u32::from(*mask).count_ones() =>
        {
            u8::try_from(u32::from(*mask).count_ones()).ok()?
        }
        // Classful defaults (RFC 950) are of no use to anybody alive.
        _ => 24,
    };
    let gateway = match options.get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied(),
        _ => None,
    };
    let usable = !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && !ip.is_broadcast()
        && prefix > 0;
    usable.then(|| Lease {
        address: Cidr { ip, prefix },
        gateway: gateway.filter(|gateway| !gateway.is_unspecified()),
        server: *server,
        time: Duration::from_secs(u64::from(*seconds)).max(LEASE_MIN),
    })
}

#[cfg(test)]
mod tests;
