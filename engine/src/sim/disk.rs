//! The head's store: what a crash leaves.

use std::collections::BTreeMap;

use crate::event::{Record, WriteOp};
use crate::history::freeze_group;
use crate::memory::Memo;
use crate::state::{Change, Frozen, Node, NodeId, Tree};
use crate::sync::join::{Grant, GrantId};
use crate::time::Instant;

/// Durable state.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) grants: BTreeMap<GrantId, Grant>,
    pub(super) revision: u64,
    pub(super) last_attempt: u64,
    pub(super) frozen: Frozen,
    /// What the head told to remember, and when.
    pub(super) memos: Vec<(Instant, Memo)>,
    /// No commit works until then.
    pub(super) full_until: Option<Instant>,
    /// Commits take seconds until then.
    pub(super) slow_until: Option<Instant>,
}

impl Disk {
    /// Makes one record durable. An error is a broken invariant, in words.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Write { revision, ops, .. } => {
                if *revision <= self.revision {
                    return Err(format!(
                        "I2: revision {revision} is stored after {}",
                        self.revision
                    ));
                }
                self.revision = *revision;
                ops.iter().for_each(|op| self.apply_op(op, *revision));
            }
            Record::Intent { attempt, .. } => {
                if *attempt <= self.last_attempt {
                    return Err(format!(
                        "I2: attempt {attempt} is stored after {}",
                        self.last_attempt
                    ));
                }
                self.last_attempt = *attempt;
            }
            Record::Grant(grant) => {
                let used = |grant: &Grant| grant.consumed_by.map(|(key, _)| key);
                let before = self.grants.insert(grant.id, grant.clone());
                if let Some(before) = before
                    && used(&before).is_some()
                    && used(&before) != used(grant)
                {
                    return Err(format!("I8: grant {} yields a second key", grant.id));
                }
            }
            Record::GrantGone(id) => {
                self.grants.remove(id);
            }
        }
        Ok(())
    }

    fn apply_op(&mut self, op: &WriteOp, revision: u64) {
        let mut touch = |id: &NodeId, edit: &mut dyn FnMut(&mut Node)| {
            if let Some(node) = self.nodes.get_mut(id) {
                node.cfg_revision = revision;
                edit(node);
            }
        };
        match op {
            WriteOp::Add(node) => {
                self.nodes.insert(node.id, (**node).clone());
            }
            WriteOp::Delete(id) => {
                self.nodes.remove(id);
            }
            WriteOp::Set { node, changes } => touch(node, &mut |node| {
                node.cfg.apply(changes.iter().cloned());
            }),
            WriteOp::Groups { node, add, remove } => touch(node, &mut |node| {
                node.groups.extend(add.iter().cloned());
                node.groups.retain(|group| !remove.contains(group));
            }),
            WriteOp::Freeze { node, frozen } => touch(node, &mut |node| node.frozen = *frozen),
            WriteOp::Move { node, parent } => touch(node, &mut |node| {
                node.parent = Some(*parent);
            }),
            WriteOp::FreezeCluster(frozen) => self.frozen.cluster = *frozen,
            WriteOp::FreezeGroup { group, by } => {
                freeze_group(&mut self.frozen, group, by.as_ref());
            }
            // Schemas lie in files of their own.
            WriteOp::Schema { .. } => {}
            WriteOp::Try { .. } | WriteOp::Settle(_) => {}
        }
    }

    /// Writes down what became known since the last time (P4).
    pub(super) fn remember(&mut self, news: &BTreeMap<NodeId, Vec<Change>>, now_ms: u64) {
        for (id, changes) in news {
            if let Some(node) = self.nodes.get_mut(id) {
                node.last_known.dsc.apply(changes.iter().cloned());
                node.last_known.at_ms = now_ms;
            }
        }
    }

    /// What differs between the disk and a head with nothing under way; `None`: nothing.
    pub(super) fn differs(&self, tree: &Tree, revision: u64, frozen: &Frozen) -> Option<String> {
        if self.revision != revision {
            return Some(format!(
                "the disk is at revision {}, the head at {revision}",
                self.revision
            ));
        }
        let tree_nodes = tree.iter().filter(|node| node.parent.is_some());
        let kept = |node: &Node| {
            let (parent, revision) = (node.parent, node.cfg_revision);
            (node.id, parent, node.cfg.clone(), revision, node.frozen)
        };
        let disk: Vec<_> = self.nodes.values().map(kept).collect();
        let live: Vec<_> = tree_nodes.map(kept).collect();
        (disk != live || self.frozen != *frozen)
            .then(|| "the disk and the head's tree differ".to_owned())
    }
}
