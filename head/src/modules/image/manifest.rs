//! The signed manifest of a system image, as the head reads it (the format is `image-builder/src/manifest.rs`'s). Pure.

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;

use crate::boot::{BootName, Sha256};

/// Largest manifest; one layer takes 400 bytes.
pub(super) const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// overlayfs stacks at most 500.
const MAX_LAYERS: usize = 128;

const FORMAT: &str = "kraken-image-v1";
const SIGNED_PREFIX: &[u8] = b"kraken-manifest-v1\0";

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// Too long.
    #[error("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// No JSON of the right shape.
    #[error("this is no image manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Not signed by this cluster.
    #[error(
        "the manifest is not signed by this cluster's key: the file was changed, or made with another key"
    )]
    Signature,
    /// Another version.
    #[error("the manifest's format is {0:?}, this head knows {FORMAT:?}")]
    Format(String),
    /// A name that cannot be one.
    #[error("{name:?} is no name for an image: {why}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        why: String,
    },
    /// No layers, or too many, or a digest that is none.
    #[error("an image has 1 to {MAX_LAYERS} layers with a SHA-256 each")]
    Layers,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
struct Payload {
    format: String,
    name: String,
    security_version: u64,
    layers: Vec<RawLayer>,
}

#[derive(Deserialize)]
struct RawLayer {
    sha256: String,
    size: u64,
}

/// One file of an image.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) sha256: Sha256,
    pub(super) size: u64,
}

/// A manifest whose signature holds.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) boot_name: BootName,
    /// SHA-256 of the payload, hex.
    pub(super) digest: String,
    pub(super) security_version: u64,
    pub(super) layers: Vec<Layer>,
}

impl Manifest {
    /// Reads and verifies a manifest.
    pub(super) fn read(bytes: &[u8], cluster_key: &[u8; 32]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let envelope: Envelope = serde_json::from_slice(bytes)?;
        let mut signed = SIGNED_PREFIX.to_vec();
        signed.extend_from_slice(envelope.payload.as_bytes());
        let signature =
            crate::sync::parse_hex::<64>(&envelope.signature).ok_or(ManifestError::Signature)?;
        UnparsedPublicKey::new(&ED25519, cluster_key)
            .verify(&signed, &signature)
            .map_err(|_| ManifestError::Signature)?;
        let payload: Payload = serde_json::from_str(&envelope.payload)?;
        if payload.format != FORMAT {
            return Err(ManifestError::Format(payload.format));
        }
        let bad_name = |why: String| ManifestError::Name {
            name: payload.name.clone(),
            why,
        };
        let boot_name: BootName = payload
            .name
            .parse()
            .map_err(|error: crate::boot::table::TextError| bad_name(error.to_string()))?;
        if payload.name == "blobs" {
            return Err(bad_name("the head's own folder has it".into()));
        }
        let layers = payload
            .layers
            .iter()
            .map(|layer| {
                Some(Layer {
                    sha256: layer.sha256.parse().ok()?,
                    size: layer.size,
                })
            })
            .collect::<Option<Vec<_>>>()
            .filter(|layers| (1..=MAX_LAYERS).contains(&layers.len()))
            .ok_or(ManifestError::Layers)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, envelope.payload.as_bytes());
        Ok(Self {
            name: payload.name,
            boot_name,
            digest: digest
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            security_version: payload.security_version,
            layers,
        })
    }
}
