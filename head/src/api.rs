//! The faces of the head: gRPC for people's tools, and a few HTTP pages for monitoring, on the same listeners (DESIGN 7).
//!
//! - a unix socket in the run directory: root and the head's own user are administrators, by peer credentials;
//! - TCP, by configuration or by socket activation: a bearer token, nothing without it but `/healthz` and `/readyz`.
//!
//! `admin` translates between messages and the engine and decides nothing; `watch` keeps the last events for those that resume.

mod admin;
mod auth;
mod convert;
mod differences;
mod explain;
mod extension;
mod history;
mod image;
mod ops;
mod pages;
mod plan;
mod select;
mod snapshot;
mod trials;
mod undo;
mod watch;
mod write;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::v1::admin_server::AdminServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, info, warn};

use crate::sources::Sources;
pub(crate) use admin::{Admin, Parts};
pub(crate) use auth::Token;
use auth::{Caller, Peer};
pub(crate) use pages::{Pages, RailGauges};
pub(crate) use trials::watch as watch_trials;
pub(crate) use watch::Feed;

/// Largest message that is taken: the schema's limit.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Calls at once on one connection; HTTP/2 has no limit unless told.
const MAX_STREAMS: u32 = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Connections at once on one listener: every operator's shell and dashboard, and a bound for everybody else. Each listener has its own,
/// so that the network cannot lock out the head's own administrator.
const MAX_CONNECTIONS: usize = 256;

/// Connections of one address: a dashboard's and a few shells'.
const MAX_FROM_ONE: usize = 32;

/// Time to send the head of a request, and to make the first one on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A silent connection is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What every listener serves.
#[derive(Clone)]
pub(crate) struct Faces {
    router: Router,
    token: Arc<Token>,
    stop: CancellationToken,
}

