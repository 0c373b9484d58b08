//! Accepts boot file requests: one listener per address, bounded in connections, header size and patience (reliability F44).

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::answer::{Answers, Ends};

/// Connections the kernel may hold until we accept them: a power-on storm comes within milliseconds.
const BACKLOG: i32 = 4_096;

/// Firmware sends under 1 KiB of header.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Firmware sends about ten header lines.
const MAX_HEADERS: usize = 64;

/// How much a listener puts up with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections in all; more wait in the kernel's queue.
    connections: usize,
    /// Connections of one address; the next one is closed.
    connections_of_client: usize,
    /// For a request's header to be complete, and for an idle connection to live.
    header_time: Duration,
    /// A client that takes no byte for so long has gone away.
    stall_time: Duration,
}

impl Limits {
    /// 500 downloads at once (DESIGN 8) eight times over; a node opens a handful of connections, and one address must not
    /// fill the table; 5 s is reliability F44's; 30 s is longer than any switch takes to learn a new path.
    pub(crate) const BOOT: Limits = Limits {
        connections: 4_096,
        connections_of_client: 64,
        header_time: Duration::from_secs(5),
        stall_time: Duration::from_secs(30),
    };
}

const _: () = assert!(Limits::BOOT.connections_of_client < Limits::BOOT.connections);

/// Wait before accepting again after the system refused (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Wait before a listener is opened again.
const REOPEN: Duration = Duration::from_secs(2);

/// Serves boot files on one address until told to stop, opening the listener again when it fails.
pub(crate) async fn serve(
    address: Ipv4Addr,
    port: u16,
    answers: Arc<Answers>,
    connections: Arc<Connections>,
    stop: CancellationToken,
) {
    loop {
        let listener = match listen(address, port) {
            Ok(listener) => listener,
            Err(error) => {
                error!(%address, port, %error, "boot files cannot be served on this address, trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(REOPEN) => continue,
                }
            }
        };
        info!(%address, port, "boot files are served over HTTP");
        tokio::select! {
            () = stop.cancelled() => return,
            () = accept(&listener, &answers, &connections, &stop) => {}
        }
    }
}

fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    // A head that starts again must not wait for the connections of its predecessor to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((address, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until accepting fails for good, which it does not on Linux; pauses when descriptors run out.
pub(super) async fn accept(
    listener: &TcpListener,
    answers: &Arc<Answers>,
    connections: &Arc<Connections>,
    stop: &CancellationToken,
) {
    loop {
        let permit = connections.room().await;
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(slot) = connections.enter(client.ip(), permit) else {
            metrics::counter!("kraken_boot_http_refused_total", "reason" => "connections_of_client").increment(1);
            continue;
        };
        let (answers, stop) = (Arc::clone(answers), stop.clone());
        tokio::spawn(async move {
            let limits = slot.connections.limits;
            let _slot = slot;
            tokio::select! {
                () = stop.cancelled() => {}
                () = converse(stream, client.ip(), answers, limits) => {}
            }
        });
    }
}

async fn converse(stream: TcpStream, client: IpAddr, answers: Arc<Answers>, limits: Limits) {
    let server = match stream.local_addr() {
        Ok(SocketAddr::V4(address)) => *address.ip(),
        _ => return,
    };
    let _ = stream.set_nodelay(true);
    let ends = Ends { server, client };
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<Response<Body>, Infallible>(answers.answer(&request, ends).await) }
    });
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(
            TokioIo::new(Patient::new(stream, limits.stall_time)),
            service,
        )
        .await;
    if let Err(error) = result {
        debug!(%client, %error, "boot file connection ended");
    }
}

/// Counts connections, in all and by client; shared by all listeners.
pub(crate) struct Connections {
    limits: Limits,
    room: Arc<tokio::sync::Semaphore>,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to one connection, given back when dropped.
pub(super) struct Slot {
    connections: Arc<Connections>,
    client: IpAddr,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Connections {
    /// No connections yet.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let room = Arc::new(tokio::sync::Semaphore::new(limits.connections));
        Arc::new(Connections {
            limits,
            room,
            clients: Mutex::default(),
        })
    }

    async fn room(&self) -> tokio::sync::OwnedSemaphorePermit {
        match Arc::clone(&self.room).acquire_owned().await {
            Ok(permit) => permit,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    fn enter(
        self: &Arc<Self>,
        client: IpAddr,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) -> Option<Slot> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let open = clients.entry(client).or_insert(0);
        if *open >= self.limits.connections_of_client {
            return None;
        }
        *open += 1;
        Some(Slot {
            connections: Arc::clone(self),
            client,
            _permit: permit,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut clients = self
            .connections
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = clients.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// A stream whose writes fail when the other side takes nothing for a while; hyper has no limit of its own for that.
struct Patient {
    stream: TcpStream,
    stall_time: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, stall_time: Duration) -> Self {
        Patient {
            stream,
            stall_time,
            stalled: None,
        }
    }

    fn watch<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let until = Instant::now() + self.stall_time;
        let sleep = || Box::pin(tokio::time::sleep_until(until));
        match self
            .stalled
            .get_or_insert_with(sleep)
            .as_mut()
            .poll(context)
        {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
