//! How limits stretch the time of a group, with limits, groups and steps made by hand.

use std::collections::BTreeSet;

use super::super::governor::tests::Size;
use super::super::governor::{self, Limit, Limits};
use super::*;
use crate::state::NodeId;

fn power(to: &str, disruptive: bool) -> Mutation {
    governor::tests::power(to, to, disruptive)
}

fn limit(at_once: u32, per_minute: u32) -> Limit {
    Limit {
        at_once: (at_once > 0).then_some(at_once),
        per_minute: (per_minute > 0).then_some(per_minute),
        percent_per_minute: None,
    }
}

/// What `count` nodes take, of which one takes half a minute; the first half of them is in a group.
fn check(limits: Limits, count: u8, steps: &[Mutation], seconds: u64) {
    let mut governor = Governor::default();
    governor.limit(limits);
    let mut crowd = Crowd::default();
    for n in 1..=count {
        let id = NodeId::from_bytes([n; 16]);
        let mut node = Node::new(id, format!("n{n}").parse().unwrap(), None);
        if n <= count / 2 {
            node.groups = BTreeSet::from(["rack".to_owned()]);
        }
        crowd.add(&node, &governor);
    }
    let one = Duration::from_secs(30);
    let mut crowds = Crowds::default();
    crowds.add(&crowd, steps.iter(), one);
    let takes = crowds.takes(&crowd, &governor, &Size(100), steps.iter(), one);
    assert_eq!(takes, Duration::from_secs(seconds));
}

#[test]
fn without_limits_all_go_at_once() {
    check(Limits::default(), 200, &[power("POWER_OFF", true)], 30);
}

#[test]
fn so_many_at_once_go_in_waves() {
    let limits = || Limits {
        cluster: limit(4, 0),
        ..Limits::default()
    };
    check(limits(), 4, &[power("POWER_OFF", true)], 30);
    check(limits(), 10, &[power("POWER_OFF", true)], 90);
    // The limit is for what is disruptive.
    check(limits(), 10, &[power("POWER_OFF", false)], 30);
}

#[test]
fn a_rate_lets_the_last_begin_late() {
    let limits = |percent| Limits {
        cluster: Limit {
            percent_per_minute: percent,
            ..limit(0, 0)
        },
        mutations: [("power/POWER_ON".to_owned(), limit(0, 10))].into(),
        ..Limits::default()
    };
    check(limits(None), 10, &[power("POWER_ON", false)], 30);
    check(limits(None), 21, &[power("POWER_ON", false)], 150);
    // 25 of 100 a minute.
    check(limits(Some(25)), 100, &[power("POWER_OFF", true)], 210);
}

#[test]
fn a_group_counts_for_its_nodes_alone() {
    let limits = Limits {
        groups: [("rack".to_owned(), limit(1, 0))].into(),
        ..Limits::default()
    };
    check(limits, 8, &[power("POWER_OFF", true)], 120);
}

#[test]
fn machines_are_switched_on_one_after_the_other() {
    let limits = Limits {
        power_on_gap: Duration::from_secs(2),
        ..Limits::default()
    };
    check(limits, 11, &[power("POWER_ON", false)], 50);
}

#[test]
fn crowds_share_the_limits_that_they_meet_at() {
    let mut governor = Governor::default();
    governor.limit(Limits {
        cluster: limit(2, 0),
        power_on_gap: Duration::from_secs(2),
        ..Limits::default()
    });
    let off = [power("POWER_OFF", true)];
    let off_and_on = [power("POWER_OFF", true), power("POWER_ON", false)];
    let seconds = Duration::from_secs;
    // Five that go off in ten seconds, and four that come back after a minute.
    let (five, four) = [5, 4]
        .map(|nodes| Crowd {
            nodes,
            ..Crowd::default()
        })
        .into();
    let mut crowds = Crowds::default();
    crowds.add(&five, off.iter(), seconds(10));
    let takes = |crowds: &Crowds| crowds.takes(&five, &governor, &Size(9), off.iter(), seconds(10));
    assert_eq!(takes(&crowds), seconds(30));
    crowds.add(&four, off_and_on.iter(), seconds(60));
    // 290 seconds of work for two slots, of which the last minute may begin when all else is done.
    assert_eq!(takes(&crowds), seconds(175));
}
