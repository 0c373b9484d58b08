//! What must be durable before it counts: one commit under way, everything else waits for the next (group commit).

use std::collections::VecDeque;
use std::sync::Arc;

use super::Engine;
use super::session::Joining;
use super::stage::{Stage, Staged, Wrote};
use crate::event::{
    CommitError, CommitId, Event, Kept, Output, Record, RequestId, Write, WriteDone, WriteError,
};
use crate::mutation::MutationId;
use crate::state::{Change, Frozen, Node, NodeId};

/// Request of writes that the engine makes itself: nobody waits for the answer.
pub(super) const OWN_REQUEST: RequestId = RequestId(u64::MAX);

/// What happens once its records are durable.
pub(super) enum Then {
    /// Fire a mutation whose intent was logged.
    Fire {
        node: NodeId,
        mutation: MutationId,
        attempt: u64,
    },
    /// The node is armed.
    Armed(NodeId),
    /// Hand the grant out.
    Deliver {
        request: RequestId,
        node: NodeId,
        text: String,
        alarm: Option<String>,
    },
    /// Let the child in.
    Accept(Box<Joining>),
    /// Nothing: the record only had to be kept.
    Nothing,
}

/// Something of ours to make durable, and what follows.
type Own = (Option<Record>, Then);

/// Commits to come and the one under way.
#[derive(Default)]
pub(super) struct Commits {
    last: u64,
    under_way: Option<UnderWay>,
    writes: VecDeque<Write>,
    /// The next write's revision is greater than this.
    floor: u64,
    next: Vec<Own>,
    /// The next commit is without operators' writes, for the disk is full.
    alone: bool,
}

struct UnderWay {
    id: CommitId,
    staged: Option<Staged>,
    written: Vec<(RequestId, WriteDone)>,
    changed: Vec<Changed>,
    then: Vec<Own>,
    /// Our own writes among those of operators.
    own: Vec<Write>,
    is_own: bool,
}

/// What a durable write did to one node, for watchers.
enum Changed {
    Node(NodeId),
    Cfg(NodeId, Vec<Change>),
}

impl Commits {
    pub(super) fn queue_write(&mut self, write: Write) {
        self.writes.push_back(write);
    }

    /// Lets the revision of the next write be greater than `revision`, too.
    pub(super) fn raise(&mut self, revision: u64) {
        self.floor = self.floor.max(revision);
    }

    pub(super) fn queue(&mut self, record: Record, then: Then) {
        self.next.push((Some(record), then));
    }

    /// Ordered behind everything queued so far, with nothing of its own to keep.
    pub(super) fn queue_after(&mut self, then: Then) {
        self.next.push((None, then));
    }
}

impl Engine {
    pub(super) fn start_commit(&mut self) {
        if self.commits.under_way.is_some() {
            return;
        }
        let alone = std::mem::take(&mut self.commits.alone);
        let (writes, later): (VecDeque<Write>, VecDeque<Write>) =
            std::mem::take(&mut self.commits.writes)
                .into_iter()
                .partition(|write| !alone || is_own(write));
        self.commits.writes = later;
        let next = std::mem::take(&mut self.commits.next);
        let is_own = writes.iter().all(is_own);
        let mut own = Vec::new();
        let mut records = Vec::new();
        let mut written = Vec::new();
        let mut changed = Vec::new();
        let mut refused = Vec::new();
        let mut staged = None;
        if !writes.is_empty() {
            let mut stage = Stage::new(
                &self.tree,
                Arc::clone(&self.schema),
                self.config.me,
                self.revision.max(self.commits.floor),
                &self.frozen,
                &self.ledger,
            );
            for write in writes {
                match stage.write(&write) {
                    Ok(Wrote::Again(done)) => written.push((write.request, done)),
                    Ok(Wrote::New(checked)) => {
                        if !is_own && self::is_own(&write) {
                            own.push(write.clone());
                        }
                        changed.extend(checked.ops.iter().filter_map(Changed::of));
                        let done = WriteDone::of(checked.revision, &checked.names);
                        written.push((write.request, done));
                        records.push(Record::Write {
                            revision: checked.revision,
                            author: write.author,
                            reason: write.reason,
                            at_ms: write.now_ms,
                            ops: checked.ops,
                            kept: Kept {
                                inverse: checked.inverse,
                                names: checked.names,
                                key: write.key,
                            },
                        });
                    }
                    Err(error) => refused.push((write.request, error)),
                }
            }
            staged = (!written.is_empty()).then(|| stage.finish());
        }
        for (request, error) in refused {
            self.written(request, Err(error));
        }
        let then = match is_own {
            true => next
                .into_iter()
                .map(|(record, then)| {
                    records.extend(record);
                    (None, then)
                })
                .collect(),
            false => {
                records.extend(next.iter().filter_map(|(record, _)| record.clone()));
                next
            }
        };
        if records.is_empty() {
            then.into_iter().for_each(|(_, then)| self.then(then));
            return;
        }
        self.commits.last += 1;
        let id = CommitId(self.commits.last);
        self.commits.under_way = Some(UnderWay {
            id,
            staged,
            written,
            changed,
            then,
            own,
            is_own,
        });
        self.outputs.push_back(Output::Commit {
            commit: id,
            records,
            own: is_own,
        });
    }

