//! Nodes as the output shows them: stable field names for programs, cells for tables.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::v1;
use serde::Serialize;
use uuid::Uuid;

use crate::output::{Cell, Tone};
use crate::value::{self, JsonValues, Shown};

/// A node for JSON and YAML. Field names are an interface: they are only ever added to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    /// Absent: the head itself.
    pub(crate) parent_id: Option<String>,
    /// Name of that node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent_name: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) frozen: bool,
    pub(crate) is_head: bool,
    /// What keeps it from its next step: "parked", kinds of holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) stopped_by: Vec<String>,
    pub(crate) cfg_revision: u64,
    /// Milliseconds since the Unix epoch; absent: never.
    pub(crate) last_seen_ms: Option<u64>,
    pub(crate) cfg: JsonValues,
    pub(crate) dsc: JsonValues,
    /// Revisions on trial that are about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) trials: Vec<u64>,
}

impl NodeView {
    pub(crate) fn new(node: &v1::Node, shown: &Shown) -> Self {
        Self {
            name: node.name.clone(),
            id: id_text(&node.id),
            parent_id: id_text(&node.parent_id),
            parent_name: Some(node.parent_name.clone()).filter(|name| !name.is_empty()),
            groups: node.groups.clone(),
            labels: node
                .labels
                .iter()
                .map(|(key, text)| (key.clone(), text.clone()))
                .collect(),
            frozen: node.frozen,
            is_head: node.is_head,
            stopped_by: node.stopped_by.clone(),
            cfg_revision: node.cfg_revision,
            last_seen_ms: (node.last_seen_ms != 0).then_some(node.last_seen_ms),
            cfg: shown.json_values(cfg(node)),
            dsc: shown.json_values(dsc(node)),
            trials: node.trials.iter().map(|trial| trial.revision).collect(),
        }
    }
}

/// A UUID as text; `None` when absent.
pub(crate) fn id_text(bytes: &[u8]) -> Option<String> {
    Uuid::from_slice(bytes).ok().map(|id| id.to_string())
}

/// A node's intent.
pub(crate) fn cfg(node: &v1::Node) -> &[v1::ValueChange] {
    node.cfg.as_ref().map_or(&[], |values| &values.values)
}

/// A node's observed values.
pub(crate) fn dsc(node: &v1::Node) -> &[v1::ValueChange] {
    node.dsc.as_ref().map_or(&[], |values| &values.values)
}

/// The value of `url`.
pub(crate) fn get<'a>(values: &'a [v1::ValueChange], url: &str) -> Option<&'a v1::Value> {
    values
        .iter()
        .find(|change| change.url == url)?
        .value
        .as_ref()
}

/// What is known, and what is wanted where that differs: `POWER_OFF -> POWER_ON`.
pub(crate) fn known_and_wanted(node: &v1::Node, url: &str, shown: &Shown) -> Cell {
    let known = shown.text(url, get(dsc(node), url));
    let wanted = shown.text(url, get(cfg(node), url));
    if wanted.is_empty() || wanted == known {
        return Cell::new(known.clone(), tone(&known));
    }
    let known_word = if known.is_empty() { "unknown" } else { &known };
    let tone = match tone(&known) {
        Tone::Bad => Tone::Bad,
        _ => Tone::Warn,
    };
    Cell::new(format!("{known_word} -> {wanted}"), tone)
}

/// What a state's name means to an operator.
pub(crate) fn tone(state: &str) -> Tone {
    match state {
        "POWER_ON" | "SYNC" | "ACTIVE" => Tone::Good,
        "ERROR" | "PHYS_ERROR" | "PHYS_HANG" => Tone::Bad,
        "INIT" | "WAIT" | "POWER_CYCLE" => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// `3s ago`; empty for never.
pub(crate) fn ago(at_ms: u64, now_ms: u64) -> String {
    match at_ms {
        0 => String::new(),
        // Another machine's clock may be ahead of ours.
        at => {
            let seconds = now_ms.saturating_sub(at) / 1000;
            value::duration(Duration::from_secs(seconds)) + " ago"
        }
    }
}

/// What becomes of a write on trial.
pub(crate) fn trial(trial: &v1::Trial, now_ms: u64) -> String {
    let left = trial.until_ms.saturating_sub(now_ms) / 1000;
    let left = value::duration(Duration::from_secs(left));
    let revision = trial.revision;
    format!("revision {revision} is taken back in {left}, unless: krakenctl confirm {revision}")
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `1 node`, `4 nodes`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
