use std::time::Duration;

use super::*;
use crate::mutation::{Mutation, MutationContext, MutationSet, UrlChange};

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs
        .iter()
        .map(|(url, value)| (url.parse().unwrap(), Value::from(*value)))
        .collect()
}

fn mutation(name: &str, url: &str, from: &str, to: &str, requires: &[(&str, &str)]) -> Mutation {
    let value = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    Mutation {
        requires: requires
            .iter()
            .map(|(url, value)| Condition::is(url.parse().unwrap(), *value))
            .collect(),
        timeout: Some(Duration::from_secs(1)),
        ..Mutation::new(
            MutationId::new("m", name),
            MutationContext::All,
            vec![UrlChange {
                url: url.parse().unwrap(),
                from: vec![value(from)],
                to: value(to),
            }],
        )
    }
}

fn planner() -> Planner {
    let set = MutationSet {
        mutations: vec![
            mutation("OFF", "/power", "", "off", &[("/platform", "vbox")]),
            mutation("ON", "/power", "off", "on", &[]),
            mutation("OUT", "/power", "on", "off", &[]),
            mutation("SYNC", "/run", "", "sync", &[("/power", "on")]),
        ],
        ..MutationSet::default()
    };
    Planner::new(Arc::new(MutationGraph::new(&set).unwrap()))
}

#[test]
fn nodes_of_one_class_share_a_search() {
    let mut planner = planner();
    let cfg = values(&[("/platform", "vbox"), ("/run", "sync")]);
    let first = planner.plan(&values(&[]), &cfg);
    assert_eq!(first.plan.steps().len(), 3);
    // What no mutation mentions makes no class of its own.
    let mut other = cfg.clone();
    other.set("/rack".parse().unwrap(), Some(Value::Int(7)));
    let again = planner.plan(&values(&[("/host/serial", "x1")]), &other);
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(planner.searches(), 1);
    planner.plan(&values(&[("/power", "off")]), &cfg);
    assert_eq!(planner.searches(), 2);
}

#[test]
fn values_that_no_mutation_mentions_make_classes_too() {
    let mut planner = planner();
    let reason = |planner: &mut Planner, platform: &str| {
        let cfg = values(&[("/platform", platform), ("/run", "sync")]);
        match &planner.plan(&values(&[]), &cfg).plan {
            Plan::NoPath(no_path) => no_path.reason.clone(),
            plan => panic!("{plan:?}"),
        }
    };
    assert!(reason(&mut planner, "ipmi").ends_with("where Cfg says ipmi"));
    assert!(reason(&mut planner, "redfish").ends_with("where Cfg says redfish"));
    assert_eq!(planner.searches(), 2);
}

#[test]
fn a_live_plan_sets_goals_aside_and_says_so() {
    let mut planner = planner();
    let cfg = values(&[("/platform", "vbox"), ("/run", "sync"), ("/power", "off")]);
    let result = planner.plan(&values(&[("/power", "on"), ("/run", "sync")]), &cfg);
    assert_eq!(result.plan.steps(), [MutationId::new("m", "OUT")]);
    assert_eq!(result.goal, values(&[("/power", "off")]));
    assert_eq!(
        result.suspended,
        [("/run".parse().unwrap(), "/power".parse().unwrap())]
    );
}

#[test]
fn the_cache_has_an_end() {
    let mut planner = planner();
    for number in 0..=MAX_CACHED_PLANS {
        let cfg = values(&[("/platform", &format!("site{number}")), ("/run", "sync")]);
        planner.plan(&values(&[]), &cfg);
        assert!(planner.plans.len() <= MAX_CACHED_PLANS);
    }
}