    pub(super) fn committed(&mut self, commit: CommitId, result: Result<(), CommitError>) {
        let Some(done) = self
            .commits
            .under_way
            .take_if(|under_way| under_way.id == commit)
        else {
            return;
        };
        match result {
            Ok(()) => {
                if let Some(staged) = done.staged {
                    self.take_over(staged, done.changed);
                }
                for (request, result) in done.written {
                    self.written(request, Ok(result));
                }
                let then = done.then.into_iter();
                then.for_each(|(_, then)| self.then(then));
            }
            Err(error) => {
                for (request, _) in done.written {
                    self.written(request, Err(WriteError::Store(error.clone())));
                }
                if error == CommitError::DiskFull && !done.is_own {
                    return self.again_alone(done.own, done.then);
                }
                for (_, then) in done.then {
                    self.not_then(then, &error);
                }
            }
        }
    }

    /// Tries again without the operators' writes: there may be room in reserve for ours.
    fn again_alone(&mut self, own: Vec<Write>, then: Vec<Own>) {
        let commits = &mut self.commits;
        commits.alone = !own.is_empty() || !then.is_empty();
        own.into_iter()
            .rev()
            .for_each(|write| commits.writes.push_front(write));
        commits.next.splice(0..0, then);
    }

    fn written(&mut self, request: RequestId, result: Result<WriteDone, WriteError>) {
        if request != OWN_REQUEST {
            self.outputs.push_back(Output::Written { request, result });
        }
    }

    /// Makes durable writes count: in the tree, for watchers, for children, for plans.
    fn take_over(&mut self, staged: Staged, changed: Vec<Changed>) {
        self.revision = staged.revision;
        self.ledger.take_over(staged.news);
        let frozen = std::mem::replace(&mut self.frozen, staged.frozen);
        if frozen != self.frozen {
            self.frozen_revision = staged.revision;
        }
        let schema = (!Arc::ptr_eq(&self.schema, &staged.schema)).then_some(staged.schema);
        let replaced = schema.map(|schema| {
            self.schema_revision = staged.revision;
            std::mem::replace(&mut self.schema, schema)
        });
        // What goes first makes room: a name or an id may have another holder after the same commit.
        for (id, node) in &staged.touched {
            let old = self.tree.get(*id);
            let is_other = |new: &Node| old.is_some_and(|old| old.name != new.name);
            if node.as_ref().is_none_or(is_other) {
                self.delete_node(*id);
            }
        }
        let stay = staged.touched.into_values().flatten();
        stay.for_each(|node| self.take_over_node(node));
        if let Some(old) = replaced {
            self.schema_replaced(&old);
        }
        // Behind the nodes: one version of a child's Cfg never names two sets of values.
        self.froze(&frozen);
        for change in changed {
            match change {
                Changed::Node(node) if self.tree.get(node).is_some() => {
                    self.event(Event::Node { node })
                }
                Changed::Cfg(node, changes) if self.tree.get(node).is_some() => {
                    self.event(Event::Cfg { node, changes });
                }
                Changed::Node(_) | Changed::Cfg(..) => {}
            }
        }
    }

