//! Sockets of the DHCP server: batches in, batches out, one set per interface.
//!
//! Requests come by a UDP socket tied to the interface. Replies to clients without an address, and broadcasts, leave as whole
//! frames by a packet socket. The other way would be a neighbor entry and a UDP datagram: that takes a netlink round trip for
//! each node in a storm, needs CAP_NET_ADMIN instead of CAP_NET_RAW, and leaves entries behind that a machine with another
//! port would have to outlive. Relays and clients with an address get ordinary datagrams.
//!
//! A storm is lost in the socket buffer or not at all (reliability F42, perf 2), hence its size.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dhcproto::v4::{MessageType, SERVER_PORT};
use nix::errno::Errno;
use nix::sys::socket::{
    LinkAddr, MsgFlags, MultiHeaders, SockaddrIn, SockaddrStorage, bind, recvmmsg, sendmmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::boot::{
    BootEvent, BootStage, EventSender, FactsReceiver, InterfaceFacts, MacAddr, StageLog,
};

use super::exchange::{Destination, Reply};
use super::frame::{End, udp_frame};
use super::packet::MAX_PACKET_BYTES;
use super::responder::{Ignored, Ingress, Note, Outcome, Responder, ServerPort};

/// Room for about 50,000 waiting requests (the kernel counts some 1.3 KiB for each): every node of a cluster at once.
const RECEIVE_BUFFER: usize = 64 << 20;

/// Room for as many replies on their way to a slow link.
const SEND_BUFFER: usize = 64 << 20;

/// Requests taken with one call; 64 spreads the cost of the call thin and keeps a batch under a millisecond.
const BATCH: usize = 64;

/// Port of PXE's boot server discovery (PXE specification 2.1, section 2.2.5).
const PXE_PORT: u16 = 4011;

/// How long replies wait for room in a full send buffer before they are dropped; the client asks again after seconds.
const SEND_PATIENCE: Duration = Duration::from_millis(200);

/// Wait before sockets are opened again after they failed.
const REOPEN: Duration = Duration::from_secs(2);

/// Least time between two warnings about loaders, so that a misconfigured cluster does not flood the log.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Where notes of the responder go.
#[derive(Clone)]
pub(crate) struct Notes {
    /// To the engine loop.
    pub(crate) events: EventSender,
    /// To the log of boots.
    pub(crate) stages: Arc<StageLog>,
}

/// Serves one interface, whenever it is there, until told to stop.
pub(crate) async fn serve(
    mut facts: FactsReceiver,
    responder: Arc<Mutex<Responder>>,
    notes: Notes,
    stop: CancellationToken,
) {
    let mut server = Server {
        responder,
        notes,
        warned: None,
    };
    loop {
        let ready = tokio::select! {
            () = stop.cancelled() => return,
            ready = facts.wait_for(Option::is_some) => ready.ok().and_then(|facts| facts.clone()),
        };
        let Some(ready) = ready else { return };
        let interface = Arc::clone(&ready.name);
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = server.run(&ready, &mut facts) => result,
        };
        match result {
            Ok(()) => info!(%interface, "DHCP stopped, the interface changed"),
            Err(error) => {
                error!(%interface, %error, "DHCP cannot serve this interface, trying again");
                tokio::time::sleep(REOPEN).await;
            }
        }
    }
}

struct Server {
    responder: Arc<Mutex<Responder>>,
    notes: Notes,
    warned: Option<Instant>,
}

