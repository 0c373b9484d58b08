//! The engine's events as log lines and counters.
//!
//! Texts that come from nodes or strangers are cut and cleaned, and no node can fill the log by being refused (threat S25). The stages of a boot
//! that the engine sees get the time since power-on; the boot plane logs those between.

use std::collections::HashMap;
use std::time::Duration;

use engine::event::{Event, MutationEvent};
use engine::extension::Schema;
use engine::state::{Change, NodeId, NodeName, core};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// Longest text of somebody else's that gets into a log line.
const MAX_QUOTE: usize = 256;

/// Lines about refusals and joins of one node in a window of time; the rest is counted.
const MAX_LINES: u32 = 20;

/// Lines about what is discovered of one node in such a window: a boot with all that modules find takes some dozens.
const MAX_FOUND: u32 = 100;

/// That window.
const WINDOW: Duration = Duration::from_secs(10);

type Names = HashMap<NodeId, NodeName>;

/// See the module.
#[derive(Default)]
pub(crate) struct EventLog {
    powered: HashMap<NodeId, Instant>,
    lines: HashMap<(Option<NodeId>, Topic), Lines>,
}

/// Lines of one topic do not take the place of another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Talk,
    Found,
}

struct Lines {
    since: Instant,
    count: u32,
}

impl EventLog {
    /// Logs one event. `names` are those of all nodes, `schema` knows the secrets.
    pub(crate) fn write(&mut self, event: &Event, names: &Names, schema: &Schema) {
        match event {
            Event::Node { node } => debug!(node = name_of(names, *node), "node written"),
            Event::Deleted { node, name } => {
                self.powered.remove(node);
                for topic in [Topic::Talk, Topic::Found] {
                    self.lines.remove(&(Some(*node), topic));
                }
                info!(node = %name, "node deleted");
            }
            Event::Cfg { node, changes } => {
                debug!(
                    node = name_of(names, *node),
                    changes = changes.len(),
                    "cfg changed"
                );
            }
            Event::Dsc { node, changes } => {
                let name = name_of(names, *node);
                for change in changes {
                    // The agent's whole inventory comes at once; the states are what moves a node.
                    let is_inventory = change.url.as_str().starts_with("/host/");
                    if is_inventory {
                        debug!(node = name, url = %change.url, "discovered");
                    } else if self.may_log(Some(*node), Topic::Found) {
                        discovered(&name, &schema.redacted(change));
                    }
                    self.stage(*node, &name, change);
                }
            }
            Event::Mutation {
                node,
                mutation,
                attempt,
                what,
            } => mutated(&name_of(names, *node), mutation.as_str(), *attempt, what),
            Event::Parked { node, reason } => {
                metrics::counter!("kraken_parked_total").increment(1);
                let (node, reason) = (name_of(names, *node), clean(reason));
                warn!(
                    node,
                    reason, "node parked: `krakenctl node explain` says more"
                );
            }
            Event::Unparked { node } => {
                info!(node = name_of(names, *node), "node goes on");
            }
            Event::Join { node, text, alarm } => {
                if *alarm {
                    metrics::counter!("kraken_join_alarms_total").increment(1);
                }
                if self.may_log(*node, Topic::Talk) {
                    let node = node.map(|node| name_of(names, node));
                    match alarm {
                        true => error!(node, text = clean(text), "join alarm"),
                        false => info!(node, text = clean(text), "join"),
                    }
                }
            }
            Event::Alarm {
                kind,
                about,
                text,
                over,
            } => {
                let phase = if *over { "over" } else { "raised" };
                metrics::counter!("kraken_alarms_total", "kind" => *kind, "phase" => phase)
                    .increment(1);
                warn!(kind, over, about, text = clean(text), "guard rail");
            }
            Event::Refused { node, why } => {
                metrics::counter!("kraken_refused_total").increment(1);
                if self.may_log(*node, Topic::Talk) {
                    let node = node.map(|node| name_of(names, node));
                    warn!(node, why = clean(why), "refused");
                }
            }
        }
    }

