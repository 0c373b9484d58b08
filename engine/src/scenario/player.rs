//! Plays one case: a head's engine with a store that answers at once, modules and agents by the script.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Case, Scope, Step};
use crate::engine::{Engine, EngineConfig, Role};
use crate::event::{
    Discovery, Event, Fire, Input, MutationEvent, Output, RequestId, Write, WriteOp,
};
use crate::extension::{Field, Kind, Schema};
use crate::mutation::progress::Healing;
use crate::mutation::report::{Outcome, Report};
use crate::mutation::{Allowed, Condition, MutationSet};
use crate::state::{Change, Node, NodeId, StateUrl, Value, core};
use crate::sync::SyncConfig;
use crate::time::Instant;

/// The node that every case is about.
pub const ONE_NODE: &str = "n1";

const HEAD: NodeId = NodeId::from_bytes([0xaa; 16]);
const NODE: NodeId = NodeId::from_bytes([1; 16]);

/// A running case and what it has shown so far.
pub(super) struct Player<'a> {
    case: &'a Case,
    set: &'a MutationSet,
    engine: Engine,
    now: Instant,
    requests: u64,
    fired: Option<Fire>,
    /// What the script itself has just reported; everything else that changes is news.
    reported: Vec<Change>,
    standing: String,
    text: String,
}

impl<'a> Player<'a> {
    /// Plays `case` to its end.
    pub(super) fn play(case: &'a Case, set: &'a MutationSet) -> Self {
        let mut player = Self {
            case,
            set,
            engine: engine(case, set, Instant::ZERO),
            now: Instant::ZERO,
            requests: 0,
            fired: None,
            reported: Vec::new(),
            standing: String::new(),
            text: String::new(),
        };
        for (id, node) in nodes(case) {
            player.engine.restore_node(node);
            player.engine.play_agent_back(id, Vec::new(), player.now);
        }
        player.input(Input::Declare(set.clone()));
        player.stands();
        for line in &case.script {
            player.line(&format!("> {}", line.text));
            player.step(&line.step);
            player.stands();
        }
        player
    }

