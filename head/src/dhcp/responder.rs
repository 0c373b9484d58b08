//! The DHCP server's decisions: one packet in, one reply or one named reason for silence out (RFC 2131 section 4).
//!
//! Reservations only: a machine gets the address of its node or nothing. The server is authoritative for its nodes, so a node
//! that asks for another address is told no (NAK); machines without a node are never answered and go to the holding list.
//! Nothing here moves a node's state (threat S17). Left out: a pool, BOOTP, rapid commit (RFC 4039), link selection and server
//! id override of relays (RFC 3527, RFC 5107), and proxy DHCP beside a foreign server's DISCOVER (port 4011 is answered).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode, UnknownOption};

use crate::boot::{BootNode, BootTable, InterfaceFacts, Loader, Loaders, PendingMachine};
use crate::http::urls;

use super::exchange::{Destination, Exchange, Reply};
use super::lease::{Declined, Held, HoldingList};
use super::options::{self, BootClient, code};
use super::packet::{Malformed, Request};

/// Life of a lease. Reservations do not run out, so this only limits how long a node keeps an address that was taken from it,
/// against how long its network outlives an outage of the head.
pub(crate) const LEASE_TIME: Duration = Duration::from_secs(24 * 3600);

/// T1 and T2 as parts of the lease (RFC 2131 section 4.4.5).
const RENEWAL_TIME: Duration = Duration::from_secs(LEASE_TIME.as_secs() / 2);
const REBINDING_TIME: Duration = Duration::from_secs(LEASE_TIME.as_secs() * 7 / 8);

const _: () = assert!(RENEWAL_TIME.as_secs() < REBINDING_TIME.as_secs());
const _: () = assert!(REBINDING_TIME.as_secs() < LEASE_TIME.as_secs());

/// Which of the two ports a packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerPort {
    /// 67: DHCP.
    Dhcp,
    /// 4011: a PXE client that asks for its boot file only.
    Pxe,
}

/// Where a packet came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ingress<'a> {
    /// The interface.
    pub(crate) facts: &'a InterfaceFacts,
    /// The port.
    pub(crate) port: ServerPort,
    /// The sender, as far as its IP header says.
    pub(crate) source: SocketAddrV4,
}

/// Why a packet gets no answer; each has a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ignored {
    /// The bytes make no request.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No node is enrolled for this port.
    #[error("unknown_machine")]
    UnknownMachine,
    /// The same, and the holding list is full.
    #[error("holding_list_full")]
    HoldingListFull,
    /// The node's address is not of a subnet of this interface or of this relay.
    #[error("wrong_subnet")]
    WrongSubnet,
    /// A relay address that no relay can have.
    #[error("bad_relay")]
    BadRelay,
    /// The client chose another server.
    #[error("other_server")]
    OtherServer,
    /// The client found the address in use a short while ago.
    #[error("declined")]
    Declined,
    /// A REQUEST or INFORM that names no address.
    #[error("no_address")]
    NoAddress,
    /// A DECLINE or RELEASE of an address that is not the sender's.
    #[error("not_its_address")]
    NotItsAddress,
    /// A DECLINE, noted; no reply exists.
    #[error("decline")]
    Decline,
    /// A RELEASE, noted; no reply exists.
    #[error("release")]
    Release,
    /// Port 4011 and not a PXE client's request.
    #[error("not_pxe")]
    NotPxe,
    /// A PXE client on port 4011 for whose firmware no loader is configured.
    #[error("no_loader")]
    NoLoader,
    /// The reply does not fit into what the client takes.
    #[error("reply_too_long")]
    ReplyTooLong,
}

/// What others should hear about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// Firmware or iPXE of this node has its address.
    Booting(Arc<BootNode>),
    /// A machine without a node wants an address; new, changed or not told for a while.
    Pending(Box<PendingMachine>),
    /// A node found its address in use by another machine.
    AddressInUse(Arc<BootNode>),
    /// A machine's firmware has no loader configured.
    NoLoader(Arc<BootNode>),
}

/// What to do about a packet.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Answer or silence.
    pub(crate) decision: Result<Reply, Ignored>,
    /// What to tell.
    pub(crate) note: Option<Note>,
}

