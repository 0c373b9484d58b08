//! Sets of the largest size in the shapes that cost most (F28), and modules that contradict each other (F29). All of it is exact counting of
//! what comes out; that it ends at all is the budget's doing.

use super::*;

fn numbered(count: usize, change: impl Fn(usize) -> (String, u32)) -> MutationGraph {
    let all = (0..count).map(|at| {
        let (change, cost) = change(at);
        mutation(&format!("m/{at:05}"), &change, "", "", cost)
    });
    graph(all.collect())
}

fn texts(text: &str) -> Values {
    let pairs = text.split_whitespace();
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(url, value)| (url.parse().unwrap(), Value::from(value)))
        .collect()
}

#[track_caller]
fn unreachable(graph: &MutationGraph, dsc: &str, cfg: &str, reason: &str) {
    let Plan::NoPath(no_path) = graph.plan(&texts(dsc), &texts(cfg)) else {
        panic!("there is a path");
    };
    assert_eq!(no_path.kind, NoPathKind::Unreachable);
    assert!(no_path.reason.contains(reason), "{no_path}");
}

#[test]
fn f28_every_value_leads_to_every_other_at_no_cost() {
    let pairs: Vec<(usize, usize)> = (0..100)
        .flat_map(|from| (0..100).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect();
    let graph = numbered(pairs.len(), |at| {
        (format!("/a:v{}>v{}", pairs[at].0, pairs[at].1), 0)
    });
    let plan = graph.plan(&texts("/a=v0"), &texts("/a=v99"));
    assert_eq!(plan.steps().len(), 1);
    unreachable(&graph, "/a=v0", "/a=v100", "no mutation leads to /a=v100");
    unreachable(&graph, "/a=odd", "/a=v1", "no mutation leaves /a=odd");
}

#[test]
fn f28_ten_thousand_dead_ends() {
    let graph = numbered(10_000, |at| (format!("/a:>v{at}"), 1));
    let plan = graph.plan(&Values::default(), &texts("/a=v9999"));
    assert_eq!(plan.steps().len(), 1);
    unreachable(&graph, "/a=v1", "/a=v2", "no mutation leaves /a=v1");
}

#[test]
fn f28_a_circle_and_an_island_of_ten_thousand() {
    let circle = numbered(10_000, |at| (format!("/a:v{at}>v{}", (at + 1) % 10_000), 0));
    let plan = circle.plan(&texts("/a=v1"), &texts("/a=v0"));
    assert_eq!(plan.steps().len(), 9_999);
    unreachable(&circle, "", "/a=v5", "no mutation leaves /a unknown");
}

#[test]
fn f28_four_thousand_urls_are_planned_apart() {
    let graph = numbered(4_000, |at| (format!("/a{at:04}:>on"), 1));
    let goals: Vec<String> = (0..4_000).map(|at| format!("/a{at:04}=on")).collect();
    let plan = graph.plan(&Values::default(), &texts(&goals.join(" ")));
    assert_eq!(plan.steps().len(), 4_000);
}

#[test]
fn f29_contradicting_modules_give_one_plan_in_every_order() {
    let declared = [
        mutation("a/ON", "/p:|off>on", "", "", 1),
        mutation("b/ON", "/p:off>on", "", "", 1),
        mutation("b/UKtoON", "/p:>on", "/q=", "", 1),
        mutation("c/OFF", "/p:|on>off", "", "/q=1", 1),
        mutation("c/UNDO", "/p:on>", "", "", 0),
    ];
    let plans = |order: &[usize]| {
        let graph = graph(order.iter().map(|at| declared[*at].clone()).collect());
        let goals = ["/p=on", "/p=off", "/p=burnt", "/p=off /q=1"];
        let starts = ["", "/p=on", "/p=off"];
        let all = starts
            .iter()
            .flat_map(|dsc| goals.iter().map(move |cfg| (dsc, cfg)));
        all.map(|(dsc, cfg)| graph.plan(&texts(dsc), &texts(cfg)))
            .collect::<Vec<Plan>>()
    };
    let first = plans(&[0, 1, 2, 3, 4]);
    assert_eq!(first[0].steps(), [MutationId::new("a", "ON")]);
    let mut order = [0, 1, 2, 3, 4];
    for turn in 0..120 {
        // Another order each time, by exchange of neighbors.
        order.swap(turn % 4, turn % 4 + 1);
        assert_eq!(plans(&order), first, "{order:?}");
    }
}
