//! gRPC over one HTTP/2 connection that we made ourselves: no pool, no reconnecting, no names.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::v1::sync_client::SyncClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::codegen::Service;

/// Time between pings, and time for their answer: a parent that is gone without a word is noticed though nothing is sent.
const PING: Duration = Duration::from_secs(5);
const PONG: Duration = Duration::from_secs(10);

/// The connection as tonic wants it.
#[derive(Clone)]
pub(crate) struct Connection(SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// What a connection runs over. Boxed, so that there is one HTTP/2 client in this binary, not one for each kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client on this connection; the connection ends with it and its streams.
pub(super) async fn client(stream: TlsStream<TcpStream>) -> Result<SyncClient<Connection>> {
    let connection = open(Box::new(stream))
        .await
        .context("no HTTP/2 with the parent")?;
    Ok(SyncClient::with_origin(
        connection,
        Uri::from_static("https://kraken-head"),
    ))
}

/// HTTP/2 with a module on this node.
pub(crate) async fn http2(stream: UnixStream) -> Result<Connection> {
    open(Box::new(stream))
        .await
        .context("no HTTP/2 with the module")
}

async fn open(stream: Box<dyn Stream>) -> Result<Connection> {
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    Ok(Connection(sender))
}