/// The server's state, shared by all interfaces.
pub(crate) struct Responder {
    table: Arc<BootTable>,
    loaders: Arc<Loaders>,
    http_port: u16,
    declined: Declined,
    holding: HoldingList,
}

impl Responder {
    /// A server for the nodes of this table; `http_port` is where the boot files are.
    pub(crate) fn new(table: Arc<BootTable>, loaders: Arc<Loaders>, http_port: u16) -> Self {
        let (declined, holding) = (Declined::default(), HoldingList::default());
        Responder {
            table,
            loaders,
            http_port,
            declined,
            holding,
        }
    }

    /// How many machines are on the holding list.
    pub(crate) fn held(&self) -> usize {
        self.holding.len()
    }

    /// Decides about one packet.
    pub(crate) fn handle_packet(
        &mut self,
        ingress: Ingress<'_>,
        bytes: &[u8],
        now: Instant,
    ) -> Outcome {
        let mut note = None;
        let decision = Request::decode(bytes)
            .map_err(Ignored::from)
            .and_then(|request| self.decide(ingress, &request, now, &mut note));
        Outcome { decision, note }
    }

    fn decide(
        &mut self,
        ingress: Ingress<'_>,
        request: &Request<'_>,
        now: Instant,
        note: &mut Option<Note>,
    ) -> Result<Reply, Ignored> {
        check_relay(request.giaddr, ingress.facts)?;
        let Some(node) = self.table.by_mac(request.chaddr) else {
            return Err(self.hold(ingress, request, now, note));
        };
        self.holding.forget(request.chaddr);
        let server =
            server_address(&node, request.giaddr, ingress.facts).ok_or(Ignored::WrongSubnet)?;
        let exchange = Exchange {
            request,
            node: &node,
            server,
            client: BootClient::of(&request.options),
        };
        if ingress.port == ServerPort::Pxe {
            return self.pxe_port(&exchange, ingress);
        }
        let reply = match request.kind {
            MessageType::Discover => self.discover(&exchange, now),
            MessageType::Request => self.request(&exchange, ingress.facts, now),
            MessageType::Inform => self.inform(&exchange, ingress.facts),
            MessageType::Decline => Err(self.decline(&exchange, ingress.facts, now, note)),
            MessageType::Release => Err(release(&exchange, ingress.facts)),
            _ => Err(Ignored::Malformed(Malformed::MessageType)),
        }?;
        if reply.kind != MessageType::Nak && exchange.client != BootClient::Other {
            *note = self.boot_note(&exchange, reply.kind);
        }
        Ok(reply)
    }

    fn hold(
        &mut self,
        ingress: Ingress<'_>,
        request: &Request<'_>,
        now: Instant,
        note: &mut Option<Note>,
    ) -> Ignored {
        // A DECLINE or RELEASE cannot come from a machine that never got an address here.
        if !matches!(
            request.kind,
            MessageType::Discover | MessageType::Request | MessageType::Inform
        ) {
            return Ignored::UnknownMachine;
        }
        let machine = options::evidence(request, &ingress.facts.name);
        match self.holding.note(&machine, now) {
            Held::Report => *note = Some(Note::Pending(Box::new(machine))),
            Held::Quiet => {}
            Held::Full => return Ignored::HoldingListFull,
        }
        Ignored::UnknownMachine
    }

    fn boot_note(&self, exchange: &Exchange<'_>, kind: MessageType) -> Option<Note> {
        let node = Arc::clone(exchange.node);
        match (exchange.client, kind) {
            (BootClient::Pxe(_) | BootClient::Http(_), MessageType::Offer) => self
                .loader(exchange)
                .is_none()
                .then_some(Note::NoLoader(node)),
            (_, MessageType::Ack) => Some(Note::Booting(node)),
            _ => None,
        }
    }

    /// RFC 2131 section 4.3.1.
    fn discover(&mut self, exchange: &Exchange<'_>, now: Instant) -> Result<Reply, Ignored> {
        if self.declined.holds(exchange.node.mac, now) {
            return Err(Ignored::Declined);
        }
        self.lease(exchange, MessageType::Offer)
    }

