//! Moves the client's packets: one UDP socket on port 68, tied to the interface.
//!
//! A datagram to 255.255.255.255 through a socket that is bound to a device needs no address and no route, and the broadcast
//! flag makes servers answer the same way; so no raw socket is needed.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::{Client, Lease, Output};
use crate::cmdline::Mac;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// A client with its socket.
#[derive(Debug)]
pub(crate) struct Running {
    client: Client,
    socket: UdpSocket,
    origin: Instant,
}

/// Gets a lease on the interface; asks until somebody answers.
///
/// # Errors
/// There can be no such socket.
pub(crate) async fn obtain(interface: &str, mac: Mac, chance: u32) -> io::Result<(Running, Lease)> {
    let origin = Instant::now();
    let mut running = Running {
        client: Client::new(mac, chance, Duration::ZERO),
        socket: open(interface)?,
        origin,
    };
    loop {
        if let Output::Bound(lease) = running.next().await {
            return Ok((running, lease));
        }
    }
}

impl Running {
    /// Renews until something changes: another lease, or none (`None`).
    pub(crate) async fn changed(&mut self) -> Option<Lease> {
        match self.next().await {
            Output::Bound(lease) => Some(lease),
            Output::Lost | Output::Send(..) => None,
        }
    }

    /// Runs until the client has something to say, besides sending.
    async fn next(&mut self) -> Output {
        let mut packet = [0; 2048];
        loop {
            while let Some(output) = self.client.poll_output() {
                match output {
                    // A link that is down comes back, or the next try says so again.
                    Output::Send(bytes, to) => {
                        drop(self.socket.send_to(&bytes, (to, SERVER_PORT)).await)
                    }
                    news => return news,
                }
            }
            let deadline = self.origin + self.client.poll_timeout();
            match timeout_at(deadline, self.socket.recv_from(&mut packet)).await {
                Ok(Ok((length, _))) => self
                    .client
                    .handle_packet(&packet[..length], self.origin.elapsed()),
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(_) => self.client.handle_timeout(self.origin.elapsed()),
            }
        }
    }
}

fn open(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}
