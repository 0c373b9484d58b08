//! A dry run changes nothing and tells what the write then does, for random trees, limits and writes.

use proptest::prelude::*;

use super::*;
use crate::engine::tests::freeze::freeze;
use crate::engine::{Breaking, Runtime};
use crate::event::Input;
use crate::state::core;

/// Everything of an engine that anybody can notice, as text.
fn seen(engine: &Engine) -> String {
    let runtimes = engine.runtimes.iter().map(|(id, runtime)| {
        let Runtime {
            progress,
            plan,
            confirmed,
            silent_since,
            goes_on,
            ..
        } = runtime;
        (
            *id,
            format!("{progress:?} {plan:?} {confirmed} {silent_since:?} {goes_on}"),
        )
    });
    let runtimes: Vec<_> = runtimes.collect();
    let nodes: Vec<&Node> = engine.tree.iter().collect();
    let counters = (
        engine.revision,
        engine.frozen.clone(),
        engine.last_attempt,
        engine.frozen_revision,
        engine.now,
    );
    let plans = engine.planner.searches();
    format!(
        "{nodes:?} {counters:?} {runtimes:?} {:?} {:?} {:?} {:?} {plans}",
        engine.costs,
        engine.dirty,
        engine.timers.next(),
        engine.outputs
    )
}

/// What a dry run says that holds a node before what comes next for it, and what explain says.
fn held(
    head: &Head,
    group: &PlanGroup,
    name: &NodeName,
    report: &Report,
) -> [Vec<&'static str>; 2] {
    let plan = &head.engine.runtimes[&report.node].plan;
    let is_end = |mutation: &MutationId| plan.end_of_drain() == Some(mutation);
    let next = report.steps.iter().filter(|step| step.after.is_empty());
    let next: Vec<&MutationId> = next.map(|step| &step.mutation).collect();
    let kinds = |is_meant: &dyn Fn(&MutationId) -> bool| -> BTreeSet<&'static str> {
        let holds = group.holds.iter().filter(|held| held.nodes.contains(name));
        let holds = holds.filter(|held| held.mutation.as_ref().is_some_and(is_meant));
        holds.map(|held| held.hold.kind).collect()
    };
    let mut told = kinds(&|mutation| next.contains(&mutation));
    if told.is_empty()
        && head
            .engine
            .rails
            .withheld_end(
                head.engine.tree.get(report.node).unwrap(),
                plan,
                head.engine.graph(),
            )
            .is_some()
    {
        told = kinds(&is_end);
    }
    let real: BTreeSet<&'static str> = report.holds.iter().map(|hold| hold.kind).collect();
    [told.into_iter().collect(), real.into_iter().collect()]
}

const VALUES: [&str; 12] = [
    "/PhysState=",
    "/PhysState=POWER_OFF",
    "/PhysState=POWER_ON",
    "/PhysState=PHYS_HANG",
    "/RunState=",
    "/RunState=INIT",
    "/RunState=SYNC",
    "/pxe/state=",
    "/pxe/state=WAIT",
    "/pxe/state=INIT",
    "/Busy=BUSY",
    "/Busy=",
];

#[derive(Clone, Debug)]
enum Deed {
    Discover(u8, usize),
    Set(u8, usize),
    Freeze(u8, bool),
    FreezeAll(bool),
    Delete(u8),
    Add(u8, usize),
    Reboot(u8),
    Group(u8, bool),
    FreezeGroup(bool),
    Limit(usize, u32),
    Fail,
    Sleep(u64),
    Obey,
}

