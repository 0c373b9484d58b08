//! The cluster's signature over a Cfg: a parent can delay what a node shall be, never alter it (reliability S10).
//!
//! Only the head holds the key; every node verifies with `cluster.pub` out of its initramfs. Ed25519 is deterministic, so signing needs no
//! randomness. Key files belong to the shells.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::message::Signature;
use crate::state::{Digest, NodeId};

/// What the signature covers: `"kraken-cfg-v1" | node id 16 | epoch 8 LE | version 8 LE | digest 32`.
pub fn signing_input(node: NodeId, epoch: u64, version: u64, digest: &Digest) -> Vec<u8> {
    let mut input = Vec::with_capacity(13 + 16 + 8 + 8 + 32);
    input.extend_from_slice(b"kraken-cfg-v1");
    input.extend_from_slice(node.as_bytes());
    input.extend_from_slice(&epoch.to_le_bytes());
    input.extend_from_slice(&version.to_le_bytes());
    input.extend_from_slice(&digest.0);
    input
}

/// The cluster's signing key.
pub struct CfgSigner(Ed25519KeyPair);

/// A key that cannot be read; says nothing about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster key is no Ed25519 key in PKCS#8 form: make keys with `kraken-image keys`")]
pub struct KeyError;

impl CfgSigner {
    /// The key in a PKCS#8 document (version 1 or 2).
    ///
    /// # Errors
    /// When it is anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(Self)
            .map_err(|_| KeyError)
    }

    /// The key that grows from these 32 bytes.
    ///
    /// # Errors
    /// Never for 32 bytes; ring's interface allows for it.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed)
            .map(Self)
            .map_err(|_| KeyError)
    }

    /// Signs the Cfg of `node` at `version`.
    pub fn sign(&self, node: NodeId, epoch: u64, version: u64, digest: &Digest) -> Signature {
        self.0
            .sign(&signing_input(node, epoch, version, digest))
            .as_ref()
            .to_vec()
    }

    /// The public half, as in `cluster.pub`.
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        key
    }
}

impl fmt::Debug for CfgSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CfgSigner(..)")
    }
}

/// What a node checks its Cfg against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CfgVerifier {
    /// `cluster.pub`.
    pub public_key: [u8; 32],
    /// The node whose Cfg it is.
    pub node: NodeId,
    /// The head's epoch.
    pub epoch: u64,
}

impl CfgVerifier {
    /// Whether the cluster signed these values of our node at this version.
    pub fn verify(&self, version: u64, digest: &Digest, signature: &[u8]) -> bool {
        let input = signing_input(self.node, self.epoch, version, digest);
        UnparsedPublicKey::new(&ED25519, self.public_key)
            .verify(&input, signature)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Values;

    #[test]
    fn a_signature_holds_for_exactly_what_it_covers() {
        let signer = CfgSigner::from_seed(&[7; 32]).unwrap();
        let verifier = CfgVerifier {
            public_key: signer.public_key(),
            node: NodeId::from_bytes([1; 16]),
            epoch: 3,
        };
        let digest = Values::default().digest();
        let signature = signer.sign(verifier.node, 3, 9, &digest);
        assert!(verifier.verify(9, &digest, &signature));
        assert!(!verifier.verify(10, &digest, &signature), "another version");
        assert!(
            !verifier.verify(9, &Digest([0; 32]), &signature),
            "other values"
        );
        assert!(!verifier.verify(9, &digest, &signature[..63]), "cut");
        let other_node = CfgVerifier {
            node: NodeId::from_bytes([2; 16]),
            ..verifier.clone()
        };
        assert!(!other_node.verify(9, &digest, &signature));
        let other_epoch = CfgVerifier {
            epoch: 4,
            ..verifier
        };
        assert!(!other_epoch.verify(9, &digest, &signature));
        assert_eq!(format!("{signer:?}"), "CfgSigner(..)");
    }
}
