//! Engine types as the API shows them: secrets redacted, times on the wall clock.

use std::collections::BTreeSet;

use engine::Engine;
use engine::driver::wall_ms;
use engine::event::{CommitError, WriteError};
use engine::extension::{Kind, REDACTED, Schema};
use engine::mutation::report::Report;
use engine::state::{Change, Frozen, MAX_VALUES, Node, NodeId, StateUrl, Value, Values};
use engine::time::Instant;
use engine::wire::convert::{self, NodeFacts};
use proto::v1;
use tonic::Status;

use crate::nodeset::NodeSetError;
use crate::pending::Pending;

/// Changes as messages, without secrets.
pub(super) fn changes(schema: &Schema, changes: &[Change]) -> Vec<v1::ValueChange> {
    let shown = changes.iter().map(|change| schema.redacted(change));
    shown
        .map(|change| convert::change_to_proto(&change))
        .collect()
}

/// Changes of Cfg as messages. What no extension describes may be the secret of one that is gone.
pub(super) fn cfg_changes(schema: &Schema, changes: &[Change]) -> Vec<v1::ValueChange> {
    let shown = changes.iter().map(|change| match &change.value {
        Some(_) if schema.hides(&change.url) => {
            Change::set(change.url.clone(), Value::from(REDACTED))
        }
        value => Change {
            url: change.url.clone(),
            value: value.clone(),
        },
    });
    shown
        .map(|change| convert::change_to_proto(&change))
        .collect()
}

fn values(values: Vec<v1::ValueChange>) -> v1::Values {
    v1::Values { values }
}

/// A node as a message.
pub(super) fn node(engine: &Engine, node: &Node, now: Instant) -> v1::Node {
    let parent = node.parent.and_then(|parent| engine.tree().get(parent));
    v1::Node {
        parent_name: parent.map_or_else(String::new, |parent| parent.name.to_string()),
        ..node_at(engine.schema(), node, engine.me(), (now, wall_ms()))
    }
}

/// A node as it was, as a message.
pub(super) fn node_at(
    schema: &Schema,
    node: &Node,
    me: NodeId,
    (then, then_ms): (Instant, u64),
) -> v1::Node {
    let age_ms = |seen: Instant| u64::try_from(then.since(seen).as_millis()).unwrap_or(u64::MAX);
    let last_seen_ms = node
        .last_seen
        .map_or(0, |seen| then_ms.saturating_sub(age_ms(seen)));
    let facts = NodeFacts {
        last_seen_ms,
        is_head: node.id == me,
    };
    v1::Node {
        cfg: Some(values(cfg_changes(schema, &node.cfg.to_changes()))),
        dsc: Some(values(changes(schema, &node.dsc.to_changes()))),
        ..convert::node_to_proto(node, facts)
    }
}

/// A change of Cfg as callers write it: texts are read as the url's type wants them.
pub(super) fn written(schema: &Schema, change: v1::ValueChange) -> Result<Change, Status> {
    let change = convert::change_from_proto(change).map_err(invalid)?;
    typed(schema, change)
}

/// All changes of one request.
pub(super) fn all_written(
    schema: &Schema,
    changes: Vec<v1::ValueChange>,
) -> Result<Vec<Change>, Status> {
    if changes.len() > MAX_VALUES {
        return Err(invalid(format!(
            "changes has {} items, more than {MAX_VALUES}",
            changes.len()
        )));
    }
    let mut urls = BTreeSet::new();
    let mut written = Vec::with_capacity(changes.len());
    for (index, change) in changes.into_iter().enumerate() {
        let at = |status: Status| {
            Status::new(
                status.code(),
                format!("changes[{index}]: {}", status.message()),
            )
        };
        let change = self::written(schema, change).map_err(at)?;
        if !urls.insert(change.url.clone()) {
            return Err(at(invalid(format!("{} is named twice", change.url))));
        }
        written.push(change);
    }
    Ok(written)
}

/// Reads texts as the url's type wants them.
pub(super) fn typed(schema: &Schema, change: Change) -> Result<Change, Status> {
    let Change { url, value } = change;
    let Some(field) = schema.field(&url) else {
        // Says which url is meant instead, as it does for values.
        return match schema.check(&url, value.unwrap_or(Value::from(""))) {
            Err(error) => Err(invalid(error)),
            Ok(value) => Ok(Change { url, value }),
        };
    };
    let value = match value {
        Some(Value::Text(text)) if field.secret && &*text == REDACTED => Some(Value::Text(text)),
        Some(Value::Text(text)) if field.repeated || !matches!(field.kind, Kind::Text) => {
            schema.parse(&url, &text).map_err(invalid)?
        }
        Some(value) => schema.check(&url, value).map_err(invalid)?,
        None => None,
    };
    Ok(Change { url, value })
}

/// The Cfg of a node to be added.
pub(super) fn typed_cfg(schema: &Schema, cfg: &Values) -> Result<Values, Status> {
    let mut out = Values::default();
    for change in cfg.to_changes() {
        out.apply([typed(schema, change)?]);
    }
    Ok(out)
}

/// Why a node is where it is.
pub(super) fn report(schema: &Schema, report: &Report) -> v1::Report {
    v1::Report {
        desired: changes(schema, &report.desired),
        known: changes(schema, &report.known),
        ..convert::report_to_proto(report)
    }
}

