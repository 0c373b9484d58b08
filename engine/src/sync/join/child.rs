//! The child's side of one handshake: hello, proof, and the check of the parent's proof.

use uuid::Uuid;

use super::proof::{Side, Transcript, check, join_key, prove, session_keys};
use super::{
    ChallengeMessage, GrantFile, HelloMessage, ProofMessage, Secret, SessionKeys, VERSIONS,
};
use crate::state::NodeId;
use crate::sync::SessionId;

/// What a child says about itself, whichever way it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Version of the agent, for people.
    pub agent_version: String,
    /// DER SubjectPublicKeyInfo of the key that the certificate shall name.
    pub public_key: Vec<u8>,
    /// 32 random bytes, fresh for this handshake.
    pub nonce: [u8; 32],
    /// Newest Cfg version that it holds; 0: none.
    pub cfg_version: u64,
}

/// Why the child gives a handshake up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The parent chose a version that we did not offer.
    #[error("the parent chose protocol version {0}, which this agent did not offer")]
    Version(u32),
    /// Messages came out of order.
    #[error("the parent sent {0} out of turn")]
    Order(&'static str),
    /// The parent does not know the grant's secret: it is not the head that issued it.
    #[error("the parent's proof is wrong: it is not the head that issued our grant")]
    ParentProof,
}

/// One handshake of a child, made anew for each connection.
///
/// Send [`hello`](Self::hello), answer the challenge with [`handle_challenge`](Self::handle_challenge), and use nothing of the accept message
/// before [`handle_accept`](Self::handle_accept) has checked its proof.
#[derive(Debug)]
pub struct ChildJoin {
    hello: HelloMessage,
    key: Option<Secret>,
    exporter: Secret,
    transcript: Option<Transcript>,
}

impl ChildJoin {
    /// A join with a grant. `exporter` is this connection's (see [`Channel`](super::Channel)).
    pub fn with_grant(file: &GrantFile, identity: Identity, exporter: [u8; 32]) -> Self {
        Self::new(
            file.node,
            file.boot,
            identity,
            exporter,
            Some((file.grant, join_key(&file.secret, file.grant))),
        )
    }

    /// A re-join, proven by the client certificate of the connection.
    pub fn with_certificate(
        node: NodeId,
        boot: Uuid,
        identity: Identity,
        exporter: [u8; 32],
    ) -> Self {
        Self::new(node, boot, identity, exporter, None)
    }

    fn new(
        node: NodeId,
        boot: Uuid,
        identity: Identity,
        exporter: [u8; 32],
        grant: Option<(super::GrantId, Secret)>,
    ) -> Self {
        let (grant, key) = grant.unzip();
        Self {
            hello: HelloMessage {
                node,
                grant,
                boot,
                versions: VERSIONS.to_vec(),
                agent_version: identity.agent_version,
                public_key: identity.public_key,
                nonce: identity.nonce,
                cfg_version: identity.cfg_version,
            },
            key,
            exporter: Secret(exporter),
            transcript: None,
        }
    }

    /// The first message.
    pub const fn hello(&self) -> &HelloMessage {
        &self.hello
    }

    /// The answer to the parent's challenge.
    ///
    /// # Errors
    /// A second challenge; a version that was not offered.
    pub fn handle_challenge(
        &mut self,
        challenge: &ChallengeMessage,
    ) -> Result<ProofMessage, JoinError> {
        if self.transcript.is_some() {
            return Err(JoinError::Order("a challenge"));
        }
        if !self.hello.versions.contains(&challenge.version) {
            return Err(JoinError::Version(challenge.version));
        }
        let transcript = Transcript::new(&self.hello, challenge);
        let mac = match &self.key {
            Some(key) => prove(key, Side::Child, &transcript, &self.exporter.0),
            None => Vec::new(),
        };
        self.transcript = Some(transcript);
        Ok(ProofMessage { mac })
    }

    /// Checks the parent's proof and gives the session's keys. On a re-join TLS alone vouches for the parent and the proof is empty.
    ///
    /// # Errors
    /// An accept without challenge; a wrong proof.
    pub fn handle_accept(self, mac: &[u8], session: SessionId) -> Result<SessionKeys, JoinError> {
        let transcript = self
            .transcript
            .as_ref()
            .ok_or(JoinError::Order("an accept"))?;
        let genuine = match &self.key {
            Some(key) => check(key, Side::Parent, transcript, &self.exporter.0, mac),
            None => mac.is_empty(),
        };
        if !genuine {
            return Err(JoinError::ParentProof);
        }
        Ok(session_keys(&self.exporter.0, self.key.as_ref(), session))
    }
}
