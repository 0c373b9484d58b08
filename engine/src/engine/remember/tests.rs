//! A head that is killed and started again: what it still knows, and what it does not do.

use super::*;
use crate::engine::governor::{Governor, Limit, Limits};
use crate::engine::tests::{Head, change, id, one_at_once};
use crate::engine::{Breaking, Guards};
use crate::event::{Fire, Input, Lift, WriteOp};
use crate::mutation::report::Outcome;
use crate::state::Node;

const ON: &str = "power/OFFtoON";

fn fired(head: &mut Head) -> Vec<String> {
    let fired = head.fired.drain(..);
    let fired = fired.map(|fire| format!("{} {}", fire.name, fire.mutation));
    fired.collect()
}

fn fails(head: &mut Head, fire: Fire) {
    head.input(Input::MutationFailed {
        node: fire.node,
        mutation: fire.mutation,
        attempt: fire.attempt,
        text: "no answer".into(),
    });
}

/// Nodes that are off and shall be on.
fn off(head: &mut Head, nodes: std::ops::RangeInclusive<u8>) {
    for n in nodes {
        head.add(n, &["/PhysState=POWER_ON"]);
        head.discover(n, &["/PhysState=POWER_OFF"]);
    }
}

fn holds(head: &Head, n: u8) -> Vec<&'static str> {
    let report = head.engine.report(id(n), head.now).unwrap();
    report.holds.iter().map(|hold| hold.kind).collect()
}

