//! The engine: one value that holds the tree, follows every node's path, and speaks with parent and children.
//!
//! Order of calls: after any `handle_*` call drain [`poll_output`](Engine::poll_output), then wait for an input or for
//! [`poll_timeout`](Engine::poll_timeout). Calls come in the order of time.
//!
//! Everything that an input changes is applied first, with all that becomes unknown by it; only then each touched node is planned anew, once. So
//! one event never fires a mutation twice.

mod breaker;
mod commit;
mod costs;
mod discover;
mod explain;
mod governor;
mod groups;
mod guard;
mod heal;
mod held;
mod ledger;
mod look;
mod mass;
mod others;
mod permits;
mod picture;
#[cfg(feature = "files")]
mod play;
mod rails;
mod reboot;
mod remember;
mod session;
mod stage;
mod stagger;
mod timers;
mod what_if;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use self::breaker::Breaking;
use self::commit::Commits;
use self::costs::Costs;
pub use self::costs::{CostSource, LEARN_EVERY};
#[cfg(feature = "files")]
pub(crate) use self::explain::after_job;
pub use self::governor::{Limit, Limits, PERCENT_FLOOR};
use self::ledger::Ledger;
pub use self::ledger::{MAX_KEYS, MAX_TRIALS, Trial};
pub use self::picture::Picture;
use self::rails::Rails;
pub use self::rails::{Guards, RailsReport};
use self::remember::Untold;
use self::session::Sessions;
use self::timers::{Timer, Timers};
pub use self::what_if::{GroupHold, NODE_MARK, PlanGroup, WhatIf};
use crate::event::{Event, Input, Output};
use crate::extension::Schema;
use crate::index::Index;
use crate::mutation::graph::MutationGraph;
use crate::mutation::path::{PlanResult, Planner};
use crate::mutation::progress::{Healing, Progress};
use crate::mutation::{MutationContext, MutationId, MutationSet};
use crate::state::{Frozen, Node, NodeId, StateUrl, Tree, Values, core};
use crate::sync::SyncConfig;
use crate::sync::join::Grant;
use crate::sync::signature::CfgSigner;
use crate::time::Instant;

/// What an engine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers for a cluster: has a store, children, and mutates them.
    Head {
        /// Fencing epoch: the higher one rules.
        epoch: u64,
    },
    /// Answers for its own node and has a parent.
    Agent,
}

/// What an engine is told once.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The node that this engine runs on.
    pub me: NodeId,
    /// What for.
    pub role: Role,
    /// Timers of sync; a child takes its parent's at join.
    pub sync: SyncConfig,
    /// How patiently nodes are healed.
    pub healing: Healing,
    /// For jitter: equal seeds give equal runs.
    pub seed: u64,
}

/// What searches may look at in one turn, in mutations and states: some 0.3 s. Real sets need a hundred for a search, and a search for a class of nodes.
const MAX_TURN: usize = 1 << 18;

/// What the engine knows of one node beyond the tree.
#[derive(Clone, Default)]
struct Runtime {
    progress: Progress,
    plan: Arc<PlanResult>,
    /// Heard or found switched off since this engine started.
    confirmed: bool,
    /// Since when a node that was in SYNC is silent.
    silent_since: Option<Instant>,
    /// Costs changed while steps were under way: these stay part of the plan, whatever they cost.
    goes_on: bool,
    /// The store knows that it is parked.
    told_parked: bool,
}

/// Two ways to make a node go on, see [`Input::Retry`] and [`Input::Release`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    /// Its failed attempts are forgotten.
    Retry,
    /// So is what the head does not know better.
    Release,
}

impl Runtime {
    /// What the head knew to hold the node back is forgotten; its last known values are, too, when it is released.
    fn again(&mut self, how: Again) {
        self.progress.release();
        if how == Again::Release {
            self.silent_since = None;
            self.confirmed = true;
        }
    }
}

/// See the module.
pub struct Engine {
    config: EngineConfig,
    schema: Arc<Schema>,
    tree: Tree,
    revision: u64,
    frozen: Frozen,
    last_attempt: u64,
    /// Revision of the last freeze or thaw of the cluster or a group: part of every child's Cfg version.
    frozen_revision: u64,
    /// Revision of the last change of the schema: what a child's Cfg leaves out depends on it.
    schema_revision: u64,
    started: Instant,
    /// Time of the call under way.
    now: Instant,
    planner: Planner,
    runtimes: Index<NodeId, Runtime>,
    dirty: BTreeSet<NodeId>,
    /// Urls that only a node's parent may report: every mutation of them is the parent's.
    parents_word: BTreeSet<StateUrl>,
    timers: Timers,
    commits: Commits,
    ledger: Ledger,
    sessions: Sessions,
    rails: Rails,
    costs: Costs,
    untold: Untold,
    /// Until when the write is awaited that ends a node's reboot.
    rebooted: BTreeMap<NodeId, Instant>,
    /// The wall clock as somebody told it last, for our own writes in history.
    wall_ms: u64,
    /// Nodes that were asked to try again since the last input.
    woken: usize,
    /// How often a node was planned anew, for tests of what an event costs.
    #[cfg(test)]
    advanced: usize,
    signer: Option<CfgSigner>,
    cluster_key: Option<[u8; 32]>,
    outputs: VecDeque<Output>,
}

