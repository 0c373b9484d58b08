use super::*;
use crate::value::Shown;
use proto::v1::watch_event::Kind;

fn value(text: &str) -> v1::Value {
    v1::Value {
        kind: Some(v1::value::Kind::TextValue(text.to_owned())),
    }
}

fn values(pairs: &[(&str, &str)]) -> Option<v1::Values> {
    let change = |(url, text): &(&str, &str)| v1::ValueChange {
        url: (*url).to_owned(),
        value: Some(value(text)),
    };
    Some(v1::Values {
        values: pairs.iter().map(change).collect(),
    })
}

/// A wait for SYNC on n1 and n2, and a mirror of both.
struct World {
    waiting: Waiting,
    mirror: Mirror,
    sequence: u64,
}

impl World {
    fn new(goals: &[(&str, &str, bool)]) -> Self {
        let goal = |(url, text, awaited): &(&str, &str, bool)| Goal {
            url: (*url).to_owned(),
            value: value(text),
            awaited: *awaited,
        };
        let mut world = Self {
            waiting: Waiting::new(
                ["n1".to_owned(), "n2".to_owned()],
                goals.iter().map(goal).collect(),
            ),
            mirror: Mirror::default(),
            sequence: 0,
        };
        world.mirror.restart();
        let cfg: Vec<(&str, &str)> = goals.iter().map(|(url, text, _)| (*url, *text)).collect();
        for name in ["n1", "n2"] {
            world.tell(name, &cfg, &[]);
        }
        world.event(Kind::SnapshotEnd(v1::SnapshotEnd { revision: 1 }));
        world
    }

    fn event(&mut self, kind: Kind) {
        self.sequence += 1;
        let event = v1::WatchEvent {
            sequence: self.sequence,
            kind: Some(kind),
        };
        self.mirror.handle_event(&event, &Shown::default());
    }

    fn tell(&mut self, name: &str, cfg: &[(&str, &str)], dsc: &[(&str, &str)]) {
        self.event(Kind::Node(v1::Node {
            name: name.to_owned(),
            cfg: values(cfg),
            dsc: values(dsc),
            ..Default::default()
        }));
    }

    fn look(&mut self) -> Vec<String> {
        self.waiting.look_at_all(&self.mirror)
    }

    fn counts(&self) -> (usize, usize, usize) {
        let counts = self.waiting.counts();
        (counts.done, counts.waiting, counts.failed)
    }

    fn report(&mut self, name: &str, outcome: Outcome, reason: &str) {
        self.waiting.handle_report(&v1::Report {
            node_name: name.to_owned(),
            outcome: outcome.into(),
            reason: reason.to_owned(),
            ..Default::default()
        });
    }
}

const SYNC: &[(&str, &str)] = &[("/RunState", "SYNC")];

#[test]
fn it_ends_when_every_node_is_there() {
    let mut world = World::new(&[("/RunState", "SYNC", true)]);
    assert!(world.look().is_empty());
    assert_eq!(world.counts(), (0, 2, 0));
    assert_eq!(world.waiting.example(), Some(("n1", "/RunState")));
    world.tell("n1", SYNC, SYNC);
    assert_eq!(world.look(), ["n1"]);
    assert!(!world.waiting.is_over());
    assert_eq!(world.waiting.exit(), Exit::Partial);
    world.tell("n2", SYNC, SYNC);
    assert_eq!(world.look(), ["n2"]);
    assert!(world.waiting.is_over());
    assert_eq!(world.waiting.exit(), Exit::Ok);
}

#[test]
fn a_node_that_leaves_its_goal_is_waited_for_again() {
    let mut world = World::new(&[("/RunState", "SYNC", true)]);
    world.tell("n1", SYNC, SYNC);
    world.tell("n2", SYNC, &[("/RunState", "INIT")]);
    assert_eq!(world.look(), ["n1"]);
    world.tell("n1", SYNC, &[("/RunState", "ERROR")]);
    assert!(world.look().is_empty());
    assert_eq!(world.counts(), (0, 2, 0));
    world.tell("n1", SYNC, SYNC);
    assert!(world.look().is_empty(), "it is announced once");
    assert_eq!(world.counts(), (1, 1, 0));
}

#[test]
fn one_report_is_not_enough_to_give_up() {
    let mut world = World::new(&[("/RunState", "SYNC", true)]);
    world.report("n1", Outcome::Parked, "OFFtoON failed 3 times");
    assert_eq!(world.counts(), (0, 2, 0));
    world.report("n1", Outcome::Path, "");
    world.report("n1", Outcome::Parked, "OFFtoON failed 3 times");
    assert_eq!(world.counts(), (0, 2, 0));
    world.report("n1", Outcome::Parked, "OFFtoON failed 3 times");
    assert_eq!(world.counts(), (0, 1, 1));
    assert_eq!(
        world.waiting.summary().failed[0].reason,
        "parked: OFFtoON failed 3 times"
    );
    world.tell("n2", SYNC, SYNC);
    assert_eq!(world.look(), ["n2"]);
    assert!(world.waiting.is_over());
    assert_eq!(world.waiting.exit(), Exit::Partial);
    world.report("n1", Outcome::Path, "");
    assert!(
        !world.waiting.is_over(),
        "an operator released it meanwhile"
    );
}

#[test]
fn all_failed_is_a_failure() {
    let mut world = World::new(&[("/RunState", "SYNC", true)]);
    for _ in 0..STRIKES {
        world.report("n1", Outcome::NoPath, "");
        world.report("n2", Outcome::NoPath, "no driver");
    }
    assert!(world.waiting.is_over());
    assert_eq!(world.waiting.exit(), Exit::Failure);
    assert_eq!(
        world.waiting.summary().failed[1].reason,
        "no path: no driver"
    );
}

#[test]
fn another_operator_and_deletion_end_the_wait_for_a_node() {
    let mut world = World::new(&[("/RunState", "SYNC", true)]);
    world.tell("n1", &[("/RunState", "INIT")], &[]);
    world.event(Kind::Deleted(v1::NodeDeleted {
        node_name: "n2".into(),
        ..Default::default()
    }));
    world.look();
    let failed = world.waiting.summary().failed;
    assert!(failed[0].reason.contains("somebody else"), "{failed:?}");
    assert!(failed[1].reason.contains("deleted"), "{failed:?}");
}

#[test]
fn what_no_mutation_changes_is_waited_for_where_it_is_reported() {
    let mut world = World::new(&[("/image/name", "b", false)]);
    let cfg = &[("/image/name", "b")];
    assert_eq!(world.look(), ["n1", "n2"]);
    world.tell("n1", cfg, &[("/image/name", "a")]);
    world.look();
    assert_eq!(world.counts(), (1, 1, 0));
    world.tell("n1", cfg, cfg);
    world.look();
    assert!(world.waiting.is_over());
}

#[test]
fn a_trial_that_ends_is_named_as_such() {
    let mut world = World::new(&[("/RunState", "SYNC", true)]);
    world.tell("n1", &[("/RunState", "INIT")], &[]);
    world.look();
    world.waiting.end_trial();
    world.tell("n2", &[], &[]);
    world.look();
    let failed = world.waiting.summary().failed;
    assert_eq!(
        failed[0].reason, "somebody else has set /RunState since",
        "that was before"
    );
    assert_eq!(
        failed[1].reason,
        "the trial ended, and /RunState is as it was before"
    );
}
