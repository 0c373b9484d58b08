//! One small set for each kind of doubt, and sets that are in order.

use super::super::tests::{mutation, set};
use super::*;
use crate::mutation::{Condition, Dependency, Mutation, MutationSet, NumberRange};
use crate::state::Change;
use std::time::Duration;

#[track_caller]
fn check_set(set: &MutationSet, expect: &[&str]) {
    let graph = MutationGraph::new(set).unwrap();
    let lints: Vec<String> = lint(&graph).iter().map(ToString::to_string).collect();
    assert_eq!(lints, expect);
}

#[track_caller]
fn check(mutations: Vec<Mutation>, expect: &[&str]) {
    check_set(&set(mutations), expect);
}

/// `/a` goes round, so that it is no trap.
fn round(url: &str) -> Vec<Mutation> {
    let m = |name: &str, change: &str| {
        let name = format!("m/{name}{}", url.trim_start_matches('/'));
        mutation(&name, &format!("{url}:{change}"), "", "", 1)
    };
    vec![m("IN", ">1"), m("ON", "1>2"), m("BACK", "2>1")]
}

fn with(mut mutations: Vec<Mutation>, more: Vec<Mutation>) -> Vec<Mutation> {
    mutations.extend(more);
    mutations
}

fn fails_to(mut mutation: Mutation, url: &str, value: &str) -> Mutation {
    mutation.timeout = Some(Duration::from_secs(1));
    mutation.fail_to = vec![Change::set(url.parse().unwrap(), value.into())];
    mutation
}

#[test]
fn a_set_in_order_has_no_lints() {
    check(Vec::new(), &[]);
    check(round("/a"), &[]);
}

#[test]
fn a_mutation_that_contradicts_itself_never_fires() {
    check(
        with(
            round("/a"),
            vec![mutation("m/X", "/a:1>2", "/Arch=x86", "/Arch=x86|arm", 1)],
        ),
        &[
            "warn: m/X can never fire because what it demands of /Arch contradicts itself: requires /Arch=x86 and excludes /Arch=arm or x86; correct its from, requires and excludes [never-fires]",
        ],
    );
    check(
        with(round("/a"), vec![mutation("m/X", "/a:2>2", "", "", 1)]),
        &[
            "warn: m/X can never fire because it changes nothing: its `from` and `to` are the same [never-fires]",
        ],
    );
    let mut compared = mutation("m/X", "/a:1>2", "", "", 1);
    let heat: StateUrl = "/heat".parse().unwrap();
    compared.requires = vec![Condition::number(
        heat.clone(),
        NumberRange::AtLeast(90.into()),
    )];
    compared.excludes = vec![Condition::number(heat, NumberRange::AtLeast(80.into()))];
    check(
        with(round("/a"), vec![compared]),
        &[
            "warn: m/X can never fire because what it demands of /heat contradicts itself: requires /heat of at least 90 and excludes /heat of at least 80; correct its from, requires and excludes [never-fires]",
        ],
    );
}

#[test]
fn a_value_that_nothing_sets_is_named_with_the_nearest_spelling() {
    let mut mutations = vec![
        mutation("m/IN", "/a:>idle", "", "", 1),
        mutation("m/ON", "/a:idle>active", "", "", 1),
        mutation("m/OFF", "/a:active>idle", "", "", 1),
        mutation("m/X", "/a:actve>idle", "", "", 1),
    ];
    check(
        mutations.clone(),
        &[
            "warn: m/X can never fire because it starts from /a=actve, which nothing sets (did you mean active?); correct the value, or list /a in discoverables if a module reports it [never-fires]",
        ],
    );
    // Cfg, a module or a timeout may set it.
    mutations[3] = mutation("m/X", "/a:active>idle", "/site=lab", "/Busy=BUSY", 2);
    mutations[2] = mutation("m/OFF", "/a:active>idle", "/site=home", "", 1);
    check(mutations, &[]);
    let mut declared = set(with(
        round("/a"),
        vec![mutation("m/X", "/a:3>1", "", "", 1)],
    ));
    declared.discoverables = vec!["/a".parse().unwrap()];
    check_set(&declared, &[]);
    let hang = fails_to(mutation("m/T", "/a:2>1", "/why=not", "", 2), "/a", "hang");
    let out = mutation("m/X", "/a:hang>1", "", "", 1);
    let mut rest = round("/a");
    rest[2].requires = vec![Condition::is("/why".parse().unwrap(), "so")];
    check(with(rest, vec![hang, out]), &[]);
}

