//! TLS 1.3 to a parent: its chain ends at the CA of our initramfs, its name is `kraken-head`, whatever its address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::identity::{Cluster, Identity, Proof};

/// Name in the certificate of every parent.
const PARENT_NAME: &str = "kraken-head";
/// Label of the exporter that ties proofs to the connection.
const EXPORTER_LABEL: &[u8] = b"kraken-join-v1";
/// Time to connect; longer than a SYN and its first resend.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// Time for the TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(8);

/// The wall clock, but never before the initramfs was built.
#[derive(Debug)]
struct Clock(SystemTime);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().max(self.0);
        Some(UnixTime::since_unix_epoch(
            now.duration_since(UNIX_EPOCH).ok()?,
        ))
    }
}

/// What we accept, and who we say we are.
pub(super) fn config(cluster: &Cluster, identity: &Identity) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in &cluster.ca {
        roots
            .add(certificate.clone())
            .context("ca.pem holds a certificate that cannot vouch for anybody")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Clock(cluster.built)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match &identity.proof {
        Proof::Grant(_) => builder.with_no_client_auth(),
        Proof::Certificate(certificate) => builder
            .with_client_auth_cert(vec![certificate.clone()], identity.key.private())
            .context("our certificate does not fit our key")?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not prove the certificate again.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Connects and proves the parent's name.
pub(super) async fn connect(
    parent: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>> {
    let advice = "is kraken-head running there, and is the port open?";
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(parent))
        .await
        .with_context(|| format!("no answer; {advice}"))?
        .with_context(|| format!("no connection; {advice}"))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(PARENT_NAME)?;
    timeout(HANDSHAKE_LIMIT, TlsConnector::from(config).connect(name, stream))
        .await
        .context("the TLS handshake takes too long")?
        .context("the parent does not prove to be of this cluster; does the initramfs hold this cluster's ca.pem?")
}

/// Keying material of the connection, which the join's proofs include.
pub(super) fn exporter(stream: &TlsStream<TcpStream>) -> Result<[u8; 32]> {
    let (_, connection) = stream.get_ref();
    connection
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .context("TLS gives no keying material")
}
