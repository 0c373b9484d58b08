//! The composition: writes, healing and guard rails on a head whose store answers at once, with modules played by the test.

mod extensions;
mod faults;
mod firing;
mod follow;
pub(super) mod freeze;
mod full_disk;
mod head;
mod permits;
mod rails;

use std::time::Duration;

pub(super) use self::head::*;
use super::*;
use crate::event::{Discovery, Fire, WriteError, WriteOp};
use crate::mutation::{Condition, Mutation, UrlChange};
use crate::scenario::at_once::HEAD;
use crate::state::{Change, NodeName, Value, core};

const BOOT: [&str; 5] = [
    "power/UKtoOFF",
    "power/OFFtoON",
    "pxe/NONEtoWAIT",
    "pxe/WAITtoINIT",
    "core/INITtoSYNC",
];

#[test]
fn an_unknown_node_takes_the_whole_path_once() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    assert_eq!(head.obey(), BOOT);
    assert_eq!(head.dsc(1, core::RUN_STATE), Some("SYNC"));
    head.sleep(600);
    assert!(head.fired().is_empty());
}

#[test]
fn lost_power_is_forgotten_through_and_comes_back_with_one_command_each() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.obey();
    head.sleep(120);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert_eq!(head.dsc(1, core::RUN_STATE), None);
    assert_eq!(head.dsc(1, "/pxe/state"), None);
    assert_eq!(head.obey(), BOOT[1..]);
}

#[test]
fn power_found_on_with_a_live_agent_means_no_power_action() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC", "/PhysState=POWER_ON"]);
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
    head.discover(
        1,
        &["/PhysState=POWER_ON", "/pxe/state=INIT", "/RunState=SYNC"],
    );
    head.sleep(600);
    assert!(head.fired().is_empty());
}

#[test]
fn f31_a_timeout_discovers_fail_to_once_and_backs_off() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert_eq!(head.fired(), ["power/UKtoOFF", "power/OFFtoON"]);
    head.sleep(10);
    assert_eq!(head.dsc(1, core::PHYS_STATE), Some("PHYS_HANG"));
    assert_eq!(head.interrupted.last().unwrap().as_str(), "power/OFFtoON");
    assert_eq!(head.fired(), ["power/HANGtoOFF"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    assert!(head.fired().is_empty(), "the failed step waits");
    head.sleep(6);
    assert_eq!(head.fired(), ["power/OFFtoON"]);
}

#[test]
fn a_step_that_always_fails_parks_the_node_until_released() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    for _ in 0..200 {
        head.sleep(1);
        head.let_fail("no answer");
    }
    let parked = |head: &Head| {
        head.events
            .iter()
            .filter(|event| matches!(event, Event::Parked { .. }))
            .count()
    };
    assert_eq!(parked(&head), 1);
    let goes_on = Event::Unparked { node: id(1) };
    assert!(!head.events.contains(&goes_on));
    head.input(Input::Release(vec![id(1)]));
    assert!(head.events.contains(&goes_on));
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
}

#[test]
fn f31_an_answer_to_an_earlier_attempt_changes_nothing() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    let first = head.fired.pop().unwrap();
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.fired.clear();
    head.input(Input::MutationFailed {
        node: id(1),
        mutation: first.mutation,
        attempt: first.attempt,
        text: "late".into(),
    });
    head.sleep(1);
    assert!(head.fired().is_empty());
    assert!(head.interrupted.is_empty());
}

#[test]
fn f30_a_changed_goal_interrupts_once() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.fired.clear();
    head.interrupted.clear();
    head.set(1, "/PhysState=POWER_OFF").unwrap();
    assert_eq!(head.interrupted.len(), 1);
    head.sleep(60);
    assert_eq!(head.interrupted.len(), 1);
    assert!(
        head.fired().is_empty(),
        "off is what is wanted, and sync waits for power"
    );
}

