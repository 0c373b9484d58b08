//! The invariants of reliability 4.1, checked after each event against what this module saw before.
//!
//! | | |
//! |---|---|
//! | I1 | what was acknowledged is on the disk |
//! | I2 | revisions, attempts and versions rise and are never given twice |
//! | I4 | of mutations that are tied to each other one in flight per node and engine, fired only as a ready step of a plan that holds |
//! | I5 | an agent's Cfg is one that the head signed for it, and never an older one |
//! | I6 | a session or a report changes the Dsc of its own node only, a session nothing that is the parent's word |
//! | I7 | a sealed frame is taken once, at the end for which it was sealed |
//! | I8 | a grant yields one key (`disk.rs`) |
//! | I9 | nothing disruptive on a BUSY or frozen node, nor beyond the governor's limits |
//! | I10 | a calm world sees no power action once it has converged |
//! | I11 | a late reply ends no later attempt |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::disk::Disk;
use super::net::Host;
use crate::engine::Limits;
use crate::event::{Event, Fire, MutationEvent};
use crate::mutation::MutationId;
use crate::mutation::graph::MutationGraph;
use crate::mutation::path::Planner;
use crate::state::{Change, Node, NodeId, Values, core};
use crate::time::Instant;

/// What no session may report: power and network boot are the parent's, the others nobody's or Cfg.
const PARENTS_WORD: [&str; 4] = ["/PhysState", "/pxe/state", "/pxe/append", "/no/such"];

/// Firings within this time count for a limit per minute: from intent to firing a slow disk may take the rest.
const RATE_SEEN: Duration = Duration::from_secs(40);

/// Header and tag of a sealed frame: what tells it from every other one.
type FrameKey = [u8; 36];

/// Who caused what an engine did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// A frame of this node's session.
    Session(NodeId),
    /// A report of a module about it.
    Module(NodeId),
    /// Time, operators, joins, commits.
    Other,
}

/// Of a Cfg: the head's epoch, and the version within it.
pub(super) type Version = (u64, u64);

/// What was seen so far.
pub(super) struct Check {
    planner: Planner,
    frames: BTreeMap<FrameKey, (Host, bool)>,
    cfg_sent: BTreeMap<(NodeId, Version), u64>,
    in_flight: BTreeMap<(Host, NodeId), Vec<(MutationId, u64)>>,
    limits: Limits,
    /// Nodes that this head has disrupted and that are not back yet, with their groups.
    disrupted: BTreeMap<NodeId, BTreeSet<String>>,
    /// When it disrupted one.
    disruptions: VecDeque<Instant>,
    /// Nodes that run a job as far as the head can know: heard so, and since then neither heard otherwise nor seen off.
    busy: BTreeSet<NodeId>,
    acked_revision: u64,
    last_fired: u64,
    /// The attempt whose module is giving up right now.
    pub(super) replies: Option<u64>,
    /// Once set, no power action may be seen any more.
    pub(super) powerless: bool,
    broken: Option<String>,
}

impl Check {
    pub(super) fn new(graph: MutationGraph, limits: Limits) -> Self {
        Self {
            planner: Planner::new(Arc::new(graph)),
            frames: BTreeMap::new(),
            cfg_sent: BTreeMap::new(),
            busy: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            limits,
            disrupted: BTreeMap::new(),
            disruptions: VecDeque::new(),
            acked_revision: 0,
            last_fired: 0,
            replies: None,
            powerless: false,
            broken: None,
        }
    }

    /// The first promise that was broken.
    pub(super) fn broken(&mut self) -> Option<String> {
        self.broken.take()
    }

    pub(super) fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    /// A frame was sealed for `to`.
    pub(super) fn sealed(&mut self, datagram: &[u8], to: Host) {
        let twice = self
            .frames
            .insert(frame_key(datagram), (to, false))
            .is_some();
        self.require(!twice, || "I7: one header and tag was sealed twice".into());
    }

    /// `at` took a frame in.
    pub(super) fn opened(&mut self, datagram: &[u8], at: Host) {
        let wrong = match self.frames.get_mut(&frame_key(datagram)) {
            None => Some("that nobody sealed"),
            Some((to, _)) if *to != at => Some("that was sealed for another"),
            Some((_, true)) => Some("a second time"),
            Some((_, taken)) => {
                *taken = true;
                None
            }
        };
        if let Some(wrong) = wrong {
            self.fail(format!("I7: {at:?} takes a frame {wrong}"));
        }
    }

    /// The head put its name to this Cfg.
    pub(super) fn cfg_sent(&mut self, node: NodeId, version: Version, digest: u64) {
        let before = *self.cfg_sent.entry((node, version)).or_insert(digest);
        self.require(before == digest, || {
            format!("I2: Cfg version {version:?} of {node} names two sets of values")
        });
    }

