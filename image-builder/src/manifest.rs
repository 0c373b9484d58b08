//! The signed manifest of a system image: what the cluster's key vouches for, and the only thing a node believes.
//!
//! The file is a JSON envelope of two texts; the signature is over the payload's bytes as they stand, so nobody has to agree
//! on how JSON is written. The image's digest, the name under which nodes and operators know it, is the SHA-256 of those bytes.
//! The agent has its own reader of this format.
//!
//! ```text
//! {"payload": "<JSON text>", "signature": "<hex Ed25519 over "kraken-manifest-v1\0" + payload>"}
//! payload: {"format": "kraken-image-v1", "name", "arch", "security_version", "init": [..],
//!           "layers": [{"kind": "squashfs", "sha256", "size"}]}
//! ```

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest;

/// The payload format written and read here.
pub(crate) const FORMAT: &str = "kraken-image-v1";
/// Keeps a signature over a manifest from being one over anything else.
const SIGNED_PREFIX: &[u8] = b"kraken-manifest-v1\0";
/// A manifest of one layer takes 400 bytes; more than this is not a manifest.
pub(crate) const MANIFEST_MAX_BYTES: usize = 1024 * 1024;
/// Layers of one image; overlayfs stacks at most 500, OCI images have rarely more than 127.
const LAYERS_MAX: usize = 128;
/// Image names become folder names and value texts.
const NAME_MAX_BYTES: usize = 64;

/// What is inside a layer's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LayerKind {
    Squashfs,
}

/// One file of an image, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layer {
    pub(crate) kind: LayerKind,
    /// SHA-256 of the file in hex, which is also its name.
    pub(crate) sha256: String,
    /// Length of the file in bytes.
    pub(crate) size: u64,
}

/// What the signature covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payload {
    pub(crate) format: String,
    pub(crate) name: String,
    /// Processor, as `uname -m` says it.
    pub(crate) arch: String,
    /// Nodes refuse an image whose number is lower than one they were told to insist on.
    pub(crate) security_version: u64,
    /// Program in the image that is started, and its arguments.
    pub(crate) init: Vec<String>,
    pub(crate) layers: Vec<Layer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    signature: String,
}

#[derive(Debug, Error)]
pub(crate) enum ManifestError {
    #[error("the manifest is larger than {MANIFEST_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the manifest is not a signed envelope")]
    Envelope(#[source] serde_json::Error),
    #[error("the manifest's signature is not 128 lower-case hex digits")]
    SignatureText,
    #[error(
        "the manifest's signature is not by this cluster's key: the file was changed, or made with another key"
    )]
    Signature,
    #[error("the manifest's payload is not understood")]
    Payload(#[source] serde_json::Error),
    #[error("the manifest's format is {0:?}, this program knows {FORMAT:?}")]
    Format(String),
    #[error(
        "bad image name {0:?}: 1 to {NAME_MAX_BYTES} letters a-z, digits, `-`, `_`, `.`, starting with a letter or digit"
    )]
    Name(String),
    #[error("the image's init must be an absolute path, not {0:?}")]
    Init(String),
    #[error("an image has 1 to {LAYERS_MAX} layers, not {0}")]
    LayerCount(usize),
    #[error("layer {0} has a sha256 that is not 64 lower-case hex digits")]
    LayerDigest(usize),
}

/// A manifest that was read: its payload and the image's digest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) payload: Payload,
    /// SHA-256 of the payload's bytes in hex.
    pub(crate) digest: String,
}

impl Payload {
    /// Checks what the types don't: names, paths, counts.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        if self.format != FORMAT {
            return Err(ManifestError::Format(self.format.clone()));
        }
        check_name(&self.name)?;
        match self.init.first() {
            Some(program) if program.starts_with('/') && !program.contains('\0') => {}
            other => return Err(ManifestError::Init(other.cloned().unwrap_or_default())),
        }
        if self.layers.is_empty() || self.layers.len() > LAYERS_MAX {
            return Err(ManifestError::LayerCount(self.layers.len()));
        }
        match self
            .layers
            .iter()
            .position(|layer| !is_digest(&layer.sha256))
        {
            Some(index) => Err(ManifestError::LayerDigest(index)),
            None => Ok(()),
        }
    }

    /// The text of the signed manifest, with a final newline.
    pub(crate) fn sign(&self, key: &Ed25519KeyPair) -> Result<String, ManifestError> {
        self.check()?;
        let payload = serde_json::to_string(self).map_err(ManifestError::Payload)?;
        let signature = digest::encode(key.sign(&signed_bytes(&payload)).as_ref());
        let envelope = serde_json::to_string(&Envelope { payload, signature })
            .map_err(ManifestError::Envelope)?;
        Ok(envelope + "\n")
    }
}

/// Whether `name` may be an image's name.
pub(crate) fn check_name(name: &str) -> Result<(), ManifestError> {
    let lower = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = name.len() <= NAME_MAX_BYTES
        && name.as_bytes().first().is_some_and(lower)
        && name
            .bytes()
            .all(|byte| lower(&byte) || b"-_.".contains(&byte));
    if good {
        Ok(())
    } else {
        Err(ManifestError::Name(name.to_owned()))
    }
}

/// Reads a manifest and, if a key is given, checks the signature before anything inside is looked at.
pub(crate) fn read(text: &[u8], public_key: Option<&[u8]>) -> Result<Manifest, ManifestError> {
    if text.len() > MANIFEST_MAX_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let envelope: Envelope = serde_json::from_slice(text).map_err(ManifestError::Envelope)?;
    let signature = digest::decode(&envelope.signature)
        .filter(|bytes| bytes.len() == 64)
        .ok_or(ManifestError::SignatureText)?;
    if let Some(key) = public_key {
        let key = UnparsedPublicKey::new(&ED25519, key);
        key.verify(&signed_bytes(&envelope.payload), &signature)
            .map_err(|_| ManifestError::Signature)?;
    }
    let payload: Payload =
        serde_json::from_str(&envelope.payload).map_err(ManifestError::Payload)?;
    payload.check()?;
    Ok(Manifest {
        payload,
        digest: digest::sha256_hex(envelope.payload.as_bytes()),
    })
}

fn signed_bytes(payload: &str) -> Vec<u8> {
    [SIGNED_PREFIX, payload.as_bytes()].concat()
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && digest::decode(text).is_some()
}

#[cfg(test)]
mod tests;