impl Faces {
    /// The services behind all listeners; they end their streams when `stop` is cancelled.
    ///
    /// # Errors
    /// The schema's descriptors cannot be read.
    pub(crate) async fn new(
        admin: Admin,
        pages: Pages,
        token: Token,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<AdminServer<Admin>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .build_v1()
            .context("cannot read the schema for reflection")?;
        let grpc = tonic::service::Routes::new(
            AdminServer::new(admin).max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(health)
        .add_service(reflection);
        let router = grpc.prepare().into_axum_router().merge(pages.router());
        Ok(Self {
            router,
            token: Arc::new(token),
            stop,
        })
    }

    /// Serves the unix socket `path`, in the place of one that an earlier run left behind.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn serve_unix(&self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace the socket {shown}"));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot make the socket {shown}"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .with_context(|| format!("cannot set the mode of {shown}"))?;
        info!(socket = %shown, "api");
        let faces = self.clone();
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            while let Some((stream, _)) = faces.next(|| listener.accept()).await {
                let uid = match stream.peer_cred() {
                    Ok(credentials) => credentials.uid(),
                    Err(error) => {
                        debug!(%error, "a local caller without credentials");
                        continue;
                    }
                };
                match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => faces.connect(stream, Peer::Local { uid }, place),
                    Err(_) => full(&Peer::Local { uid }),
                }
            }
        });
        Ok(())
    }

    /// Serves a TCP socket. There is no TLS on it yet, so tokens on it are only as safe as the network.
    ///
    /// # Errors
    /// The socket's address cannot be read.
    pub(crate) fn serve_tcp(&self, listener: TcpListener) -> anyhow::Result<()> {
        let address = listener
            .local_addr()
            .context("cannot read the address of the API's TCP socket")?;
        info!(%address, "api");
        if !address.ip().is_loopback() {
            warn!(%address, "the API is not encrypted: keep this address off networks that others can listen to");
        }
        let faces = self.clone();
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            let sources = Sources::new(MAX_FROM_ONE);
            while let Some((stream, from)) = faces.next(|| listener.accept()).await {
                let _ = stream.set_nodelay(true);
                let place = Arc::clone(&places).try_acquire_owned().ok();
                match place.zip(sources.enter(from.ip())) {
                    Some(place) => faces.connect(stream, Peer::Remote { from }, place),
                    None => full(&Peer::Remote { from }),
                }
            }
        });
        Ok(())
    }

    /// The next connection; `None` when the head stops.
    async fn next<T, F: Future<Output = io::Result<T>>>(
        &self,
        accept: impl Fn() -> F,
    ) -> Option<T> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                accepted = accept() => match accepted {
                    Ok(accepted) => return Some(accepted),
                    Err(error) => {
                        // Out of files, mostly: connections that end make room.
                        debug!(%error, "api listener");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Serves one connection; `place` is given back when it ends.
    fn connect(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        place: impl Send + 'static,
    ) {
        let faces = self.clone();
        tokio::spawn(async move {
            let asked = CancellationToken::new();
            let service = {
                let (faces, peer, asked) = (faces.clone(), peer.clone(), asked.clone());
                hyper::service::service_fn(move |request: Request<Incoming>| {
                    asked.cancel();
                    let (faces, peer) = (faces.clone(), peer.clone());
                    async move { faces.answer(&peer, request).await }
                })
            };
            let builder = http_builder();
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let idle = async {
                if timeout(HEADER_TIMEOUT, asked.cancelled()).await.is_ok() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                served = connection => if let Err(error) = served {
                    debug!(?peer, %error, "api connection ended");
                },
                () = idle => debug!(?peer, "api connection without a request"),
                () = faces.stop.cancelled() => {}
            }
            drop(place);
        });
    }

    async fn answer(
        &self,
        peer: &Peer,
        mut request: Request<Incoming>,
    ) -> Result<axum::response::Response, std::convert::Infallible> {
        match auth::authorize(peer, &self.token, request.uri().path(), request.headers()) {
            Ok(caller) => {
                request.extensions_mut().insert::<Caller>(caller);
                let answered = self.router.clone().oneshot(request.map(Body::new)).await;
                answered.map(blame_the_caller)
            }
            Err(denied) => {
                metrics::counter!("kraken_api_denied_total").increment(1);
                debug!(?peer, path = request.uri().path(), "api call denied");
                Ok(denied.response(request.headers()))
            }
        }
    }
}

/// A message that cannot be read is the fault of who sent it; tonic calls it ours (INTERNAL), and operators would look for a bug in the head.
fn blame_the_caller(mut response: axum::response::Response) -> axum::response::Response {
    const STATUS: &str = "grpc-status";
    let headers = response.headers_mut();
    let is = |name: &str, text: &str| headers.get(name).is_some_and(|is| is == text);
    let said = headers
        .get("grpc-message")
        .and_then(|text| text.to_str().ok());
    let unreadable = said.is_some_and(|text| {
        // Percent-encoded, as gRPC has it.
        text.replace("%20", " ")
            .starts_with("failed to decode Protobuf message")
    });
    if unreadable && is(STATUS, "13") {
        headers.insert(STATUS, HeaderValue::from_static("3"));
    }
    response
}

fn full(peer: &Peer) {
    metrics::counter!("kraken_api_connections_refused_total").increment(1);
    debug!(?peer, "too many API connections");
}

fn http_builder() -> hyper_util::server::conn::auto::Builder<TokioExecutor> {
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    builder
}

/// TCP sockets that systemd, or whoever started us, has opened for the API (`LISTEN_FDS`).
///
/// # Errors
/// A socket of another kind.
pub(crate) fn activated() -> anyhow::Result<Vec<TcpListener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let listener = passed
            .take_tcp_listener(index)
            .context("LISTEN_FDS: only TCP sockets can be passed")?;
        if let Some(listener) = listener {
            listener
                .set_nonblocking(true)
                .context("LISTEN_FDS: cannot use the socket")?;
            listeners.push(
                TcpListener::from_std(listener).context("LISTEN_FDS: cannot use the socket")?,
            );
        }
    }
    Ok(listeners)
}

/// Binds the configured TCP address.
///
/// # Errors
/// The address is taken or not ours.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("api.listen: cannot listen on {address}"))
}
