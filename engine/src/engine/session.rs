//! Sessions with children and with the parent: who is let in, what flows, who is dead (DESIGN 4).

use std::collections::BTreeMap;
use std::time::Duration;

use super::commit::{OWN_REQUEST, Then};
use super::discover::{FROZEN, PXE_STATE};
use super::timers::Timer;
use super::{Engine, Role};
use crate::event::{CommitError, ConnId, Event, Output, RequestId, Write, WriteOp};
use crate::mutation::MutationContext;
use crate::state::{Change, Digest, Node, NodeId, StateUrl, Value, Values, core};
use crate::sync::join::{
    Accepted, Acceptor, Attach, Channel, GrantId, HelloMessage, JoinOutcome, NewGrant,
    ProofMessage, Proven, Refusal, RefuseReason,
};
use crate::sync::message::{Frame, Signature};
use crate::sync::neighbor::{Neighbor, NeighborOutput, Stream};
use crate::sync::signature::CfgVerifier;
use crate::sync::{SessionId, SyncConfig};

/// Longest wait between two attempts to attach; a head that comes back is found within it.
const ATTACH_WAIT_MAX: Duration = Duration::from_secs(5);
/// First wait; doubles.
const ATTACH_WAIT: Duration = Duration::from_millis(250);
/// Revisions that a store may have lost by a restore; a node that claims more is not believed, and cannot use up the numbers.
const MAX_AHEAD: u64 = 1 << 32;
/// A parent whose store cannot keep a join is asked again after this, milliseconds.
const STORE_RETRY_MS: u32 = 5_000;

/// All sessions of one engine.
pub(super) struct Sessions {
    pub(super) config: SyncConfig,
    pub(super) acceptor: Acceptor,
    links: BTreeMap<NodeId, Link>,
    by_session: BTreeMap<SessionId, NodeId>,
    /// What each child's last session reported: its next agent may know less.
    reported: BTreeMap<NodeId, Values>,
    /// Version and digest of the Cfg that each child was told last.
    told: BTreeMap<NodeId, (u64, Digest)>,
    attaching: Attaching,
    attempt: u32,
    chance: u64,
    /// Epoch of the head that we are attached to.
    epoch: u64,
    /// Newest Cfg version that we have obeyed.
    cfg_version: u64,
    /// What we tell our parent of ourselves.
    own: Values,
    own_version: u64,
}

struct Link {
    neighbor: Neighbor,
    conn: ConnId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attaching {
    Waiting,
    UnderWay,
    Attached,
}

/// A child that proved itself and is let in once its grant's use is durable.
pub(super) struct Joining {
    conn: ConnId,
    proven: Proven,
}

impl Sessions {
    pub(super) fn new(config: SyncConfig, seed: u64) -> Self {
        Self {
            config,
            acceptor: Acceptor::default(),
            links: BTreeMap::new(),
            by_session: BTreeMap::new(),
            reported: BTreeMap::new(),
            told: BTreeMap::new(),
            attaching: Attaching::Waiting,
            attempt: 0,
            chance: seed,
            epoch: 0,
            cfg_version: 0,
            own: Values::default(),
            own_version: 0,
        }
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.links.contains_key(&node)
    }

    /// The sessions of a head's children; an agent has none.
    pub(super) fn of_children(&self, role: Role) -> Vec<SessionId> {
        match role {
            Role::Head { .. } => self.by_session.keys().copied().collect(),
            Role::Agent => Vec::new(),
        }
    }

