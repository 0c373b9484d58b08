//! Random small sets against an implementation that shares nothing with the real one: whole states, no packing, no bounds, no parts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const URLS: [&str; 6] = ["/a", "/b", "/c", "/d", "/e", "/Busy"];
const VALUES: [&str; 6] = ["", "1", "2", "3", "4.5", "x"];

/// `/d` is mutated by some sets, `/e` by none; `/Busy` is only observed.
fn any_url() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..3_usize, 1 => 3..URLS.len()]
}

/// Mostly one of few, so that mutations follow on each other.
fn any_value() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..4_usize, 1 => 4..VALUES.len()]
}

fn any_values() -> impl Strategy<Value = Vec<Option<Value>>> {
    prop::collection::btree_set(any_value(), 1..3)
        .prop_map(|picked| picked.into_iter().map(|at| value(VALUES[at])).collect())
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let url = any_url().prop_map(|url| URLS[url].parse::<StateUrl>().unwrap());
    let number = || (0..11_i64).prop_map(half);
    (url, any_values(), number(), number(), 0..10_u32).prop_map(|(url, values, a, b, kind)| {
        match kind {
            0 => Condition::number(url, NumberRange::AtLeast(a)),
            1 => Condition::number(url, NumberRange::AtMost(a)),
            2 => Condition::number(url, NumberRange::Between(a.min(b), a.max(b))),
            _ => Condition::any_of(url, values),
        }
    })
}

/// 0, 0.5, 1, ...: on values, between them and beyond.
fn half(halves: i64) -> Number {
    if halves % 2 == 0 {
        Number::from(halves / 2)
    } else {
        Number::of(&Value::Float(Float(halves as f64 / 2.0))).unwrap()
    }
}

/// Numbers become numbers.
fn value(text: &str) -> Option<Value> {
    let int = || text.parse().map(Value::Int).ok();
    let float = || text.parse().map(|x| Value::Float(Float(x))).ok();
    (!text.is_empty()).then(|| int().or_else(float).unwrap_or_else(|| Value::from(text)))
}

fn any_conditions(most: usize) -> impl Strategy<Value = Vec<Condition>> {
    prop::collection::vec(any_condition(), 0..most)
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let changes = prop::collection::btree_map(0..4_usize, (any_values(), any_value()), 1..3);
    (changes, any_conditions(3), any_conditions(2), 0..3_u32).prop_map(
        |(changes, requires, excludes, cost)| {
            let mut mutation = mutation("m/x", "/a:>1", "", "", cost);
            mutation.mutates = changes
                .into_iter()
                .map(|(url, (from, to))| UrlChange {
                    url: URLS[url].parse().unwrap(),
                    from,
                    to: value(VALUES[to]),
                })
                .collect();
            mutation.requires = requires;
            mutation.excludes = excludes;
            mutation
        },
    )
}

pub(crate) fn any_set() -> impl Strategy<Value = MutationSet> {
    let dependencies = prop::collection::btree_map(0..URLS.len(), any_conditions(2), 0..3);
    (prop::collection::vec(any_mutation(), 1..12), dependencies).prop_map(
        |(mutations, dependencies)| {
            let mut set = set(mutations);
            for (number, mutation) in set.mutations.iter_mut().enumerate() {
                // Not in the order of numbers, so that order of ids and order of registration differ.
                mutation.id =
                    MutationId::new(["m", "n"][number % 2], &format!("{:02}", number * 7 % 12));
            }
            set.dependencies = dependencies
                .into_iter()
                .map(|(url, conditions)| Dependency {
                    url: URLS[url].parse().unwrap(),
                    conditions,
                })
                .collect();
            set
        },
    )
}

pub(crate) fn any_node() -> impl Strategy<Value = Values> {
    prop::collection::vec(any_value(), URLS.len()).prop_map(|picked| {
        let mut node = Values::default();
        for (url, at) in URLS.iter().zip(picked) {
            node.set(url.parse().unwrap(), value(VALUES[at]));
        }
        node
    })
}

