//! The parent's side of KJ1: which grants there are, who may fetch them, and the handshakes under way.
//!
//! What it returns as [`Record`]s must be durable before anybody is told: a grant before the node's boot is served, a new secret before it is
//! delivered, the use of a grant before the accept is sent. Alarms are sentences for an operator: two parties claim one node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::proof::{Side, Transcript, check, join_key, key_fingerprint, prove, session_keys};
use super::{
    ChallengeMessage, Channel, Grant, GrantFile, GrantId, HelloMessage, JoinOutcome, NewGrant,
    ProofMessage, RefuseReason, Secret, SessionKeys, VERSIONS,
};
use crate::event::{ConnId, Record};
use crate::state::NodeId;
use crate::sync::SessionId;

/// Most deliveries of one grant: firmware that fetches twice still boots, somebody who fishes for secrets does not.
pub const MAX_DELIVERIES: u32 = 3;
/// Most handshakes under way; a thousand nodes that boot at once pass without being told to come back.
pub const MAX_HANDSHAKES: usize = 1024;
/// Time for a handshake, milliseconds; a LAN needs a few, a lost segment on the way two seconds.
pub const HANDSHAKE_MS: u64 = 10_000;
/// Time during which the key that used a grant may use it again, because the reply got lost. Milliseconds.
pub const RETRY_MS: u64 = 60_000;
/// When a child that found us busy comes back, milliseconds; up to a quarter second of its own chance is added.
const BUSY_RETRY_MS: u32 = 1_000;

/// Grants and handshakes of one parent.
#[derive(Debug, Default)]
pub struct Acceptor {
    grants: BTreeMap<GrantId, Held>,
    /// The same by node: a cluster that boots at once asks for each node's grant.
    by_node: BTreeSet<(NodeId, GrantId)>,
    handshakes: BTreeMap<ConnId, Handshake>,
    /// Grants whose `kept` secret has to be wiped, and when they were used.
    to_wipe: VecDeque<(u64, GrantId)>,
}

/// A grant and, once it is used, the secret for the time in which its user may come again. That copy is never stored.
#[derive(Debug)]
struct Held {
    grant: Grant,
    kept: Option<Secret>,
}

#[derive(Debug)]
struct Handshake {
    hello: HelloMessage,
    challenge: ChallengeMessage,
    channel: Channel,
    session: SessionId,
    started_ms: u64,
}

/// A grant to be handed out, once `record` is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whose grant.
    pub node: NodeId,
    /// The grant file.
    pub text: String,
    /// To be made durable first.
    pub record: Record,
    /// It was delivered before: the older secret is dead.
    pub alarm: Option<String>,
}

/// A child that proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Who.
    pub node: NodeId,
    /// What it said.
    pub hello: HelloMessage,
    /// The new session.
    pub session: SessionId,
    /// Its keys.
    pub keys: SessionKeys,
    /// Our own proof; empty on a re-join.
    pub mac: Vec<u8>,
    /// Joined with this grant; `None`: by certificate.
    pub grant: Option<GrantId>,
    /// The use of the grant, to be made durable before the accept is sent.
    pub record: Option<Record>,
}

/// A join that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RefuseReason,
    /// For the node's console: what to do next.
    pub text: String,
    /// Try again after this many milliseconds; 0: do not.
    pub retry_after_ms: u32,
    /// An operator should look.
    pub alarm: Option<String>,
}

impl From<Refusal> for JoinOutcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse {
            reason: refusal.reason,
            text: refusal.text,
            retry_after_ms: refusal.retry_after_ms,
        }
    }
}

impl Refusal {
    fn new(reason: RefuseReason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
            retry_after_ms: 0,
            alarm: None,
        }
    }

    fn alarm(mut self, text: String) -> Self {
        self.alarm = Some(text);
        self
    }

    const fn retry(mut self, after_ms: u32) -> Self {
        self.retry_after_ms = after_ms;
        self
    }
}

impl Acceptor {
    /// Takes a grant out of the store, at start.
    pub fn load(&mut self, grant: Grant) {
        self.by_node.insert((grant.node, grant.id));
        self.grants.insert(grant.id, Held { grant, kept: None });
    }

    /// Makes a grant; the node's older ones die.
    pub fn arm(&mut self, new: NewGrant) -> Vec<Record> {
        let mut records = self.disarm(new.node);
        let grant = Grant {
            id: new.id,
            node: new.node,
            boot: new.boot,
            secret: Some(new.secret),
            expires_ms: new.expires_ms,
            deliveries: 0,
            consumed_by: None,
        };
        records.push(Record::Grant(grant.clone()));
        self.load(grant);
        records
    }

    /// Drops the node's grants, used ones too: its boot is over, or the node is.
    pub fn disarm(&mut self, node: NodeId) -> Vec<Record> {
        let gone: Vec<GrantId> = self.grants_of(node).collect();
        gone.into_iter()
            .map(|id| {
                self.grants.remove(&id);
                self.by_node.remove(&(node, id));
                Record::GrantGone(id)
            })
            .collect()
    }

