//! What the modules of a real cluster declare, and what its operators want.

use std::time::Duration;

use crate::engine::{Guards, Limit, Limits};
use crate::extension::{Field, Kind, Schema};
use crate::mutation::{
    Condition, Dependency, Mutation, MutationContext, MutationId, MutationSet, Others,
    OthersCondition, UrlChange,
};
use crate::state::{Change, StateUrl, Value};

use MutationContext::{All, Child, SelfNode};

/// Time for an image to start or to stop.
pub(super) const IMAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// The group of the nodes for whom others wait.
pub(super) const SERVERS: &str = "io";
/// The group that is frozen and limited.
pub(super) const RACK: &str = "rack";

/// The groups of the machine of this number.
pub(super) fn groups(index: usize) -> impl Iterator<Item = String> {
    let groups = [(index < 2, SERVERS), (index % 2 == 1, RACK)];
    let groups = groups.into_iter().filter(|(is_in, _)| *is_in);
    groups.map(|(_, group)| group.to_owned())
}

/// How much may be disrupted, and how fast, in the world of this seed: in every third one nothing is limited.
pub(super) fn guards(seed: u64) -> Guards {
    let at_once = |count| Limit {
        at_once: Some(count),
        ..Limit::default()
    };
    let limits = match seed / 2 % 3 {
        0 => Limits::default(),
        1 => Limits {
            cluster: at_once(2),
            groups: [(RACK.to_owned(), at_once(1))].into(),
            power_on_gap: Duration::from_millis(700),
            ..Limits::default()
        },
        _ => Limits {
            cluster: Limit {
                per_minute: Some(4),
                ..at_once(4)
            },
            mutations: [("pxe/NONEtoWAIT".to_owned(), at_once(3))].into(),
            ..Limits::default()
        },
    };
    Guards {
        limits,
        ..Guards::default()
    }
}

/// The built-in schema, and what the nodes' own module finds.
pub(super) fn schema() -> Schema {
    let mut schema = Schema::built_in();
    let field = Field {
        discoverable: true,
        ..Field::new(Kind::Text)
    };
    schema.add("/tune/state".to_owned(), field);
    schema
}

