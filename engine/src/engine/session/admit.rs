//! Children at the door: grants, joins, and what a child that is let in is told first (DESIGN 4, reliability of the join).

use super::cfg::revision_of;
use crate::engine::commit::{OWN_REQUEST, Then};
use crate::engine::discover::PXE_STATE;
use crate::engine::{Engine, Role};
use crate::event::{CommitError, ConnId, Event, Output, RequestId, Write, WriteOp};
use crate::state::{Change, NodeId, Values, core};
use crate::sync::join::{
    Accepted, Channel, GrantId, HelloMessage, JoinOutcome, NewGrant, ProofMessage, Proven, Refusal,
    RefuseReason,
};
use crate::sync::neighbor::{Neighbor, Stream};

/// Revisions that a store may have lost by a restore; a node that claims more is not believed, and cannot use up the numbers.
const MAX_AHEAD: u64 = 1 << 32;
/// A parent whose store cannot keep a join is asked again after this, milliseconds.
const STORE_RETRY_MS: u32 = 5_000;

/// A child that proved itself and is let in once its grant's use is durable.
pub(in crate::engine) struct Joining {
    conn: ConnId,
    proven: Proven,
}

/// The parent's side.
impl Engine {
    pub(in crate::engine) fn arm(&mut self, grant: NewGrant) {
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
    pub(in crate::engine) fn armed_now(&mut self, node: NodeId) {
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

    pub(in crate::engine) fn disarm(&mut self, node: NodeId) {
        for record in self.sessions.acceptor.disarm(node) {
            self.commits.queue(record, Then::Nothing);
        }
    }

    pub(in crate::engine) fn fetch_grant(
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

    pub(in crate::engine) fn delivered(
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

    pub(in crate::engine) fn join_hello(
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

    pub(in crate::engine) fn join_proof(&mut self, conn: ConnId, proof: ProofMessage, now_ms: u64) {
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
            revision_of(proven.hello.cfg_version),
            self.revision_for(node),
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

    pub(in crate::engine) fn refuse_for_store(&mut self, joining: &Joining, error: &CommitError) {
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
    pub(in crate::engine) fn accept(&mut self, joining: Joining) {
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

    pub(in crate::engine) fn forget_reports(&mut self, id: NodeId) {
        self.sessions.reported.remove(&id);
        self.sessions.told.remove(&id);
    }
}

#[cfg(test)]
use crate::sync::{SessionId, join::Attach};

#[cfg(test)]
impl Engine {
    /// A session with a child that has proved itself, and what the child is told.
    pub(in crate::engine) fn seat(
        &mut self,
        child: NodeId,
        session: SessionId,
        conn: ConnId,
    ) -> Attach {
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
