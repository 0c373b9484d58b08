//! Changes as people read them: equal ones of several nodes in one line, without secrets.

use std::collections::BTreeMap;

use engine::extension::{REDACTED, Schema};
use engine::history::{Cell, Cells};
use engine::state::{NodeId, NodeName, Value};
use engine::wire::convert as wire;
use proto::v1;

use crate::nodeset::fold;

/// Nodes in short.
pub(super) struct Folded {
    /// `n[1-4],login`.
    pub(super) text: String,
    /// How many.
    pub(super) count: u32,
}

impl Folded {
    /// Names in short.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a NodeName>) -> Self {
        let names: Vec<&str> = names.into_iter().map(NodeName::as_str).collect();
        Self {
            count: u32::try_from(names.len()).unwrap_or(u32::MAX),
            text: fold(names).join(","),
        }
    }
}

/// All cells, those that changed alike together; what becomes of whole nodes comes first. `names` are those of the nodes and of their parents.
pub(super) fn differences(
    schema: &Schema,
    cells: &Cells,
    names: &BTreeMap<NodeId, NodeName>,
) -> Vec<v1::Difference> {
    type Change = (u8, String, Option<Value>, Option<Value>);
    let mut folded: BTreeMap<Change, Vec<&NodeName>> = BTreeMap::new();
    for (cell, (old, new)) in cells {
        // Where a node is told to come or go, its place goes without saying.
        if let Cell::Parent(node) = cell
            && cells.contains_key(&Cell::Exists(*node))
        {
            continue;
        }
        let (rank, what) = called(cell);
        let shown = |value: &Option<Value>| match cell {
            Cell::Parent(_) => value.as_ref().map(|value| parent(value, names)),
            Cell::Value(_, url) if schema.hides(url) => {
                value.as_ref().map(|_| Value::from(REDACTED))
            }
            _ => value.clone(),
        };
        let name = cell.node().and_then(|node| names.get(&node));
        folded
            .entry((rank, what, shown(old), shown(new)))
            .or_default()
            .extend(name);
    }
    let differences = folded.into_iter().map(|((_, what, old, new), names)| {
        let nodes = Folded::of(names);
        v1::Difference {
            nodes: nodes.text,
            count: nodes.count,
            what,
            old: old.as_ref().map(wire::value_to_proto),
            new: new.as_ref().map(wire::value_to_proto),
        }
    });
    differences.collect()
}

/// A parent by its name; by its id if it is gone.
pub(super) fn parent(value: &Value, names: &BTreeMap<NodeId, NodeName>) -> Value {
    let id = value.as_text().and_then(|text| text.parse().ok());
    let name = id.and_then(|id: NodeId| names.get(&id));
    name.map_or_else(|| value.clone(), |name| Value::from(name.as_str()))
}

/// The words for a cell, and where they come in a list.
pub(super) fn called(cell: &Cell) -> (u8, String) {
    match cell {
        Cell::Exists(_) => (0, "node".to_owned()),
        Cell::ClusterFrozen => (1, "frozen".to_owned()),
        Cell::GroupFrozen(group) => (1, format!("frozen @{group}")),
        Cell::Frozen(_) => (2, "frozen".to_owned()),
        Cell::Parent(_) => (2, "parent".to_owned()),
        Cell::Group(_, group) => (3, format!("group {group}")),
        Cell::Label(_, label) => (4, format!("label {label}")),
        Cell::Value(_, url) => (5, url.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    #[test]
    fn equal_changes_are_one_line_and_secrets_stay_secret() {
        let names = (1..=3)
            .map(|n| (id(n), format!("n{n}").parse().unwrap()))
            .collect();
        let value = |n, url: &str| Cell::Value(id(n), url.parse().unwrap());
        let text = |text: &str| Some(Value::from(text));
        let mut cells = Cells::new();
        for n in 1..=3 {
            cells.insert(
                value(n, "/power/password"),
                (text(&format!("old{n}")), text("hunter2")),
            );
            cells.insert(value(n, "/Platform"), (None, text("vbox")));
        }
        cells.insert(value(2, "/Platform"), (text("x"), None));
        cells.insert(Cell::Exists(id(3)), (None, Some(Value::Bool(true))));
        cells.insert(Cell::ClusterFrozen, (Some(Value::Bool(true)), None));
        let lines: Vec<String> = differences(&Schema::built_in(), &cells, &names)
            .iter()
            .map(|line| {
                let word = |value: &Option<v1::Value>| {
                    let value = value
                        .clone()
                        .and_then(|value| wire::value_from_proto(value).ok());
                    value.map_or("-".to_owned(), |value| value.to_string())
                };
                format!(
                    "{} {} {} {} -> {}",
                    line.nodes,
                    line.count,
                    line.what,
                    word(&line.old),
                    word(&line.new)
                )
            })
            .collect();
        let expect = [
            "n3 1 node - -> true".to_owned(),
            " 0 frozen true -> -".to_owned(),
            "n[1,3] 2 /Platform - -> vbox".to_owned(),
            "n2 1 /Platform x -> -".to_owned(),
            format!("n[1-3] 3 /power/password {REDACTED} -> {REDACTED}"),
        ];
        assert_eq!(lines, expect);
    }
}
