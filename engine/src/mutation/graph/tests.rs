use super::*;
use crate::mutation::path::NoPathKind;
use crate::mutation::{Allowed, Dependency, MutationContext, MutationSet, NumberRange, UrlChange};
use crate::state::{Float, Number};

mod compared;
mod declared;
mod order;
pub(crate) mod random;
mod shapes;

pub(crate) use declared::hopeless;

/// `/a=1 /b=x` into values; whole numbers become numbers.
fn values(text: &str) -> Values {
    text.split_whitespace()
        .map(|pair| {
            let (url, value) = pair.split_once('=').unwrap();
            let number = value.parse().map(Value::Int);
            (
                url.parse().unwrap(),
                number.unwrap_or_else(|_| Value::from(value)),
            )
        })
        .collect()
}

/// `/a=x|y /b=` into conditions; nothing after the sign is unknown.
pub(super) fn conditions(text: &str) -> Vec<Condition> {
    text.split_whitespace()
        .map(|pair| {
            let (url, allowed) = pair.split_once('=').unwrap();
            Condition::any_of(
                url.parse().unwrap(),
                allowed.split('|').map(value).collect(),
            )
        })
        .collect()
}

fn value(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| Value::from(text))
}

/// `m/NAME` that mutates `/a:x|y>z /b:>w`; nothing is unknown.
pub(super) fn mutation(
    id: &str,
    mutates: &str,
    requires: &str,
    excludes: &str,
    cost: u32,
) -> Mutation {
    let (module, name) = id.split_once('/').unwrap();
    let changes = mutates.split_whitespace().map(|change| {
        let (url, change) = change.split_once(':').unwrap();
        let (from, to) = change.split_once('>').unwrap();
        UrlChange {
            url: url.parse().unwrap(),
            from: from.split('|').map(value).collect(),
            to: value(to),
        }
    });
    Mutation {
        requires: conditions(requires),
        excludes: conditions(excludes),
        cost,
        ..Mutation::new(
            MutationId::new(module, name),
            MutationContext::All,
            changes.collect(),
        )
    }
}

/// Mutations of module `m`, one a line: `NAME /a:x|y>z /b:>w if CONDITIONS unless CONDITIONS cost N`, of which the last three may be left out.
fn parsed(text: &str) -> Vec<Mutation> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let lines = lines.map(|line| {
        let (rest, cost) = line.rsplit_once(" cost ").unwrap_or((line, "1"));
        let (rest, excludes) = rest.split_once(" unless ").unwrap_or((rest, ""));
        let (rest, requires) = rest.split_once(" if ").unwrap_or((rest, ""));
        let (name, mutates) = rest.trim().split_once(' ').unwrap();
        let id = format!("m/{name}");
        mutation(&id, mutates, requires, excludes, cost.parse().unwrap())
    });
    lines.collect()
}

pub(super) fn set(mutations: Vec<Mutation>) -> MutationSet {
    MutationSet {
        mutations,
        ..MutationSet::default()
    }
}

fn graph(mutations: Vec<Mutation>) -> MutationGraph {
    MutationGraph::new(&set(mutations)).unwrap()
}

/// Plans and compares the steps; `-` for a converged node, else the reason.
#[track_caller]
fn check(graph: &MutationGraph, dsc: &str, cfg: &str, expect: &str) {
    let text = match graph.plan(&values(dsc), &values(cfg)) {
        Plan::Converged => "-".to_owned(),
        Plan::Path(path) => path
            .steps
            .iter()
            .map(|step| step.name())
            .collect::<Vec<_>>()
            .join(" "),
        Plan::NoPath(no_path) => no_path.reason,
    };
    assert_eq!(text, expect);
}