/// A machine of the holding list.
pub(super) fn pending(pending: &Pending) -> v1::Pending {
    use crate::boot::ClientArch::{Bios, UefiAarch64, UefiX86_64};
    let machine = &pending.machine;
    v1::Pending {
        mac: machine.mac.to_string(),
        uuid: machine
            .uuid
            .map(|uuid| uuid.to_string())
            .unwrap_or_default(),
        // The registry's number for the kind of firmware; BIOS is 0, as is a machine that does not tell.
        arch: match machine.arch {
            Some(Bios) | None => 0,
            Some(UefiX86_64) => 7,
            Some(UefiAarch64) => 11,
        },
        vendor_class: machine.vendor_class.clone().unwrap_or_default(),
        interface: machine.interface.to_string(),
        giaddr: machine
            .giaddr
            .map(|address| address.to_string())
            .unwrap_or_default(),
        hostname: machine.hostname.clone().unwrap_or_default(),
        first_seen_ms: pending.first_seen_ms,
        last_seen_ms: pending.last_seen_ms,
        count: pending.count,
    }
}

/// A request that makes no sense.
pub(super) fn frozen_groups(frozen: Frozen) -> Vec<v1::FrozenGroup> {
    let groups = frozen.groups.into_iter();
    let group = groups.map(|(group, by)| v1::FrozenGroup {
        group,
        author: by.by,
        reason: by.reason,
    });
    group.collect()
}

pub(super) fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A node set that names nothing.
pub(super) fn no_nodes(error: NodeSetError) -> Status {
    match &error {
        NodeSetError::NoSuchNode(_) | NodeSetError::NoSuchGroup(_) => {
            Status::not_found(error.to_string())
        }
        NodeSetError::Syntax { .. } | NodeSetError::TooMany | NodeSetError::Selector(_) => {
            invalid(error)
        }
    }
}

/// A write that changed nothing.
pub(super) fn not_written(error: &WriteError) -> Status {
    let text = error.to_string();
    match error {
        WriteError::Conflict { .. } => Status::aborted(text),
        WriteError::NoSuchNode(_) => Status::not_found(text),
        WriteError::Taken(_) => Status::already_exists(text),
        WriteError::Invalid(_) | WriteError::KeyReused { .. } => Status::invalid_argument(text),
        WriteError::NotOnTrial(_) => Status::not_found(text),
        WriteError::Repeated { .. } => Status::already_exists(text),
        WriteError::Store(CommitError::DiskFull) => Status::resource_exhausted(text),
        WriteError::Store(CommitError::Failed(_)) => Status::unavailable(text),
    }
}

/// The url of the MAC by which a node boots.
pub(super) fn boot_mac_url() -> StateUrl {
    "/ipv4/boot/mac"
        .parse()
        .unwrap_or_else(|_| unreachable!("a constant url, see the API's tests"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(url: &str, value: &str) -> v1::ValueChange {
        convert::change_to_proto(&Change::set(url.parse().unwrap(), Value::from(value)))
    }

    #[track_caller]
    fn check(url: &str, value: &str, expect: Result<Option<Value>, &str>) {
        let read = written(&Schema::built_in(), text(url, value));
        match (read, expect) {
            (Ok(change), Ok(value)) => assert_eq!(change.value, value),
            (Err(status), Err(part)) => assert!(status.message().contains(part), "{status}"),
            (read, expect) => panic!("{read:?} is not {expect:?}"),
        }
    }

    #[test]
    fn texts_are_read_as_their_url_wants() {
        check("/RunState", "SYNC", Ok(Some(Value::from("SYNC"))));
        check("/RunState", "UNKNOWN", Ok(None));
        check(
            "/RunState",
            "SINK",
            Err("one of UNKNOWN, INIT, SYNC, ERROR"),
        );
        check("/power/insecure", "yes", Ok(Some(Value::Bool(true))));
        check("/ipv4/boot/mtu", "9000", Ok(Some(Value::Int(9000))));
        check("/ipv4/boot/mtu", "-1", Err("a whole number"));
        check(
            "/ipv4/boot/mac",
            "52-54-00-AA-00-01",
            Ok(Some(Value::from("52:54:00:aa:00:01"))),
        );
        let servers = ["10.0.0.1", "10.0.0.2"].map(Value::from);
        check(
            "/ipv4/dns",
            "10.0.0.1,10.0.0.2",
            Ok(Some(Value::List(servers.to_vec()))),
        );
        check(
            "/ipv4/interfaces/ib0/address",
            "10.1.0.1/16",
            Ok(Some(Value::from("10.1.0.1/16"))),
        );
        check("/runstate", "SYNC", Err("did you mean /RunState?"));
        check("/power/password", REDACTED, Ok(Some(Value::from(REDACTED))));
    }

    #[test]
    fn secrets_are_never_shown() {
        let schema = Schema::built_in();
        let url = "/power/password".parse().unwrap();
        let shown = changes(
            &schema,
            &[
                Change::set(url, Value::from("hunter2")),
                Change::unset(boot_mac_url()),
            ],
        );
        assert_eq!(
            shown,
            [
                text("/power/password", REDACTED),
                v1::ValueChange {
                    url: "/ipv4/boot/mac".into(),
                    value: None
                }
            ]
        );
    }
}