    /// The node's grant that nobody has used.
    pub fn armed(&self, node: NodeId) -> Option<&Grant> {
        self.grants_of(node)
            .filter_map(|id| self.grants.get(&id))
            .map(|held| &held.grant)
            .find(|grant| grant.consumed_by.is_none())
    }

    fn grants_of(&self, node: NodeId) -> impl Iterator<Item = GrantId> {
        let first = (node, GrantId(Uuid::nil()));
        let last = (node, GrantId(Uuid::max()));
        self.by_node.range(first..=last).map(|(_, id)| *id)
    }

    /// Hands a grant out; `secret` becomes its secret if it was handed out before.
    ///
    /// # Errors
    /// In words, when the grant is unknown, used, expired or was handed out too often.
    pub fn fetch(
        &mut self,
        id: GrantId,
        secret: [u8; 32],
        now_ms: u64,
    ) -> Result<Delivery, String> {
        let held = self
            .grants
            .get_mut(&id)
            .ok_or_else(|| format!("there is no grant {id}"))?;
        let grant = &mut held.grant;
        let node = grant.node;
        if grant.consumed_by.is_some() {
            return Err(format!("the grant {id} of node {node} is used"));
        }
        if now_ms > grant.expires_ms {
            return Err(format!(
                "the grant {id} of node {node} has expired: the boot took longer than its window"
            ));
        }
        if grant.deliveries >= MAX_DELIVERIES {
            return Err(format!(
                "the grant {id} of node {node} was handed out {MAX_DELIVERIES} times already: arm the node again"
            ));
        }
        let alarm = (grant.deliveries > 0).then(|| {
            format!(
                "the grant {id} of node {node} is fetched for the {} time: its older secret is dead; if the machine did not start over, \
                 somebody else asks in its name",
                if grant.deliveries == 1 { "second" } else { "third" }
            )
        });
        if grant.deliveries > 0 || grant.secret.is_none() {
            grant.secret = Some(Secret(secret));
        }
        grant.deliveries += 1;
        let file = GrantFile {
            grant: id,
            node,
            boot: grant.boot,
            secret: grant.secret.clone().unwrap_or(Secret(secret)),
        };
        Ok(Delivery {
            node,
            text: file.to_string(),
            record: Record::Grant(grant.clone()),
            alarm,
        })
    }

    /// A child's first message. `chance`: 32 bytes for the challenge, 8 for the session id.
    ///
    /// # Errors
    /// When it is refused without a challenge.
    pub fn hello(
        &mut self,
        conn: ConnId,
        hello: HelloMessage,
        channel: Channel,
        chance: [u8; 40],
        now_ms: u64,
        node_known: bool,
    ) -> Result<JoinOutcome, Refusal> {
        self.expire(now_ms);
        if self.handshakes.remove(&conn).is_some() {
            return Err(Refusal::new(
                RefuseReason::BadProof,
                "a second hello came on one connection",
            ));
        }
        let version = VERSIONS.iter().copied().find(|version| hello.versions.contains(version)).ok_or_else(|| {
            Refusal::new(
                RefuseReason::Version,
                format!(
                    "the agent speaks protocol versions {:?}, the head {VERSIONS:?}: boot an initramfs of the head's release",
                    hello.versions
                ),
            )
        })?;
        if !node_known {
            let text = format!(
                "the head has no node {}: enrol it, then boot again",
                hello.node
            );
            return Err(Refusal::new(RefuseReason::UnknownNode, text));
        }
        match hello.grant {
            Some(id) => self.usable(id, &hello, now_ms).map(drop)?,
            None if channel.certified == Some(hello.node) => {}
            None => {
                return Err(Refusal::new(
                    RefuseReason::Certificate,
                    format!(
                        "a re-join needs a valid certificate of node {}: boot it again",
                        hello.node
                    ),
                ));
            }
        }
        let (mut nonce, mut session) = ([0; 32], [0; 8]);
        nonce.copy_from_slice(&chance[..32]);
        session.copy_from_slice(&chance[32..]);
        if self.handshakes.len() >= MAX_HANDSHAKES {
            let jitter = u32::from(session[0]);
            return Err(Refusal::new(
                RefuseReason::Busy,
                "too many nodes join at once; this one is told to wait",
            )
            .retry(BUSY_RETRY_MS + jitter));
        }
        let challenge = ChallengeMessage {
            nonce,
            head_time_ms: now_ms,
            version,
        };
        let outcome = JoinOutcome::Challenge {
            nonce,
            head_time_ms: now_ms,
            version,
        };
        let handshake = Handshake {
            hello,
            challenge,
            channel,
            session: SessionId(u64::from_le_bytes(session)),
            started_ms: now_ms,
        };
        self.handshakes.insert(conn, handshake);
        Ok(outcome)
    }

