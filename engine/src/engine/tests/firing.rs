//! The instant of firing: what has changed since the intent was logged counts, and a search that takes long keeps nobody waiting.

use super::*;
use crate::event::{CommitId, Output};
use crate::mutation::graph::tests::hopeless;

impl Head {
    /// The next commit, which is not answered yet.
    fn commit(&mut self) -> CommitId {
        std::iter::from_fn(|| self.engine.poll_output())
            .find_map(|output| match output {
                Output::Commit { commit, .. } => Some(commit),
                _ => None,
            })
            .expect("there is something to keep")
    }

    fn committed(&mut self, commit: CommitId) {
        let result = Ok(());
        let input = Input::Committed { commit, result };
        self.engine.handle_input(input, self.now);
    }

    /// n1 hangs and shall be off; the intent is not durable yet.
    fn about_to_switch_off(&mut self) -> CommitId {
        self.add(1, &[]);
        self.discover(1, &["/PhysState=PHYS_HANG"]);
        self.fired.clear();
        self.submit(vec![WriteOp::Set {
            node: id(1),
            changes: vec![change("/PhysState=POWER_OFF")],
        }]);
        let written = self.commit();
        self.committed(written);
        self.commit()
    }

    /// Kinds of what holds n1.
    fn held(&self) -> Vec<&'static str> {
        let report = self.engine.report(id(1), self.now).unwrap();
        report.holds.iter().map(|hold| hold.kind).collect()
    }
}

/// What is fired for n1 when something happens between its intent and the instant of firing.
fn fired_after(happens: impl Fn(&mut Head)) -> (Vec<String>, Vec<&'static str>) {
    let mut head = Head::new();
    let intent = head.about_to_switch_off();
    happens(&mut head);
    head.committed(intent);
    head.flush();
    let held = head.held();
    // A list says the same as the report.
    assert_eq!(head.engine.stopped_by(id(1)), held);
    (head.fired(), held)
}

#[test]
fn what_begins_to_hold_after_the_intent_holds() {
    assert_eq!(
        fired_after(|_| ()),
        (vec!["power/HANGtoOFF".to_owned()], vec![])
    );
    let job = |head: &mut Head| {
        head.engine.handle_input(
            Input::Discover(Discovery {
                node: id(1),
                source: "test".into(),
                changes: vec![change("/Busy=BUSY")],
            }),
            head.now,
        );
    };
    assert_eq!(fired_after(job), (vec![], vec!["busy"]));
    let many = |head: &mut Head| (50..60).for_each(|n| head.engine.child_lost(id(n)));
    assert_eq!(fired_after(many), (vec![], vec!["mass_failure"]));
    let rack = |head: &mut Head| head.engine.frozen.cluster = true;
    assert_eq!(fired_after(rack), (vec![], vec!["frozen"]));
}

#[test]
fn f28_hopeless_searches_for_many_nodes_keep_nobody_waiting() {
    let mut head = Head::new();
    let nodes: Vec<WriteOp> = (1..=5)
        .map(|n| {
            let mut node = Node::new(id(n), format!("n{n}").parse().unwrap(), None);
            // No two are of one class.
            let own = format!("/s{n:02}=on");
            node.dsc.apply([change(&own)]);
            node.cfg.apply([change("/last=2"), change("/goal=1")]);
            WriteOp::Add(Box::new(node))
        })
        .collect();
    for op in nodes {
        let WriteOp::Add(node) = op else {
            continue;
        };
        head.engine.restore_node(*node);
    }
    let mut set = set_b();
    set.generation += 1;
    set.mutations.extend(hopeless());
    set.mutations.sort_by(|a, b| a.id.cmp(&b.id));
    let searched = |head: &Head| head.engine.planner.searches();
    head.engine.handle_input(Input::Declare(set), head.now);
    let first = searched(&head);
    assert!(!head.engine.dirty.is_empty(), "one turn is not enough");
    assert!(head.engine.poll_timeout().is_some_and(|at| at <= head.now));
    // Whoever speaks is heard in between.
    head.discover(9, &[]);
    while !head.engine.dirty.is_empty() {
        let before = searched(&head);
        head.engine.handle_timeout(head.now);
        assert!(searched(&head) > before, "every turn gets on");
    }
    assert!(searched(&head) >= first + 2);
    for n in 1..=5 {
        let report = head.engine.report(id(n), head.now).unwrap();
        let text = format!("{report}");
        assert!(text.contains("was given up after"), "{text}");
    }
}