#[test]
fn frozen_nodes_and_clusters_start_nothing() {
    let mut head = Head::new();
    head.write(vec![WriteOp::FreezeCluster(true)]).unwrap();
    head.add(1, &["/RunState=SYNC"]);
    head.sleep(60);
    assert!(head.fired().is_empty());
    head.write(vec![
        WriteOp::FreezeCluster(false),
        WriteOp::Freeze {
            node: id(1),
            frozen: true,
        },
    ])
    .unwrap();
    head.sleep(60);
    assert!(head.fired().is_empty());
    head.write(vec![WriteOp::Freeze {
        node: id(1),
        frozen: false,
    }])
    .unwrap();
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
}

#[test]
fn busy_holds_what_is_disruptive_even_if_the_module_forgot() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_OFF"]);
    head.discover(1, &["/PhysState=PHYS_HANG", "/Busy=BUSY"]);
    head.fired.clear();
    head.sleep(60);
    assert!(head.fired().is_empty());
    head.discover(1, &["/Busy="]);
    assert_eq!(head.fired(), ["power/HANGtoOFF"]);
}

#[test]
fn f08_after_a_restart_nothing_disruptive_fires_on_what_was_in_sync() {
    let mut kept = Node::new(id(1), "n1".parse().unwrap(), Some(HEAD));
    kept.cfg.apply([change("/RunState=SYNC")]);
    kept.last_known
        .dsc
        .apply([change("/RunState=SYNC"), change("/Busy=BUSY")]);
    let mut head = Head::with_nodes(&[kept]);
    head.discover(1, &["/PhysState=POWER_ON"]);
    head.sleep(3600);
    let fired = head.fired();
    assert!(
        !fired
            .iter()
            .any(|name| name.ends_with("toOFF") && name != "power/UKtoOFF"),
        "{fired:?}"
    );
}

#[test]
fn writes_are_whole_checked_and_numbered() {
    let mut head = Head::new();
    head.add(1, &["/ipv4/boot/mac=52:54:00:00:00:01"]);
    head.add(2, &[]);
    let before = head.engine.revision();
    let taken = head.write(vec![
        WriteOp::Set {
            node: id(2),
            changes: vec![change("/RunState=SYNC")],
        },
        WriteOp::Set {
            node: id(2),
            changes: vec![change("/ipv4/boot/mac=52:54:00:00:00:01")],
        },
    ]);
    assert!(
        matches!(&taken, Err(WriteError::Taken(text)) if text.contains("n1") && text.contains("n2")),
        "{taken:?}"
    );
    assert_eq!(head.engine.revision(), before);
    assert!(
        head.engine.tree().get(id(2)).unwrap().cfg.is_empty(),
        "nothing of a refused write stays"
    );
    head.set(1, "/ipv4/boot/mac=52:54:00:00:00:02").unwrap();
    assert_eq!(
        head.set(2, "/ipv4/boot/mac=52:54:00:00:00:01")
            .unwrap()
            .revision,
        before + 2
    );
    assert!(matches!(
        head.set(2, "/nonsense=1"),
        Err(WriteError::Invalid(_))
    ));
    assert!(matches!(
        head.set(9, "/RunState=SYNC"),
        Err(WriteError::NoSuchNode(_))
    ));
}

#[test]
fn f05_a_failed_commit_changes_nothing_and_says_so() {
    let mut head = Head::new();
    let node = Node::new(id(1), "n1".parse().unwrap(), None);
    head.submit(vec![WriteOp::Add(Box::new(node))]);
    let Some(Output::Commit { commit, .. }) = head.engine.poll_output() else {
        panic!("a write has to be committed");
    };
    let result = Err(crate::event::CommitError::DiskFull);
    head.input(Input::Committed { commit, result });
    assert!(matches!(
        head.written.pop(),
        Some(Err(WriteError::Store(_)))
    ));
    assert_eq!(head.engine.tree().len(), 1);
    head.add(1, &[]);
    assert_eq!(head.engine.tree().len(), 2);
}

#[test]
fn f24_a_deleted_node_is_interrupted_and_gone() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    assert_eq!(head.fired(), ["power/UKtoOFF"]);
    head.write(vec![WriteOp::Delete(id(1))]).unwrap();
    assert_eq!(head.interrupted.len(), 1);
    head.sleep(600);
    assert!(head.fired().is_empty());
    assert!(head.write(vec![WriteOp::Delete(HEAD)]).is_err());
}