impl Engine {
    /// An engine with an empty tree and no mutations.
    pub fn new(config: EngineConfig, schema: Schema, now: Instant) -> Self {
        let mut timers = Timers::default();
        if config.role == Role::Agent {
            timers.set(Timer::Attach, Some(now));
        }
        Self {
            sessions: Sessions::new(config.sync, config.seed),
            config,
            schema: Arc::new(schema),
            tree: Tree::default(),
            revision: 0,
            frozen: Frozen::default(),
            last_attempt: 0,
            frozen_revision: 0,
            schema_revision: 0,
            started: now,
            now,
            planner: Planner::new(Arc::new(empty_graph())),
            runtimes: Index::default(),
            dirty: BTreeSet::new(),
            parents_word: BTreeSet::new(),
            timers,
            commits: Commits::default(),
            ledger: Ledger::default(),
            rails: Rails::default(),
            costs: Costs::default(),
            untold: Untold::default(),
            rebooted: BTreeMap::new(),
            wall_ms: 0,
            woken: 0,
            #[cfg(test)]
            advanced: 0,
            signer: None,
            cluster_key: None,
            outputs: VecDeque::new(),
        }
    }

    /// Gives the head's engine the key that signs Cfg.
    pub fn set_signer(&mut self, signer: CfgSigner) {
        self.signer = Some(signer);
    }

    /// Makes the engine of an agent refuse Cfg that the holder of this key (`cluster.pub`) has not signed.
    pub fn set_cluster_key(&mut self, public_key: [u8; 32]) {
        self.cluster_key = Some(public_key);
    }

    /// Puts back a node that the store kept. Before the first input.
    pub fn restore_node(&mut self, node: Node) {
        let id = node.id;
        // Whatever was known of it but that it is off: an agent may run behind a cut cable, in SYNC or silent before this head started.
        let may_run = !node.last_known.dsc.is_empty()
            && node.last_known.dsc.text(core::PHYS_STATE) != Some(core::POWER_OFF);
        if self.tree.insert(node).is_ok() {
            self.add_runtime(id);
            if let Some(runtime) = self.runtimes.get_mut(&id) {
                runtime.silent_since = may_run.then_some(self.started);
            }
        }
    }

    /// Puts back a grant that the store kept. Before the first input.
    pub fn restore_grant(&mut self, grant: Grant) {
        self.sessions.acceptor.load(grant);
    }

    /// Puts back the counters that the store kept. Before the first input.
    pub fn restore_counters(&mut self, revision: u64, last_attempt: u64, frozen: Frozen) {
        self.revision = revision;
        self.last_attempt = last_attempt;
        self.frozen = frozen;
        self.frozen_revision = revision;
        self.schema_revision = revision;
    }

