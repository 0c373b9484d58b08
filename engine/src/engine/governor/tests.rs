//! Gates in the order of time, with nodes, limits and mutations made by hand.

use super::*;
use crate::mutation::{MutationContext, UrlChange};
use crate::state::core;

pub(in crate::engine) struct Size(pub(in crate::engine) usize);

impl Sizes for Size {
    fn behind(&self, _: &Gate) -> usize {
        self.0
    }
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn node(n: u8, group: &str) -> Node {
    let mut node = Node::new(
        NodeId::from_bytes([n; 16]),
        format!("n{n}").parse().unwrap(),
        None,
    );
    node.groups.insert(group.to_owned());
    node
}

pub(in crate::engine) fn power(name: &str, to: &str, disruptive: bool) -> Mutation {
    Mutation {
        disruptive,
        ..Mutation::new(
            MutationId::new("power", name),
            MutationContext::Child,
            vec![UrlChange {
                url: core::PHYS_STATE.parse().unwrap(),
                from: vec![None],
                to: Some(to.into()),
            }],
        )
    }
}

fn off() -> Mutation {
    power("ONtoOFF", core::POWER_OFF, true)
}

fn on() -> Mutation {
    power("OFFtoON", core::POWER_ON, false)
}

fn governor(limits: Limits) -> Governor {
    let mut governor = Governor::default();
    governor.limit(limits);
    governor
}

fn at_once(count: u32) -> Limit {
    Limit {
        at_once: Some(count),
        ..Limit::default()
    }
}

/// Passes if it may; else the gate that is shut.
fn ask(governor: &mut Governor, node: &Node, mutation: &Mutation, now: Instant) -> Option<String> {
    let refusal = governor.refusal(node, mutation, &Size(1000), now);
    match refusal {
        Some((gate, _)) => Some(gate.to_string()),
        None => {
            governor.pass(node, mutation, now);
            governor.fired(node.id, &mutation.id);
            None
        }
    }
}

#[test]
fn without_limits_everybody_passes() {
    let mut governor = governor(Limits::default());
    for n in 0..200 {
        assert_eq!(ask(&mut governor, &node(n, "r"), &off(), at(0)), None);
    }
    assert_eq!(governor.slots().count(), 0);
}

#[test]
fn a_slot_is_held_until_the_node_is_released() {
    let mut governor = governor(Limits {
        groups: BTreeMap::from([("r1".to_owned(), at_once(1))]),
        ..Limits::default()
    });
    let (a, b, c) = (node(1, "r1"), node(2, "r1"), node(3, "r2"));
    assert_eq!(ask(&mut governor, &a, &off(), at(0)), None);
    assert_eq!(
        ask(&mut governor, &b, &off(), at(1)).as_deref(),
        Some("@r1")
    );
    assert_eq!(ask(&mut governor, &c, &off(), at(1)), None, "another rack");
    let hang = power("HANGtoOFF", core::POWER_OFF, true);
    assert_eq!(
        ask(&mut governor, &a, &hang, at(2)),
        None,
        "it is disrupted already"
    );
    assert_eq!(
        ask(&mut governor, &b, &on(), at(2)),
        None,
        "no job ends by a power-on"
    );
    governor.release(a.id);
    assert_eq!(ask(&mut governor, &b, &off(), at(3)), None);
}

#[test]
fn an_intent_keeps_its_word_and_gives_back_what_it_took() {
    let mut governor = governor(Limits {
        cluster: Limit {
            at_once: Some(1),
            per_minute: Some(1),
            ..Limit::default()
        },
        ..Limits::default()
    });
    let (a, b) = (node(1, "r"), node(2, "r"));
    governor.pass(&a, &off(), at(0));
    assert_eq!(governor.refusal(&a, &off(), &Size(2), at(0)), None);
    assert!(governor.refusal(&b, &off(), &Size(2), at(0)).is_some());
    governor.give_back(a.id, &off().id);
    assert_eq!(ask(&mut governor, &b, &off(), at(0)), None);
    assert_eq!(
        ask(&mut governor, &a, &off(), at(59)).as_deref(),
        Some("cluster")
    );
}

#[test]
fn counts_and_shares_a_minute() {
    let limit = |per_minute, percent_per_minute| Limit {
        at_once: None,
        per_minute,
        percent_per_minute,
    };
    assert_eq!(limit(None, None).rate(100), None);
    assert_eq!(limit(Some(3), None).rate(100), Some(3));
    assert_eq!(limit(None, Some(25)).rate(1001), Some(251));
    assert_eq!(
        limit(None, Some(25)).rate(4),
        Some(PERCENT_FLOOR),
        "a share of a handful"
    );
    assert_eq!(limit(Some(100), Some(10)).rate(200), Some(20), "both hold");
    let mut governor = governor(Limits {
        cluster: limit(Some(2), None),
        ..Limits::default()
    });
    let mut go = |n, seconds| ask(&mut governor, &node(n, "r"), &off(), at(seconds)).is_none();
    assert!(go(1, 0) && go(2, 10));
    assert!(!go(3, 20) && !go(3, 59));
    assert!(go(3, 60), "the first is a minute ago");
    assert!(!go(4, 61), "the second is not");
    assert!(go(4, 70));
}

#[test]
fn power_on_is_staggered() {
    let mut governor = governor(Limits {
        power_on_gap: Duration::from_millis(10),
        ..Limits::default()
    });
    let (a, b) = (node(1, "r"), node(2, "r"));
    assert_eq!(ask(&mut governor, &a, &on(), at(0)), None);
    assert_eq!(
        ask(&mut governor, &b, &on(), at(0)).as_deref(),
        Some("power-on")
    );
    let due = at(0) + Duration::from_millis(10);
    assert_eq!(ask(&mut governor, &b, &on(), due), None);
    assert_eq!(ask(&mut governor, &b, &off(), due), None);
}

#[test]
fn who_waits_keeps_no_slot_of_a_single_mutation() {
    // One boots and hangs, the other is down and wants to boot: they would wait for each other for ever.
    let mut governor = governor(Limits {
        cluster: at_once(1),
        mutations: BTreeMap::from([("power/OFFtoON".to_owned(), at_once(1))]),
        ..Limits::default()
    });
    let (boots, down) = (node(1, "r"), node(2, "r"));
    assert_eq!(ask(&mut governor, &boots, &on(), at(0)), None);
    assert_eq!(ask(&mut governor, &down, &off(), at(0)), None);
    let (gate, _) = governor.refusal(&down, &on(), &Size(2), at(1)).unwrap();
    governor.wait(gate, &down, at(1));
    let hang = power("HANGtoOFF", core::POWER_OFF, true);
    let (gate, _) = governor.refusal(&boots, &hang, &Size(2), at(2)).unwrap();
    assert_eq!(gate, Gate::Cluster, "which `down` keeps while it waits");
    governor.wait(gate, &boots, at(2));
    let open = |governor: &Governor| {
        governor.next_in_line(|gate| match governor.shut(gate, &Size(2), at(3)) {
            None => Opening::Open,
            Some(_) => Opening::Shut,
        })
    };
    assert_eq!(open(&governor), Some(down.id));
    governor.leave(down.id);
    assert_eq!(ask(&mut governor, &down, &on(), at(3)), None);
    assert_eq!(open(&governor), None);
    governor.release(down.id);
    assert_eq!(open(&governor), Some(boots.id));
}

#[test]
fn queues_are_in_the_order_of_arrival_then_of_names() {
    let mut governor = Governor::default();
    for (n, seconds) in [(7, 1), (3, 1), (5, 0)] {
        governor.wait(Gate::Cluster, &node(n, "r"), at(seconds));
    }
    assert_eq!(governor.ahead(node(7, "r").id), 2);
    let mut order = Vec::new();
    while let Some(next) = governor.next_in_line(|_| Opening::Open) {
        governor.leave(next);
        order.push(next.as_bytes()[0]);
    }
    assert_eq!(order, [5, 3, 7]);
    governor.wait(Gate::Mass, &node(1, "r"), at(0));
    let only = |n: u8| Opening::For(NodeId::from_bytes([n; 16]));
    assert_eq!(governor.next_in_line(|_| Opening::Shut), None);
    assert_eq!(governor.next_in_line(|_| only(2)), None);
    assert_eq!(
        governor.next_in_line(|_| only(1)),
        Some(NodeId::from_bytes([1; 16]))
    );
}
