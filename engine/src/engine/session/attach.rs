//! The child's side: finding its parent, obeying its Cfg, telling it what was found.

use std::time::Duration;

use super::Attaching;
use crate::engine::Engine;
use crate::engine::timers::Timer;
use crate::event::{Event, Output};
use crate::state::{Change, Node, NodeId, Values, core};
use crate::sync::join::Attach;
use crate::sync::message::Signature;
use crate::sync::neighbor::{Neighbor, Stream};
use crate::sync::signature::CfgVerifier;

/// Longest wait between two attempts to attach; a head that comes back is found within it.
const ATTACH_WAIT_MAX: Duration = Duration::from_secs(5);
/// First wait; doubles.
const ATTACH_WAIT: Duration = Duration::from_millis(250);

/// The child's side.
impl Engine {
    pub(super) fn attach_later(&mut self) {
        let doubled = ATTACH_WAIT.saturating_mul(1 << self.sessions.attempt.min(8));
        let wait = doubled.min(ATTACH_WAIT_MAX);
        let jitter = (self.sessions.chance() % 1000) as u32;
        let at = self.now + wait / 2 + wait * jitter / 2000;
        self.sessions.attaching = Attaching::Waiting;
        self.timers.set(Timer::Attach, Some(at));
    }

    /// Joins again, for a mutation that asks for it.
    pub(in crate::engine) fn attach_now(&mut self) {
        if self.sessions.attaching != Attaching::UnderWay {
            self.timers.set(Timer::Attach, None);
            self.attach_due();
        }
    }

    pub(in crate::engine) fn attach_due(&mut self) {
        self.sessions.attempt = self.sessions.attempt.saturating_add(1);
        self.sessions.attaching = Attaching::UnderWay;
        self.outputs.push_back(Output::Attach {
            attempt: self.sessions.attempt,
        });
    }

    pub(in crate::engine) fn attached(&mut self, attach: Attach) {
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

    pub(super) fn parent_wants(&mut self, changes: Vec<Change>, version: u64) {
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
    pub(in crate::engine) fn own_dsc_changed(&mut self, changes: Vec<Change>) {
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
