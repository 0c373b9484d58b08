//! Whole engines: many nodes, from unknown to SYNC and onwards, with modules and a store that answer at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::engine::{EngineConfig, Role};
use engine::event::{Discovery, Event, Fire, Input, Output, RequestId, Write, WriteOp};
use engine::extension::Schema;
use engine::mutation::graph::MutationGraph;
use engine::mutation::progress::Healing;
use engine::mutation::{MutationId, MutationSet};
use engine::state::{Change, Node, NodeId, NodeName, Values};
use engine::sync::SyncConfig;
use engine::{Engine, time};

use crate::sets::{layercake, wanted, wide, wide_goal};

/// Sizes of clusters.
pub(crate) const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
/// Nodes of the run with the large set: each takes over a hundred steps.
const WIDE_NODES: u32 = 1_000;
/// Runs of each size; the least is free of what else the machine does.
pub(crate) const RUNS: usize = 3;

/// Bars for planning all nodes of a size from unknown to SYNC; 10,000 are the design's own.
fn target(count: u32) -> Option<Duration> {
    match count {
        10_000 => Some(Duration::from_millis(200)),
        100_000 => Some(Duration::from_millis(2_500)),
        _ => None,
    }
}

/// How much more a node may cost among 100,000 than among 1,000 to count as linear: the caches of a processor hold the small tree whole.
const LINEAR: f64 = 2.5;

/// All tables of this part.
pub(crate) fn run() {
    println!(
        "Engine: nodes of set C, modules and store answer at once; CPU time, least of {RUNS} runs"
    );
    println!(
        "{:>9} {:>12} {:>12} {:>11} {:>12} {:>12} {:>12}",
        "nodes", "to SYNC", "a node", "target", "Cfg of all", "add all", "delete all"
    );
    let mut each = Vec::new();
    for count in SIZES {
        let took = (0..RUNS).map(|_| Took::of(count)).reduce(Took::least);
        let took = took.expect("there is a run");
        let seconds = |time: Duration| format!("{:.4} s", time.as_secs_f64());
        let verdict = target(count).map_or("-".to_owned(), |target| {
            let word = if took.boot <= target { "met" } else { "MISSED" };
            format!("{} s {word}", target.as_secs_f64())
        });
        let micros = took.boot.as_secs_f64() * 1e6 / f64::from(count);
        each.push(micros);
        println!(
            "{count:>9} {:>12} {:>9.2} us {verdict:>11} {:>12} {:>12} {:>12}",
            seconds(took.boot),
            micros,
            seconds(took.change),
            seconds(took.add),
            seconds(took.delete),
        );
    }
    let growth = each[each.len() - 1] / each[0];
    let verdict = if growth <= LINEAR { "met" } else { "MISSED" };
    println!(
        "  a node among {} costs {growth:.2} times one among {}   target linear, at most {LINEAR}: {verdict}",
        SIZES[SIZES.len() - 1],
        SIZES[0]
    );
    println!(
        "  to SYNC: every one of 5 mutations fired once a node, none parked. Kraken took 3.5 s for 10,000 *"
    );
    println!(
        "  Cfg of all: one write that gives every node an image: checked, taken over, each planned anew, its first step fired"
    );
    println!("* measured elsewhere\n");
    wide_run();
}

/// CPU times of what one cluster goes through.
#[derive(Clone, Copy)]
struct Took {
    boot: Duration,
    change: Duration,
    add: Duration,
    delete: Duration,
}

impl Took {
    fn least(self, other: Self) -> Self {
        Self {
            boot: self.boot.min(other.boot),
            change: self.change.min(other.change),
            add: self.add.min(other.add),
            delete: self.delete.min(other.delete),
        }
    }

    fn of(count: u32) -> Self {
        let set = layercake();
        let mut world = World::new(&set, count);
        let boot = timed(|| world.boot());
        world.check(count, "/RunState", "SYNC", 5);

        let image = wanted("/image/state", "ACTIVE").to_changes();
        let ops = (0..count).map(|number| WriteOp::Set {
            node: node_id(number),
            changes: image.clone(),
        });
        let write = world.write(ops.collect());
        let mut first = 0;
        let change = timed(|| {
            world.engine.handle_input(write, world.now);
            world.drain(&mut |_| {
                first += 1;
                None
            });
        });
        assert_eq!(first, count, "every node starts anew");

        // Booting is over: the others come and go with nothing to do.
        let mut world = World::new(&set, 0);
        world.declare();
        let ops = (0..count).map(|number| WriteOp::Add(Box::new(node(number, Some(world.me)))));
        let add = world.write(ops.collect());
        let add = timed(|| world.carry_out(add));
        assert_eq!(world.engine.tree().len(), count as usize + 1);
        let ops = (0..count).map(|number| WriteOp::Delete(node_id(number)));
        let delete = world.write(ops.collect());
        let delete = timed(|| world.carry_out(delete));
        assert_eq!(world.engine.tree().len(), 1, "the head itself stays");
        Self {
            boot,
            change,
            add,
            delete,
        }
    }
}

fn wide_run() {
    let set = wide();
    let goal = wide_goal();
    let took = (0..RUNS).map(|_| {
        let mut world = World::with_cfg(&set, WIDE_NODES, &goal);
        let took = timed(|| world.boot());
        let steps = world.fired.len();
        let last = goal.iter().last().expect("a goal");
        world.check(WIDE_NODES, last.0.as_str(), "v4", steps);
        (took, steps)
    });
    let (took, steps) = took.min().expect("there is a run");
    println!(
        "Engine: {WIDE_NODES} nodes of a set of 30 urls and {} mutations, unknown to goal",
        set.mutations.len()
    );
    println!(
        "  {steps} steps a node in {:.3} s: {:.2} us for planning, firing and following one\n",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / f64::from(WIDE_NODES) / steps as f64
    );
}