impl Server {
    /// Serves until the interface is gone or another one of its name.
    async fn run(
        &mut self,
        first: &Arc<InterfaceFacts>,
        facts: &mut FactsReceiver,
    ) -> io::Result<()> {
        let dhcp = open_udp(&first.name, SERVER_PORT)?;
        let pxe = open_udp(&first.name, PXE_PORT)?;
        let packet = open_packet(first)?;
        info!(interface = %first.name, index = first.index, "DHCP serves");
        let mut buffers = Buffers::new();
        loop {
            let (socket, port) = tokio::select! {
                changed = facts.changed() => {
                    let same = facts.borrow().as_ref().is_some_and(|facts| facts.index == first.index);
                    if changed.is_ok() && same { continue } else { return Ok(()) }
                }
                ready = dhcp.readable() => { ready?; (&dhcp, ServerPort::Dhcp) }
                ready = pxe.readable() => { ready?; (&pxe, ServerPort::Pxe) }
            };
            let current = facts.borrow().clone();
            let Some(current) = current else {
                return Ok(());
            };
            let batch = match socket.try_io(Interest::READABLE, || buffers.receive(socket)) {
                Ok(batch) => batch,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let outcomes = self.decide(&current, port, &buffers, &batch);
            self.carry_out(&current, outcomes, &dhcp, &packet, socket)
                .await?;
        }
    }

    fn decide(
        &self,
        facts: &InterfaceFacts,
        port: ServerPort,
        buffers: &Buffers,
        batch: &[Received],
    ) -> Vec<Outcome> {
        let now = Instant::now();
        let mut responder = self
            .responder
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let outcomes = batch.iter().enumerate().map(|(i, received)| {
            let ingress = Ingress {
                facts,
                port,
                source: received.source,
            };
            responder.handle_packet(ingress, &buffers.0[i][..received.length], now)
        });
        let outcomes = outcomes.collect();
        metrics::gauge!("kraken_dhcp_held_machines").set(responder.held() as f64);
        outcomes
    }

    async fn carry_out(
        &mut self,
        facts: &InterfaceFacts,
        outcomes: Vec<Outcome>,
        dhcp: &UdpSocket,
        packet: &Packet,
        came_by: &UdpSocket,
    ) -> io::Result<()> {
        let mut frames = Vec::new();
        for Outcome { decision, note } in outcomes {
            match decision {
                Ok(reply) => {
                    let kind = kind_name(reply.kind);
                    count(kind);
                    debug!(interface = %facts.name, kind, to = ?reply.to, "DHCP reply");
                    match reply.to {
                        Destination::Hardware { address, mac } => {
                            frames.push(packet.frame(&reply, End { mac, address }));
                        }
                        Destination::Broadcast => {
                            let everybody = End {
                                mac: MacAddr::BROADCAST,
                                address: Ipv4Addr::BROADCAST,
                            };
                            frames.push(packet.frame(&reply, everybody));
                        }
                        Destination::Relay(relay) => {
                            send_datagram(dhcp, &reply, SocketAddrV4::new(relay, SERVER_PORT));
                        }
                        Destination::Client(client) => send_datagram(came_by, &reply, client),
                    }
                }
                Err(ignored) => {
                    let reason = ignored.to_string();
                    debug!(interface = %facts.name, %reason, "DHCP packet ignored");
                    count_ignored(ignored, reason);
                }
            }
            if let Some(note) = note {
                self.tell(note);
            }
        }
        packet.send(&frames).await
    }

    fn tell(&mut self, note: Note) {
        let now = Instant::now();
        match note {
            Note::Booting(node) => self.notes.stages.reached(&node, BootStage::Dhcp, now),
            Note::Pending(machine) => {
                info!(
                    mac = %machine.mac, interface = %machine.interface,
                    arch = machine.arch.map(|arch| arch.name()), vendor_class = machine.vendor_class,
                    giaddr = machine.giaddr.map(tracing::field::display), circuit = machine.circuit,
                    "unknown machine is held"
                );
                // A lost report is counted by the queue and comes again.
                let _ = self.notes.events.send(BootEvent::PendingMachine(*machine));
            }
            Note::AddressInUse(node) => {
                warn!(node = %node.name, address = %node.address.addr(), "the node declined its address: another machine uses it");
            }
            Note::NoLoader(node) => {
                if self
                    .warned
                    .is_none_or(|at| now.duration_since(at) >= WARN_INTERVAL)
                {
                    self.warned = Some(now);
                    warn!(node = %node.name, "no loader is configured for this machine's firmware (boot.loaders)");
                }
            }
        }
    }
}

fn kind_name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Offer => "offer",
        MessageType::Ack => "ack",
        MessageType::Nak => "nak",
        _ => "other",
    }
}

fn count(result: &'static str) {
    metrics::counter!("kraken_dhcp_packets_total", "result" => result).increment(1);
}

fn count_ignored(ignored: Ignored, reason: String) {
    let kind = if matches!(ignored, Ignored::Malformed(_)) {
        "malformed"
    } else {
        "ignored"
    };
    metrics::counter!("kraken_dhcp_packets_total", "result" => kind, "reason" => reason)
        .increment(1);
}

fn send_datagram(socket: &UdpSocket, reply: &Reply, to: SocketAddrV4) {
    if let Err(error) = socket.try_send_to(&reply.bytes, to.into()) {
        debug!(%to, %error, "DHCP reply not sent");
        count("send_failed");
    }
}