#[test]
fn attempts_are_kept_and_a_parked_node_stays_parked() {
    let mut head = Head::new();
    head.add(1, &[]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.set(1, "/PhysState=POWER_ON").unwrap();
    for _ in 0..3 {
        while head.fired.is_empty() {
            head.sleep(1);
        }
        let fire = head.fired.pop().unwrap();
        fails(&mut head, fire);
    }
    head.sleep(3);
    let history = |head: &Head| {
        let report = head.engine.report(id(1), head.now).unwrap();
        let attempts = report.history.into_iter();
        let attempts = attempts.map(|tried| (tried.attempt, tried.text, tried.age));
        (report.outcome, report.reason, attempts.collect::<Vec<_>>())
    };
    let (outcome, reason, before) = history(&head);
    assert_eq!((outcome, before.len()), (Outcome::Parked, 3));

    let mut again = head.again(Guards::default());
    again.discover(1, &["/PhysState=POWER_OFF"]);
    let (outcome, same, after) = history(&again);
    assert_eq!((outcome, same), (Outcome::Parked, reason));
    // The helper lets the time pass in which a fresh head holds back.
    let older = before.into_iter();
    let older = older.map(|(n, text, age)| (n, text, age + Duration::from_secs(60)));
    assert_eq!(after, older.collect::<Vec<_>>());
    again.sleep(7200);
    assert_eq!(fired(&mut again), Vec::<String>::new());

    // Released, it stays released.
    again.input(Input::Retry(vec![id(1)]));
    assert_eq!(fired(&mut again), [format!("n1 {ON}")]);
    again.sleep(3);
    let told = again.memos.iter().map(|(_, memo)| memo);
    let parked = told.filter(|memo| matches!(memo, Memo::Parked { .. }));
    let not = Memo::Parked {
        node: id(1),
        parked: None,
    };
    assert_eq!(parked.collect::<Vec<_>>().last(), Some(&&not));
}

#[test]
fn an_open_breaker_stays_open_until_its_time() {
    let guards = || Guards {
        breaking: Breaking {
            failures: 2,
            of: 4,
            retry: Duration::from_secs(600),
        },
        ..Guards::default()
    };
    let mut head = Head::new();
    head.engine.set_guards(guards());
    off(&mut head, 1..=2);
    for fire in std::mem::take(&mut head.fired) {
        fails(&mut head, fire);
    }
    head.sleep(200);
    assert_eq!(head.engine.rails_report().open_breakers.len(), 1);

    let mut again = head.again(guards());
    again.fired.clear();
    off(&mut again, 3..=3);
    assert_eq!(fired(&mut again), Vec::<String>::new());
    assert_eq!(holds(&again, 3), ["breaker"]);
    // 200 s passed before the restart, 60 s in the helper.
    again.sleep(600 - 260 - 5);
    assert_eq!(fired(&mut again), Vec::<String>::new());
    again.sleep(10);
    assert!(fired(&mut again).contains(&format!("n3 {ON}")));

    // What an operator closed stays closed.
    let mut lifted = head.again(guards());
    let breaker = MutationId::new("power", "OFFtoON");
    lifted.input(Input::Lift(Lift::Breaker(breaker)));
    lifted.sleep(3);
    lifted.memos.splice(0..0, head.memos);
    let mut third = lifted.again(guards());
    third.fired.clear();
    off(&mut third, 3..=3);
    assert_eq!(fired(&mut third), [format!("n3 {ON}")]);
}

#[test]
fn a_slot_is_held_over_a_restart() {
    let mut head = Head::new();
    head.engine.set_guards(one_at_once());
    for n in [1, 2] {
        head.add(n, &[]);
        head.discover(n, &["/PhysState=POWER_ON"]);
    }
    head.set(2, "/PhysState=POWER_OFF").unwrap();
    head.set(1, "/PhysState=POWER_OFF").unwrap();
    assert_eq!(fired(&mut head), ["n2 power/ONtoOFF"]);
    head.sleep(3);

    let mut again = head.again(one_at_once());
    again.fired.clear();
    // The one that has no slot is heard first.
    again.discover(1, &["/PhysState=POWER_ON"]);
    assert_eq!(fired(&mut again), Vec::<String>::new());
    assert_eq!(holds(&again, 1), ["governor"]);
    again.discover(2, &["/PhysState=POWER_ON"]);
    assert_eq!(fired(&mut again), ["n2 power/ONtoOFF"]);
    again.discover(2, &["/PhysState=POWER_OFF"]);
    assert_eq!(fired(&mut again), ["n1 power/ONtoOFF"]);
}

#[test]
fn a_minute_is_a_minute_over_a_restart() {
    let guards = || Guards {
        limits: Limits {
            mutations: [(
                ON.to_owned(),
                Limit {
                    per_minute: Some(2),
                    ..Limit::default()
                },
            )]
            .into(),
            ..Limits::default()
        },
        ..Guards::default()
    };
    let ages = |head: &Head| {
        let told = head.memos.iter().filter_map(|(_, memo)| match memo {
            Memo::Limit { name, passed, .. } if name == ON => Some(passed.clone()),
            _ => None,
        });
        told.collect::<Vec<_>>().pop()
    };
    let mut head = Head::new();
    head.engine.set_guards(guards());
    off(&mut head, 1..=2);
    head.sleep(3);
    assert_eq!(ages(&head), Some(vec![AFTER, AFTER]));

    let mut engine = Governor::default();
    engine.limit(guards().limits);
    let (now, node) = (head.now, Node::new(id(3), "n3".parse().unwrap(), None));
    let passed = [AFTER, Duration::from_secs(61)];
    engine.restore(ON, &[], &passed, now);
    let on = head
        .engine
        .graph()
        .mutation(&MutationId::new("power", "OFFtoON"));
    let on = on.unwrap();
    // The other one is more than a minute ago: one may pass.
    assert!(engine.refusal(&node, on, &head.engine.rails, now).is_none());
    engine.restore(ON, &[], &[AFTER, AFTER], now);
    let (_, shut) = engine.refusal(&node, on, &head.engine.rails, now).unwrap();
    assert_eq!(shut.opens(), Some(now + Duration::from_secs(60) - AFTER));
}

#[test]
fn measured_times_are_kept() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.sleep(4);
    head.discover(1, &["/PhysState=POWER_ON"]);
    head.sleep(3);

    let mut again = head.again(Guards::default());
    again.add(2, &[]);
    again.discover(2, &["/PhysState=POWER_OFF"]);
    let ops = [WriteOp::Set {
        node: id(2),
        changes: vec![change("/PhysState=POWER_ON")],
    }];
    let what = again.engine.what_if(&ops, &[], again.now).unwrap();
    let estimate = what.groups[0].estimate.to_string();
    assert_eq!(estimate, "about 4 s (measured), 1 power-on");
}

#[test]
fn a_storm_is_told_in_one_go() {
    let mut head = Head::new();
    off(&mut head, 1..=50);
    head.sleep(3);
    head.memos.clear();
    head.obey();
    head.sleep(2);
    let times = head
        .memos
        .iter()
        .filter(|(_, memo)| matches!(memo, Memo::Times { .. }));
    let attempts = head
        .memos
        .iter()
        .filter(|(_, memo)| matches!(memo, Memo::Attempt { .. }));
    assert_eq!((times.count(), attempts.count()), (1, 50));
    // Breakers that never saw a failure are not told of.
    assert!(
        !head
            .memos
            .iter()
            .any(|(_, memo)| matches!(memo, Memo::Breaker { .. }))
    );
}