/// What [`MutationGraph`] means, said as plainly as possible.
struct RefPlanner<'a> {
    set: &'a MutationSet,
    depends: BTreeMap<StateUrl, Vec<Condition>>,
    mutated: BTreeSet<StateUrl>,
    observed: BTreeSet<StateUrl>,
}

impl<'a> RefPlanner<'a> {
    fn new(set: &'a MutationSet) -> Self {
        let changes = || {
            set.mutations
                .iter()
                .flat_map(|m| m.mutates.iter().map(move |change| (m, change)))
        };
        let mutated: BTreeSet<StateUrl> = changes().map(|(_, change)| change.url.clone()).collect();
        let same = |a: &Condition, b: &Condition| {
            a.url == b.url
                && a.range() == b.range()
                && a.values().iter().collect::<BTreeSet<_>>()
                    == b.values().iter().collect::<BTreeSet<_>>()
        };
        let mut depends = BTreeMap::new();
        for url in &mutated {
            let discovering: Vec<&Mutation> = changes()
                .filter(|(_, change)| {
                    change.url == *url && change.from.contains(&None) && change.to.is_some()
                })
                .map(|(mutation, _)| mutation)
                .collect();
            let lasts = |mutation: &Mutation, condition: &Condition| {
                mutation.mutates.iter().all(|change| {
                    change.url != condition.url || condition.holds(change.to.as_ref())
                })
            };
            let common = discovering
                .first()
                .map_or(Vec::new(), |first| first.requires.clone());
            let shared = common.into_iter().filter(|condition| {
                condition.url != *url
                    && discovering.iter().all(|mutation| {
                        let mut requires = mutation.requires.iter();
                        requires.any(|other| same(other, condition)) && lasts(mutation, condition)
                    })
            });
            depends.insert(url.clone(), shared.collect::<Vec<_>>());
        }
        for dependency in &set.dependencies {
            depends.insert(dependency.url.clone(), dependency.conditions.clone());
        }
        Self {
            set,
            depends,
            observed: mutated
                .iter()
                .cloned()
                .chain(["/Busy".parse().unwrap()])
                .collect(),
            mutated,
        }
    }

    fn after(&self, state: &Values, mutation: &Mutation) -> Option<Values> {
        let holds = |condition: &Condition| condition.holds(state.get(condition.url.as_str()));
        let from = |change: &UrlChange| {
            change
                .from
                .iter()
                .any(|from| from.as_ref() == state.get(change.url.as_str()))
        };
        if !mutation.mutates.iter().all(from)
            || !mutation.requires.iter().all(holds)
            || mutation.excludes.iter().any(holds)
        {
            return None;
        }
        let mut after = state.clone();
        let mut changed: BTreeSet<StateUrl> = BTreeSet::new();
        for change in &mutation.mutates {
            if after.set(change.url.clone(), change.to.clone()) {
                changed.insert(change.url.clone());
            }
        }
        loop {
            let lost = self.depends.iter().find(|(url, conditions)| {
                self.observed.contains(*url)
                    && after.get(url.as_str()).is_some()
                    && conditions.iter().any(|condition| {
                        changed.contains(&condition.url)
                            && !condition.holds(after.get(condition.url.as_str()))
                    })
            });
            let Some((url, _)) = lost else { break };
            after.set(url.clone(), None);
            changed.insert(url.clone());
        }
        Some(after)
    }