#[test]
fn an_island_is_told_from_a_slip_of_the_pen() {
    check(
        with(
            round("/a"),
            vec![
                mutation("m/THERE", "/b:1>2", "", "", 1),
                mutation("m/THEN", "/b:2>1", "", "", 1),
            ],
        ),
        &[
            "note: m/THEN can never fire because it starts from /b=2, which only m/THERE would set, and nothing leads there from unknown: add a mutation that finds /b out, or list it in discoverables if a module reports it [island]",
            "note: m/THERE can never fire because it starts from /b=1, which only m/THEN would set, and nothing leads there from unknown: add a mutation that finds /b out, or list it in discoverables if a module reports it [island]",
        ],
    );
}

#[test]
fn values_that_are_never_left_are_traps_and_failures_worse() {
    check(
        vec![mutation("m/IN", "/a:>1", "", "", 1)],
        &[
            "note: value 1 of /a can be entered, by m/IN, but never left: declare a mutation from it, unless it is meant to be final [trap]",
        ],
    );
    let no_way_out = "warn: /a=FATAL is a failure that no mutation leads out of, so a node that gets there stays there: declare a mutation from it, such as one that switches power off [no-way-out]";
    let fatal = fails_to(mutation("m/X", "/a:2>1", "/why=not", "", 2), "/a", "FATAL");
    let mut rest = round("/a");
    rest[2].requires = vec![Condition::is("/why".parse().unwrap(), "so")];
    check(with(rest.clone(), vec![fatal.clone()]), &[no_way_out]);
    // A value that says so in words, though a mutation sets it.
    check(
        with(rest.clone(), vec![mutation("m/X", "/a:1>FATAL", "", "", 1)]),
        &[no_way_out],
    );
    check(
        with(
            rest.clone(),
            vec![fatal.clone(), mutation("m/OUT", "/a:FATAL>1", "", "", 1)],
        ),
        &[],
    );
    // The engine itself discovers this one.
    let silent = "warn: /RunState=ERROR is a failure that no mutation leads out of, so a node that gets there stays there: declare a mutation from it, such as one that switches power off [no-way-out]";
    check(round("/RunState"), &[silent]);
    // It is forgotten when that on which it hangs goes.
    let mut declared = set(with(round("/RunState"), round("/a")));
    declared.dependencies = vec![Dependency {
        url: "/RunState".parse().unwrap(),
        conditions: vec![Condition::is("/a".parse().unwrap(), "1")],
    }];
    check_set(&declared, &[]);
}

#[test]
fn what_ends_jobs_must_be_marked() {
    let power = |disruptive| {
        let mut power = vec![
            mutation("p/FIND", "/PhysState:>POWER_OFF", "", "", 1),
            mutation("p/ON", "/PhysState:POWER_OFF>POWER_ON", "", "", 1),
            mutation("p/OFF", "/PhysState:|POWER_ON>POWER_OFF", "", "", 2),
        ];
        power[2].disruptive = disruptive;
        power[0].requires = vec![Condition::is("/x".parse().unwrap(), "1")];
        power[2].excludes = vec![Condition::is("/x".parse().unwrap(), "1")];
        power
    };
    check(power(true), &[]);
    check(
        power(false),
        &[
            "warn: p/OFF takes /PhysState away from POWER_ON but is not marked disruptive; it counts as such all the same, so say it: add disruptive = true [not-disruptive]",
        ],
    );
}