    /// How many neighbors are heard.
    pub(super) fn count(&self) -> usize {
        self.links.len()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next number of a splitmix64 sequence.
    fn chance(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The parent's side.
impl Engine {
    pub(super) fn arm(&mut self, grant: NewGrant) {
        let node = grant.node;
        if self.tree.get(node).is_none() {
            return;
        }
        for record in self.sessions.acceptor.arm(grant) {
            self.commits.queue(record, Then::Nothing);
        }
        self.commits.queue_after(Then::Armed(node));
    }

    /// The grant is durable: the node's boot is served from here on.
    pub(super) fn armed_now(&mut self, node: NodeId) {
        let silent = self
            .tree
            .get(node)
            .is_some_and(|node| node.dsc.text(core::RUN_STATE) == Some(core::ERROR));
        if silent {
            self.observe(node, &[(core::RUN_STATE, None)]);
        }
        self.observe(node, &[(PXE_STATE, Some("WAIT"))]);
        self.event(Event::Join {
            node: Some(node),
            text: "armed: its boot is served".into(),
            alarm: false,
        });
    }

    pub(super) fn disarm(&mut self, node: NodeId) {
        for record in self.sessions.acceptor.disarm(node) {
            self.commits.queue(record, Then::Nothing);
        }
    }

    pub(super) fn fetch_grant(
        &mut self,
        request: RequestId,
        grant: GrantId,
        secret: [u8; 32],
        now_ms: u64,
    ) {
        match self.sessions.acceptor.fetch(grant, secret, now_ms) {
            Ok(delivery) => self.commits.queue(
                delivery.record,
                Then::Deliver {
                    request,
                    node: delivery.node,
                    text: delivery.text,
                    alarm: delivery.alarm,
                },
            ),
            Err(why) => {
                self.event(Event::Join {
                    node: None,
                    text: format!("grant {} is not delivered: {why}", grant.0),
                    alarm: false,
                });
                self.outputs.push_back(Output::Grant {
                    request,
                    result: Err(why),
                });
            }
        }
    }

    pub(super) fn delivered(
        &mut self,
        request: RequestId,
        node: NodeId,
        text: String,
        alarm: Option<String>,
    ) {
        self.outputs.push_back(Output::Grant {
            request,
            result: Ok(text),
        });
        if let Some(text) = alarm {
            self.event(Event::Join {
                node: Some(node),
                text,
                alarm: true,
            });
        }
        let in_sync = self
            .tree
            .get(node)
            .is_some_and(|node| node.dsc.text(core::RUN_STATE) == Some(core::SYNC));
        if !in_sync {
            self.end_session(node, "the node boots anew");
            self.observe(
                node,
                &[
                    (PXE_STATE, Some("INIT")),
                    (core::RUN_STATE, Some(core::INIT)),
                ],
            );
        }
    }

    pub(super) fn join_hello(
        &mut self,
        conn: ConnId,
        hello: HelloMessage,
        channel: Channel,
        chance: [u8; 40],
        now_ms: u64,
    ) {
        let node = hello.node;
        let known = node != self.config.me && self.tree.get(node).is_some();
        let result = self
            .sessions
            .acceptor
            .hello(conn, hello, channel, chance, now_ms, known);
        let outcome = result.unwrap_or_else(|refusal| self.refused(node, refusal));
        self.outputs.push_back(Output::Join { conn, outcome });
    }

    pub(super) fn join_proof(&mut self, conn: ConnId, proof: ProofMessage, now_ms: u64) {
        match self.sessions.acceptor.proof(conn, &proof, now_ms) {
            Ok(mut proven) => {
                self.hold_if_ahead(&proven, now_ms);
                let record = proven.record.take();
                let then = Then::Accept(Box::new(Joining { conn, proven }));
                match record {
                    Some(record) => self.commits.queue(record, then),
                    None => self.commits.queue_after(then),
                }
            }
            Err(refusal) => {
                let outcome = JoinOutcome::from(refusal.clone());
                self.tell_of(None, refusal);
                self.outputs.push_back(Output::Join { conn, outcome });
            }
        }
    }

    /// A child that obeys a later Cfg than we ever gave it knows better than our store, which was restored from an old backup then (fault F11).
    /// Our revision rises above what it has seen, and the node is frozen: it is not led back to what the backup says before somebody has looked.
    fn hold_if_ahead(&mut self, proven: &Proven, now_ms: u64) {
        let Some(node) = self.tree.get(proven.node) else {
            return;
        };
        let (theirs, ours) = (
            proven.hello.cfg_version,
            node.cfg_revision.max(self.frozen_revision),
        );
        if !matches!(self.config.role, Role::Head { .. }) || theirs <= ours {
            return;
        }
        let (id, name) = (node.id, node.name.clone());
        if theirs - ours > MAX_AHEAD {
            self.event(Event::Refused {
                node: Some(id),
                why: format!("it says that it obeys revision {theirs} of its Cfg, which cannot be"),
            });
            return;
        }
        let text = format!(
            "node {name} obeys revision {theirs} of its Cfg, this head knows {ours}: was its store restored from an old backup? \
             The node is frozen; compare its Cfg with what you want, then krakenctl thaw {name}"
        );
        self.commits.raise(theirs);
        self.commits.queue_write(Write {
            request: OWN_REQUEST,
            author: "kraken-head".into(),
            reason: text.clone(),
            if_revision: 0,
            key: None,
            now_ms,
            ops: vec![WriteOp::Freeze {
                node: id,
                frozen: true,
            }],
        });
        self.event(Event::Join {
            node: Some(id),
            text,
            alarm: true,
        });
    }

    fn refused(&mut self, node: NodeId, refusal: Refusal) -> JoinOutcome {
        self.tell_of(self.tree.get(node).map(|node| node.id), refusal.clone());
        refusal.into()
    }

    fn tell_of(&mut self, node: Option<NodeId>, refusal: Refusal) {
        let alarm = refusal.alarm.is_some();
        self.event(Event::Join {
            node,
            text: refusal.alarm.unwrap_or(refusal.text),
            alarm,
        });
    }

    pub(super) fn refuse_for_store(&mut self, joining: &Joining, error: &CommitError) {
        if let Some(grant) = joining.proven.grant {
            self.sessions.acceptor.unconsume(grant);
        }
        self.outputs.push_back(Output::Join {
            conn: joining.conn,
            outcome: JoinOutcome::Refuse {
                reason: RefuseReason::Busy,
                text: format!("the head cannot keep the join: {error}"),
                retry_after_ms: STORE_RETRY_MS,
            },
        });
    }

    /// Lets a child in: a session, and what its join proves.
    pub(super) fn accept(&mut self, joining: Joining) {
        let Joining { conn, proven } = joining;
        let id = proven.node;
        self.end_session(id, "the node joined again");
        if proven.grant.is_none() {
            self.disarm(id);
        }
        self.confirm(id);
        let joined = [
            (core::PHYS_STATE, Some(core::POWER_ON)),
            (PXE_STATE, Some("INIT")),
            (core::RUN_STATE, Some(core::SYNC)),
        ];
        joined.iter().for_each(|value| self.observe(id, &[*value]));
        if let Some(node) = self.tree.get_mut(id) {
            node.last_seen = Some(self.now);
        }
        let Some((version, cfg, signature)) = self.child_cfg(id) else {
            return;
        };
        let Some(node) = self.tree.get(id) else {
            return;
        };
        let seed = node
            .dsc
            .iter()
            .filter(|(url, _)| self.parents_word.contains(*url))
            .map(|(url, value)| Change::set(url.clone(), value.clone()));
        let accepted = Accepted {
            node: id,
            name: node.name.clone(),
            session: proven.session,
            keys: proven.keys,
            mac: proven.mac,
            public_key: proven.hello.public_key,
            parent: self.config.me,
            epoch: self.epoch(),
            cfg: (version, cfg.to_changes()),
            cfg_signature: signature.clone(),
            dsc: seed.collect(),
            mutations: self.graph().set().clone(),
        };
        self.outputs.push_back(Output::Join {
            conn,
            outcome: JoinOutcome::Accept(Box::new(accepted)),
        });
        let how = if proven.grant.is_some() {
            "its grant"
        } else {
            "its certificate"
        };
        self.event(Event::Join {
            node: Some(id),
            text: format!("joined by {how}, agent {}", proven.hello.agent_version),
            alarm: false,
        });
        let local = Stream::new(version, cfg).signed(signature);
        let remote = Stream::new(0, self.last_reports(id));
        let neighbor = Neighbor::new(
            proven.session,
            self.sessions.config,
            self.now,
            local,
            remote,
        );
        self.open(id, neighbor, conn);
    }

    /// What an earlier session of this child reported and still counts. The first snapshot of a new session unsets what is not in it,
    /// such as the job that ended while no agent ran.
    fn last_reports(&mut self, id: NodeId) -> Values {
        let reported = self.sessions.reported.remove(&id).unwrap_or_default();
        let Some(node) = self.tree.get(id) else {
            return Values::default();
        };
        reported
            .iter()
            .filter(|(url, value)| node.dsc.get(url.as_str()) == Some(*value))
            .map(|(url, value)| (url.clone(), value.clone()))
            .collect()
    }

    pub(super) fn forget_reports(&mut self, id: NodeId) {
        self.sessions.reported.remove(&id);
        self.sessions.told.remove(&id);
    }

    /// A child's Cfg as it is sent: its values without the secrets that are none of its business, and whether mutations are held.
    ///
    /// A version names one set of values: what changes without a write, such as what the governor lets through, counts on from the last one.
    fn child_cfg(&mut self, id: NodeId) -> Option<(u64, Values, Signature)> {
        let node = self.tree.get(id)?;
        let mut cfg = self.told(node);
        for url in self.withheld(&node.cfg) {
            cfg.set(url, None);
        }
        if let Ok(url) = FROZEN.parse() {
            cfg.set(url, Some(Value::Bool(node.frozen || self.frozen)));
        }
        let written = node
            .cfg_revision
            .max(self.frozen_revision)
            .max(self.schema_revision);
        let digest = cfg.digest();
        let version = match self.sessions.told.get(&id) {
            Some((version, told)) if *told == digest => written.max(*version),
            Some((version, _)) => written.max(version + 1),
            None => written,
        };
        self.sessions.told.insert(id, (version, digest));
        let signature = match &self.signer {
            Some(signer) => signer.sign(id, self.epoch(), version, &digest),
            None => Signature::new(),
        };
        Some((version, cfg, signature))
    }

    /// Sends a child what changed in its Cfg.
    pub(super) fn push_cfg(&mut self, id: NodeId) {
        if !self.sessions.has(id) {
            return;
        }
        let Some((version, cfg, signature)) = self.child_cfg(id) else {
            return;
        };
        if let Some(link) = self.sessions.links.get_mut(&id) {
            let changes = link.neighbor.local().values().diff(&cfg);
            if version > link.neighbor.local().version() && !changes.is_empty() {
                link.neighbor.update(version, &changes, signature, self.now);
            }
        }
        self.pump(id);
    }

    /// The secrets that stay here: a node gets those that its schema lets it read, and those that mutations of its own look at (threat S10's
    /// neighbor: a node that is broken into must not yield the password of its BMC).
    fn withheld(&self, cfg: &Values) -> Vec<StateUrl> {
        let secrets = self.schema.secrets_of(cfg).map(|(url, _)| url);
        let stays = |url: &&StateUrl| {
            let reads = self.schema.field(url).is_some_and(|field| field.node_reads);
            !reads && !self.nodes_look_at(url)
        };
        secrets.filter(stays).cloned().collect()
    }

    /// Whether a mutation that nodes carry out names this url.
    fn nodes_look_at(&self, url: &StateUrl) -> bool {
        let mutations = &self.graph().set().mutations;
        let of_nodes = mutations
            .iter()
            .filter(|mutation| mutation.context != MutationContext::Child);
        of_nodes.into_iter().any(|mutation| {
            let conditions = mutation.requires.iter().chain(&mutation.excludes);
            mutation.mutates.iter().any(|change| change.url == *url)
                || conditions
                    .into_iter()
                    .any(|condition| condition.url == *url)
        })
    }

    /// The cluster was frozen or thawed, or the schema is another: every child has to know.
    pub(super) fn push_all(&mut self) {
        let children: Vec<NodeId> = self.sessions.links.keys().copied().collect();
        children.into_iter().for_each(|child| self.push_cfg(child));
    }
}

/// Both sides.
impl Engine {
    fn open(&mut self, peer: NodeId, neighbor: Neighbor, conn: ConnId) {
        self.sessions.by_session.insert(neighbor.session(), peer);
        self.sessions.links.insert(peer, Link { neighbor, conn });
        self.pump(peer);
    }

    pub(super) fn frame(&mut self, session: SessionId, frame: Frame) {
        let Some(peer) = self.sessions.by_session.get(&session).copied() else {
            return;
        };
        if let Some(link) = self.sessions.links.get_mut(&peer) {
            link.neighbor.handle_frame(frame, self.now);
        }
        if let Some(node) = self.tree.get_mut(peer) {
            node.last_seen = Some(self.now);
        }
        self.pump(peer);
    }

    pub(super) fn neighbor_due(&mut self, peer: NodeId) {
        if let Some(link) = self.sessions.links.get_mut(&peer) {
            link.neighbor.handle_timeout(self.now);
        }
        self.pump(peer);
    }

    /// Carries out what a neighbor wants, until it wants nothing more.
    fn pump(&mut self, peer: NodeId) {
        while let Some(link) = self.sessions.links.get_mut(&peer) {
            let session = link.neighbor.session();
            let Some(output) = link.neighbor.poll_output() else {
                let next = link.neighbor.poll_timeout();
                self.timers.set(Timer::Neighbor(peer), next);
                return;
            };
            match output {
                NeighborOutput::Send(frame) => {
                    self.outputs.push_back(Output::Send { session, frame })
                }
                NeighborOutput::Received {
                    changes, version, ..
                } => match self.config.role {
                    Role::Head { .. } => self.child_reports(peer, changes),
                    Role::Agent => self.parent_wants(changes, version),
                },
                NeighborOutput::Refused(why) => self.event(Event::Refused {
                    node: Some(peer),
                    why: format!("a frame was not applied: {why}"),
                }),
                NeighborOutput::Suspect | NeighborOutput::Alive => {}
                NeighborOutput::Dead => self.dead(peer),
            }
        }
    }

    /// Dsc out of a child's session: of its own node only, and only what a node may say of itself.
    pub(super) fn child_reports(&mut self, child: NodeId, changes: Vec<Change>) {
        let before = changes.len();
        let own: Vec<Change> = changes
            .into_iter()
            .filter(|change| !self.parents_word.contains(&change.url))
            .collect();
        if own.len() < before {
            self.event(Event::Refused {
                node: Some(child),
                why: "it reports what only its parent may".into(),
            });
        }
        let (good, bad) = self.checked_dsc(child, own);
        if let Some(why) = bad {
            self.event(Event::Refused {
                node: Some(child),
                why,
            });
        }
        self.apply_dsc(child, good);
    }

    /// What sessions reported is looked at again, under another schema.
    pub(super) fn hear_again(&mut self) {
        let said: Vec<(NodeId, Vec<Change>)> = self
            .sessions
            .links
            .iter()
            .map(|(child, link)| (*child, link.neighbor.remote().to_changes()))
            .collect();
        for (child, changes) in said {
            let is_known = |change: &Change| {
                let known = self.tree.get(child)?.dsc.get(change.url.as_str());
                Some(known == change.value.as_ref())
            };
            // What is known by better words, such as the parent's, stands.
            let unheard: Vec<Change> = changes
                .into_iter()
                .filter(|change| is_known(change) == Some(false))
                .filter(|change| !self.graph().is_discoverable(&change.url))
                .filter(|change| {
                    let field = self.schema.field(&change.url);
                    field.is_some_and(|field| field.discoverable)
                })
                .collect();
            self.child_reports(child, unheard);
        }
    }

    pub(super) fn dead(&mut self, peer: NodeId) {
        self.end_session(peer, "silent for too long");
        match self.config.role {
            Role::Head { .. } => {
                let alive = self.tree.get(peer).is_some_and(|node| {
                    matches!(
                        node.dsc.text(core::RUN_STATE),
                        Some(core::SYNC | core::INIT)
                    )
                });
                if alive {
                    // What it says of its job is no longer known, but the job counts until somebody knows better.
                    if let Some(node) = self.tree.get_mut(peer)
                        && node.is_busy()
                        && let Ok(url) = core::BUSY.parse()
                    {
                        node.last_known.dsc.set(url, Some(core::BUSY_BUSY.into()));
                    }
                    if let Some(runtime) = self.runtimes.get_mut(&peer) {
                        runtime.silent_since = Some(self.now);
                    }
                    self.child_lost(peer);
                    self.observe(peer, &[(core::RUN_STATE, Some(core::ERROR))]);
                }
            }
            Role::Agent => self.attach_later(),
        }
    }

    pub(super) fn end_session(&mut self, peer: NodeId, why: &'static str) {
        if let Some(link) = self.sessions.links.remove(&peer) {
            let session = link.neighbor.session();
            self.sessions.by_session.remove(&session);
            if matches!(self.config.role, Role::Head { .. }) {
                let reported = link.neighbor.remote().clone();
                self.sessions.reported.insert(peer, reported);
            }
            self.timers.set(Timer::Neighbor(peer), None);
            self.outputs.push_back(Output::EndSession {
                session,
                node: peer,
                why,
            });
        }
    }

    /// A connection is gone. A child's session lives on until it is silent or joins again; an agent attaches anew at once.
    pub(super) fn closed(&mut self, conn: ConnId) {
        self.sessions.acceptor.closed(conn);
        if self.config.role != Role::Agent {
            return;
        }
        let parent = self
            .sessions
            .links
            .iter()
            .find(|(_, link)| link.conn == conn);
        match (parent.map(|(parent, _)| *parent), self.sessions.attaching) {
            (Some(parent), _) => {
                self.end_session(parent, "the connection to the parent is gone");
                if self.sessions.attaching == Attaching::Attached {
                    self.attach_later();
                }
            }
            (None, Attaching::UnderWay) => self.attach_later(),
            (None, _) => {}
        }
    }
}

/// The child's side.
impl Engine {
    fn attach_later(&mut self) {
        let doubled = ATTACH_WAIT.saturating_mul(1 << self.sessions.attempt.min(8));
        let wait = doubled.min(ATTACH_WAIT_MAX);
        let jitter = (self.sessions.chance() % 1000) as u32;
        let at = self.now + wait / 2 + wait * jitter / 2000;
        self.sessions.attaching = Attaching::Waiting;
        self.timers.set(Timer::Attach, Some(at));
    }

    /// Joins again, for a mutation that asks for it.
    pub(super) fn attach_now(&mut self) {
        if self.sessions.attaching != Attaching::UnderWay {
            self.timers.set(Timer::Attach, None);
            self.attach_due();
        }
    }

    pub(super) fn attach_due(&mut self) {
        self.sessions.attempt = self.sessions.attempt.saturating_add(1);
        self.sessions.attaching = Attaching::UnderWay;
        self.outputs.push_back(Output::Attach {
            attempt: self.sessions.attempt,
        });
    }

    pub(super) fn attached(&mut self, attach: Attach) {
        let me = self.config.me;
        let cfg: Values = attach
            .cfg
            .1
            .into_iter()
            .filter_map(|change| Some((change.url, change.value?)))
            .collect();
        let verifier = self.cluster_key.map(|public_key| CfgVerifier {
            public_key,
            node: me,
            epoch: attach.epoch,
        });
        let version = attach.cfg.0;
        let signed = verifier
            .as_ref()
            .is_none_or(|verifier| verifier.verify(version, &cfg.digest(), &attach.cfg_signature));
        let newest = (attach.epoch, version) >= (self.sessions.epoch, self.sessions.cfg_version);
        if !signed || !newest {
            let why = match signed {
                false => "the parent's Cfg is not signed by the cluster",
                true => {
                    "the parent's Cfg is older than what this node has obeyed already: was the head restored from an old backup?"
                }
            };
            self.event(Event::Refused {
                node: Some(me),
                why: why.into(),
            });
            self.outputs.push_back(Output::EndSession {
                session: attach.session,
                node: attach.parent,
                why,
            });
            self.attach_later();
            return;
        }
        let old: Vec<NodeId> = self.sessions.links.keys().copied().collect();
        old.into_iter()
            .for_each(|parent| self.end_session(parent, "attached anew"));
        self.sessions.attaching = Attaching::Attached;
        self.sessions.attempt = 0;
        self.sessions.epoch = attach.epoch;
        self.sessions.config = attach.sync;
        if self.tree.get(me).is_none() {
            let node = Node::new(me, attach.name, Some(attach.parent));
            if self.tree.insert(node).is_ok() {
                self.add_runtime(me);
            }
        }
        self.declare(&attach.mutations);
        self.take_cfg(cfg.clone(), version);
        if let Some(runtime) = self.runtimes.get_mut(&me) {
            runtime.progress.release();
        }
        self.apply_dsc(me, attach.dsc);
        self.observe(me, &[(core::RUN_STATE, Some(core::SYNC))]);
        let local = Stream::new(self.sessions.own_version, self.sessions.own.clone());
        let remote = Stream::new(version, cfg).signed(attach.cfg_signature);
        let mut neighbor = Neighbor::new(attach.session, attach.sync, self.now, local, remote);
        if let Some(verifier) = verifier {
            neighbor = neighbor.verify_with(verifier);
        }
        self.open(attach.parent, neighbor, attach.conn);
    }

    fn parent_wants(&mut self, changes: Vec<Change>, version: u64) {
        let Some(node) = self.tree.get(self.config.me) else {
            return;
        };
        let mut cfg = node.cfg.clone();
        cfg.apply(changes);
        self.take_cfg(cfg, version);
    }

    fn take_cfg(&mut self, cfg: Values, version: u64) {
        let me = self.config.me;
        self.sessions.cfg_version = version;
        let Some(node) = self.tree.get_mut(me) else {
            return;
        };
        let changes = node.cfg.diff(&cfg);
        node.cfg_revision = version;
        self.tree.set_cfg(me, cfg);
        if changes.is_empty() {
            return;
        }
        if let Some(runtime) = self.runtimes.get_mut(&me) {
            runtime.progress.release();
        }
        self.dirty.insert(me);
        self.forget_after_cfg(me);
        self.event(Event::Cfg { node: me, changes });
    }

    /// What this node found out about itself, for its parent.
    pub(super) fn own_dsc_changed(&mut self, changes: Vec<Change>) {
        let real = self.sessions.own.apply(changes);
        if real.is_empty() {
            return;
        }
        self.sessions.own_version += 1;
        let version = self.sessions.own_version;
        let parents: Vec<NodeId> = self.sessions.links.keys().copied().collect();
        for parent in parents {
            if let Some(link) = self.sessions.links.get_mut(&parent) {
                link.neighbor
                    .update(version, &real, Signature::new(), self.now);
            }
            self.pump(parent);
        }
    }
}

#[cfg(test)]
impl Engine {
    /// A session with a child that has proved itself, and what the child is told.
    pub(super) fn seat(&mut self, child: NodeId, session: SessionId, conn: ConnId) -> Attach {
        let name = self.name_of(child).parse().expect("a node's name");
        let (version, cfg, signature) = self.child_cfg(child).expect("it is in the tree");
        let attach = Attach {
            session,
            conn,
            parent: self.config.me,
            name,
            epoch: self.epoch(),
            cfg: (version, cfg.to_changes()),
            cfg_signature: signature.clone(),
            dsc: Vec::new(),
            mutations: self.graph().set().clone(),
            sync: self.sessions.config,
        };
        let local = Stream::new(version, cfg).signed(signature);
        let neighbor = Neighbor::new(
            session,
            self.sessions.config,
            self.now,
            local,
            Stream::new(0, Values::default()),
        );
        self.open(child, neighbor, conn);
        attach
    }
}