/// A head's engine, and a world that does at once what it wants.
pub(crate) struct World {
    engine: Engine,
    graph: MutationGraph,
    set: MutationSet,
    me: NodeId,
    pub(crate) now: time::Instant,
    fired: BTreeMap<MutationId, u32>,
    parked: u32,
}

impl World {
    /// Nodes that shall be in SYNC and of which nothing is known.
    pub(crate) fn new(set: &MutationSet, count: u32) -> Self {
        Self::with_cfg(set, count, &wanted("/RunState", "SYNC"))
    }

    fn with_cfg(set: &MutationSet, count: u32, cfg: &Values) -> Self {
        let me = node_id(u32::MAX);
        let config = EngineConfig {
            me,
            role: Role::Head { epoch: 1 },
            sync: SyncConfig::default(),
            healing: Healing::default(),
            seed: 1,
        };
        let mut engine = Engine::new(config, Schema::built_in(), time::Instant::ZERO);
        let head: NodeName = "head".parse().expect("a name");
        engine.restore_node(Node::new(me, head, None));
        for number in 0..count {
            let mut node = node(number, Some(me));
            node.cfg = cfg.clone();
            engine.restore_node(node);
        }
        Self {
            engine,
            graph: MutationGraph::new(set).expect("the set is valid"),
            set: set.clone(),
            me,
            // An hour after the start of the head: nothing waits for agents to come back.
            now: time::Instant::from_origin(Duration::from_secs(3600)),
            fired: BTreeMap::new(),
            parked: 0,
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    fn declare(&mut self) {
        self.carry_out(Input::Declare(self.set.clone()));
    }

    /// Declares the mutations, which sets all nodes in motion, and answers until nothing moves.
    pub(crate) fn boot(&mut self) {
        self.declare();
    }

    fn write(&self, ops: Vec<WriteOp>) -> Input {
        Input::Write(Write {
            request: RequestId(1),
            author: "bench".into(),
            reason: "bench".into(),
            if_revision: 0,
            key: None,
            now_ms: 1,
            ops,
        })
    }

    fn carry_out(&mut self, input: Input) {
        self.engine.handle_input(input, self.now);
        let graph = std::mem::take(&mut self.graph);
        let mut fired = std::mem::take(&mut self.fired);
        self.drain(&mut |fire| {
            let mutation = graph.mutation(&fire.mutation).expect("it is of this set");
            let changes = mutation.mutates.iter().map(|change| Change {
                url: change.url.clone(),
                value: change.to.clone(),
            });
            *fired.entry(fire.mutation).or_default() += 1;
            Some(Discovery {
                node: fire.node,
                source: "bench".into(),
                changes: changes.collect(),
            })
        });
        (self.graph, self.fired) = (graph, fired);
    }

    /// Makes durable what shall be, and answers what is fired.
    fn drain(&mut self, answer: &mut dyn FnMut(Fire) -> Option<Discovery>) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Commit { commit, .. } => {
                    let result = Ok(());
                    let done = Input::Committed { commit, result };
                    self.engine.handle_input(done, self.now);
                }
                Output::Fire(fire) => {
                    if let Some(discovery) = answer(fire) {
                        let found = Input::Discover(discovery);
                        self.engine.handle_input(found, self.now);
                    }
                }
                Output::Written { result, .. } => {
                    result.expect("the write is accepted");
                }
                Output::Event(Event::Parked { .. }) => self.parked += 1,
                _ => {}
            }
        }
    }

    /// Every node is at `value`, by `steps` mutations each fired once a node.
    fn check(&self, count: u32, url: &str, value: &str, steps: usize) {
        let nodes = self.engine.tree().iter();
        let there = nodes.filter(|node| node.dsc.text(url) == Some(value));
        assert_eq!(there.count(), count as usize, "every node arrives");
        assert!(
            self.fired.values().all(|times| *times == count),
            "every mutation is fired once a node: {:?}",
            self.fired
        );
        assert_eq!(self.fired.len(), steps, "the path is as long as expected");
        assert_eq!(self.parked, 0, "no node gives up");
    }
}

pub(crate) fn node_id(number: u32) -> NodeId {
    let mut bytes = [0xbb; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn node(number: u32, parent: Option<NodeId>) -> Node {
    let name = format!("n{number}").parse().expect("a name");
    let mut node = Node::new(node_id(number), name, parent);
    let [_, b, c, d] = number.to_be_bytes();
    for (url, value) in [
        (
            "/ipv4/boot/mac",
            format!("52:54:00:{b:02x}:{c:02x}:{d:02x}"),
        ),
        ("/ipv4/boot/address", format!("10.{b}.{c}.{d}/8")),
    ] {
        node.cfg.set(
            url.parse().expect("a url"),
            Some(engine::state::Value::text(value)),
        );
    }
    node
}

/// Time that this thread has run, by the kernel's account; the wall's where it keeps none.
pub(crate) fn timed(run: impl FnOnce()) -> Duration {
    let (start, cpu) = (Instant::now(), cpu_time());
    run();
    let wall = start.elapsed();
    cpu_time().zip(cpu).map_or(wall, |(end, start)| end - start)
}

fn cpu_time() -> Option<Duration> {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = account.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