#[test]
fn f29_rivals_are_named_with_the_winner() {
    let rivals = |id: &str, cost, requires: &str| {
        with(
            round("/a"),
            vec![mutation(id, "/a:2|5>1 ", requires, "", cost)],
        )
    };
    // m/BACKa does the same.
    check(
        rivals("n/X", 1, ""),
        &[
            "warn: m/BACKa and n/X claim the same change, /a 2 -> 1: where both could fire m/BACKa is taken, as it comes first by name, and never n/X; let their requires or excludes differ, or leave one out [same-change]",
        ],
    );
    check(
        rivals("n/X", 0, "/site=lab"),
        &[
            "warn: m/BACKa and n/X claim the same change, /a 2 -> 1: where both could fire n/X is taken, as it costs less, and never m/BACKa; let their requires or excludes differ, or leave one out [same-change]",
        ],
    );
    // Two ways of one module at different costs were thought about.
    check(
        rivals("m/X", 3, ""),
        &[
            "note: m/BACKa and m/X claim the same change, /a 2 -> 1: where both could fire m/BACKa is taken, as it costs less, and never m/X; let their requires or excludes differ, or leave one out [same-change]",
        ],
    );
    // Never both at once.
    let mut apart = rivals("n/X", 1, "/site=lab");
    apart[2].excludes = vec![Condition::is("/site".parse().unwrap(), "lab")];
    check(apart, &[]);
    let mut compared = rivals("n/X", 1, "");
    let url: StateUrl = "/heat".parse().unwrap();
    compared[2].requires = vec![Condition::number(
        url.clone(),
        NumberRange::AtLeast(90.into()),
    )];
    compared[3].requires = vec![Condition::number(
        url,
        NumberRange::Between(1.into(), 89.into()),
    )];
    check(compared, &[]);
    // What changes more is another change.
    let more = with(
        with(round("/a"), round("/b")),
        vec![mutation("n/X", "/a:2>1 /b:1>2", "", "", 1)],
    );
    check(more, &[]);
}

#[test]
fn modules_that_find_out_one_url_and_contradict_each_other_are_named() {
    let found = |id: &str, requires: &str| {
        let mut finders = with(round("/a"), vec![mutation(id, "/a:>2", "", "", 1)]);
        finders[3].requires = super::super::tests::conditions(requires);
        finders
    };
    let told = "warn: m/INa and n/X both find out /a where it is unknown, and expect different values, 1 and 2: whichever a node's goal needs looks, \
        and they may contradict each other; let their requires or excludes differ, or leave it to one module [two-finders]";
    check(found("n/X", ""), &[told]);
    check(found("n/X", "/site=lab"), &[told]);
    // Of one module that is a choice, and so are different nodes.
    check(found("m/X", ""), &[]);
    let mut apart = found("n/X", "/site=lab");
    apart[0].excludes = vec![Condition::is("/site".parse().unwrap(), "lab")];
    check(apart, &[]);
    // What switches off from anywhere looks for nothing.
    check(
        with(round("/a"), vec![mutation("n/X", "/a:|1>2", "/b=1", "", 3)]),
        &[
            "warn: m/ONa and n/X claim the same change, /a 1 -> 2: where both could fire m/ONa is taken, as it costs less, and never n/X; let their requires or excludes differ, or leave one out [same-change]",
        ],
    );
}

