//! One request and the reply to it: fields, options and destination (RFC 2131 section 4.1 and table 3).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode};

use crate::boot::{BootNode, MacAddr};

use super::options::{BootClient, code};
use super::packet::{self, Request};
use super::responder::Ignored;

/// Where a reply goes (RFC 2131 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To port 67 of the relay.
    Relay(Ipv4Addr),
    /// To a client that has its address already.
    Client(SocketAddrV4),
    /// To a client that cannot answer ARP yet: IP and hardware address are both given.
    Hardware {
        /// The address it is about to get.
        address: Ipv4Addr,
        /// Its port.
        mac: MacAddr,
    },
    /// To everybody on the link, port 68.
    Broadcast,
}

/// A reply to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// What it says.
    pub(crate) kind: MessageType,
    /// Our address, the source of the datagram.
    pub(crate) source: Ipv4Addr,
    /// Where it goes.
    pub(crate) to: Destination,
    /// The DHCP message.
    pub(crate) bytes: Vec<u8>,
}

/// A request of a node that this interface serves.
pub(super) struct Exchange<'a> {
    /// What came.
    pub(super) request: &'a Request<'a>,
    /// Whose machine sent it.
    pub(super) node: &'a Arc<BootNode>,
    /// Our address for it.
    pub(super) server: Ipv4Addr,
    /// The program that sent it.
    pub(super) client: BootClient,
}

impl Exchange<'_> {
    /// The fields that every reply has (RFC 2131 table 3), and the options to echo: 61 (RFC 6842) and 97 (RFC 4578).
    pub(super) fn message(&self, kind: MessageType) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let ciaddr = if kind == MessageType::Ack {
            self.request.ciaddr
        } else {
            none
        };
        let mut reply = Message::new_with_id(
            self.request.xid,
            ciaddr,
            none,
            none,
            self.request.giaddr,
            &self.node.mac.0,
        );
        reply
            .set_opcode(Opcode::BootReply)
            .set_flags(self.request.flags);
        let asked = &self.request.options;
        let options = reply.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(self.server));
        if let Some(id) = asked.get(code::CLIENT_ID) {
            options.insert(DhcpOption::ClientIdentifier(id.to_vec()));
        }
        if kind != MessageType::Nak
            && let Some(id) = asked.get(code::MACHINE_ID)
        {
            options.insert(DhcpOption::ClientMachineIdentifier(id.to_vec()));
        }
        reply
    }

    pub(super) fn add_network(&self, reply: &mut Message) {
        let node = self.node;
        let options = reply.opts_mut();
        options.insert(DhcpOption::SubnetMask(node.address.netmask()));
        options.insert(DhcpOption::BroadcastAddr(node.address.broadcast()));
        options.insert(DhcpOption::Hostname(node.name.as_str().to_owned()));
        if let Some(gateway) = node.gateway {
            options.insert(DhcpOption::Router(vec![gateway]));
        }
        if !node.dns.is_empty() {
            options.insert(DhcpOption::DomainNameServer(node.dns.clone()));
        }
    }

    /// A NAK goes to everybody, through a relay with the broadcast flag set (RFC 2131 section 4.3.2).
    pub(super) fn nak(&self) -> Result<Reply, Ignored> {
        let mut reply = self.message(MessageType::Nak);
        reply
            .opts_mut()
            .insert(DhcpOption::Message("not your address".to_owned()));
        let relay = self.request.giaddr;
        let to = if relay == Ipv4Addr::UNSPECIFIED {
            Destination::Broadcast
        } else {
            reply.set_flags(self.request.flags.set_broadcast());
            Destination::Relay(relay)
        };
        self.finish_to(reply, MessageType::Nak, to)
    }

    pub(super) fn finish(&self, reply: Message, kind: MessageType) -> Result<Reply, Ignored> {
        let request = self.request;
        let to = if request.giaddr != Ipv4Addr::UNSPECIFIED {
            Destination::Relay(request.giaddr)
        } else if request.ciaddr != Ipv4Addr::UNSPECIFIED {
            Destination::Client(SocketAddrV4::new(request.ciaddr, dhcproto::v4::CLIENT_PORT))
        } else if request.flags.broadcast() {
            Destination::Broadcast
        } else {
            Destination::Hardware {
                address: self.node.address.addr(),
                mac: self.node.mac,
            }
        };
        self.finish_to(reply, kind, to)
    }

    fn finish_to(
        &self,
        reply: Message,
        kind: MessageType,
        to: Destination,
    ) -> Result<Reply, Ignored> {
        let relay_agent = self.request.options.get(code::RELAY_AGENT);
        let bytes = packet::encode(reply, relay_agent, self.request.reply_limit())
            .ok_or(Ignored::ReplyTooLong)?;
        Ok(Reply {
            kind,
            source: self.server,
            to,
            bytes,
        })
    }
}
