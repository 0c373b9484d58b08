//! What a watcher knows of the nodes, and where in the stream of events it stands.
//!
//! The mirror turns events into [`Line`]s to show. After a gap (a head that restarted, a watcher that fell behind) the stream starts
//! with a snapshot again; the mirror then shows exactly what differs from what it showed before, so nothing is lost and nothing is
//! repeated. Pure: the shell is `node::follow`.

use std::collections::{BTreeMap, BTreeSet};

use proto::v1;
use proto::v1::watch_event::Kind;
use serde::Serialize;

use crate::value::Shown;
use crate::view::{self, NodeView};

/// Values by url.
type Values = BTreeMap<String, v1::Value>;

/// One node as last told.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) cfg: Values,
    pub(crate) dsc: Values,
    frozen: bool,
    groups: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// All nodes as last told, and the place in the stream.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    nodes: BTreeMap<String, Seen>,
    /// Sequence of the last event that was taken in.
    last: u64,
    /// While a snapshot arrives: the nodes it named so far.
    snapshot: Option<BTreeSet<String>>,
    /// Alarms that are not over, and whether the snapshot that arrives named them.
    alarms: BTreeMap<AlarmKey, (AlarmLine, bool)>,
}

/// Kind, node, and what it is about.
type AlarmKey = (String, String, String);

/// Something to show. Field names are an interface.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Line {
    /// A node of the first snapshot, a new node, or one whose groups or labels changed.
    Node { node: Box<NodeView> },
    /// The snapshot is complete; what follows are changes.
    Synced { revision: u64 },
    /// A Cfg value changed; null: unset.
    Cfg(ValueLine),
    /// A Dsc value changed; null: unknown.
    Dsc(ValueLine),
    /// Frozen or thawed.
    Frozen { node: String, frozen: bool },
    /// Deleted.
    Deleted { node: String },
    /// A mutation was fired, ended, failed or was interrupted.
    Mutation(MutationLine),
    /// An operator should look, or need not any more.
    Alarm(AlarmLine),
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct AlarmLine {
    /// "breaker", "mass_failure", "parked", "join", ...
    pub(crate) alarm: String,
    /// Empty: the cluster's.
    pub(crate) node: String,
    /// The mutation of a breaker; else empty.
    pub(crate) about: String,
    pub(crate) text: String,
    pub(crate) over: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ValueLine {
    pub(crate) node: String,
    pub(crate) url: String,
    pub(crate) from: serde_json::Value,
    pub(crate) to: serde_json::Value,
    #[serde(skip)]
    pub(crate) from_text: String,
    #[serde(skip)]
    pub(crate) to_text: String,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct MutationLine {
    pub(crate) node: String,
    pub(crate) mutation: String,
    /// "fired", "done", "failed", "interrupted".
    pub(crate) event: &'static str,
    pub(crate) attempt: u64,
    pub(crate) elapsed_ms: u64,
    pub(crate) text: String,
}

impl Mirror {
    /// The event after which to resume; 0 asks for a snapshot.
    pub(crate) fn resume_after(&self) -> u64 {
        if self.snapshot.is_some() {
            0
        } else {
            self.last
        }
    }

    /// The stream is about to start with a snapshot.
    pub(crate) fn restart(&mut self) {
        self.last = 0;
        self.snapshot = Some(BTreeSet::new());
        for (_, named) in self.alarms.values_mut() {
            *named = false;
        }
    }

    /// What is known of a node.
    pub(crate) fn get(&self, name: &str) -> Option<&Seen> {
        self.nodes.get(name)
    }

    /// True once everything known at some moment has been told.
    pub(crate) fn is_synced(&self) -> bool {
        self.snapshot.is_none() && self.last > 0
    }

    /// Takes an event in. `resync` is the caller's to handle, by [`restart`](Self::restart).
    pub(crate) fn handle_event(&mut self, event: &v1::WatchEvent, shown: &Shown) -> Vec<Line> {
        self.last = self.last.max(event.sequence);
        match &event.kind {
            Some(Kind::Node(node)) => self.node(node, shown),
            Some(Kind::Change(change)) => self.change(change, shown),
            Some(Kind::Deleted(deleted)) => {
                let known = self.nodes.remove(&deleted.node_name).is_some();
                let node = deleted.node_name.clone();
                known
                    .then_some(Line::Deleted { node })
                    .into_iter()
                    .collect()
            }
            Some(Kind::SnapshotEnd(end)) => self.snapshot_end(end.revision),
            Some(Kind::Mutation(mutation)) => vec![mutation_line(mutation)],
            Some(Kind::Alarm(alarm)) => self.alarm(alarm).map(Line::Alarm).into_iter().collect(),
            Some(Kind::Resync(_)) | None => Vec::new(),
        }
    }

    fn node(&mut self, node: &v1::Node, shown: &Shown) -> Vec<Line> {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.insert(node.name.clone());
        }
        let seen = Seen {
            cfg: values(view::cfg(node)),
            dsc: values(view::dsc(node)),
            frozen: node.frozen,
            groups: node.groups.clone(),
            labels: node
                .labels
                .iter()
                .map(|(key, text)| (key.clone(), text.clone()))
                .collect(),
        };
        let whole = || Line::Node {
            node: Box::new(NodeView::new(node, shown)),
        };
        let Some(old) = self.nodes.insert(node.name.clone(), seen.clone()) else {
            return vec![whole()];
        };
        let mut lines = Vec::new();
        if (&old.groups, &old.labels) != (&seen.groups, &seen.labels) {
            lines.push(whole());
        }
        lines.extend(differences(&node.name, &old.cfg, &seen.cfg, shown).map(Line::Cfg));
        lines.extend(differences(&node.name, &old.dsc, &seen.dsc, shown).map(Line::Dsc));
        if old.frozen != seen.frozen {
            lines.push(frozen(&node.name, seen.frozen));
        }
        lines
    }

    fn change(&mut self, change: &v1::NodeChange, shown: &Shown) -> Vec<Line> {
        let seen = self.nodes.entry(change.node_name.clone()).or_default();
        let name = &change.node_name;
        let mut lines: Vec<Line> = Vec::new();
        lines.extend(
            apply(name, &mut seen.cfg, &change.cfg, shown)
                .into_iter()
                .map(Line::Cfg),
        );
        lines.extend(
            apply(name, &mut seen.dsc, &change.dsc, shown)
                .into_iter()
                .map(Line::Dsc),
        );
        if let Some(now) = change.frozen
            && now != seen.frozen
        {
            seen.frozen = now;
            lines.push(frozen(name, now));
        }
        lines
    }

    /// What an alarm is news of: one that stands is told once, and a snapshot repeats it.
    fn alarm(&mut self, alarm: &v1::Alarm) -> Option<AlarmLine> {
        let line = AlarmLine {
            alarm: alarm.kind.clone(),
            node: alarm.node_name.clone(),
            about: alarm.about.clone(),
            text: alarm.text.clone(),
            over: alarm.over,
        };
        let key = (line.alarm.clone(), line.node.clone(), line.about.clone());
        let old = match alarm.over {
            true => self.alarms.remove(&key),
            false => self.alarms.insert(key, (line.clone(), true)),
        };
        old.is_none_or(|(old, _)| old != line).then_some(line)
    }

    fn snapshot_end(&mut self, revision: u64) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(named) = self.snapshot.take() {
            self.nodes.retain(|name, _| {
                let kept = named.contains(name);
                if !kept {
                    lines.push(Line::Deleted { node: name.clone() });
                }
                kept
            });
        }
        self.alarms.retain(|_, (line, named)| {
            if !*named {
                lines.push(Line::Alarm(AlarmLine {
                    text: "it ended while nobody watched".to_owned(),
                    over: true,
                    ..line.clone()
                }));
            }
            *named
        });
        lines.push(Line::Synced { revision });
        lines
    }
}

