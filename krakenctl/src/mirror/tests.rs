use super::*;

fn is(url: &str, text: &str) -> v1::ValueChange {
    let value = (!text.is_empty()).then(|| v1::Value {
        kind: Some(v1::value::Kind::TextValue(text.to_owned())),
    });
    v1::ValueChange {
        url: url.to_owned(),
        value,
    }
}

fn node(sequence: u64, name: &str, run: &str) -> v1::WatchEvent {
    let node = v1::Node {
        name: name.to_owned(),
        dsc: Some(v1::Values {
            values: vec![is("/RunState", run)],
        }),
        ..Default::default()
    };
    v1::WatchEvent {
        sequence,
        kind: Some(Kind::Node(node)),
    }
}

fn change(sequence: u64, name: &str, run: &str) -> v1::WatchEvent {
    let change = v1::NodeChange {
        node_name: name.to_owned(),
        dsc: vec![is("/RunState", run)],
        ..Default::default()
    };
    v1::WatchEvent {
        sequence,
        kind: Some(Kind::Change(change)),
    }
}

fn end(sequence: u64) -> v1::WatchEvent {
    v1::WatchEvent {
        sequence,
        kind: Some(Kind::SnapshotEnd(v1::SnapshotEnd { revision: 3 })),
    }
}

/// Feeds events and writes what comes out short.
fn feed(mirror: &mut Mirror, events: &[v1::WatchEvent]) -> Vec<String> {
    let shown = Shown::default();
    let lines = events
        .iter()
        .flat_map(|event| mirror.handle_event(event, &shown));
    let short = |line| match line {
        Line::Node { node } => format!("+{}", node.name),
        Line::Synced { revision } => format!("synced {revision}"),
        Line::Dsc(line) => format!("{} {}>{}", line.node, line.from_text, line.to_text),
        Line::Deleted { node } => format!("-{node}"),
        other => format!("{other:?}"),
    };
    lines.map(short).collect()
}

fn alarm(sequence: u64, node: &str, over: bool) -> v1::WatchEvent {
    let alarm = v1::Alarm {
        kind: "parked".into(),
        node_name: node.into(),
        text: "attempts are used up".into(),
        over,
        ..v1::Alarm::default()
    };
    v1::WatchEvent {
        sequence,
        kind: Some(Kind::Alarm(alarm)),
    }
}

#[test]
fn alarms_are_told_once_and_end_even_if_nobody_watched() {
    let mut mirror = Mirror::default();
    mirror.restart();
    let told = feed(&mut mirror, &[alarm(7, "n1", false), end(7)]);
    assert_eq!(told.len(), 2, "{told:?}");
    let told = feed(&mut mirror, &[alarm(8, "n1", false), alarm(9, "n2", false)]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(feed(&mut mirror, &[alarm(10, "n1", true)]).len(), 1);
    mirror.restart();
    assert!(feed(&mut mirror, &[alarm(20, "n3", false)])[0].contains("n3"));
    let told = feed(&mut mirror, &[end(20)]);
    assert!(
        told[0].contains("n2") && told[0].contains("over: true"),
        "{told:?}"
    );
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_snapshot_then_changes() {
    let mut mirror = Mirror::default();
    mirror.restart();
    assert_eq!(feed(&mut mirror, &[node(7, "n1", "INIT")]), ["+n1"]);
    assert_eq!(
        mirror.resume_after(),
        0,
        "a snapshot that broke off starts again"
    );
    assert!(!mirror.is_synced());
    assert_eq!(feed(&mut mirror, &[end(7)]), ["synced 3"]);
    assert_eq!(mirror.resume_after(), 7);
    let lines = feed(
        &mut mirror,
        &[
            change(8, "n1", "SYNC"),
            change(9, "n1", "SYNC"),
            change(10, "n1", ""),
        ],
    );
    assert_eq!(lines, ["n1 INIT>SYNC", "n1 SYNC>"]);
    assert_eq!(mirror.resume_after(), 10);
}

#[test]
fn after_a_gap_exactly_the_differences_are_shown() {
    let mut mirror = Mirror::default();
    mirror.restart();
    feed(
        &mut mirror,
        &[
            node(5, "n1", "SYNC"),
            node(5, "n2", "SYNC"),
            node(5, "n3", "SYNC"),
            end(5),
        ],
    );
    mirror.restart();
    let lines = feed(
        &mut mirror,
        &[
            node(1, "n1", "SYNC"),
            node(1, "n2", "ERROR"),
            node(1, "n4", "INIT"),
            end(1),
        ],
    );
    assert_eq!(lines, ["n2 SYNC>ERROR", "+n4", "-n3", "synced 3"]);
    assert_eq!(
        mirror.resume_after(),
        1,
        "the numbers of the head that restarted count"
    );
}

#[test]
fn a_node_event_for_a_known_node_shows_what_changed() {
    let mut mirror = Mirror::default();
    mirror.restart();
    feed(&mut mirror, &[node(1, "n1", "INIT"), end(1)]);
    assert_eq!(
        feed(&mut mirror, &[node(2, "n1", "SYNC")]),
        ["n1 INIT>SYNC"]
    );
    let mut grouped = node(3, "n1", "SYNC");
    if let Some(Kind::Node(node)) = &mut grouped.kind {
        node.groups.push("rack1".into());
        node.frozen = true;
    }
    let lines = feed(&mut mirror, &[grouped]);
    assert_eq!(
        lines,
        [
            "+n1".to_owned(),
            "Frozen { node: \"n1\", frozen: true }".to_owned()
        ]
    );
}

#[test]
fn lines_have_stable_names() {
    let mut mirror = Mirror::default();
    mirror.restart();
    let shown = Shown::default();
    mirror.handle_event(&node(1, "n1", "INIT"), &shown);
    let line = mirror
        .handle_event(&change(2, "n1", "SYNC"), &shown)
        .remove(0);
    let json = serde_json::to_string(&line).expect("json");
    assert_eq!(
        json,
        r#"{"type":"dsc","node":"n1","url":"/RunState","from":"INIT","to":"SYNC"}"#
    );
}
