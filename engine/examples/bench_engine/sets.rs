//! The mutation sets that are measured.

use std::time::Duration;

use engine::mutation::{Condition, Mutation, MutationContext, MutationId, MutationSet, UrlChange};
use engine::state::{Value, Values};

/// A mutation of the parent; an empty text is unknown.
pub(crate) fn mutation(
    id: &str,
    changes: &[(&str, &str, &str)],
    requires: &[(&str, &str)],
    excludes: &[(&str, &str)],
) -> Mutation {
    let value = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let url = |text: &str| text.parse().expect("urls of this file are valid");
    let conditions = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(at, wanted)| Condition::is(url(at), *wanted))
            .collect()
    };
    let (module, name) = id.split_once('/').expect("ids of this file are valid");
    Mutation {
        requires: conditions(requires),
        excludes: conditions(excludes),
        timeout: Some(Duration::from_secs(90)),
        ..Mutation::new(
            MutationId::new(module, name),
            MutationContext::Child,
            changes
                .iter()
                .map(|(at, from, to)| UrlChange {
                    url: url(at),
                    from: vec![value(from)],
                    to: value(to),
                })
                .collect(),
        )
    }
}

/// Set C: power, network boot, sync, images, as Layercake declared them.
pub(crate) fn layercake() -> MutationSet {
    let platform = ("/Platform", "powerapi");
    let on = ("/PhysState", "POWER_ON");
    let sync = ("/RunState", "SYNC");
    let busy = ("/Busy", "BUSY");
    let mut mutations = vec![
        mutation(
            "powerapi/UKtoOFF",
            &[("/PhysState", "", "POWER_OFF")],
            &[platform],
            &[],
        ),
        mutation(
            "powerapi/OFFtoON",
            &[("/PhysState", "POWER_OFF", "POWER_ON")],
            &[platform],
            &[],
        ),
        mutation(
            "powerapi/ONtoOFF",
            &[("/PhysState", "POWER_ON", "POWER_OFF")],
            &[platform],
            &[sync, busy],
        ),
        mutation(
            "powerapi/HANGtoOFF",
            &[("/PhysState", "PHYS_HANG", "POWER_OFF")],
            &[platform],
            &[],
        ),
        mutation("pxe/NONEtoWAIT", &[("/pxe/state", "", "WAIT")], &[on], &[]),
        mutation(
            "pxe/WAITtoINIT",
            &[("/pxe/state", "WAIT", "INIT"), ("/RunState", "", "INIT")],
            &[on],
            &[],
        ),
        mutation(
            "core/INITtoSYNC",
            &[("/RunState", "INIT", "SYNC")],
            &[on],
            &[],
        ),
        mutation(
            "imageapi/UKtoIDLE",
            &[("/image/state", "", "IDLE")],
            &[sync, on],
            &[],
        ),
        mutation(
            "imageapi/SYNCtoINIT",
            &[("/RunState", "SYNC", "INIT")],
            &[("/image/state", "IDLE")],
            &[busy],
        ),
    ];
    for (from, to) in [
        ("IDLE", "ACTIVE"),
        ("ACTIVE", "IDLE"),
        ("UPDATE", "ACTIVE"),
        ("UPDATE", "IDLE"),
        ("ERROR", "ACTIVE"),
        ("ERROR", "IDLE"),
    ] {
        let id = format!("imageapi/{from}to{to}");
        mutations.push(mutation(
            &id,
            &[("/image/state", from, to)],
            &[sync, on],
            &[busy],
        ));
    }
    MutationSet {
        mutations,
        ..MutationSet::default()
    }
}

/// Cfg that wants `value` at `url`.
pub(crate) fn wanted(url: &str, value: &str) -> Values {
    let pairs = [("/Platform", "powerapi"), (url, value)];
    pairs
        .iter()
        .map(|(url, value)| (url.parse().expect("a url"), Value::from(*value)))
        .collect()
}

/// Urls of [`wide`] besides power and agent.
const WIDE_URLS: usize = 28;

/// 30 urls and 200 mutations: power, an agent, and 28 values of a node in groups of four, each of which is led forth and back through four
/// states; within a group each waits for the one before it. As much as a site with many modules would declare.
pub(crate) fn wide() -> MutationSet {
    let on = ("/PhysState", "POWER_ON");
    let power = |id, from, to| mutation(id, &[("/PhysState", from, to)], &[], &[]);
    let mut mutations = vec![
        power("power/UKtoOFF", "", "POWER_OFF"),
        power("power/OFFtoON", "POWER_OFF", "POWER_ON"),
        power("power/ONtoOFF", "POWER_ON", "POWER_OFF"),
        mutation("core/UKtoSYNC", &[("/RunState", "", "SYNC")], &[on], &[]),
    ];
    for number in 0..WIDE_URLS {
        let url = wide_url(number);
        let before = wide_url(number.saturating_sub(1));
        for at in 1..=4_usize {
            let name = |at: usize| match at {
                0 => String::new(),
                at => format!("v{at}"),
            };
            let (from, to) = (name(at - 1), name(at));
            let mut requires = vec![on, ("/RunState", "SYNC")];
            if number % 4 != 0 && at == 3 {
                requires.push((before.as_str(), "v4"));
            }
            let forth = format!("m{number}/to{at}");
            mutations.push(mutation(&forth, &[(&url, &from, &to)], &requires, &[]));
            if at > 1 {
                let back = format!("m{number}/from{at}");
                let busy = [("/Busy", "BUSY")];
                mutations.push(mutation(&back, &[(&url, &to, &from)], &[on], &busy));
            }
        }
    }
    MutationSet {
        mutations,
        ..MutationSet::default()
    }
}

fn wide_url(number: usize) -> String {
    format!("/m{number:02}/state")
}

/// Every value of [`wide`] at its end.
pub(crate) fn wide_goal() -> Values {
    let urls = (0..WIDE_URLS).map(wide_url);
    urls.map(|url| (url.parse().expect("a url"), Value::from("v4")))
        .collect()
}