/// A socket for requests of one interface only.
fn open_udp(interface: &str, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    if port == SERVER_PORT {
        grow_receive_buffer(&socket, interface)?;
    }
    socket
        .bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())
        .map_err(|error| io::Error::new(error.kind(), format!("port {port}: {error}")))?;
    UdpSocket::from_std(socket.into())
}

/// Sets [`RECEIVE_BUFFER`] as root can, or else as much of it as the machine allows.
fn grow_receive_buffer(socket: &Socket, interface: &str) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        let got = socket.recv_buffer_size()?;
        if got < RECEIVE_BUFFER {
            warn!(
                interface,
                bytes = got,
                wanted = RECEIVE_BUFFER,
                "small DHCP receive buffer: a storm of nodes will lose packets; raise sysctl net.core.rmem_max"
            );
        }
    }
    Ok(())
}

struct Received {
    length: usize,
    source: SocketAddrV4,
}

/// One byte more than the longest packet shows which ones were cut.
struct Buffers(Vec<[u8; MAX_PACKET_BYTES + 1]>);

impl Buffers {
    fn new() -> Self {
        Buffers(vec![[0; MAX_PACKET_BYTES + 1]; BATCH])
    }

    /// Takes the waiting packets, at least one and at most [`BATCH`].
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<Vec<Received>> {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut slices: Vec<_> = self
            .0
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let results = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &mut slices,
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        let unknown = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        Ok(results
            .map(|result| Received {
                length: result.bytes,
                source: result.address.map_or(unknown, SocketAddrV4::from),
            })
            .collect())
    }
}

/// A packet socket that only sends.
///
/// It is no UDP socket: tokio's type only watches the descriptor, which any other wrapper would need `unsafe` for.
struct Packet {
    fd: UdpSocket,
    mac: MacAddr,
}

fn open_packet(facts: &InterfaceFacts) -> io::Result<Packet> {
    let mac = facts
        .mac
        .ok_or_else(|| io::Error::other("not an Ethernet interface"))?;
    // The kernel's own description of the interface, protocol 0: bound to it, the socket receives nothing.
    let link: LinkAddr = nix::ifaddrs::getifaddrs()?
        .filter(|found| found.interface_name == *facts.name)
        .find_map(|found| {
            found
                .address
                .as_ref()
                .and_then(SockaddrStorage::as_link_addr)
                .copied()
        })
        .filter(|link| link.ifindex() == facts.index as usize)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
    bind(socket.as_raw_fd(), &link)?;
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        socket.set_send_buffer_size(SEND_BUFFER)?;
    }
    Ok(Packet {
        fd: UdpSocket::from_std(socket.into())?,
        mac,
    })
}

impl Packet {
    fn frame(&self, reply: &Reply, to: End) -> Vec<u8> {
        udp_frame(
            End {
                mac: self.mac,
                address: reply.source,
            },
            to,
            &reply.bytes,
        )
    }

    /// Sends all frames, waiting a little where the link is slower than we are.
    async fn send(&self, frames: &[Vec<u8>]) -> io::Result<()> {
        let mut rest = frames;
        while !rest.is_empty() {
            let sent = tokio::time::timeout(
                SEND_PATIENCE,
                self.fd
                    .async_io(Interest::WRITABLE, || send_frames(&self.fd, rest)),
            )
            .await;
            match sent {
                Ok(Ok(sent)) => rest = &rest[sent..],
                // The driver's queue is full or the link went down; the interface follower sees to the latter.
                Ok(Err(error)) if is_passing(&error) => {
                    count("send_failed");
                    debug!(%error, "DHCP frame not sent");
                    rest = &rest[1..];
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    debug!(
                        frames = rest.len(),
                        "DHCP frames not sent: the send buffer stayed full"
                    );
                    for _ in rest {
                        count("send_failed");
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::ENOBUFS, Errno::ENETDOWN, Errno::EMSGSIZE];
    error
        .raw_os_error()
        .is_some_and(|code| passing.contains(&Errno::from_raw(code)))
}

fn send_frames(fd: &UdpSocket, frames: &[Vec<u8>]) -> io::Result<usize> {
    let frames = &frames[..frames.len().min(BATCH)];
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(frames.len(), None);
    let slices: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
    let addresses = vec![None; frames.len()];
    let results = sendmmsg(
        fd.as_raw_fd(),
        &mut headers,
        &slices,
        addresses,
        [],
        MsgFlags::MSG_DONTWAIT,
    )?;
    Ok(results.count())
}

#[cfg(test)]
mod tests;