/// Random guard rails: one limit, and a breaker that opens soon.
fn guards(kind: usize, count: u32) -> Guards {
    let is_rate = kind % 2 == 1;
    let limit = Limit {
        at_once: (!is_rate).then_some(count),
        per_minute: is_rate.then_some(count),
        percent_per_minute: None,
    };
    let mut limits = Limits::default();
    match kind / 2 {
        0 => limits.cluster = limit,
        1 => drop(limits.groups.insert("rack".into(), limit)),
        2 => drop(limits.mutations.insert("power/OFFtoON".into(), limit)),
        _ => limits.power_on_gap = Duration::from_secs(u64::from(count) * 5),
    }
    let breaking = Breaking {
        failures: 2,
        ..Breaking::default()
    };
    Guards {
        limits,
        breaking,
        mass_percent: None,
    }
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let value = 0..VALUES.len();
    prop_oneof![
        4 => (1..5_u8, value.clone()).prop_map(|(n, at)| Deed::Discover(n, at)),
        4 => (1..5_u8, 0..10_usize).prop_map(|(n, at)| Deed::Set(n, at)),
        1 => (1..5_u8, any::<bool>()).prop_map(|(n, frozen)| Deed::Freeze(n, frozen)),
        1 => any::<bool>().prop_map(Deed::FreezeAll),
        1 => (1..5_u8).prop_map(Deed::Delete),
        1 => (1..7_u8, value).prop_map(|(n, at)| Deed::Add(n, at)),
        1 => (1..5_u8).prop_map(Deed::Reboot),
        1 => (1..5_u8, any::<bool>()).prop_map(|(n, add)| Deed::Group(n, add)),
        1 => any::<bool>().prop_map(Deed::FreezeGroup),
        2 => (0..7_usize, 1..3_u32).prop_map(|(kind, count)| Deed::Limit(kind, count)),
        1 => Just(Deed::Fail),
        1 => (1..40_u64).prop_map(Deed::Sleep),
        1 => Just(Deed::Obey),
    ]
}

impl Deed {
    fn as_op(&self) -> Option<WriteOp> {
        match self {
            Self::Set(n, at) => Some(set(*n, &[VALUES[*at]])),
            Self::Freeze(n, frozen) => Some(WriteOp::Freeze {
                node: id(*n),
                frozen: *frozen,
            }),
            Self::FreezeAll(frozen) => Some(WriteOp::FreezeCluster(*frozen)),
            Self::Delete(n) => Some(WriteOp::Delete(id(*n))),
            Self::Add(n, at) => {
                let mut node = Node::new(id(*n), format!("n{n}").parse().unwrap(), None);
                node.cfg.apply([change(VALUES[*at])]);
                Some(WriteOp::Add(Box::new(node)))
            }
            Self::Reboot(n) => Some(reboot(*n)),
            Self::Group(n, true) => Some(groups(*n, &["rack"], &[])),
            Self::Group(n, false) => Some(groups(*n, &[], &["rack"])),
            Self::FreezeGroup(frozen) => Some(freeze("rack", *frozen)),
            Self::Discover(..) | Self::Limit(..) | Self::Fail | Self::Sleep(_) | Self::Obey => None,
        }
    }