    /// An agent obeys this Cfg; before, it obeyed `before`.
    pub(super) fn cfg_obeyed(
        &mut self,
        node: NodeId,
        before: Version,
        version: Version,
        cfg: &Values,
    ) {
        self.require(version >= before, || {
            format!("I5: {node} goes from Cfg version {before:?} to {version:?}")
        });
        let genuine = self.cfg_sent.get(&(node, version)) == Some(&cfg.digest().short());
        self.require(genuine, || {
            format!("I5: {node} obeys a Cfg of version {version:?} that the head never sent")
        });
    }

    pub(super) fn acknowledged(&mut self, revision: u64, on_disk: u64) {
        let acked = self.acked_revision;
        self.require(revision > acked, || {
            format!("I2: revision {revision} is acknowledged after {acked}")
        });
        self.require(on_disk >= revision, || {
            format!("I1: revision {revision} is acknowledged, the disk is at {on_disk}")
        });
        self.acked_revision = revision;
    }

    /// A head starts from its disk.
    pub(super) fn restarted(&mut self, disk: &Disk) {
        let (acked, on_disk) = (self.acked_revision, disk.revision);
        self.require(on_disk >= acked, || {
            format!("I1: revision {acked} was acknowledged, a new head starts at {on_disk}")
        });
        let was_busy = |node: &&Node| node.last_known.dsc.text(core::BUSY) == Some(core::BUSY_BUSY);
        self.busy = disk
            .nodes
            .values()
            .filter(was_busy)
            .map(|node| node.id)
            .collect();
        // What it let through before, a head that starts does not know.
        self.disrupted.clear();
        self.disruptions.clear();
        self.forget(Host::Head);
    }

    /// An operator says that nothing runs there.
    pub(super) fn released(&mut self, node: NodeId) {
        self.busy.remove(&node);
    }

    /// What ran at `host` died with it.
    pub(super) fn forget(&mut self, host: Host) {
        self.in_flight.retain(|(at, _), _| *at != host);
    }

    /// An engine tells what happened to a mutation, or to Dsc.
    pub(super) fn event(&mut self, host: Host, event: &Event, cause: Cause) {
        match event {
            Event::Mutation {
                node,
                mutation,
                attempt,
                what,
            } => self.mutation_event(host, *node, mutation, *attempt, what),
            Event::Deleted { node, .. } => {
                self.in_flight.remove(&(host, *node));
                self.busy.remove(node);
            }
            Event::Dsc { node, changes } if host == Host::Head => {
                self.dsc_changed(*node, changes, cause);
            }
            _ => {}
        }
    }

    fn dsc_changed(&mut self, node: NodeId, changes: &[Change], cause: Cause) {
        let change = |url: &str| changes.iter().find(|change| change.url.as_str() == url);
        let is = |url: &str, text: &str| {
            let value = change(url).and_then(|change| change.value.as_ref());
            value.and_then(|value| value.as_text()) == Some(text)
        };
        let joins = is(core::RUN_STATE, core::SYNC);
        // Without a change of RunState it is not forgotten, but heard.
        let ends = change(core::BUSY).is_some() && change(core::RUN_STATE).is_none();
        if joins || ends || is(core::PHYS_STATE, core::POWER_OFF) {
            self.busy.remove(&node);
        }
        if is(core::BUSY, core::BUSY_BUSY) {
            self.busy.insert(node);
        }
        let (Cause::Session(source) | Cause::Module(source)) = cause else {
            return;
        };
        self.require(source == node, || {
            format!("I6: {source} changes the Dsc of {node}: {changes:?}")
        });
        let parents = |change: &&Change| {
            change.value.is_some() && PARENTS_WORD.contains(&change.url.as_str())
        };
        if let (Cause::Session(_), Some(change)) = (cause, changes.iter().find(parents)) {
            self.fail(format!(
                "I6: the session of {node} changes what only its parent may: {change:?}"
            ));
        }
    }

    fn mutation_event(
        &mut self,
        host: Host,
        node: NodeId,
        mutation: &MutationId,
        attempt: u64,
        what: &MutationEvent,
    ) {
        if attempt == 0 {
            return;
        }
        match what {
            MutationEvent::Fired { ours: false } => {}
            MutationEvent::Fired { ours: true } => {
                let graph = self.planner.graph();
                let in_flight = self.in_flight.entry((host, node)).or_default();
                let is_gone = |id: &MutationId| graph.mutation(id).is_none();
                let tied = in_flight.iter().find(|(other, _)| {
                    is_gone(mutation) || is_gone(other) || graph.are_tied(mutation, other)
                });
                let tied = tied.map(|(other, _)| other.clone());
                in_flight.push((mutation.clone(), attempt));
                if let Some(other) = tied {
                    self.fail(format!(
                        "I4: {mutation} is fired on {node} while {other} is in flight"
                    ));
                }
                if host == Host::Head {
                    let last = self.last_fired;
                    self.require(attempt > last, || {
                        format!("I2: attempt {attempt} is fired after {last}")
                    });
                    self.last_fired = attempt;
                }
            }
            MutationEvent::Done { .. }
            | MutationEvent::Failed { .. }
            | MutationEvent::Interrupted => {
                let failed = matches!(what, MutationEvent::Failed { .. });
                if let (true, Some(reply)) = (failed, self.replies) {
                    self.require(reply == attempt, || {
                        format!("I11: a late word about attempt {reply} ends attempt {attempt} on {node}")
                    });
                }
                let in_flight = self.in_flight.entry((host, node)).or_default();
                let before = in_flight.len();
                in_flight.retain(|(id, number)| id != mutation || *number != attempt);
                let right = in_flight.len() + 1 == before;
                self.require(right, || {
                    format!(
                        "I4: {mutation} attempt {attempt} ends on {node}, and was not in flight"
                    )
                });
            }
        }
    }

