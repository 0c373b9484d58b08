//! Learned costs in a running head: when they count, for whom, and what they leave alone.

use super::*;
use crate::engine::tests::{Head, id};
use crate::event::Input;
use crate::mutation::{MutationContext, UrlChange};

const HOUR: Duration = Duration::from_secs(3600);

fn mutation(name: &str, from: &str, to: &str, cost: u32) -> Mutation {
    let value = |text: &str| (!text.is_empty()).then(|| text.into());
    Mutation {
        timeout: Some(HOUR),
        cost,
        ..Mutation::new(
            MutationId::new("x", name),
            MutationContext::Child,
            vec![UrlChange {
                url: "/pxe/state".parse().unwrap(),
                from: vec![value(from)],
                to: value(to),
            }],
        )
    }
}

/// Two steps, or a direct one that was declared dearer than both.
fn head(source: CostSource) -> Head {
    let mut head = Head::new();
    head.engine.set_costs(source);
    head.input(Input::Declare(declared()));
    head
}

fn declared() -> MutationSet {
    MutationSet {
        generation: 2,
        mutations: vec![
            mutation("direct", "", "B", 3),
            mutation("first", "", "A", 1),
            mutation("second", "A", "B", 1),
        ],
        ..MutationSet::default()
    }
}

fn direct_is_quick(head: &mut Head) {
    for _ in 0..3 {
        let quick = Duration::from_millis(700);
        head.engine.measure(&MutationId::new("x", "direct"), quick);
    }
}

fn fired(head: &mut Head) -> Vec<String> {
    let fired = head.fired.drain(..);
    fired.map(|fire| fire.mutation.to_string()).collect()
}

#[test]
fn what_was_measured_counts_at_the_next_look_and_interrupts_nothing() {
    let mut head = head(CostSource::Learned);
    head.add(1, &["/pxe/state=B"]);
    assert_eq!(fired(&mut head), ["x/first"]);
    direct_is_quick(&mut head);
    head.add(2, &["/pxe/state=B"]);
    assert_eq!(fired(&mut head), ["x/first"]);

    head.sleep(LEARN_EVERY.as_secs());
    head.add(3, &["/pxe/state=B"]);
    assert_eq!(fired(&mut head), ["x/direct"]);
    // Whatever makes the others be planned anew.
    for n in [1, 2] {
        head.discover(n, &["/Busy=FREE", "/PhysState=POWER_ON"]);
    }
    assert_eq!(head.interrupted, []);
    let report = head.engine.report(id(1), head.now).unwrap();
    let steps: Vec<&str> = report.steps.iter().map(|s| s.mutation.as_str()).collect();
    assert_eq!(steps, ["x/first", "x/second"]);
    let cost = |name| head.engine.graph().mutation(&MutationId::new("x", name));
    assert_eq!(cost("direct").unwrap().cost, 3);
    assert_eq!(cost("first").unwrap().cost, 4096);

    // Another goal is another matter.
    head.set(1, "/pxe/state=A").unwrap();
    head.set(2, "/pxe/state=").unwrap();
    assert_eq!(head.interrupted, [MutationId::new("x", "first")]);
}

/// How both are priced: two steps of an hour at most each, and the direct way.
fn costs(head: &Head) -> [u32; 3] {
    let cost = |name| head.engine.graph().mutation(&MutationId::new("x", name));
    ["direct", "first", "second"].map(|name| cost(name).unwrap().cost)
}

#[test]
fn a_way_that_was_left_for_being_slow_is_taken_again_one_day_and_a_restart_does_not_put_that_off() {
    let day = 86_400;
    let mut head = head(CostSource::Learned);
    let took = |head: &mut Head, name: &str, seconds: u64| {
        head.engine.now = head.now;
        let took = Duration::from_secs(seconds);
        head.engine.measure(&MutationId::new("x", name), took);
    };
    for _ in 0..3 {
        took(&mut head, "direct", 200);
        took(&mut head, "first", 30);
        took(&mut head, "second", 30);
    }
    head.sleep(LEARN_EVERY.as_secs());
    assert_eq!(costs(&head), [3 * 256, 32, 32]);
    for month in 1..=4 {
        head.sleep(30 * day);
        took(&mut head, "first", 30);
        took(&mut head, "second", 30);
        head.sleep(LEARN_EVERY.as_secs());
        assert_eq!(costs(&head)[0], 3 * (256 >> month), "{month}");
    }
    assert_eq!(costs(&head), [48, 32, 32]);
    head.add(1, &["/pxe/state=B"]);
    assert_eq!(fired(&mut head), ["x/direct"]);

    let mut again = head.again(Default::default());
    again.engine.set_costs(CostSource::Learned);
    again.input(Input::Declare(declared()));
    assert_eq!(costs(&again), costs(&head));

    // It is as slow as ever: left for four months more.
    took(&mut head, "direct", 200);
    head.sleep(LEARN_EVERY.as_secs());
    assert_eq!(costs(&head), [3 * 256, 32, 32]);
}

#[test]
fn declared_costs_stay_whatever_is_measured() {
    let mut head = head(CostSource::Declared);
    direct_is_quick(&mut head);
    head.sleep(2 * LEARN_EVERY.as_secs());
    head.add(1, &["/pxe/state=B"]);
    assert_eq!(fired(&mut head), ["x/first"]);
    assert_eq!(head.engine.graph().set().mutations[0].cost, 3);
}

#[test]
fn failures_and_interrupts_measure_nothing() {
    let mut head = head(CostSource::Learned);
    for n in 1..=4 {
        head.add(n, &["/pxe/state=B"]);
        let fire = head.fired.pop().unwrap();
        head.input(Input::MutationFailed {
            node: fire.node,
            mutation: fire.mutation,
            attempt: fire.attempt,
            text: "at once".into(),
        });
    }
    head.add(5, &["/pxe/state=B"]);
    head.set(5, "/pxe/state=").unwrap();
    head.sleep(LEARN_EVERY.as_secs() + 1);
    assert_eq!(head.engine.costs.measured, Measured::default());
    let first = head.engine.graph().mutation(&MutationId::new("x", "first"));
    assert_eq!(first.unwrap().cost, 4096);
}

#[test]
fn a_set_that_is_refused_changes_no_costs() {
    let mut head = head(CostSource::Learned);
    let twice = vec![mutation("first", "", "A", 9), mutation("first", "", "A", 9)];
    head.input(Input::Declare(MutationSet {
        mutations: twice,
        ..MutationSet::default()
    }));
    direct_is_quick(&mut head);
    head.sleep(LEARN_EVERY.as_secs() + 1);
    let costs = head.engine.graph().set().mutations.iter();
    assert_eq!(costs.map(|m| m.cost).collect::<Vec<_>>(), [3, 4096, 4096]);
}