    /// RFC 2131 section 4.3.2; the states are told apart by its table 4.
    fn request(
        &mut self,
        exchange: &Exchange<'_>,
        facts: &InterfaceFacts,
        now: Instant,
    ) -> Result<Reply, Ignored> {
        let request = exchange.request;
        if !chosen(exchange, facts) {
            return Err(Ignored::OtherServer);
        }
        // SELECTING and INIT-REBOOT name the address in option 50, RENEWING and REBINDING have it in ciaddr.
        let wanted = match request.options.address(code::REQUESTED_ADDRESS) {
            Some(address) => address,
            None if request.ciaddr != Ipv4Addr::UNSPECIFIED => request.ciaddr,
            None => return Err(Ignored::NoAddress),
        };
        if self.declined.holds(exchange.node.mac, now) {
            return Err(Ignored::Declined);
        }
        let own = exchange.node.address.addr();
        if wanted != own || (request.ciaddr != Ipv4Addr::UNSPECIFIED && request.ciaddr != own) {
            return exchange.nak();
        }
        self.lease(exchange, MessageType::Ack)
    }

    /// RFC 2131 section 4.3.5: configuration without an address, to the address the client has.
    fn inform(&self, exchange: &Exchange<'_>, facts: &InterfaceFacts) -> Result<Reply, Ignored> {
        let ciaddr = exchange.request.ciaddr;
        if ciaddr == Ipv4Addr::UNSPECIFIED {
            return Err(Ignored::NoAddress);
        }
        // The answer goes to ciaddr, so it must be a place where this node can be.
        let near = exchange.node.address.contains(&ciaddr) && !facts.has_address(ciaddr);
        if !near || ciaddr == exchange.node.address.broadcast() {
            return Err(Ignored::NotItsAddress);
        }
        let mut reply = exchange.message(MessageType::Ack);
        exchange.add_network(&mut reply);
        self.add_boot(exchange, &mut reply);
        exchange.finish(reply, MessageType::Ack)
    }

    /// RFC 2131 section 4.3.3.
    fn decline(
        &mut self,
        exchange: &Exchange<'_>,
        facts: &InterfaceFacts,
        now: Instant,
        note: &mut Option<Note>,
    ) -> Ignored {
        if !chosen(exchange, facts) {
            return Ignored::OtherServer;
        }
        let address = exchange.request.options.address(code::REQUESTED_ADDRESS);
        if address != Some(exchange.node.address.addr()) {
            return Ignored::NotItsAddress;
        }
        if self.declined.mark(exchange.node.mac, now) {
            *note = Some(Note::AddressInUse(Arc::clone(exchange.node)));
        }
        Ignored::Decline
    }

    /// An OFFER or ACK with everything in it.
    fn lease(&self, exchange: &Exchange<'_>, kind: MessageType) -> Result<Reply, Ignored> {
        let mut reply = exchange.message(kind);
        reply.set_yiaddr(exchange.node.address.addr());
        let options = reply.opts_mut();
        options.insert(DhcpOption::AddressLeaseTime(seconds(LEASE_TIME)));
        options.insert(DhcpOption::Renewal(seconds(RENEWAL_TIME)));
        options.insert(DhcpOption::Rebinding(seconds(REBINDING_TIME)));
        exchange.add_network(&mut reply);
        self.add_boot(exchange, &mut reply);
        exchange.finish(reply, kind)
    }

    /// Port 4011 (PXE specification 2.1, section 2.2.5): the boot file and no address.
    fn pxe_port(&self, exchange: &Exchange<'_>, ingress: Ingress<'_>) -> Result<Reply, Ignored> {
        let pxe = matches!(exchange.client, BootClient::Pxe(_) | BootClient::Ipxe);
        if !pxe
            || exchange.request.kind != MessageType::Request
            || exchange.request.giaddr != Ipv4Addr::UNSPECIFIED
        {
            return Err(Ignored::NotPxe);
        }
        if *ingress.source.ip() != exchange.node.address.addr() {
            return Err(Ignored::NotItsAddress);
        }
        if exchange.client != BootClient::Ipxe && self.loader(exchange).is_none() {
            return Err(Ignored::NoLoader);
        }
        let mut reply = exchange.message(MessageType::Ack);
        self.add_boot(exchange, &mut reply);
        let reply = exchange.finish(reply, MessageType::Ack)?;
        Ok(Reply {
            to: Destination::Client(ingress.source),
            ..reply
        })
    }

