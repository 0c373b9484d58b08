//! Steps side by side: what is tied, and that any order of the rest is as good as the plan.

use proptest::prelude::*;

use super::random::{any_node, any_set};
use super::*;

/// `NAME:after,after NAME ...`
fn drawn(graph: &MutationGraph, dsc: &str, cfg: &str) -> String {
    let plan = graph.plan(&values(dsc), &values(cfg));
    let order = graph.order(plan.steps());
    let shown = plan.steps().iter().zip(order).map(|(step, after)| {
        let after: Vec<String> = after.iter().map(usize::to_string).collect();
        format!("{}:{}", step.name(), after.join(","))
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn chains_that_share_nothing_run_side_by_side() {
    let graph = graph(parsed(
        "
        A1 /a:>x
        A2 /a:x>y
        B1 /b:>x
        B2 /b:x>y
        C /c:>x if /a=y /b=y
        ",
    ));
    let expect = "A1: A2:0 B1: B2:2 C:1,3";
    assert_eq!(drawn(&graph, "", "/a=y /b=y /c=x"), expect);
}

#[test]
fn requires_excludes_and_dependencies_tie() {
    let ties = graph(parsed(
        "
        A /a:>x
        A2 /a:x>y
        B /b:>x if /a=x
        C /c:>x unless /a=y
        ",
    ));
    // B is known only while /a is x, and C must be through before /a becomes y.
    assert_eq!(drawn(&ties, "", "/a=x /b=x"), "A: B:0");
    assert_eq!(drawn(&ties, "/a=x", "/a=y /c=x"), "C: A2:0");
    let mut declared = set(parsed(
        "
        A /a:x>y
        B /b:x>y
        ",
    ));
    let free = MutationGraph::new(&declared).unwrap();
    assert_eq!(drawn(&free, "/a=x /b=x", "/a=y /b=y"), "A: B:");
    declared.dependencies = vec![Dependency {
        url: "/b".parse().unwrap(),
        conditions: conditions("/a=x|y"),
    }];
    let tied = MutationGraph::new(&declared).unwrap();
    assert_eq!(drawn(&tied, "/a=x /b=x", "/a=y /b=y"), "A: B:0");
}

#[test]
fn disruptive_steps_and_a_careful_set_run_alone() {
    let mutations = || {
        parsed(
            "
            A /a:>x
            B /b:>x
            C /c:>x
            ",
        )
    };
    let mut disruptive = mutations();
    disruptive[1].disruptive = true;
    let expect = "A: B:0 C:1";
    assert_eq!(drawn(&graph(disruptive), "", "/a=x /b=x /c=x"), expect);
    let mut careful = set(mutations());
    careful.one_by_one = true;
    let graph = MutationGraph::new(&careful).unwrap();
    assert_eq!(drawn(&graph, "", "/a=x /b=x /c=x"), expect);
    let [a, b] = ["m", "m"].map(|module| MutationId::new(module, "A"));
    assert!(graph.are_tied(&a, &b));
}

/// Puts a mutation's result into a node, with all that becomes unknown by it.
fn carry_out(graph: &MutationGraph, id: &MutationId, node: &mut Values, cfg: &Values) {
    let mutation = graph.mutation(id).unwrap();
    let changed: Vec<StateUrl> = mutation.mutates.iter().map(|c| c.url.clone()).collect();
    for change in &mutation.mutates {
        node.set(change.url.clone(), change.to.clone());
    }
    for url in graph.forget(node, cfg, &changed) {
        node.set(url, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Steps start when all before them are done, and end in any order: each finds its conditions met when it starts and still when it
    /// ends, and all of them together arrive.
    #[test]
    fn any_interleaving_arrives(
        set in any_set(), dsc in any_node(), cfg in any_node(), choices in prop::collection::vec(any::<u8>(), 64),
    ) {
        let graph = MutationGraph::new(&set).unwrap();
        let plan = graph.plan(&dsc, &cfg);
        let steps = plan.steps();
        let order = graph.order(steps);
        let (mut node, mut started, mut done) = (dsc, vec![false; steps.len()], vec![false; steps.len()]);
        let mut choices = choices.into_iter().cycle();
        while done.contains(&false) {
            // A step that may start, or one that may end.
            let moves: Vec<usize> = (0..steps.len())
                .filter(|step| !done[*step] && order[*step].iter().all(|before| done[*before]))
                .collect();
            let step = moves[choices.next().unwrap_or(0) as usize % moves.len()];
            let declared = graph.mutation(&steps[step]).unwrap();
            prop_assert!(graph.applies(declared, &node, &cfg), "{} of {steps:?}", steps[step]);
            if started[step] {
                carry_out(&graph, &steps[step], &mut node, &cfg);
                done[step] = true;
            }
            started[step] = true;
        }
        if !steps.is_empty() {
            prop_assert_eq!(graph.plan(&node, &cfg), Plan::Converged);
        }
    }
}
