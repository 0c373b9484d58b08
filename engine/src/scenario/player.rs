//! Plays one case: a head's engine with a store that answers at once, modules and agents by the script.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::at_once::{self, HEAD};
use super::{Case, Scope, Step};
use crate::engine::Engine;
use crate::event::{
    Discovery, Event, Fire, Input, MutationEvent, Output, RequestId, Write, WriteOp,
};
use crate::extension::{Field, Kind, Schema};
use crate::memory::Memo;
use crate::mutation::report::{Outcome, Report};
use crate::mutation::{Allowed, Condition, MutationSet};
use crate::state::{Change, Freezer, Node, NodeId, NodeName, StateUrl, Value, core};
use crate::time::Instant;

/// The node that every case is about.
pub const ONE_NODE: &str = "n1";

const NODE: NodeId = NodeId::from_bytes([1; 16]);
/// What nobody has.
const NOBODY: NodeId = NodeId::from_bytes([0xff; 16]);

/// A running case and what it has shown so far.
pub(super) struct Player<'a> {
    case: &'a Case,
    set: &'a MutationSet,
    engine: Engine,
    now: Instant,
    requests: u64,
    /// The nodes whose story is told, and what stands before their lines.
    told: BTreeMap<NodeId, String>,
    fired: BTreeMap<NodeId, Fire>,
    /// What the script itself has just reported; everything else that changes is news.
    reported: Vec<Change>,
    /// What the store was told to remember, and when.
    memos: Vec<(Instant, Memo)>,
    standing: BTreeMap<NodeId, String>,
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
            told: told(case),
            fired: BTreeMap::new(),
            reported: Vec::new(),
            memos: Vec::new(),
            standing: BTreeMap::new(),
            text: String::new(),
        };
        for (id, node) in nodes(case) {
            player.engine.restore_node(node);
            player.engine.play_agent_back(id, Vec::new(), player.now);
        }
        player.declare();
        player.stands();
        for line in &case.script {
            player.line(&format!("> {}", line.text));
            let other = line.node.as_ref();
            let other = other.and_then(|name| player.engine.tree().by_name(name));
            let node = other.map_or(NODE, |node| node.id);
            player.step(node, &line.step);
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

    fn declare(&mut self) {
        self.input(Input::Declare(self.case.declared(self.set)));
    }

    fn step(&mut self, node: NodeId, step: &Step) {
        match step {
            Step::Discover(name, changes) => {
                let other = name
                    .as_ref()
                    .and_then(|name| self.engine.tree().by_name(name));
                let node = other.map_or(node, |node| node.id);
                self.discover(node, changes.clone());
            }
            Step::Run(times) => self.run(node, *times),
            Step::Fail(text) => match self.fired.remove(&node) {
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
                self.engine.play_agent_back(node, changes.clone(), self.now);
                self.flush();
                self.reported.clear();
            }
            Step::AgentLost => {
                self.engine.play_agent_lost(node, self.now);
                self.flush();
            }
            Step::Set(changes) => {
                let changes = changes.clone();
                self.write(WriteOp::Set { node, changes });
            }
            Step::Join(group) => self.write(WriteOp::Groups {
                node,
                add: vec![group.clone()],
                remove: Vec::new(),
            }),
            Step::Move(parent) => {
                let named = self.engine.tree().by_name(parent);
                let parent = named.map_or(NOBODY, |node| node.id);
                self.write(WriteOp::Move { node, parent });
            }
            Step::Lift(lift) => self.input(Input::Lift(lift.clone())),
            Step::Freeze(scope) => self.freeze(node, scope, true),
            Step::Thaw(scope) => self.freeze(node, scope, false),
            Step::Release => self.input(Input::Release(vec![node])),
            Step::Restart => self.restart(),
            Step::Delete => self.write(WriteOp::Delete(node)),
            Step::Explain => {
                if let Some(report) = self.engine.report(node, self.now) {
                    self.text.push_str(&report.to_string());
                }
            }
        }
    }

    fn freeze(&mut self, node: NodeId, scope: &Scope, frozen: bool) {
        self.write(match scope {
            Scope::Node => WriteOp::Freeze { node, frozen },
            Scope::Cluster => WriteOp::FreezeCluster(frozen),
            Scope::Group(group, reason) => WriteOp::FreezeGroup {
                group: group.clone(),
                by: frozen.then(|| Freezer {
                    by: "operator".to_owned(),
                    reason: reason.clone(),
                }),
            },
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
    fn run(&mut self, node: NodeId, times: usize) {
        for _ in 0..times {
            let Some(report) = self.engine.report(node, self.now) else {
                return;
            };
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
            self.discover(node, changes);
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while at_once::ring(&mut self.engine, &mut self.now, end) {
            self.flush();
        }
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
        for (told, memo) in &self.memos {
            engine.restore_memo(memo.clone().aged(self.now.since(*told)));
        }
        self.engine = engine;
        self.fired.clear();
        self.declare();
    }

    fn input(&mut self, input: Input) {
        self.engine.handle_input(input, self.now);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(output) = at_once::poll(&mut self.engine, self.now) {
            match output {
                Output::Fire(fire) => drop(self.fired.insert(fire.node, fire)),
                Output::Written {
                    result: Err(error), ..
                } => self.line(&format!("refused: {error}")),
                Output::Event(event) => self.event(event),
                Output::Remember(memo) => self.memos.push((self.now, memo)),
                _ => {}
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Mutation {
                node,
                mutation,
                what,
                ..
            } => self.line_of(
                node,
                &match what {
                    MutationEvent::Fired { .. } => format!("fires {mutation}"),
                    MutationEvent::Done { .. } => format!("done {mutation}"),
                    MutationEvent::Failed { text } => format!("failed {mutation}: {text}"),
                    MutationEvent::Interrupted => format!("interrupts {mutation}"),
                },
            ),
            Event::Dsc { node, changes } => {
                for change in changes {
                    if self.reported.contains(&change) {
                        continue;
                    }
                    let text = match change.value {
                        None => format!("forgets {}", change.url),
                        Some(value) => format!("finds {}={value}", change.url),
                    };
                    self.line_of(node, &text);
                }
            }
            Event::Deleted { name, .. } => self.line(&format!("deleted {name}")),
            Event::Refused {
                node: Some(node),
                why,
            } => self.line_of(node, &format!("refuses {why}")),
            Event::Join {
                text, alarm: true, ..
            } => self.line(&format!("alarm: {text}")),
            Event::Alarm { text, over, .. } => {
                let word = if over { "alarm over" } else { "alarm" };
                self.line(&format!("{word}: {text}"));
            }
            _ => {}
        }
    }

    /// A line about a node, if its story is told.
    fn line_of(&mut self, node: NodeId, text: &str) {
        if let Some(name) = self.told.get(&node) {
            let line = format!("{name}{text}");
            self.line(&line);
        }
    }

    /// Where the nodes stand, if that has changed.
    fn stands(&mut self) {
        let nodes: Vec<NodeId> = self.told.keys().copied().collect();
        for node in nodes {
            let Some(report) = self.engine.report(node, self.now) else {
                continue;
            };
            let standing = standing(&report);
            let before = self.standing.insert(node, standing.clone());
            if before.unwrap_or_default() != standing && !standing.is_empty() {
                self.line_of(node, &standing);
            }
        }
    }

    fn line(&mut self, line: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// The case's node, and those others that have something to reach.
fn told(case: &Case) -> BTreeMap<NodeId, String> {
    let others = case.others.iter().enumerate();
    let others = others.filter(|(_, other)| other.same || !other.cfg.is_empty());
    let others = others.map(|(index, other)| (other_id(index), format!("{}: ", other.name)));
    others.chain([(NODE, String::new())]).collect()
}

fn other_id(index: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(index + 2).unwrap_or(u8::MAX); 16])
}

fn standing(report: &Report) -> String {
    match report.outcome {
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
    }
}

fn engine(case: &Case, set: &MutationSet, now: Instant) -> Engine {
    let mut engine = Engine::new(at_once::config(), schema(case, set), now);
    engine.set_costs(case.costs);
    engine.set_guards(case.rails.guards.clone());
    if let Ok(name) = "head".parse() {
        engine.restore_node(Node::new(HEAD, name, None));
    }
    engine
}

/// The node of the case and the others.
fn nodes(case: &Case) -> Vec<(NodeId, Node)> {
    let mut nodes = Vec::new();
    let named = |name: &NodeName| {
        let mut others = case.others.iter();
        others.position(|other| other.name == *name).map(other_id)
    };
    if let Ok(name) = ONE_NODE.parse() {
        let parent = case.parent.as_ref().and_then(named);
        let mut node = Node::new(NODE, name, parent.or(Some(HEAD)));
        node.groups.extend(case.groups.iter().cloned());
        node.cfg = case.cfg.clone();
        node.dsc = case.dsc.clone();
        nodes.push((NODE, node));
    }
    for (index, other) in case.others.iter().enumerate() {
        let id = other_id(index);
        let mut node = Node::new(id, other.name.clone(), Some(HEAD));
        node.groups.extend(other.groups.iter().cloned());
        (node.cfg, node.dsc) = (other.cfg.clone(), other.dsc.clone());
        if other.same {
            node.groups.extend(case.groups.iter().cloned());
            (node.cfg, node.dsc) = (case.cfg.clone(), case.dsc.clone());
        }
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
            Some(Value::Bool(_)) => Kind::Bool,
            _ => Kind::Text,
        };
        let discoverable = [core::PHYS_STATE, core::RUN_STATE, core::BUSY].contains(&url.as_str());
        schema.add(url.to_string(), field(kind, discoverable));
    };
    let others = case.others.iter();
    let others = others.flat_map(|other| other.cfg.iter().chain(other.dsc.iter()));
    for (url, value) in case.cfg.iter().chain(case.dsc.iter()).chain(others) {
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