    /// A module is told to start.
    pub(super) fn fired(&mut self, host: Host, fire: &Fire, frozen: bool) {
        let (node, mutation) = (fire.node, &fire.mutation);
        let under_way = self.in_flight.get(&(host, node)).into_iter().flatten();
        let plan = self
            .planner
            .plan_on(&fire.dsc, &fire.cfg, under_way.map(|(id, _)| id), None);
        let ready: Vec<MutationId> = plan.ready().cloned().collect();
        self.require(ready.contains(mutation), || {
            format!("I4: {mutation} is fired on {node}, whose plan starts with {ready:?}")
        });
        let graph = self.planner.graph().clone();
        let Some(declared) = graph.mutation(mutation) else {
            return self.fail(format!("I4: {mutation} is fired and not declared"));
        };
        let value = |url: &crate::state::StateUrl| {
            if graph.is_discoverable(url) {
                fire.dsc.get(url.as_str())
            } else {
                fire.cfg.get(url.as_str())
            }
        };
        let holds = declared
            .requires
            .iter()
            .all(|condition| condition.holds(value(&condition.url)))
            && !declared
                .excludes
                .iter()
                .any(|condition| condition.holds(value(&condition.url)));
        self.require(holds, || {
            format!(
                "I14: {mutation} is fired on {node} against its conditions: {:?}",
                fire.dsc
            )
        });
        if declared.disruptive {
            let busy = self.busy.contains(&node);
            self.require(!busy, || {
                format!("I9: {mutation} is fired on {node}, which is BUSY")
            });
        }
        self.require(!frozen, || {
            format!("I9: {mutation} is fired on the frozen node {node}")
        });
    }

    /// The head fires something: within the limits, if it may end a job.
    pub(super) fn disrupts(&mut self, fire: &Fire, groups: &BTreeSet<String>, now: Instant) {
        let declared = self.planner.graph().mutation(&fire.mutation);
        if !declared.is_some_and(|mutation| mutation.disruptive)
            || self.disrupted.contains_key(&fire.node)
        {
            return;
        }
        self.disrupted.insert(fire.node, groups.clone());
        self.disruptions.push_back(now);
        while self
            .disruptions
            .front()
            .is_some_and(|at| *at + RATE_SEEN <= now)
        {
            self.disruptions.pop_front();
        }
        let cluster = &self.limits.cluster;
        let beyond = |limit: Option<u32>, is: usize| limit.is_some_and(|limit| is > limit as usize);
        let rate = beyond(cluster.per_minute, self.disruptions.len());
        let at_once = beyond(cluster.at_once, self.disrupted.len());
        let group = self.limits.groups.iter().find(|(group, limit)| {
            let members = self.disrupted.values();
            let members = members.filter(|groups| groups.contains(*group));
            beyond(limit.at_once, members.count())
        });
        if rate || at_once || group.is_some() {
            let what = format!(
                "I9: {} on {} is beyond the limits: {:?} disrupted",
                fire.mutation, fire.name, self.disrupted
            );
            self.fail(what);
        }
    }

    /// Which of the disrupted nodes take no slot any more.
    pub(super) fn settle(&mut self, is_settled: impl Fn(NodeId) -> bool) {
        self.disrupted.retain(|node, _| !is_settled(*node));
    }

    /// Whether a node carries out more than one mutation.
    pub(super) fn runs_side_by_side(&self, host: Host) -> bool {
        let mut all = self.in_flight.iter();
        all.any(|((at, _), in_flight)| *at == host && in_flight.len() > 1)
    }

    /// The head switches a machine.
    pub(super) fn power_action(&mut self, node: NodeId, mutation: &MutationId) {
        if self.powerless {
            self.fail(format!("I10: {mutation} on {node}, though nothing but head, links, agents and clocks failed"));
        }
    }
}

fn frame_key(datagram: &[u8]) -> FrameKey {
    let mut key = [0; 36];
    if datagram.len() >= 36 {
        key[..20].copy_from_slice(&datagram[..20]);
        key[20..].copy_from_slice(&datagram[datagram.len() - 16..]);
    }
    key
}