    fn loader(&self, exchange: &Exchange<'_>) -> Option<&Loader> {
        let arch = match exchange.client {
            BootClient::Pxe(arch) | BootClient::Http(arch) => arch,
            BootClient::Ipxe | BootClient::Other => None,
        };
        self.loaders.for_arch(exchange.node.loader.or(arch)?)
    }

    /// What the boot program of the other side needs to go on (RFC 4578, PXE specification 2.1 section 2.2).
    fn add_boot(&self, exchange: &Exchange<'_>, reply: &mut Message) {
        let file = match exchange.client {
            BootClient::Other => return,
            BootClient::Ipxe => {
                let no_proxy = UnknownOption::new(
                    OptionCode::from(code::IPXE),
                    options::IPXE_NO_PROXY.to_vec(),
                );
                reply.opts_mut().insert(DhcpOption::Unknown(no_proxy));
                urls::script(exchange.server, self.http_port, exchange.node.mac)
            }
            BootClient::Pxe(_) => {
                let Some(loader) = self.loader(exchange) else {
                    return;
                };
                let options = reply.opts_mut();
                options.insert(DhcpOption::ClassIdentifier(options::PXE_CLIENT.to_vec()));
                options.insert(DhcpOption::VendorExtensions(
                    options::PXE_USE_BOOT_FILE.to_vec(),
                ));
                loader.name.to_string()
            }
            BootClient::Http(_) => {
                let Some(loader) = self.loader(exchange) else {
                    return;
                };
                reply
                    .opts_mut()
                    .insert(DhcpOption::ClassIdentifier(options::HTTP_CLIENT.to_vec()));
                urls::loader(exchange.server, self.http_port, &loader.name)
            }
        };
        reply.set_siaddr(exchange.server);
        let asked = &exchange.request.options;
        if options::asks_for(asked, code::TFTP_SERVER) {
            let server = exchange.server.to_string().into_bytes();
            reply.opts_mut().insert(DhcpOption::TFTPServerName(server));
        }
        // The field has 128 bytes, one of them for the NUL that old ROMs look for.
        let in_field = file.len() < 128;
        if !in_field
            || options::asks_for(asked, code::BOOT_FILE)
            || matches!(exchange.client, BootClient::Http(_))
        {
            reply
                .opts_mut()
                .insert(DhcpOption::BootfileName(file.clone().into_bytes()));
        }
        if in_field {
            reply.set_fname(file.as_bytes());
        }
    }
}

/// RFC 2131 section 4.4.6: nothing to free, because the reservation stays.
fn release(exchange: &Exchange<'_>, facts: &InterfaceFacts) -> Ignored {
    if !chosen(exchange, facts) {
        return Ignored::OtherServer;
    }
    if exchange.request.ciaddr != exchange.node.address.addr() {
        return Ignored::NotItsAddress;
    }
    Ignored::Release
}

/// Whether the client talks to us: it names us or nobody.
fn chosen(exchange: &Exchange<'_>, facts: &InterfaceFacts) -> bool {
    exchange
        .request
        .options
        .address(code::SERVER_ID)
        .is_none_or(|server| facts.has_address(server))
}

/// A relay has a unicast address that is not ours: replies go there, so anything else would be a way to make us send
/// packets to ourselves or to everybody.
fn check_relay(giaddr: Ipv4Addr, facts: &InterfaceFacts) -> Result<(), Ignored> {
    if giaddr == Ipv4Addr::UNSPECIFIED {
        return Ok(());
    }
    let first = giaddr.octets()[0];
    let unicast = first != 0 && first < 224 && !giaddr.is_loopback();
    if unicast && !facts.has_address(giaddr) {
        Ok(())
    } else {
        Err(Ignored::BadRelay)
    }
}

/// Our address for this node: the one in its subnet, or behind a relay in its subnet the first one.
fn server_address(node: &BootNode, giaddr: Ipv4Addr, facts: &InterfaceFacts) -> Option<Ipv4Addr> {
    if giaddr == Ipv4Addr::UNSPECIFIED {
        facts.address_near(node.address.addr())
    } else if node.address.contains(&giaddr) {
        facts.addresses.first().map(ipnet::Ipv4Net::addr)
    } else {
        None
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
