//! When each machine reached each stage of its boot.
//!
//! Power-on comes from the machine itself, the other stages from the head's JSON log: a line with the fields `node` and `stage`.
//! Every event gets the time at which the lab saw it, so all of them are on one clock.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Events kept; a boot has about ten, so this is a thousand boots, far beyond what a lab cluster sees.
pub const EVENTS_MAX: usize = 10_000;

/// The stages of a boot, in order, under the names that the head logs.
pub const STAGES: [&str; 9] = [
    "power-on",
    "dhcp",
    "loader",
    "script",
    "kernel",
    "initramfs",
    "grant",
    "join",
    "image",
];

/// The machine itself tells this one: a boot begins with it, whoever switched it on.
const POWER_ON: &str = "power-on";

/// One machine reached one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The node's name.
    pub node: String,
    /// One of [`STAGES`].
    pub stage: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// The events of a cluster, oldest first; clones share them.
#[derive(Clone, Default)]
pub struct Timeline(Arc<Mutex<Vec<Event>>>);

impl Timeline {
    /// Notes that a machine got power.
    pub fn power_on(&self, node: &str) {
        self.push(node, POWER_ON);
    }

    /// Notes the stage that a line of the head's log tells, if it does.
    pub fn head_log_line(&self, line: &str) {
        if let Some((node, stage)) = stage_of(line).filter(|(_, stage)| stage != POWER_ON) {
            self.push(&node, &stage);
        }
    }

    /// All events.
    pub fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    fn push(&self, node: &str, stage: &str) {
        let at_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| {
                u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
            });
        let mut events = self.lock();
        if events.len() < EVENTS_MAX {
            events.push(Event {
                node: node.to_owned(),
                stage: stage.to_owned(),
                at_ms,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latest boot of `node`: each stage that it reached, with the time since power-on. A stage that is told twice counts once.
pub fn last_boot(events: &[Event], node: &str) -> Vec<(String, Duration)> {
    let mut boot: Vec<(String, u64)> = Vec::new();
    for event in events.iter().filter(|event| event.node == node) {
        if event.stage == POWER_ON {
            boot.clear();
        }
        if boot.iter().all(|(stage, _)| *stage != event.stage) {
            boot.push((event.stage.clone(), event.at_ms));
        }
    }
    let start = boot.first().map_or(0, |(_, at)| *at);
    boot.into_iter()
        .map(|(stage, at)| (stage, Duration::from_millis(at.saturating_sub(start))))
        .collect()
}

/// Heading and one row per node: how long each stage took after the one before it, and all of them together.
pub fn rows(events: &[Event], nodes: &[String]) -> Vec<Vec<String>> {
    let boots: Vec<_> = nodes.iter().map(|node| last_boot(events, node)).collect();
    let seen = |stage: &&&str| {
        **stage != POWER_ON
            && boots
                .iter()
                .any(|boot| boot.iter().any(|(name, _)| name == **stage))
    };
    let stages: Vec<&str> = STAGES.iter().filter(seen).copied().collect();
    let mut heading = vec!["node".to_owned()];
    heading.extend(stages.iter().map(|stage| (*stage).to_owned()));
    heading.push("total".to_owned());
    let mut rows = vec![heading];
    for (node, boot) in nodes.iter().zip(&boots) {
        let mut row = vec![node.clone()];
        let mut before = Duration::ZERO;
        for stage in &stages {
            row.push(match boot.iter().find(|(name, _)| name == stage) {
                Some((_, at)) => {
                    let took = at.saturating_sub(before);
                    before = before.max(*at);
                    format!("{:.1} s", took.as_secs_f64())
                }
                None => "-".to_owned(),
            });
        }
        row.push(format!("{:.1} s", before.as_secs_f64()));
        rows.push(row);
    }
    rows
}

fn stage_of(line: &str) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = value.get("fields").unwrap_or(&value);
    let text = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
    let stage = text("stage").filter(|stage| STAGES.contains(&stage.as_str()))?;
    Some((text("node")?, stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_come_from_the_heads_log() {
        let check = |line: &str, expect: Option<(&str, &str)>| {
            let found = stage_of(line);
            let found = found.as_ref().map(|(n, s)| (n.as_str(), s.as_str()));
            assert_eq!(found, expect, "{line}");
        };
        check(
            r#"{"timestamp":"t","level":"INFO","fields":{"message":"boot stage","node":"n1","stage":"dhcp"},"target":"kraken_head"}"#,
            Some(("n1", "dhcp")),
        );
        check(
            r#"{"message":"boot stage","node":"n2","stage":"join"}"#,
            Some(("n2", "join")),
        );
        check(r#"{"fields":{"node":"n2","stage":"unheard-of"}}"#, None);
        check("thread 'main' panicked", None);
    }

    #[test]
    fn a_power_on_begins_a_boot() {
        let event = |stage: &str, at_ms| Event {
            node: "n1".into(),
            stage: stage.into(),
            at_ms,
        };
        let events = [
            event("power-on", 1_000),
            event("dhcp", 3_000),
            event("power-on", 10_000),
            event("dhcp", 11_500),
            event("dhcp", 11_600),
            event("join", 14_000),
        ];
        let rows = rows(&events, &["n1".to_owned()]);
        assert_eq!(
            crate::ui::table(&rows),
            "node  dhcp   join   total\nn1    1.5 s  2.5 s  4.0 s\n"
        );
    }
}