    fn plan(&self, dsc: &Values, cfg: &Values) -> Option<Vec<MutationId>> {
        let mut start = Values::default();
        for url in URLS {
            let url: StateUrl = url.parse().unwrap();
            let source = if self.observed.contains(&url) {
                dsc
            } else {
                cfg
            };
            start.set(url.clone(), source.get(url.as_str()).cloned());
        }
        let reached = |state: &Values| {
            let mut goals = cfg.iter().filter(|(url, _)| self.mutated.contains(*url));
            goals.all(|(url, value)| state.get(url.as_str()) == Some(value))
        };
        let mut states = vec![start];
        let mut edges: Vec<(usize, &Mutation, usize)> = Vec::new();
        let mut at = 0;
        while at < states.len() {
            for mutation in &self.set.mutations {
                if let Some(after) = self.after(&states[at], mutation) {
                    let to = states
                        .iter()
                        .position(|state| *state == after)
                        .unwrap_or_else(|| {
                            states.push(after);
                            states.len() - 1
                        });
                    edges.push((at, mutation, to));
                }
            }
            at += 1;
        }
        // Best way onwards from each state: cost, steps, ids. Ids are compared last, so one pass over all edges for each state suffices.
        let mut best: Vec<Option<(u64, usize, Vec<MutationId>)>> = states
            .iter()
            .map(|state| reached(state).then(|| (0, 0, Vec::new())))
            .collect();
        for _ in 0..=states.len() {
            let mut settled = true;
            for (from, mutation, to) in &edges {
                let Some((cost, steps, ids)) = best[*to].clone() else {
                    continue;
                };
                let ids: Vec<MutationId> = [mutation.id.clone()].into_iter().chain(ids).collect();
                let way = (cost + u64::from(mutation.cost), steps + 1, ids);
                if best[*from].as_ref().is_none_or(|known| way < *known) {
                    best[*from] = Some(way);
                    settled = false;
                }
            }
            if settled {
                break;
            }
        }
        best[0].clone().map(|(_, _, ids)| ids)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_those_of_brute_force((set, dsc, cfg) in (any_set(), any_node(), any_node())) {
        let graph = MutationGraph::new(&set).unwrap();
        let expect = RefPlanner::new(&set).plan(&dsc, &cfg);
        match (graph.plan(&dsc, &cfg), expect) {
            (Plan::Converged, Some(steps)) => prop_assert!(steps.is_empty(), "not converged: {steps:?}"),
            (Plan::Path(path), Some(steps)) => prop_assert_eq!(path.steps, steps),
            (Plan::NoPath(no_path), None) => prop_assert!(!no_path.reason.is_empty()),
            (plan, expect) => prop_assert!(false, "{plan:?} instead of {expect:?}"),
        }
    }

    #[test]
    fn the_order_of_registration_does_not_matter((set, dsc, cfg, order) in (any_set(), any_node(), any_node(), any::<[u32; 12]>())) {
        let graph = MutationGraph::new(&set).unwrap();
        let mut shuffled = set.clone();
        let mut at = 0;
        shuffled.mutations.sort_by_cached_key(|_| { at += 1; order[at - 1] });
        for mutation in &mut shuffled.mutations {
            mutation.requires.reverse();
            mutation.excludes.reverse();
            mutation.mutates.reverse();
            for change in &mut mutation.mutates {
                change.from.reverse();
            }
            for condition in mutation.requires.iter_mut().chain(&mut mutation.excludes) {
                if let Allowed::AnyOf(values) = &mut condition.allows {
                    values.reverse();
                }
            }
        }
        shuffled.dependencies.reverse();
        let shuffled = MutationGraph::new(&shuffled).unwrap();
        prop_assert_eq!(graph.plan(&dsc, &cfg), shuffled.plan(&dsc, &cfg));
        prop_assert_eq!(graph.effective_goal(&cfg), shuffled.effective_goal(&cfg));
        prop_assert_eq!(lint::lint(&graph), lint::lint(&shuffled));
    }

    #[test]
    fn every_step_of_a_plan_applies((set, dsc, cfg) in (any_set(), any_node(), any_node())) {
        let graph = MutationGraph::new(&set).unwrap();
        let goal = graph.effective_goal(&cfg).goal;
        let drawn = graph.states(&dsc, &cfg, &goal);
        let plan = graph.plan_to(&dsc, &cfg, &goal);
        prop_assert_eq!(drawn.path.len(), plan.steps().len() + 1);
        if !matches!(plan, Plan::NoPath(_)) {
            prop_assert!(drawn.graph[drawn.path[drawn.path.len() - 1]].is_goal);
        }
    }
}
