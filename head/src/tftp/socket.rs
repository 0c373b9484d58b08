//! One `async-tftp` server per address, with the settings that tame it.
//!
//! The crate waits a whole timeout when the first block of a window is lost, and it does not hear a client that gives up
//! (an ERROR packet): short timeouts, few retries and bounds on window and block keep both cheap. It answers from the
//! address its socket is bound to, hence one server per address. Everything large goes over HTTP.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use async_tftp::server::TftpServerBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::handler::Served;

/// TFTP's port (RFC 1350).
pub(crate) const TFTP_PORT: u16 = 69;

/// Time to the next try of a packet; LAN round trips are under a millisecond, firmware is slower.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Tries after the first (S20 allows five packets in all).
const RETRIES: u32 = 4;

/// Largest window (RFC 7440); more gains nothing for files of a megabyte and S20 caps what a forged request can draw.
const WINDOW: u16 = 16;

/// Largest block (RFC 2348): an Ethernet frame, because firmware cannot put fragments together.
const BLOCK: u16 = 1_468;

/// Room for the first requests of a storm: about 8,000.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Wait before the socket is opened again.
const REOPEN: Duration = Duration::from_secs(2);

/// Serves on one address until told to stop.
pub(crate) async fn serve(served: Served, port: u16, stop: CancellationToken) {
    let address = served.address.addr();
    loop {
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = run(served.clone(), SocketAddrV4::new(address, port)) => result,
        };
        if let Err(error) = result {
            error!(%address, port, %error, "TFTP cannot serve on this address, trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REOPEN) => {}
        }
    }
}

async fn run(served: Served, address: SocketAddrV4) -> io::Result<()> {
    let server = TftpServerBuilder::with_handler(served)
        .std_socket(open(address)?)
        .map_err(io::Error::other)?
        .timeout(TIMEOUT)
        .max_send_retries(RETRIES)
        .ignore_client_timeout()
        .window_size_limit(WINDOW)
        .block_size_limit(BLOCK)
        .build()
        .await
        .map_err(io::Error::other)?;
    info!(%address, "TFTP serves");
    server.serve().await.map_err(io::Error::other)
}

fn open(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&SocketAddr::V4(address).into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