    /// Whether one more line about this node fits its window; says how many did not.
    fn may_log(&mut self, node: Option<NodeId>, topic: Topic) -> bool {
        let now = Instant::now();
        let most = match topic {
            Topic::Talk => MAX_LINES,
            Topic::Found => MAX_FOUND,
        };
        let lines = self.lines.entry((node, topic)).or_insert(Lines {
            since: now,
            count: 0,
        });
        if now.duration_since(lines.since) >= WINDOW {
            let suppressed = lines.count.saturating_sub(most);
            if suppressed > 0 {
                warn!(
                    node = node.map(|node| node.to_string()),
                    suppressed, "lines about one node left out"
                );
            }
            *lines = Lines {
                since: now,
                count: 0,
            };
        }
        lines.count = lines.count.saturating_add(1);
        lines.count <= most
    }

    fn stage(&mut self, node: NodeId, name: &str, change: &Change) {
        let value = change.value.as_ref().and_then(|value| value.as_text());
        let stage = match (change.url.as_str(), value) {
            (core::PHYS_STATE, Some(core::POWER_ON)) => "power-on",
            (core::RUN_STATE, Some(core::SYNC)) => "join",
            ("/image/state", Some("ACTIVE")) => "image",
            _ => return,
        };
        if stage == "power-on" {
            self.powered.insert(node, Instant::now());
        }
        let start = self.powered.get(&node);
        let since_power_on_ms = start.map(|start| start.elapsed().as_millis() as u64);
        info!(node = name, stage, since_power_on_ms, "boot stage");
        metrics::counter!("kraken_boot_stages_total", "stage" => stage).increment(1);
    }
}

/// Somebody else's text, cut and without control characters.
pub(crate) fn clean(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(MAX_QUOTE).collect()
}

fn name_of(names: &Names, node: NodeId) -> String {
    names
        .get(&node)
        .map_or_else(|| node.to_string(), ToString::to_string)
}

fn discovered(node: &str, change: &Change) {
    let url = &change.url;
    match &change.value {
        Some(value) => info!(node, %url, value = clean(&value.to_string()), "discovered"),
        None => info!(node, %url, "unknown"),
    }
}

fn mutated(node: &str, mutation: &str, attempt: u64, what: &MutationEvent) {
    let count = |what: &'static str| {
        let mutation = mutation.to_owned();
        metrics::counter!("kraken_mutations_total", "mutation" => mutation, "what" => what)
            .increment(1);
    };
    match what {
        MutationEvent::Fired { ours } => {
            count("fired");
            info!(node, mutation, attempt, ours, "mutation fired");
        }
        MutationEvent::Done { elapsed_ms } => {
            count("done");
            info!(node, mutation, attempt, elapsed_ms, "mutation done");
        }
        MutationEvent::Failed { text } => {
            count("failed");
            warn!(
                node,
                mutation,
                attempt,
                why = clean(text),
                "mutation failed"
            );
        }
        MutationEvent::Interrupted => {
            count("interrupted");
            info!(node, mutation, attempt, "mutation interrupted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s25_foreign_texts_are_cut_and_cleaned() {
        assert_eq!(clean("a\nb\x1b[31m\r"), "a b [31m ");
        assert_eq!(clean(&"x".repeat(1000)).len(), MAX_QUOTE);
    }

    #[tokio::test(start_paused = true)]
    async fn s25_one_node_cannot_fill_the_log() {
        let mut log = EventLog::default();
        let (loud, quiet) = (
            Some(NodeId::from_bytes([1; 16])),
            Some(NodeId::from_bytes([2; 16])),
        );
        let mut logged = |node, times: u32| {
            let lines = (0..times).filter(|_| log.may_log(node, Topic::Talk));
            lines.count() as u32
        };
        assert_eq!(logged(loud, MAX_LINES * 10), MAX_LINES);
        assert_eq!(logged(quiet, 3), 3);
        tokio::time::advance(WINDOW).await;
        assert_eq!(logged(loud, MAX_LINES + 1), MAX_LINES);
        let found = (0..MAX_FOUND * 2).filter(|_| log.may_log(loud, Topic::Found));
        assert_eq!(found.count() as u32, MAX_FOUND);
    }
}
