//! `[governor]`: how much may be disrupted at once and how fast, for the cluster, for groups and for single mutations (DESIGN 3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::engine::{Breaking, Guards, Limit, Limits};

use super::document::{Document, Raw};

/// A quarter of the cluster a minute: an order to switch everything off is carried out within four minutes, and a slip of the pen meets a
/// `freeze` before it has gone far. A cluster of some 30 nodes does not notice.
const PERCENT_PER_MINUTE: u32 = 25;

/// A hundred machines a second are switched on: inrush currents do not add up, and nobody waits for it.
const POWER_ON_GAP: Duration = Duration::from_millis(10);

/// Most nodes of a limit; no cluster is larger.
const MAX_NODES: i64 = 1_000_000;

pub(super) fn guards(doc: &mut Document<'_>) -> Guards {
    let gap = format!("{POWER_ON_GAP:?}");
    let power_on_gap = doc.get_or(
        "governor.power_on_gap",
        POWER_ON_GAP,
        format!("\"{gap}\""),
        |raw| raw.duration(Duration::ZERO, Duration::from_secs(600)),
    );
    let mut cluster = limit(doc, "governor");
    let percent = doc.get_or(
        "governor.percent_per_minute",
        PERCENT_PER_MINUTE,
        PERCENT_PER_MINUTE,
        read_percent,
    );
    // A hundred percent are no limit.
    cluster.percent_per_minute = (percent < 100).then_some(percent);
    let breaking = Breaking {
        failures: doc.get_or("governor.breaker_failures", 5, 5, |raw| count(raw, 0)) as usize,
        of: doc.get_or("governor.breaker_of", 10, 10, |raw| count(raw, 1)) as usize,
        retry: doc.get_or(
            "governor.breaker_retry",
            Breaking::default().retry,
            "\"10m\"",
            |raw| raw.duration(Duration::from_secs(1), Duration::from_secs(7 * 86_400)),
        ),
    };
    if breaking.failures > breaking.of {
        doc.refuse(
            "governor.breaker_failures",
            "is more than governor.breaker_of: no breaker would ever open",
        );
    }
    let mass_percent = doc.get_or("governor.mass_failure_percent", 20, 20, read_percent);
    Guards {
        limits: Limits {
            cluster,
            groups: limits(doc, "governor.group"),
            mutations: limits(doc, "governor.mutation"),
            power_on_gap,
        },
        breaking,
        mass_percent: Some(mass_percent),
    }
}

/// The limits of every name below `table`. Names may have dots.
fn limits(doc: &mut Document<'_>, table: &str) -> BTreeMap<String, Limit> {
    let keys = doc.names_below(table);
    let names = keys.iter().filter_map(|key| key.rsplit_once('.'));
    let names: BTreeSet<String> = names.map(|(name, _)| name.to_owned()).collect();
    let mut limits = BTreeMap::new();
    for name in names {
        let key = format!("{table}.{name}");
        let mut limit = limit(doc, &key);
        limit.percent_per_minute = doc.get(&format!("{key}.percent_per_minute"), read_percent);
        limits.insert(name, limit);
    }
    limits
}

fn limit(doc: &mut Document<'_>, key: &str) -> Limit {
    Limit {
        at_once: doc.get(&format!("{key}.at_once"), |raw| count(raw, 1)),
        per_minute: doc.get(&format!("{key}.per_minute"), |raw| count(raw, 1)),
        percent_per_minute: None,
    }
}

fn count(raw: &Raw, least: i64) -> Result<u32, String> {
    Ok(raw.int(least, MAX_NODES)? as u32)
}

fn read_percent(raw: &Raw) -> Result<u32, String> {
    Ok(raw.int(1, 100)? as u32)
}