    /// Takes an input and does everything that follows from it.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        self.now = now;
        match input {
            Input::Write(write) => {
                self.wall_ms = self.wall_ms.max(write.now_ms);
                self.commits.queue_write(write);
            }
            Input::Committed { commit, result } => self.committed(commit, result),
            Input::Discover(discovery) => self.discovered(discovery),
            Input::MutationFailed {
                node,
                mutation,
                attempt,
                text,
            } => self.mutation_failed(node, &mutation, attempt, text),
            Input::Declare(set) => self.declare(&set),
            Input::Release(nodes) => self.release(&nodes),
            Input::Lift(lift) => self.lift(&lift),
            Input::Retry(nodes) => self.retry(&nodes),
            Input::Arm(grant) => self.arm(grant),
            Input::FetchGrant {
                request,
                grant,
                secret,
                now_ms,
            } => self.fetch_grant(request, grant, secret, now_ms),
            Input::JoinHello {
                conn,
                hello,
                channel,
                chance,
                now_ms,
            } => self.join_hello(conn, hello, channel, chance, now_ms),
            Input::JoinProof {
                conn,
                proof,
                now_ms,
            } => self.join_proof(conn, proof, now_ms),
            Input::Closed { conn } => self.closed(conn),
            Input::Attached(attach) => self.attached(attach),
            Input::Frame { session, frame } => self.frame(session, frame),
        }
        self.settle();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Step(node) => self.step_due(node),
                Timer::Neighbor(node) => self.neighbor_due(node),
                Timer::Attach => self.attach_due(),
                // Whoever waits is woken, and whoever is left is planned, by what follows.
                Timer::Rails | Timer::Plan => {}
                Timer::Costs => self.learn(),
                Timer::Remember => self.tell(),
            }
        }
        self.settle();
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// All nodes.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The declared mutations.
    pub fn graph(&self) -> &MutationGraph {
        self.planner.graph()
    }

    /// The known extensions.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The known extensions, to keep.
    pub fn shared_schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }

    /// Revision of the last durable write.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether the cluster is frozen.
    pub fn frozen(&self) -> bool {
        self.frozen.cluster
    }

    /// What is frozen beyond single nodes.
    pub fn freezes(&self) -> &Frozen {
        &self.frozen
    }

    /// The node that this engine runs on.
    pub fn me(&self) -> NodeId {
        self.config.me
    }

    /// The grant of an armed node.
    pub fn armed(&self, node: NodeId) -> Option<&Grant> {
        self.sessions.acceptor.armed(node)
    }

    /// Whether `node` has a live session with us.
    pub fn has_session(&self, node: NodeId) -> bool {
        self.sessions.has(node)
    }

    pub(crate) fn epoch(&self) -> u64 {
        match self.config.role {
            Role::Head { epoch } => epoch,
            Role::Agent => self.sessions.epoch(),
        }
    }

    /// Starts the next commit if none is under way, then plans every touched node anew.
    fn settle(&mut self) {
        let mut explored = 0;
        loop {
            while explored < MAX_TURN
                && let Some(node) = self.dirty.pop_first()
            {
                self.advance(node);
                explored += self.planner.take_explored();
            }
            self.start_commit();
            if explored >= MAX_TURN && !self.dirty.is_empty() {
                // At once, but after whatever else there is to do: agents are heard while a careless set is searched for a thousand nodes.
                self.timers.set(Timer::Plan, Some(self.now));
                break;
            }
            if self.dirty.is_empty() && !self.wake_waiting() {
                break;
            }
        }
        self.woken = 0;
        if self.rails.governor.is_untold() {
            self.tell_soon();
        }
    }

    fn add_runtime(&mut self, node: NodeId) {
        let (high, low) = node.as_bytes().split_at(8);
        let seed = [high, low]
            .into_iter()
            .filter_map(|half| half.try_into().ok())
            .fold(self.config.seed, |seed, half| {
                (seed ^ u64::from_le_bytes(half)).rotate_left(17)
            });
        self.runtimes.insert(
            node,
            Runtime {
                progress: Progress::with_seed(seed),
                plan: Arc::default(),
                confirmed: false,
                silent_since: None,
                goes_on: false,
                told_parked: false,
            },
        );
        self.dirty.insert(node);
        self.rails_added(node);
    }

    fn declare(&mut self, set: &MutationSet) {
        match self.compile(set) {
            Ok(graph) => {
                self.parents_word = parents_word(graph.set());
                self.replace_graph(graph);
                self.rails_declared();
            }
            Err(error) => self.event(Event::Refused {
                node: None,
                why: format!("mutation set {}: {error}", set.generation),
            }),
        }
    }

    fn release(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            if let Some(runtime) = self.runtimes.get_mut(node) {
                runtime.again(Again::Release);
                self.dirty.insert(*node);
                self.accounted_for(*node);
                if let Some(node) = self.tree.get_mut(*node) {
                    node.last_known.dsc = Values::default();
                }
                // The agent tries anew, too: it joins again at once, and a join forgets its attempts.
                if matches!(self.config.role, Role::Head { .. }) {
                    self.attach_anew(*node, "an operator released the node");
                }
            }
        }
    }

    fn retry(&mut self, nodes: &[NodeId]) {
        for id in nodes {
            if let Some(runtime) = self.runtimes.get_mut(id) {
                runtime.again(Again::Retry);
                self.dirty.insert(*id);
            }
            let node = self.tree.get(*id);
            if node.is_some_and(|node| node.dsc.get(core::PARKED).is_some()) {
                // It is the agent that gave up: it joins again, and a join forgets its attempts.
                self.attach_anew(*id, "an operator wants the node to try again");
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn mutation(&self, id: &MutationId) -> Option<&crate::mutation::Mutation> {
        self.planner.graph().mutation(id)
    }
}

fn empty_graph() -> MutationGraph {
    MutationGraph::new(&MutationSet::default()).expect("an empty set has nothing wrong in it")
}

fn parents_word(set: &MutationSet) -> BTreeSet<StateUrl> {
    let urls_of = |parents: bool| {
        let mutations = set
            .mutations
            .iter()
            .filter(move |mutation| (mutation.context == MutationContext::Child) == parents);
        mutations.flat_map(|mutation| mutation.mutates.iter().map(|change| change.url.clone()))
    };
    let nodes_too: BTreeSet<StateUrl> = urls_of(false).collect();
    urls_of(true)
        .filter(|url| !nodes_too.contains(url))
        .collect()
}

#[cfg(test)]
mod tests;