fn frozen(node: &str, frozen: bool) -> Line {
    Line::Frozen {
        node: node.to_owned(),
        frozen,
    }
}

fn values(changes: &[v1::ValueChange]) -> Values {
    changes
        .iter()
        .filter_map(|change| Some((change.url.clone(), change.value.clone()?)))
        .collect()
}

fn differences<'a>(
    node: &'a str,
    old: &'a Values,
    new: &'a Values,
    shown: &'a Shown,
) -> impl Iterator<Item = ValueLine> + 'a {
    let urls: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    urls.into_iter()
        .filter(|url| old.get(*url) != new.get(*url))
        .map(|url| value_line(node, url, old.get(url), new.get(url), shown))
}

fn apply(
    node: &str,
    values: &mut Values,
    changes: &[v1::ValueChange],
    shown: &Shown,
) -> Vec<ValueLine> {
    let mut lines = Vec::new();
    for change in changes {
        let old = values.get(&change.url);
        if old == change.value.as_ref() {
            continue;
        }
        lines.push(value_line(
            node,
            &change.url,
            old,
            change.value.as_ref(),
            shown,
        ));
        match &change.value {
            Some(value) => values.insert(change.url.clone(), value.clone()),
            None => values.remove(&change.url),
        };
    }
    lines
}

fn value_line(
    node: &str,
    url: &str,
    from: Option<&v1::Value>,
    to: Option<&v1::Value>,
    shown: &Shown,
) -> ValueLine {
    let json = |value: Option<&v1::Value>| {
        value.map_or(serde_json::Value::Null, |value| shown.json(url, value))
    };
    ValueLine {
        node: node.to_owned(),
        url: url.to_owned(),
        from: json(from),
        to: json(to),
        from_text: shown.text(url, from),
        to_text: shown.text(url, to),
    }
}

fn mutation_line(mutation: &v1::MutationEvent) -> Line {
    use v1::mutation_event::Kind;
    Line::Mutation(MutationLine {
        node: mutation.node_name.clone(),
        mutation: mutation.mutation.clone(),
        event: match mutation.kind() {
            Kind::Unspecified => "unspecified",
            Kind::Fired => "fired",
            Kind::Done => "done",
            Kind::Failed => "failed",
            Kind::Interrupted => "interrupted",
        },
        attempt: mutation.attempt,
        elapsed_ms: mutation.elapsed_ms,
        text: mutation.text.clone(),
    })
}

#[cfg(test)]
mod tests;
