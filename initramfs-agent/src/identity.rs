//! Who this node is: its key and certificate, its one-time grant, and the cluster that it belongs to.
//!
//! Public things lie in `etc` (the initramfs): the CA that vouches for parents, the key that signs Cfg and images, the build time.
//! Secrets lie in `run`, which only root can read and no boot survives. The grant leaves the initramfs as soon as it is read (threat S4),
//! and `run` as soon as a certificate replaces it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use engine::state::NodeId;
use engine::sync::join::{GrantFile, MAX_FILE_BYTES};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::image::process::write_whole;
use crate::image::unhex;

/// SubjectPublicKeyInfo of an EC key on P-256 up to the point itself (RFC 5480, 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What the cluster's initramfs says, the same for every node.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// Who vouches for parents.
    pub(crate) ca: Vec<CertificateDer<'static>>,
    /// Who signs Cfg and images.
    pub(crate) key: [u8; 32],
    /// When the initramfs was built: no clock is right that is behind it.
    pub(crate) built: SystemTime,
}

#[derive(Deserialize)]
struct Build {
    time: u64,
}

impl Cluster {
    /// Reads `ca.pem`, `cluster.pub` and `build`.
    ///
    /// # Errors
    /// One of the first two is missing or makes no sense: nothing could be trusted.
    pub(crate) fn read(etc: &Path) -> Result<Self> {
        let advice = "build the initramfs with `kraken-image initramfs --keys DIR`";
        let path = etc.join("ca.pem");
        let pem =
            fs::read(&path).with_context(|| format!("cannot read {}: {advice}", path.display()))?;
        let ca: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is no PEM file", path.display()))?;
        if ca.is_empty() {
            bail!("{} holds no certificate: {advice}", path.display());
        }
        let path = etc.join("cluster.pub");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: {advice}", path.display()))?;
        let key = unhex(text.trim()).and_then(|bytes| bytes.try_into().ok());
        let key = key.with_context(|| format!("{} does not hold 64 hex digits", path.display()))?;
        Ok(Self {
            ca,
            key,
            built: read_build_time(&etc.join("build")),
        })
    }

    /// Now, or at least the build time: a machine with an empty battery starts in the past.
    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::now().max(self.built)
    }
}

/// An initramfs without build time trusts the clock.
fn read_build_time(path: &Path) -> SystemTime {
    let seconds = fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice::<Build>(&text).ok())
        .map_or(0, |build| build.time);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The key that the node's certificate names; made on the node, never leaves it.
pub(crate) struct NodeKey {
    pkcs8: Vec<u8>,
    public: Vec<u8>,
}

impl NodeKey {
    fn new(pkcs8: Vec<u8>) -> Result<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random)
            .map_err(|error| anyhow::anyhow!("the node's key makes no sense: {error}"))?;
        let public = [&P256_PREFIX, pair.public_key().as_ref()].concat();
        Ok(Self { pkcs8, public })
    }

    fn generate() -> Result<Self> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| anyhow::anyhow!("the kernel gives no random numbers"))?;
        Self::new(document.as_ref().to_vec())
    }

    /// DER SubjectPublicKeyInfo.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// For TLS.
    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.clone()))
    }
}

/// What outlives an agent, but no boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    node: Uuid,
    boot: Uuid,
}

/// How this node proves who it is.
pub(crate) enum Proof {
    /// First join of a boot.
    Grant(GrantFile),
    /// Later ones.
    Certificate(CertificateDer<'static>),
}

/// Who this node is.
pub(crate) struct Identity {
    /// Its id.
    pub(crate) node: NodeId,
    /// Which boot this is.
    pub(crate) boot: Uuid,
    /// Its key.
    pub(crate) key: NodeKey,
    /// How it proves itself next.
    pub(crate) proof: Proof,
    run: PathBuf,
}

impl Identity {
    /// Takes the grant out of the initramfs, or finds what an earlier agent of this boot left.
    ///
    /// # Errors
    /// There is neither: this node was not booted by a head that armed it.
    pub(crate) fn establish(etc: &Path, run: &Path) -> Result<Self> {
        let key = match fs::read(run.join("node.key")) {
            Ok(pkcs8) => NodeKey::new(pkcs8)?,
            Err(_) => {
                let key = NodeKey::generate()?;
                write_whole(&run.join("node.key"), &key.pkcs8)
                    .context("cannot keep the node's key")?;
                key
            }
        };
        let grant = take_grant(etc, run)?;
        let session: Option<Session> = read_json(&run.join("session.json"));
        let certificate = fs::read(run.join("node.crt")).ok();
        let (node, boot, proof) = match (grant, session, certificate) {
            (Some(grant), ..) => (grant.node, grant.boot, Proof::Grant(grant)),
            (None, Some(session), Some(der)) => {
                let certificate = CertificateDer::from(der);
                (
                    NodeId::from(session.node),
                    session.boot,
                    Proof::Certificate(certificate),
                )
            }
            _ => bail!(
                "there is no grant in {} and no certificate in {}: this machine was not booted by a head that armed it; \
                 power-cycle it from the head (krakenctl node set NODE /RunState=SYNC)",
                etc.display(),
                run.display()
            ),
        };
        Ok(Self {
            node,
            boot,
            key,
            proof,
            run: run.to_path_buf(),
        })
    }

    /// Keeps a certificate, which replaces the grant.
    ///
    /// # Errors
    /// It cannot be kept; a restarted agent could not join again.
    pub(crate) fn keep_certificate(&mut self, der: Vec<u8>) -> io::Result<()> {
        let session = Session {
            node: Uuid::from_bytes(*self.node.as_bytes()),
            boot: self.boot,
        };
        let text = serde_json::to_vec(&session).map_err(io::Error::other)?;
        write_whole(&self.run.join("session.json"), &text)?;
        write_whole(&self.run.join("node.crt"), &der)?;
        self.proof = Proof::Certificate(CertificateDer::from(der));
        match fs::remove_file(self.run.join("grant")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Moves the grant out of sight, then reads it. A copy stays in `run` until a certificate replaces it, or an agent that dies
/// before its first join could never join.
fn take_grant(etc: &Path, run: &Path) -> Result<Option<GrantFile>> {
    let (delivered, kept) = (etc.join("grant"), run.join("grant"));
    if let Ok(text) = fs::read(&delivered) {
        let text = text.get(..MAX_FILE_BYTES + 1).unwrap_or(&text);
        write_whole(&kept, text).context("cannot keep the grant")?;
        fs::remove_file(&delivered)
            .with_context(|| format!("cannot remove {}", delivered.display()))?;
    }
    let text = match fs::read_to_string(&kept) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot read the grant"),
    };
    match text.parse() {
        Ok(grant) => Ok(Some(grant)),
        Err(error) => {
            fs::remove_file(&kept).context("cannot remove the grant")?;
            Err(error).context("the head's grant makes no sense")
        }
    }
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests;
