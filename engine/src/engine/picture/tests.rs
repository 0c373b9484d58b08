//! A picture says what the engine would have said, and goes on saying it.

use super::*;
use crate::engine::tests::{Head, id, one_at_once};

/// Nodes on their way, at rest, held by a limit, and held by a job.
fn head() -> Head {
    let mut head = Head::new();
    for n in 1..=6 {
        let cfg: &[&str] = if n == 6 {
            &[]
        } else {
            &["/PhysState=POWER_ON"]
        };
        head.add(n, cfg);
        head.discover(n, &["/PhysState=POWER_ON"]);
    }
    head.engine.set_guards(one_at_once());
    head.discover(4, &["/RunState=SYNC", "/Busy=BUSY"]);
    for n in 1..=4 {
        head.set(n, "/PhysState=POWER_OFF").unwrap();
    }
    head
}

#[test]
fn a_picture_says_what_the_engine_said_and_stays_as_it_was() {
    let mut head = head();
    let asked: Vec<NodeId> = (1..=6).rev().map(id).collect();
    let picture = head.engine.picture(asked.clone(), head.now);
    let live: Vec<Report> = asked
        .iter()
        .filter_map(|node| head.engine.report(*node, head.now))
        .collect();
    assert_eq!(picture.reports().collect::<Vec<_>>(), live);
    let held = live.iter().filter(|report| !report.holds.is_empty());
    assert!(held.count() >= 3, "{live:#?}");

    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.set(6, "/PhysState=POWER_OFF").unwrap();
    head.sleep(60);
    assert_eq!(picture.reports().collect::<Vec<_>>(), live);
    let later = head.engine.picture(asked, head.now);
    assert_ne!(later.reports().collect::<Vec<_>>(), live);
}

#[test]
fn a_node_that_is_not_there_is_left_out() {
    let head = head();
    let picture = head.engine.picture(vec![id(1), id(99), id(2)], head.now);
    let names: Vec<String> = picture.reports().map(|r| r.name.to_string()).collect();
    assert_eq!(names, ["n1", "n2"]);
}