/// The power, pxe, core and image mutations, as head and agents have them, and one that runs beside the image and waits for the servers. A boot has less time than in a real cluster, so that silent nodes come to
/// the point where nothing but the guard rails keeps them from a power cycle.
pub fn mutations() -> MutationSet {
    let on = &["/PhysState=POWER_ON"][..];
    let sync = &["/PhysState=POWER_ON", "/RunState=SYNC"][..];
    let idle = "/Busy=BUSY";
    let power = |name: &str, from: &str, to: &str, seconds: u64| {
        let mut mutation = mutation(
            "power",
            name,
            Child,
            &[("/PhysState", from, to)],
            &["/power/driver=COMMAND"],
            seconds,
        );
        let fails_to = if from == "POWER_ON" || from == "POWER_OFF" {
            "PHYS_HANG"
        } else {
            "PHYS_ERROR"
        };
        mutation.fail_to = vec![change(&format!("/PhysState={fails_to}"))];
        mutation
    };
    let off = |name, from, excludes: &[&str]| Mutation {
        disruptive: true,
        excludes: conditions(excludes),
        ..power(name, from, "POWER_OFF", 60)
    };
    let image = |name, from, to, excludes: &[&str]| Mutation {
        excludes: conditions(excludes),
        fail_to: vec![change("/image/state=ERROR")],
        ..mutation(
            "image",
            name,
            SelfNode,
            &[("/image/state", from, to)],
            sync,
            IMAGE_TIMEOUT.as_secs(),
        )
    };
    let boot = |name, changes: &[(&str, &str, &str)], seconds| {
        mutation("pxe", name, Child, changes, on, seconds)
    };
    let mut mutations = vec![
        power("UKtoOFF", "", "POWER_OFF", 30),
        power("OFFtoON", "POWER_OFF", "POWER_ON", 60),
        off("ONtoOFF", "POWER_ON", &["/RunState=SYNC", idle]),
        off("HANGtoOFF", "PHYS_HANG", &[idle]),
        off("ERRORtoOFF", "PHYS_ERROR|POWER_CYCLE", &[idle]),
        boot("NONEtoWAIT", &[("/pxe/state", "", "WAIT")], 30),
        boot(
            "WAITtoINIT",
            &[("/pxe/state", "WAIT", "INIT"), ("/RunState", "", "INIT")],
            25,
        ),
        boot(
            "ERRORtoWAIT",
            &[
                ("/pxe/state", "|WAIT|INIT", "WAIT"),
                ("/RunState", "ERROR", ""),
            ],
            30,
        ),
        mutation(
            "core",
            "INITtoSYNC",
            All,
            &[("/RunState", "INIT", "SYNC")],
            on,
            40,
        ),
        Mutation {
            excludes: conditions(&[idle]),
            fail_to: vec![change("/RunState=ERROR")],
            ..mutation(
                "core",
                "SYNCtoINIT",
                SelfNode,
                &[("/RunState", "SYNC", "INIT")],
                &["/PhysState=POWER_ON", "/image/state=IDLE"],
                30,
            )
        },
        Mutation {
            requires_of: vec![servers_on()],
            fail_to: Vec::new(),
            ..mutation(
                "tune",
                "UKtoFAST",
                SelfNode,
                &[("/tune/state", "", "FAST")],
                sync,
                IMAGE_TIMEOUT.as_secs(),
            )
        },
        image("UKtoIDLE", "", "IDLE", &[]),
        image("IDLEtoACTIVE", "IDLE", "ACTIVE", &[idle]),
        image("ACTIVEtoIDLE", "ACTIVE", "IDLE", &[idle]),
        image("ERRORtoIDLE", "ERROR", "IDLE", &[idle]),
        image("ERRORtoACTIVE", "ERROR", "ACTIVE", &[idle]),
    ];
    mutations.sort_by(|a, b| a.id.cmp(&b.id));
    MutationSet {
        generation: 1,
        mutations,
        dependencies: vec![
            Dependency {
                url: url_of("/Busy"),
                conditions: conditions(&["/RunState=SYNC"]),
            },
            Dependency {
                url: url_of("/PhysState"),
                conditions: Vec::new(),
            },
        ],
        ..MutationSet::default()
    }
}

/// The other servers are switched on.
fn servers_on() -> OthersCondition {
    OthersCondition {
        who: Others::Group(SERVERS.into()),
        condition: Condition::any_of(url_of("/PhysState"), vec![value_of("POWER_ON")]),
    }
}

/// What operators want of every node.
pub(super) fn goal() -> Vec<Change> {
    [
        "/PhysState=POWER_ON",
        "/RunState=SYNC",
        "/image/state=ACTIVE",
        "/tune/state=FAST",
        "/image/name=demo",
        "/power/driver=COMMAND",
        // Too long for a datagram: a Cfg that does not fit goes over the stream.
        &format!("/pxe/append={}", "x".repeat(1500)),
    ]
    .map(change)
    .to_vec()
}

/// `/Url=VALUE`; no value unsets.
pub(super) fn change(text: &str) -> Change {
    let (url, text) = text.split_once('=').unwrap_or((text, ""));
    Change {
        url: url_of(url),
        value: value_of(text),
    }
}

fn url_of(url: &str) -> StateUrl {
    match url.parse() {
        Ok(url) => url,
        Err(error) => unreachable!("the urls of this file are literals: {error}"),
    }
}

fn value_of(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| Value::from(text))
}

fn conditions(texts: &[&str]) -> Vec<Condition> {
    let condition = |text: &&str| {
        let Change { url, value } = change(text);
        Condition::any_of(url, vec![value])
    };
    texts.iter().map(condition).collect()
}

fn mutation(
    module: &str,
    name: &str,
    context: MutationContext,
    changes: &[(&str, &str, &str)],
    requires: &[&str],
    seconds: u64,
) -> Mutation {
    let mutates = changes.iter().map(|(url, from, to)| UrlChange {
        url: url_of(url),
        from: from.split('|').map(value_of).collect(),
        to: value_of(to),
    });
    Mutation {
        requires: conditions(requires),
        timeout: Some(Duration::from_secs(seconds)),
        fail_to: vec![change("/PhysState=PHYS_HANG")],
        ..Mutation::new(MutationId::new(module, name), context, mutates.collect())
    }
}