    /// Something beyond single nodes was frozen or thawed: whoever it concerns has to know.
    fn froze(&mut self, before: &Frozen) {
        if before.cluster != self.frozen.cluster {
            self.push_all();
            self.dirty.extend(self.runtimes.keys());
            return;
        }
        for member in self.rails.groups.concerned(before, &self.frozen) {
            self.push_cfg(member);
            self.dirty.insert(member);
        }
    }

    fn take_over_node(&mut self, new: Node) {
        let id = new.id;
        let mut moved = false;
        match self.tree.get_mut(id) {
            Some(node) => {
                moved = node.parent != new.parent;
                let groups = &mut self.rails.groups;
                groups.changed(id, &node.groups, &new.groups);
                node.groups = new.groups;
                node.labels = new.labels;
                node.cfg_revision = new.cfg_revision;
                node.frozen = new.frozen;
                self.tree.set_cfg(id, new.cfg);
                self.tree.set_parent(id, new.parent);
            }
            None => {
                if self.tree.insert(new).is_ok() {
                    self.add_runtime(id);
                }
            }
        }
        if let Some(runtime) = self.runtimes.get_mut(&id) {
            runtime.progress.release();
        }
        self.rebooted.remove(&id);
        self.rails_changed(id);
        self.forget_after_cfg(id);
        self.push_cfg(id);
        if moved {
            self.attach_anew(id, "the node has another parent");
        }
        self.dirty.insert(id);
    }

    fn delete_node(&mut self, id: NodeId) {
        if let Some(runtime) = self.runtimes.swap_remove(&id) {
            for current in runtime.progress.currents() {
                self.interrupt(id, current.clone());
            }
        }
        self.timers.set(super::timers::Timer::Step(id), None);
        self.end_session(id, "the node was deleted");
        self.forget_reports(id);
        self.disarm(id);
        self.dirty.remove(&id);
        if let Some(node) = self.tree.remove(id) {
            self.rebooted.remove(&id);
            self.rails_removed(&node);
            self.event(Event::Deleted {
                node: id,
                name: node.name,
            });
        }
    }

    fn then(&mut self, then: Then) {
        match then {
            Then::Fire {
                node,
                mutation,
                attempt,
            } => self.fire(node, &mutation, attempt),
            Then::Armed(node) => self.armed_now(node),
            Then::Deliver {
                request,
                node,
                text,
                alarm,
            } => self.delivered(request, node, text, alarm),
            Then::Accept(joining) => self.accept(*joining),
            Then::Nothing => {}
        }
    }

    fn not_then(&mut self, then: Then, error: &CommitError) {
        match then {
            Then::Fire {
                node,
                mutation,
                attempt,
            } => self.not_fired(node, &mutation, attempt, error),
            Then::Deliver { request, .. } => self.outputs.push_back(Output::Grant {
                request,
                result: Err(error.to_string()),
            }),
            Then::Accept(joining) => self.refuse_for_store(&joining, error),
            Then::Armed(node) => self.event(Event::Refused {
                node: Some(node),
                why: format!("not armed: {error}"),
            }),
            Then::Nothing => {}
        }
    }
}

fn is_own(write: &Write) -> bool {
    write.request == OWN_REQUEST
}

impl Changed {
    fn of(op: &crate::event::WriteOp) -> Option<Self> {
        use crate::event::WriteOp;
        match op {
            WriteOp::Add(node) => Some(Self::Node(node.id)),
            WriteOp::Groups { node, .. }
            | WriteOp::Freeze { node, .. }
            | WriteOp::Move { node, .. } => Some(Self::Node(*node)),
            WriteOp::Set { node, changes } => Some(Self::Cfg(*node, changes.clone())),
            WriteOp::Delete(_)
            | WriteOp::FreezeCluster(_)
            | WriteOp::FreezeGroup { .. }
            | WriteOp::Schema { .. }
            | WriteOp::Try { .. }
            | WriteOp::Settle(_) => None,
        }
    }
}
