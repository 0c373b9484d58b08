//! The cluster's keys and certificates (made by `kraken-image keys`): who is a head, who is a node.
//!
//! The cluster CA signs the head's certificate anew at every start, and a certificate of 24 hours for each node that joins. A node is named by
//! its UUID, as common name and as `urn:uuid:` alternative name; it may only be a TLS client, the head only a server.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use engine::state::NodeId;
use engine::sync::signature::CfgSigner;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Name by which agents know a head in its certificate.
const HEAD_NAME: &str = "kraken-head";

/// Life of a node's certificate; agents renew by joining again.
const NODE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Life of the head's certificate, which is made at every start: longer than a head runs without one.
const HEAD_LIFE: Duration = Duration::from_secs(3 * 365 * 24 * 3600);

/// Clocks of nodes and head differ; certificates begin this much in the past.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3600);

/// Largest key file; ours have a few hundred bytes.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// Why keys or certificates are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// A file is not there.
    #[error("cannot read {}: {source}; make the cluster's keys with `kraken-image keys {}`", path.display(), path.parent().unwrap_or(path).display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is not {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// A private key lies open.
    #[error("{} can be read by other users: chmod 600 it, and make new keys if the machine has other users", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The halves of a key pair are of two pairs.
    #[error("{} does not belong to {other} beside it", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The other one.
        other: &'static str,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// The cluster's keys, as the head uses them.
pub(crate) struct Keys {
    ca: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    signer: Option<CfgSigner>,
    cluster_key: [u8; 32],
}

impl Keys {
    /// Reads `ca.pem`, `ca.key`, `cluster.key` and `cluster.pub`.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub(crate) fn load(folder: &Path) -> Result<Self, KeysError> {
        let content = |name: &str, what| KeysError::Content {
            path: folder.join(name),
            what,
        };
        let ca = CertificateDer::from_pem_slice(&read(folder, "ca.pem", false)?)
            .map_err(|_| content("ca.pem", "a PEM certificate"))?;
        let ca_key = text(folder, "ca.key", true)?;
        let ca_key = KeyPair::from_pem(&ca_key)
            .map_err(|_| content("ca.key", "a PKCS#8 private key in PEM form"))?;
        let is_its_key = X509Certificate::from_der(&ca).is_ok_and(|(_, certificate)| {
            certificate.public_key().raw == ca_key.subject_public_key_info()
        });
        if !is_its_key {
            return Err(KeysError::Mismatch {
                path: folder.join("ca.key"),
                other: "ca.pem",
            });
        }
        let issuer = Issuer::from_ca_cert_der(&ca, ca_key)
            .map_err(|_| content("ca.pem", "a CA certificate"))?;
        let cluster = PrivatePkcs8KeyDer::from_pem_slice(&read(folder, "cluster.key", true)?)
            .map_err(|_| content("cluster.key", "a PKCS#8 private key in PEM form"))?;
        let signer = CfgSigner::from_pkcs8(cluster.secret_pkcs8_der())
            .map_err(|_| content("cluster.key", "an Ed25519 key"))?;
        let cluster_key = signer.public_key();
        if parse_hex(text(folder, "cluster.pub", false)?.trim()) != Some(cluster_key) {
            return Err(KeysError::Mismatch {
                path: folder.join("cluster.pub"),
                other: "cluster.key",
            });
        }
        Ok(Self {
            ca,
            issuer,
            signer: Some(signer),
            cluster_key,
        })
    }

    /// What the cluster signs is verified with this.
    pub(crate) fn cluster_key(&self) -> [u8; 32] {
        self.cluster_key
    }

    /// Takes out the key that signs Cfg: it belongs to the engine.
    pub(crate) fn take_signer(&mut self) -> Option<CfgSigner> {
        self.signer.take()
    }

    /// TLS 1.3 with a fresh certificate for these addresses; clients may have a certificate of this cluster, or none.
    pub(super) fn server_config(&self, addresses: &[IpAddr]) -> Result<ServerConfig, KeysError> {
        let tls = |error: &dyn std::fmt::Display| KeysError::Tls(error.to_string());
        let mut params = named(HEAD_NAME, HEAD_LIFE)?;
        params
            .subject_alt_names
            .push(SanType::DnsName(ia5(HEAD_NAME)?));
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).map_err(|error| tls(&error))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| tls(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone(), self.ca.clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Early data could be replayed, and resumption would hide a revoked certificate: both stay off.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }

    /// A certificate that names `node` as the holder of a public key (DER SubjectPublicKeyInfo).
    pub(super) fn node_certificate(
        &self,
        node: NodeId,
        public_key: &[u8],
    ) -> Result<Vec<u8>, KeysError> {
        let mut params = named(&node.to_string(), NODE_LIFE)?;
        params
            .subject_alt_names
            .push(SanType::URI(ia5(&format!("urn:uuid:{node}"))?));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = SubjectPublicKeyInfo::from_der(public_key)?;
        Ok(params.signed_by(&key, &self.issuer)?.der().to_vec())
    }

    /// Whether a public key is one that we can name in a certificate.
    pub(super) fn accepts(public_key: &[u8]) -> bool {
        SubjectPublicKeyInfo::from_der(public_key).is_ok()
    }
}

/// The node that a client certificate names. TLS has verified it against the cluster's CA.
pub(super) fn certified_node(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?;
    NodeId::from_str(name).ok()
}

fn named(name: &str, life: Duration) -> Result<CertificateParams, KeysError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + life).into();
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|error| KeysError::Tls(error.to_string()))?;
    // Positive, and of full length (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn ia5(text: &str) -> Result<Ia5String, KeysError> {
    Ia5String::try_from(text.to_owned()).map_err(KeysError::Certificate)
}

fn read(folder: &Path, name: &str, private: bool) -> Result<Vec<u8>, KeysError> {
    let path = folder.join(name);
    let error = |source| KeysError::Read {
        path: path.clone(),
        source,
    };
    let meta = fs::metadata(&path).map_err(error)?;
    if meta.len() > MAX_KEY_BYTES {
        return Err(KeysError::Content {
            path,
            what: "a key: it is far too large",
        });
    }
    if private && meta.mode() & 0o077 != 0 {
        return Err(KeysError::Open { path });
    }
    fs::read(&path).map_err(error)
}

fn text(folder: &Path, name: &str, private: bool) -> Result<String, KeysError> {
    String::from_utf8(read(folder, name, private)?).map_err(|_| KeysError::Content {
        path: folder.join(name),
        what: "a text file",
    })
}

/// Exactly `N` bytes as hexadecimal digits.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}