    fn act(&self, head: &mut Head) {
        match self {
            Self::Discover(n, at) => head.discover(*n, &[VALUES[*at]]),
            Self::Sleep(seconds) => head.sleep(*seconds),
            Self::Obey => {
                head.obey();
            }
            Self::Limit(kind, count) => {
                head.engine.set_guards(guards(*kind, *count));
                // Whoever waits hears of it with the next input.
                head.input(Input::Retry(Vec::new()));
            }
            Self::Fail => drop(head.let_fail("no answer")),
            // A write that is refused is as good a case as one that is not.
            deed => drop(deed.as_op().map(|op| head.write(vec![op]))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_dry_run_changes_nothing_and_comes_true(
        past in prop::collection::vec(any_deed(), 0..20),
        deeds in prop::collection::vec(any_deed(), 1..6),
    ) {
        let mut head = Head::new();
        for n in 1..=4 {
            head.add(n, &[]);
        }
        past.iter().for_each(|deed| deed.act(&mut head));
        // A node that is off has its reboot behind it at once, by a write of the head's own that nobody rehearses.
        let is_off = |n: u8| {
            let node = head.engine.tree.get(id(n));
            node.is_some_and(|node| node.dsc.text(core::PHYS_STATE) == Some(core::POWER_OFF))
        };
        let is_over = |deed: &&Deed| matches!(deed, Deed::Reboot(n) if is_off(*n));
        let ops: Vec<WriteOp> = deeds.iter().filter(|deed| !is_over(deed)).filter_map(Deed::as_op).collect();
        prop_assume!(!ops.is_empty());
        let all: Vec<NodeId> = (1..=6).map(id).collect();

        let before = seen(&head.engine);
        let what = head.engine.what_if(&ops, &all, head.now);
        prop_assert_eq!(&seen(&head.engine), &before);
        // Asked twice, answered alike.
        prop_assert_eq!(&head.engine.what_if(&ops, &all, head.now), &what);

        head.interrupted.clear();
        let really = head.write(ops);
        let what = match (what, really) {
            (Ok(what), Ok(_)) => what,
            (what, really) => {
                prop_assert_eq!(what.err(), really.err());
                return Ok(());
            }
        };
        let planned: usize = what.groups.iter().map(|group| group.nodes.len()).sum();
        prop_assert_eq!(planned, head.engine.tree.len() - 1);
        let mut interrupts = 0;
        for group in &what.groups {
            interrupts += group.interrupts.len() * group.nodes.len();
            let mut all_held = true;
            for name in &group.nodes {
                let node = head.engine.tree.by_name(name).unwrap().id;
                let report = head.engine.report(node, head.now).unwrap();
                let [told, real] = held(&head, group, name, &report);
                prop_assert_eq!((name, told), (name, real), "{}", report);
                all_held &= report.outcome == Outcome::Held;
                let real: Vec<String> = report.steps.iter().map(|step| step.mutation.to_string()).collect();
                prop_assert_eq!((name, steps(group)), (name, real));
                if matches!(group.report.outcome, Outcome::NoPath | Outcome::Converged) {
                    prop_assert_eq!((group.report.outcome, &group.report.reason), (report.outcome, &report.reason));
                }
            }
            prop_assert_eq!(group.report.outcome == Outcome::Held, all_held);
        }
        // A deleted node's running step is interrupted, too, and has no plan to be told with.
        prop_assert!(head.interrupted.len() >= interrupts);
        for (cell, (_, is)) in &what.changes {
            prop_assert_eq!(&cell.get(&head.engine.tree, &head.engine.frozen), is);
        }
    }
    #[test]
    fn a_dry_run_of_a_retry_or_release_changes_nothing_and_comes_true(
        past in prop::collection::vec(any_deed(), 0..30),
        release in any::<bool>(),
        chosen in prop::collection::btree_set(1..5_u8, 1..4),
    ) {
        let mut head = Head::new();
        for n in 1..=4 {
            head.add(n, &[]);
        }
        for deed in &past {
            deed.act(&mut head);
            head.let_fail("no answer");
        }
        let nodes: Vec<NodeId> = chosen.into_iter().map(id).collect();
        let how = if release { Again::Release } else { Again::Retry };

        let before = seen(&head.engine);
        let what = head.engine.what_if_again(how, &nodes, head.now);
        prop_assert_eq!(&seen(&head.engine), &before);

        head.input(if release { Input::Release(nodes) } else { Input::Retry(nodes) });
        for group in &what.groups {
            for name in &group.nodes {
                let node = head.engine.tree.by_name(name).unwrap().id;
                let report = head.engine.report(node, head.now).unwrap();
                let [told, real] = held(&head, group, name, &report);
                prop_assert_eq!((name, told), (name, real), "{}", report);
                let real: Vec<String> = report.steps.iter().map(|step| step.mutation.to_string()).collect();
                prop_assert_eq!((name, steps(group)), (name, real));
                if matches!(group.report.outcome, Outcome::Held | Outcome::NoPath | Outcome::Converged | Outcome::Parked) {
                    prop_assert_eq!((name, group.report.outcome), (name, report.outcome));
                }
            }
        }
    }
}