#[test]
fn small_oddities_are_told() {
    let mut forgotten = mutation("m/X", "/a:1>2", "", "", 2);
    forgotten.fail_to = vec![Change::set("/a".parse().unwrap(), "2".into())];
    let mut rest = round("/a");
    rest[1].cost = 2_000_000;
    check(
        with(rest, vec![forgotten]),
        &[
            "warn: m/X has a fail_to but no timeout, so it never comes to that: add a timeout [useless-fail-to]",
            "note: m/ONa and m/X claim the same change, /a 1 -> 2: where both could fire m/X is taken, as it costs less, and never m/ONa; let their requires or excludes differ, or leave one out [same-change]",
            "note: m/ONa costs 2000000, more than any detour: it is taken only where there is no other way at all; if that is not meant, give it a cost like those of the others [huge-cost]",
        ],
    );
    let mut free = round("/a");
    free.iter_mut().for_each(|mutation| mutation.cost = 0);
    check(
        free,
        &[
            "note: m/BACKa and m/ONa lead /a in a circle at no cost: plans stay short all the same, but give one a cost if it takes time [free-circle]",
        ],
    );
    let mut zero = round("/a");
    zero[0].requires = vec![Condition::number(
        "/n".parse().unwrap(),
        NumberRange::AtMost(9.into()),
    )];
    check(
        zero,
        &[
            "note: m/INa compares /n of at most 9, but 0 is stored as unknown and compares with nothing: if 0 is meant as well, let the module report another value for it [zero-in-range]",
        ],
    );
}

#[test]
fn each_kind_has_an_end() {
    let traps = (0..MAX_OF_A_KIND + 7)
        .map(|at| mutation(&format!("m/{at:03}"), &format!("/a{at:03}:>1"), "", "", 1));
    let graph = MutationGraph::new(&set(traps.collect())).unwrap();
    let lints = lint(&graph);
    assert_eq!(lints.len(), MAX_OF_A_KIND + 1);
    assert_eq!(
        lints[MAX_OF_A_KIND].to_string(),
        "note: 7 more of this kind [trap]"
    );
}

/// The largest sets there may be, of the shapes that cost most: nothing here takes a time that grows with the square of the set.
#[test]
fn f28_lints_of_ten_thousand_mutations_end() {
    const MOST: usize = crate::mutation::MAX_MUTATIONS;
    let numbered = |change: &dyn Fn(usize) -> String| -> MutationGraph {
        let all = (0..MOST).map(|at| mutation(&format!("m/{at:05}"), &change(at), "", "", 0));
        MutationGraph::new(&set(all.collect())).unwrap()
    };
    // All rivals of each other: compared up to a limit, which is told.
    let lints = lint(&numbered(&|_| "/a:>1".to_owned()));
    let told = |text: &str| lints.iter().any(|lint| lint.text.starts_with(text));
    assert!(told("49950 more of this kind") && told("more than 50000 pairs"));
    // A chain in the order in which nothing fires at the first try, closed to a circle at no cost.
    let circle = numbered(&|at| match at {
        0 => "/a:|1>10000".to_owned(),
        at => format!("/a:{}>{at}", at + 1),
    });
    let lints = lint(&circle);
    assert_eq!(lints.len(), 1);
    assert_eq!(lints[0].kind, LintKind::FreeCircle);
    // Nothing can begin.
    let island = lint(&numbered(&|at| format!("/a:{}>{}", at + 1, at + 2)));
    assert_eq!(island.len(), 2 + MAX_OF_A_KIND);
}

#[test]
fn a_number_is_no_slip_of_the_pen() {
    let lints = lint(
        &MutationGraph::new(&set(vec![
            mutation("m/A", "/a:>5", "", "", 1),
            mutation("m/B", "/a:7>5", "", "", 1),
            mutation("m/C", "/b:>active", "", "", 1),
            mutation("m/D", "/b:actve>activ", "", "", 1),
        ]))
        .unwrap(),
    );
    let texts: Vec<&str> = lints.iter().map(|lint| lint.text.as_str()).collect();
    let of = |id: &str| texts.iter().find(|text| text.starts_with(id)).unwrap();
    assert!(!of("m/B can never").contains("did you mean"), "{texts:?}");
    assert!(
        of("m/D can never").contains("(did you mean active?)"),
        "nobody sets activ: {texts:?}"
    );
}
