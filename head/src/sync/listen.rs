//! The sync port: TCP for TLS connections of children, UDP of the same number for sealed frames.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use engine::driver::Handle;
use engine::state::NodeId;
use engine::sync::SyncConfig;
use engine::sync::join::Channel;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use proto::v1::sync_server::SyncServer;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::attach::Attach;
use super::pki::certified_node;
use super::{Keys, SyncHub};
use crate::sources::Sources;

/// Label of the TLS exporter that binds a join to its connection (RFC 8446, 7.5).
const EXPORTER_LABEL: &[u8] = b"kraken-join-v1";

/// Time for a TLS handshake; one takes a millisecond or two of our time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time from the handshake to the one call that a connection is for.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the last words on a connection.
const LINGER: Duration = Duration::from_secs(2);

/// Handshakes at once: enough for 1,000 joins a second, and a bound on what strangers can cost.
const MAX_HANDSHAKES: usize = 256;

/// Connections at once: 10,000 children and those that replace their old connection.
const MAX_CONNECTIONS: usize = 16_384;

/// Connections of one address: an agent has one, and another while it reconnects; racks behind address translation have more.
const MAX_FROM_ONE: usize = 64;

/// One call a connection is all that agents make.
const MAX_STREAMS: u32 = 4;
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Largest message, as the schema says.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Kernel buffers for datagrams: hellos of 10,000 children that come at once.
const UDP_BUFFER_BYTES: usize = 4 << 20;

/// A silent connection is asked for a sign of life; frames travel beside it, so it may be silent for long.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The port's sockets, bound but not served.
pub(crate) struct Listening {
    tcp: TcpListener,
    udp: UdpSocket,
    address: SocketAddr,
}

/// Binds both sockets. Port 0 takes one that is free for both.
///
/// # Errors
/// The address is taken or not ours.
pub(crate) async fn listen(address: IpAddr, port: u16) -> std::io::Result<Listening> {
    let tcp = TcpListener::bind((address, port)).await?;
    let address = tcp.local_addr()?;
    let udp = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        None,
    )?;
    udp.set_nonblocking(true)?;
    // The kernel's limit may be lower; then it takes what it can.
    let _ = udp.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = udp.set_send_buffer_size(UDP_BUFFER_BYTES);
    udp.bind(&address.into())?;
    Ok(Listening {
        tcp,
        udp: UdpSocket::from_std(udp.into())?,
        address,
    })
}

impl Listening {
    /// The port that was bound.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves children while the futures of [`Children`] run. `addresses` are ours, for the certificate.
    ///
    /// # Errors
    /// No certificate can be made.
    pub(crate) fn serve(
        self,
        me: NodeId,
        timers: SyncConfig,
        keys: Keys,
        addresses: &[IpAddr],
        handle: Handle,
    ) -> anyhow::Result<(SyncHub, Children)> {
        let acceptor = TlsAcceptor::from(Arc::new(keys.server_config(addresses)?));
        let hub = SyncHub::new(me, timers, keys, handle, self.udp);
        info!(address = %self.address, "sync port");
        let children = Children {
            connections: Box::pin(accept(self.tcp, acceptor, hub.clone())),
            datagrams: Box::pin(hub.clone().receive()),
        };
        Ok((hub, children))
    }
}

/// What serves the children: two loops without an end.
pub(crate) struct Children {
    /// Takes their connections.
    pub(crate) connections: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Takes their datagrams.
    pub(crate) datagrams: Pin<Box<dyn Future<Output = ()> + Send>>,
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, hub: SyncHub) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let sources = Sources::new(MAX_FROM_ONE);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of files, mostly: those that end make room.
                debug!(%error, "sync port");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (Some(source), Ok(place)) = (
            sources.enter(from.ip()),
            Arc::clone(&connections).try_acquire_owned(),
        ) else {
            refused(from, "too many connections");
            continue;
        };
        let (acceptor, hub, handshakes) = (acceptor.clone(), hub.clone(), Arc::clone(&handshakes));
        tokio::spawn(async move {
            serve(stream, from, acceptor, hub, &handshakes).await;
            drop((source, place));
        });
    }
}

fn refused(from: SocketAddr, why: &'static str) {
    metrics::counter!("kraken_sync_connections_refused_total", "reason" => why).increment(1);
    debug!(%from, why, "sync connection refused");
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    hub: SyncHub,
    handshakes: &Semaphore,
) {
    let _ = stream.set_nodelay(true);
    let handshake = async {
        let _permit = handshakes.acquire().await.ok()?;
        acceptor
            .accept(stream)
            .await
            .inspect_err(|error| debug!(%from, %error, "TLS"))
            .ok()
    };
    let Ok(Some(tls)) = timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        return refused(from, "handshake");
    };
    let session = tls.get_ref().1;
    let Ok(exporter) = session.export_keying_material([0; 32], EXPORTER_LABEL, None) else {
        return refused(from, "exporter");
    };
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let channel = Channel {
        exporter,
        certified: certificate.and_then(certified_node),
    };
    debug!(%from, certified = ?channel.certified, "sync connection");
    let attached = CancellationToken::new();
    let done = CancellationToken::new();
    let service = Attach::new(hub, channel, from, attached.clone(), done.clone());
    let service = SyncServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .serve_connection(TokioIo::new(tls), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let over = async {
        if timeout(ATTACH_TIMEOUT, attached.cancelled()).await.is_ok() {
            done.cancelled().await;
        }
    };
    tokio::select! {
        served = connection.as_mut() => {
            if let Err(error) = served {
                debug!(%from, %error, "sync connection ended");
            }
            return;
        }
        () = over => {}
    }
    // One child, one stream, one connection: what is left is to tell the last words.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LINGER, connection).await;
}
