//! How krakenctl reaches a head: the unix socket, or TCP with a token.
//!
//! What is tried is named in every error, with what to do next. The API on TCP is not encrypted, so a token goes to loopback only
//! unless the operator says otherwise.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::v1::admin_client::AdminClient;
use tokio::net::{TcpStream, UnixStream};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::exit::{Exit, Failure};

/// Where a head listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/kraken/api.sock";
/// Port of the API on TCP (DESIGN 7).
const DEFAULT_PORT: u16 = 3141;
/// Time to get a connection: a head on the same network needs milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is probed after this, so that a watch notices a head that vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Largest reply: 10,000 nodes with a full inventory take some 40 MiB.
const MAX_REPLY_BYTES: usize = 256 << 20;
/// Largest request a head takes (admin.proto).
pub(crate) const MAX_REQUEST_BYTES: usize = 1 << 20;

/// The API of a head.
pub(crate) type Head = AdminClient<InterceptedService<Channel, Bearer>>;

/// Options that say which head.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// Unix socket of the head on this machine
    #[arg(long, global = true,
        hide_short_help = true, value_name = "PATH", env = "KRAKEN_SOCKET", default_value = DEFAULT_SOCKET, hide_env_values = true)]
    pub(crate) socket: PathBuf,
    /// Head on the network, as ADDRESS or ADDRESS:PORT (port 3141), instead of the socket; needs a token
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "ADDRESS",
        env = "KRAKEN_HEAD",
        hide_env_values = true
    )]
    pub(crate) head: Option<String>,
    /// Token for --head; better kept in a file or in KRAKEN_TOKEN, because other users can see arguments
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "TOKEN",
        env = "KRAKEN_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// File that holds the token, such as <state_dir>/admin.token of the head
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "FILE",
        env = "KRAKEN_TOKEN_FILE",
        hide_env_values = true
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Send the token unencrypted beyond this machine
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) plaintext: bool,
    /// Longest time for one answer
    #[arg(long, global = true,
        hide_short_help = true, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) request_timeout: Duration,
}

/// Reads `10s`, `1m30s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    engine::extension::parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a duration is wanted, such as 10s, 1m30s or 2h".to_owned())
}