    pub(super) fn report(&self) -> Option<Report> {
        self.engine.report(NODE, self.now)
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Discover(name, changes) => {
                let other = name
                    .as_ref()
                    .and_then(|name| self.engine.tree().by_name(name));
                let node = other.map_or(NODE, |node| node.id);
                self.discover(node, changes.clone());
            }
            Step::Run(times) => self.run(*times),
            Step::Fail(text) => match self.fired.take() {
                Some(fire) => self.input(Input::MutationFailed {
                    node: fire.node,
                    mutation: fire.mutation,
                    attempt: fire.attempt,
                    text: text.clone(),
                }),
                None => self.line("nothing is under way here"),
            },
            Step::Wait(time) => self.wait(*time),
            Step::AgentBack(changes) => {
                self.reported = changes.clone();
                self.engine.play_agent_back(NODE, changes.clone(), self.now);
                self.flush();
                self.reported.clear();
            }
            Step::AgentLost => {
                self.engine.play_agent_lost(NODE, self.now);
                self.flush();
            }
            Step::Set(changes) => {
                let changes = changes.clone();
                self.write(WriteOp::Set {
                    node: NODE,
                    changes,
                });
            }
            Step::Freeze(scope) => self.freeze(*scope, true),
            Step::Thaw(scope) => self.freeze(*scope, false),
            Step::Release => self.input(Input::Release(vec![NODE])),
            Step::Restart => self.restart(),
            Step::Delete => self.write(WriteOp::Delete(NODE)),
            Step::Explain => {
                if let Some(report) = self.report() {
                    self.text.push_str(&report.to_string());
                }
            }
        }
    }

    fn freeze(&mut self, scope: Scope, frozen: bool) {
        self.write(match scope {
            Scope::Node => WriteOp::Freeze { node: NODE, frozen },
            Scope::Cluster => WriteOp::FreezeCluster(frozen),
        });
    }

    fn write(&mut self, op: WriteOp) {
        self.requests += 1;
        self.input(Input::Write(Write {
            request: RequestId(self.requests),
            author: "operator".into(),
            reason: String::new(),
            if_revision: 0,
            key: None,
            now_ms: 0,
            ops: vec![op],
        }));
    }

    fn discover(&mut self, node: NodeId, changes: Vec<Change>) {
        self.reported = changes.clone();
        self.input(Input::Discover(Discovery {
            node,
            source: "scenario".into(),
            changes,
        }));
        self.reported.clear();
    }

    /// Lets what is under way succeed, again and again.
    fn run(&mut self, times: usize) {
        for _ in 0..times {
            let Some(report) = self.report() else { return };
            let under_way = report.steps.iter().filter(|step| step.in_flight);
            let changes: Vec<Change> = under_way
                .take(1)
                .flat_map(|step| &step.changes)
                .map(|change| Change {
                    url: change.url.clone(),
                    value: change.to.clone(),
                })
                .collect();
            if changes.is_empty() {
                return;
            }
            self.discover(NODE, changes);
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.engine.handle_timeout(self.now);
            self.flush();
        }
        self.now = end;
    }

    /// What a head knows after a crash: Cfg, and what it last knew.
    fn restart(&mut self) {
        let mut engine = engine(self.case, self.set, self.now);
        engine.restore_counters(self.engine.revision(), 1_000, self.engine.freezes().clone());
        for node in self.engine.tree().iter().filter(|node| node.id != HEAD) {
            let mut kept = node.clone();
            kept.last_known.dsc = std::mem::take(&mut kept.dsc);
            engine.restore_node(kept);
        }
        self.engine = engine;
        self.fired = None;
        self.input(Input::Declare(self.set.clone()));
    }

    fn input(&mut self, input: Input) {
        self.engine.handle_input(input, self.now);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Commit { commit, .. } => {
                    let result = Ok(());
                    self.engine
                        .handle_input(Input::Committed { commit, result }, self.now);
                }
                Output::Fire(fire) if fire.node == NODE => self.fired = Some(fire),
                Output::Written {
                    result: Err(error), ..
                } => self.line(&format!("refused: {error}")),
                Output::Event(event) => self.event(event),
                _ => {}
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Mutation {
                node: NODE,
                mutation,
                what,
                ..
            } => match what {
                MutationEvent::Fired { .. } => self.line(&format!("fires {mutation}")),
                MutationEvent::Done { .. } => self.line(&format!("done {mutation}")),
                MutationEvent::Failed { text } => {
                    self.line(&format!("failed {mutation}: {text}"));
                }
                MutationEvent::Interrupted => self.line(&format!("interrupts {mutation}")),
            },
            Event::Dsc {
                node: NODE,
                changes,
            } => {
                for change in changes {
                    if self.reported.contains(&change) {
                        continue;
                    }
                    match change.value {
                        None => self.line(&format!("forgets {}", change.url)),
                        Some(value) => self.line(&format!("finds {}={value}", change.url)),
                    }
                }
            }
            Event::Deleted { name, .. } => self.line(&format!("deleted {name}")),
            Event::Refused {
                node: Some(NODE),
                why,
            } => self.line(&format!("refuses {why}")),
            Event::Join {
                text, alarm: true, ..
            } => self.line(&format!("alarm: {text}")),
            _ => {}
        }
    }

    /// Where the node stands, if that has changed.
    fn stands(&mut self) {
        let Some(report) = self.report() else { return };
        let standing = match report.outcome {
            Outcome::Converged => "converged".to_owned(),
            Outcome::NoPath => format!("no path: {}", report.reason),
            Outcome::Parked => format!("parked: {}", report.reason),
            Outcome::Held => {
                let holds: Vec<String> = report
                    .holds
                    .iter()
                    .map(|hold| format!("{} [{}]", hold.text, hold.kind))
                    .collect();
                let next = report.steps.first().map(|step| step.mutation.to_string());
                format!("holds {}: {}", next.unwrap_or_default(), holds.join("; "))
            }
            Outcome::Path => {
                let awaited = report
                    .steps
                    .iter()
                    .find(|step| step.in_flight && step.attempt == 0);
                awaited.map_or_else(String::new, |step| {
                    format!("waits for the node: {}", step.mutation)
                })
            }
        };
        if standing != self.standing && !standing.is_empty() {
            self.line(&standing);
        }
        self.standing = standing;
    }

    fn line(&mut self, line: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn engine(case: &Case, set: &MutationSet, now: Instant) -> Engine {
    let config = EngineConfig {
        me: HEAD,
        role: Role::Head { epoch: 1 },
        sync: SyncConfig::default(),
        healing: Healing::default(),
        seed: 1,
    };
    let mut engine = Engine::new(config, schema(case, set), now);
    engine.set_costs(case.costs);
    if let Ok(name) = "head".parse() {
        engine.restore_node(Node::new(HEAD, name, None));
    }
    engine
}

/// The node of the case and the others.
fn nodes(case: &Case) -> Vec<(NodeId, Node)> {
    let mut nodes = Vec::new();
    if let Ok(name) = ONE_NODE.parse() {
        let mut node = Node::new(NODE, name, Some(HEAD));
        node.cfg = case.cfg.clone();
        node.dsc = case.dsc.clone();
        nodes.push((NODE, node));
    }
    for (number, other) in (2u8..).zip(&case.others) {
        let id = NodeId::from_bytes([number; 16]);
        let mut node = Node::new(id, other.name.clone(), Some(HEAD));
        node.groups.extend(other.groups.iter().cloned());
        node.dsc = other.dsc.clone();
        nodes.push((id, node));
    }
    nodes
}

/// Every url that the case or the set names, with the kind of the first value it has there.
fn schema(case: &Case, set: &MutationSet) -> Schema {
    let mut schema = Schema::default();
    let mut add = |url: &StateUrl, value: Option<&Value>| {
        let kind = match value {
            Some(Value::Int(_)) => Kind::Int {
                min: i64::MIN,
                max: i64::MAX,
            },
            _ => Kind::Text,
        };
        let discoverable = [core::PHYS_STATE, core::RUN_STATE, core::BUSY].contains(&url.as_str());
        schema.add(url.to_string(), field(kind, discoverable));
    };
    for (url, value) in case.cfg.iter().chain(case.dsc.iter()) {
        add(url, Some(value));
    }
    for mutation in &set.mutations {
        for change in &mutation.mutates {
            add(&change.url, change.to.as_ref());
        }
        for Condition { url, allows } in mutation.requires.iter().chain(&mutation.excludes) {
            match allows {
                Allowed::AnyOf(values) => add(url, values.iter().flatten().next()),
                Allowed::Number(_) => add(url, Some(&Value::Int(1))),
            }
        }
    }
    for line in &case.script {
        if let Step::Set(changes) | Step::Discover(_, changes) | Step::AgentBack(changes) =
            &line.step
        {
            for change in changes {
                add(&change.url, change.value.as_ref());
            }
        }
    }
    schema
}

fn field(kind: Kind, discoverable: bool) -> Field {
    Field {
        discoverable,
        ..Field::new(kind)
    }
}