    /// The proof of a child that was challenged. The handshake is over, whatever comes out.
    ///
    /// # Errors
    /// When it is refused.
    pub fn proof(
        &mut self,
        conn: ConnId,
        proof: &ProofMessage,
        now_ms: u64,
    ) -> Result<Proven, Refusal> {
        let Handshake {
            hello,
            challenge,
            channel,
            session,
            started_ms,
        } = self.handshakes.remove(&conn).ok_or_else(|| {
            Refusal::new(
                RefuseReason::BadProof,
                "a proof came without a hello before it, or too late",
            )
        })?;
        if now_ms.saturating_sub(started_ms) > HANDSHAKE_MS {
            let text = format!("the handshake took longer than {} s", HANDSHAKE_MS / 1000);
            return Err(Refusal::new(RefuseReason::BadProof, text).retry(BUSY_RETRY_MS));
        }
        let Some(id) = hello.grant else {
            return Ok(Proven {
                node: hello.node,
                keys: session_keys(&channel.exporter, None, session),
                session,
                mac: Vec::new(),
                grant: None,
                record: None,
                hello,
            });
        };
        let key = join_key(&self.usable(id, &hello, now_ms)?, id);
        let transcript = Transcript::new(&hello, &challenge);
        if !check(
            &key,
            Side::Child,
            &transcript,
            &channel.exporter,
            &proof.mac,
        ) {
            return Err(
                Refusal::new(RefuseReason::BadProof, "the proof is wrong: the grant's secret is not the one delivered last")
                    .alarm(format!(
                        "somebody without the secret of grant {id} tried to join as node {}: another machine fetched it, or asks in the \
                         node's name",
                        hello.node
                    )),
            );
        }
        Ok(Proven {
            node: hello.node,
            keys: session_keys(&channel.exporter, Some(&key), session),
            session,
            mac: prove(&key, Side::Parent, &transcript, &channel.exporter),
            grant: Some(id),
            record: self.consume(id, &hello.public_key, now_ms),
            hello,
        })
    }

    /// Undoes the use of a grant that could not be made durable.
    pub fn unconsume(&mut self, id: GrantId) {
        if let Some(held) = self.grants.get_mut(&id)
            && let Some(secret) = held.kept.take()
        {
            held.grant.secret = Some(secret);
            held.grant.consumed_by = None;
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, conn: ConnId) {
        self.handshakes.remove(&conn);
    }

    /// Number of handshakes under way.
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    /// The secret by which this hello may be proven.
    fn usable(&self, id: GrantId, hello: &HelloMessage, now_ms: u64) -> Result<Secret, Refusal> {
        let void = |text: String| Refusal::new(RefuseReason::GrantExpired, text);
        let held = self
            .grants
            .get(&id)
            .ok_or_else(|| void(format!("the head has no grant {id}: boot the node again")))?;
        let grant = &held.grant;
        if grant.node != hello.node || grant.boot != hello.boot {
            let what = if grant.node == hello.node {
                "for another boot"
            } else {
                "in the name of another node"
            };
            return Err(void(
                "the grant is not for this node and boot: boot the node again".into(),
            )
            .alarm(format!(
                "the grant {id} of node {} was presented {what} ({})",
                grant.node, hello.node
            )));
        }
        if let Some((user, at_ms)) = &grant.consumed_by {
            let refusal = Refusal::new(
                RefuseReason::GrantUsed,
                "the grant is used: boot the node again",
            );
            if *user != key_fingerprint(&hello.public_key) {
                return Err(refusal.alarm(format!(
                    "two keys claim node {} with grant {id}: one of them is not the node. Check both machines before the next boot",
                    hello.node
                )));
            }
            return match &held.kept {
                Some(secret) if now_ms.saturating_sub(*at_ms) <= RETRY_MS => Ok(secret.clone()),
                _ => Err(refusal),
            };
        }
        if now_ms > grant.expires_ms {
            return Err(void(
                "the grant has expired: the boot took longer than its window. Boot the node again"
                    .into(),
            ));
        }
        grant
            .secret
            .clone()
            .ok_or_else(|| void("the grant has no secret: boot the node again".into()))
    }

    /// Marks a grant as used. A retry repeats the record, since the first one may still be under way to the disk.
    fn consume(&mut self, id: GrantId, public_key: &[u8], now_ms: u64) -> Option<Record> {
        let held = self.grants.get_mut(&id)?;
        if held.grant.consumed_by.is_none() {
            held.kept = held.grant.secret.take();
            held.grant.consumed_by = Some((key_fingerprint(public_key), now_ms));
            self.to_wipe.push_back((now_ms, id));
        }
        Some(Record::Grant(held.grant.clone()))
    }

    /// Forgets what has run out: handshakes, oldest first, and kept secrets.
    fn expire(&mut self, now_ms: u64) {
        while let Some(oldest) = self.handshakes.first_entry()
            && now_ms.saturating_sub(oldest.get().started_ms) > HANDSHAKE_MS
        {
            oldest.remove();
        }
        while let Some((used_ms, id)) = self.to_wipe.front()
            && now_ms.saturating_sub(*used_ms) > RETRY_MS
        {
            if let Some(held) = self.grants.get_mut(id) {
                held.kept = None;
            }
            self.to_wipe.pop_front();
        }
    }
}
