//! Transcript, proofs and key schedule of KJ1: pure functions, the same on both sides (docs/sync-protocol.md draws them).

use ring::{digest, hkdf, hmac};

use super::{ChallengeMessage, GrantId, HelloMessage, Secret, SessionKeys};
use crate::sync::SessionId;

/// Everything both sides said before the proofs, each field behind its length (4 bytes, little endian), so that no two handshakes share bytes.
///
/// It holds the offered versions, so nobody can lower the chosen one, and node, grant and boot, so a proof is good for nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// The transcript of a hello and the challenge that answered it.
    pub fn new(hello: &HelloMessage, challenge: &ChallengeMessage) -> Self {
        let mut out = Vec::with_capacity(512);
        let mut put = |field: &[u8]| {
            out.extend_from_slice(&(field.len() as u32).to_le_bytes());
            out.extend_from_slice(field);
        };
        put(b"kraken-join-v1");
        put(hello.node.as_bytes());
        put(hello
            .grant
            .as_ref()
            .map_or(&[][..], |grant| grant.0.as_bytes()));
        put(hello.boot.as_bytes());
        let versions: Vec<u8> = hello
            .versions
            .iter()
            .flat_map(|version| version.to_le_bytes())
            .collect();
        put(&versions);
        put(hello.agent_version.as_bytes());
        put(&hello.public_key);
        put(&hello.nonce);
        put(&hello.cfg_version.to_le_bytes());
        put(&challenge.nonce);
        put(&challenge.head_time_ms.to_le_bytes());
        put(&challenge.version.to_le_bytes());
        Self(out)
    }
}

/// Who proves; keeps one side's proof from passing as the other's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The child, in `JoinProof`.
    Child,
    /// The parent, in `JoinAccept`.
    Parent,
}

impl Side {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Child => b"c",
            Self::Parent => b"s",
        }
    }
}

/// HKDF output length marker for [`hkdf::Prk::expand`].
struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

fn expand(secret: &[u8], info: &[&[u8]]) -> Secret {
    let mut key = Secret([0; 32]);
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
    // 32 bytes are far below HKDF's limit of 8,160, the only way in which these two can fail.
    if let Ok(output) = prk.expand(info, Bytes32)
        && output.fill(&mut key.0).is_ok()
    {
        return key;
    }
    unreachable!("HKDF-SHA256 gives 32 bytes");
}

/// Kj = HKDF-SHA256(S, info = grant id).
pub fn join_key(secret: &Secret, grant: GrantId) -> Secret {
    expand(&secret.0, &[grant.0.as_bytes()])
}

/// HMAC-SHA256(Kj, side | transcript | exporter).
pub fn prove(key: &Secret, side: Side, transcript: &Transcript, exporter: &[u8; 32]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
    hmac::sign(&key, &proof_input(side, transcript, exporter))
        .as_ref()
        .to_vec()
}

/// Whether `mac` is what [`prove`] gives, in constant time.
pub fn check(
    key: &Secret,
    side: Side,
    transcript: &Transcript,
    exporter: &[u8; 32],
    mac: &[u8],
) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
    hmac::verify(&key, &proof_input(side, transcript, exporter), mac).is_ok()
}

fn proof_input(side: Side, transcript: &Transcript, exporter: &[u8; 32]) -> Vec<u8> {
    [side.label(), &transcript.0, exporter].concat()
}

/// Session keys: HKDF-SHA256(exporter | Kj, info = "kraken-session-v1" | "up" or "down" | session id). On a re-join there is no Kj.
pub fn session_keys(
    exporter: &[u8; 32],
    join_key: Option<&Secret>,
    session: SessionId,
) -> SessionKeys {
    let mut secret = [0; 64];
    secret[..32].copy_from_slice(exporter);
    let length = match join_key {
        Some(key) => {
            secret[32..].copy_from_slice(&key.0);
            64
        }
        None => 32,
    };
    let key = |direction: &[u8]| {
        expand(
            &secret[..length],
            &[b"kraken-session-v1", direction, &session.0.to_le_bytes()],
        )
    };
    let keys = SessionKeys {
        up: key(b"up"),
        down: key(b"down"),
    };
    secret.fill(0);
    std::hint::black_box(&secret);
    keys
}

/// SHA-256 of a public key: how a used grant remembers who used it.
pub fn key_fingerprint(public_key: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, public_key).as_ref());
    out
}
