//! The signed manifest of an image, as a node reads it. Pure; everything in it is hostile until the signature is checked.
//!
//! ```text
//! {"payload": "<JSON text>", "signature": "<hex Ed25519 over "kraken-manifest-v1\0" + payload>"}
//! ```
//!
//! The image's digest is the SHA-256 of the payload's bytes. `image-builder/src/manifest.rs` writes this format; this reader is its own,
//! so that neither can drift without the other's tests noticing.

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;

use super::{hex, unhex};

const FORMAT: &str = "kraken-image-v1";
/// Keeps a signature over a manifest from being one over anything else.
const SIGNED_PREFIX: &[u8] = b"kraken-manifest-v1\0";
/// Largest manifest that is read; one of a layer has 400 bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Most layers; their paths must fit the one page of options that mount(2) takes.
pub(crate) const MAX_LAYERS: usize = 128;
/// Most words of the init's command line.
const MAX_WORDS: usize = 256;
/// Longest name.
const MAX_NAME: usize = 64;

/// An image that the cluster vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// SHA-256 of the payload, hex.
    pub(crate) digest: String,
    /// Its name.
    pub(crate) name: String,
    /// Rises with each security-relevant rebuild.
    pub(crate) security_version: u64,
    /// The program to start, with its arguments.
    pub(crate) init: Vec<String>,
    /// Its files, lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// One file system of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layer {
    /// What is in the file.
    kind: Kind,
    /// SHA-256 of the file, hex, which is also its name.
    pub(crate) sha256: String,
    /// Its length, bytes.
    pub(crate) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Squashfs,
}

/// Why a manifest is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// Too large.
    #[error("the manifest is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not the outer JSON.
    #[error("the manifest is no signed envelope")]
    Envelope(#[source] serde_json::Error),
    /// The signature does not fit.
    #[error("the manifest is not signed by this cluster: it was changed, or made with another key")]
    Signature,
    /// Signed, but not understood.
    #[error("the manifest is signed, but not understood: does it come from a newer kraken-image?")]
    Payload(#[source] serde_json::Error),
    /// Signed, understood, and not for us.
    #[error("the manifest is signed, but {0}")]
    Unfit(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    format: String,
    name: String,
    arch: String,
    security_version: u64,
    init: Vec<String>,
    layers: Vec<Layer>,
}

impl Manifest {
    /// Reads a manifest for the image `name`, signed by the cluster's key.
    ///
    /// # Errors
    /// Not signed, not understood, another image's, for another kind of machine.
    pub(crate) fn read(
        bytes: &[u8],
        cluster_key: &[u8; 32],
        name: &str,
    ) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(ManifestError::Envelope)?;
        let signature = unhex(&envelope.signature).ok_or(ManifestError::Signature)?;
        let signed = [SIGNED_PREFIX, envelope.payload.as_bytes()].concat();
        UnparsedPublicKey::new(&ED25519, cluster_key)
            .verify(&signed, &signature)
            .map_err(|_| ManifestError::Signature)?;
        let payload: Payload =
            serde_json::from_str(&envelope.payload).map_err(ManifestError::Payload)?;
        payload.check(name)?;
        Ok(Self {
            digest: hex(digest(&SHA256, envelope.payload.as_bytes()).as_ref()),
            name: payload.name,
            security_version: payload.security_version,
            init: payload.init,
            layers: payload.layers,
        })
    }

    /// Bytes of all files.
    pub(crate) fn size(&self) -> u64 {
        self.layers
            .iter()
            .fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

impl Payload {
    fn check(&self, wanted: &str) -> Result<(), ManifestError> {
        let unfit = |why: String| Err(ManifestError::Unfit(why));
        if self.format != FORMAT {
            return unfit(format!(
                "its format is {:?}, this agent knows {FORMAT:?}",
                self.format
            ));
        }
        // Somebody who can serve files must not be able to swap one signed image for another.
        if self.name != wanted {
            return unfit(format!("it is the image {:?}, not {wanted:?}", self.name));
        }
        if self.arch != std::env::consts::ARCH {
            return unfit(format!(
                "it is for {}, this node is {}",
                self.arch,
                std::env::consts::ARCH
            ));
        }
        let sound = |word: &String| !word.contains('\0');
        let has_init = self
            .init
            .first()
            .is_some_and(|program| program.starts_with('/'));
        if !has_init || self.init.len() > MAX_WORDS || !self.init.iter().all(sound) {
            return unfit("it names no program to start".to_owned());
        }
        if self.layers.is_empty() || self.layers.len() > MAX_LAYERS {
            return unfit(format!(
                "it has {} layers, 1 to {MAX_LAYERS} are possible",
                self.layers.len()
            ));
        }
        let is_digest = |text: &str| {
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !self.layers.iter().all(|layer| is_digest(&layer.sha256)) {
            return unfit("a layer's sha256 is no 64 lower-case hex digits".to_owned());
        }
        Ok(())
    }
}

/// Whether a name can be an image's, and so a part of a URL.
pub(crate) fn is_name(name: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(lower)
        && name
            .bytes()
            .all(|byte| lower(byte) || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests;