/// Adds the token to each request.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl ConnectArgs {
    /// Connects, and says what was tried when that fails.
    pub(crate) async fn connect(&self) -> Result<Head, Failure> {
        let (channel, bearer) = match &self.head {
            Some(head) => {
                let bearer = self.token()?;
                (self.connect_tcp(head, bearer.0.is_some()).await?, bearer)
            }
            None => (self.connect_socket().await?, Bearer(None)),
        };
        Ok(AdminClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(MAX_REPLY_BYTES)
            .max_encoding_message_size(MAX_REQUEST_BYTES))
    }

    async fn connect_socket(&self) -> Result<Channel, Failure> {
        let path = self.socket.clone();
        let connect = async move |_: Uri| UnixStream::connect(path).await.map(TokioIo::new);
        let connect = tower::service_fn(move |uri| {
            let connect = connect.clone();
            async move { connect(uri).await }
        });
        let endpoint = self.endpoint("http://head.invalid")?;
        // The first connection is made here as well, because the transport's own error does not tell why.
        within(UnixStream::connect(&self.socket))
            .await
            .map_err(|error| socket_failure(&self.socket, &error))?;
        endpoint
            .connect_with_connector(connect)
            .await
            .map_err(|error| unreachable(&format!("the head at {}", self.socket.display()), &error))
    }

    async fn connect_tcp(&self, head: &str, has_token: bool) -> Result<Channel, Failure> {
        let (host, port) = split_host(head)?;
        let addresses: Vec<SocketAddr> = within(tokio::net::lookup_host((host.as_str(), port)))
            .await
            .map_err(|error| unreachable(&format!("the head {host}"), &error))?
            .collect();
        let address = *addresses
            .first()
            .ok_or_else(|| Failure::new(Exit::Unreachable, format!("{host} has no address")))?;
        if has_token
            && !self.plaintext
            && !addresses.iter().all(|address| address.ip().is_loopback())
        {
            return Err(Failure::usage(format!("the token would cross the network to {host} unencrypted")).hint(
                "forward the socket instead (ssh -L 3141:/run/kraken/api.sock HEAD, then --head 127.0.0.1), or add --plaintext",
            ));
        }
        within(TcpStream::connect(address))
            .await
            .map_err(|error| tcp_failure(address, &error))?;
        self.endpoint(&format!("http://{address}"))?
            .connect()
            .await
            .map_err(|error| unreachable(&format!("the head at {address}"), &error))
    }

    fn endpoint(&self, uri: &str) -> Result<Endpoint, Failure> {
        let endpoint = Endpoint::from_shared(uri.to_owned())
            .map_err(|error| Failure::usage(format!("{uri} is no address of a head: {error}")))?;
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.request_timeout)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true))
    }

    fn token(&self) -> Result<Bearer, Failure> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) => std::fs::read_to_string(path).map_err(|error| {
                Failure::new(
                    Exit::Failure,
                    format!("cannot read the token from {}: {error}", path.display()),
                )
                .hint("the file belongs to the head's user: run this with sudo, or copy it")
            })?,
            (None, None) => return Ok(Bearer(None)),
        };
        let value: MetadataValue<Ascii> = format!("Bearer {}", text.trim())
            .parse()
            .map_err(|_| Failure::usage("the token holds characters that no token has"))?;
        Ok(Bearer(Some(value)))
    }

    /// What is being connected to, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.head {
            Some(head) => head.clone(),
            None => self.socket.display().to_string(),
        }
    }
}

/// `ADDRESS`, `ADDRESS:PORT`, `[V6]:PORT` or a bare IPv6 address.
fn split_host(head: &str) -> Result<(String, u16), Failure> {
    let bad = || {
        Failure::usage(format!("{head:?} is no address of a head"))
            .hint("write ADDRESS or ADDRESS:PORT, for example head1:3141")
    };
    if let Ok(ip) = head.parse::<IpAddr>() {
        return Ok((ip.to_string(), DEFAULT_PORT));
    }
    if let Ok(address) = head.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    let (host, port) = match head.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
        None => (head, DEFAULT_PORT),
    };
    if host.is_empty() || host.contains(['/', '@', ':', ' ']) {
        return Err(bad());
    }
    Ok((host.to_owned(), port))
}

async fn within<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer within 5 s",
        )),
    }
}

fn socket_failure(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::Unreachable, format!("no head here: {shown} does not exist"))
            .hint("is kraken-head running (systemctl status kraken-head)? A head with another run_dir: use --socket or KRAKEN_SOCKET; on another machine: --head"),
        io::ErrorKind::ConnectionRefused => Failure::new(Exit::Unreachable, format!("nobody listens on {shown}: the head has stopped"))
            .hint("start it (systemctl start kraken-head), and see why it stopped (journalctl -u kraken-head)"),
        io::ErrorKind::PermissionDenied => Failure::new(Exit::NotPermitted, format!("{shown} may not be opened by this user"))
            .hint("root and the head's own user may: run this with sudo, or use --head with a token"),
        _ => unreachable(&format!("the head at {shown}"), error).hint("name another one with --socket or KRAKEN_SOCKET"),
    }
}

fn tcp_failure(address: SocketAddr, error: &io::Error) -> Failure {
    unreachable(&format!("the head at {address}"), error)
        .hint("is `listen` set under [api] in the head's configuration, and does the firewall let this port through?")
}

fn unreachable(what: &str, error: &dyn std::error::Error) -> Failure {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Failure::new(Exit::Unreachable, format!("cannot reach {what}: {cause}"))
}

#[cfg(test)]
mod tests;
