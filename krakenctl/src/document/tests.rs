use super::*;
use crate::value::Shown;
use crate::view::{self, NodeView};

fn read_text(text: &str) -> Result<Document, Failure> {
    read(text, &Schema::built_in())
}

#[test]
fn yaml_with_places() {
    let document = read_text(
        "- nodes: n[1-2]\n  groups: [rack1]\n  labels: {row: 7}\n  cfg:\n    /ipv4/boot/mac: 52:54:00:4b:00:{i:02x}\n    /ipv4/boot/mtu: 9000\n    /ipv4/dns: [10.0.0.1, 10.0.0.2]\n- name: login\n",
    )
    .expect("document");
    let names: Vec<&str> = document
        .nodes
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    assert_eq!(names, ["n1", "n2", "login"]);
    let shown = Shown::default();
    let text = |url| shown.text(url, view::get(view::cfg(&document.nodes[1]), url));
    assert_eq!(text("/ipv4/boot/mac"), "52:54:00:4b:00:02");
    assert_eq!(text("/ipv4/boot/mtu"), "9000");
    assert_eq!(text("/ipv4/dns"), "10.0.0.1,10.0.0.2");
    assert_eq!(document.nodes[0].labels["row"], "7");
}

/// What `node list` prints can be read back, in both formats; braces in values stay what they are.
#[test]
fn output_is_input() {
    let text = |url: &str, text: &str| v1::ValueChange {
        url: url.to_owned(),
        value: Some(v1::Value {
            kind: Some(v1::value::Kind::TextValue(text.to_owned())),
        }),
    };
    let node = v1::Node {
        id: vec![7; 16],
        name: "n1".into(),
        groups: vec!["rack1".into()],
        cfg: Some(v1::Values {
            values: vec![
                text("/image/name", "{i}"),
                text("/ipv4/boot/mac", "52:54:00:00:00:01"),
                text("/power/password", "x"),
            ],
        }),
        dsc: Some(v1::Values {
            values: vec![text("/RunState", "SYNC")],
        }),
        cfg_revision: 9,
        last_seen_ms: 1,
        ..Default::default()
    };
    let head = v1::Node {
        name: "head".into(),
        is_head: true,
        ..Default::default()
    };
    let shown = Shown::new(Schema::built_in());
    let views = [&head, &node].map(|node| NodeView::new(node, &shown));
    for text in [
        serde_json::to_string(&views).expect("json"),
        serde_saphyr::to_string(&views.to_vec()).expect("yaml"),
    ] {
        let document = read_text(&text).expect(&text);
        let mut expect = node.clone();
        expect.dsc = None;
        expect.cfg_revision = 0;
        expect.last_seen_ms = 0;
        if let Some(cfg) = &mut expect.cfg {
            cfg.values.pop();
        }
        assert_eq!(document.nodes, [expect], "{text}");
        assert_eq!(document.notes.len(), 2, "{:?}", document.notes);
    }
}

#[track_caller]
fn refused(text: &str, word: &str) {
    let failure = read_text(text).expect_err(text);
    let hint = failure.hint.clone().unwrap_or_default();
    assert!(
        failure.text.contains(word) || hint.contains(word),
        "{failure:?}"
    );
    assert_eq!(failure.exit, crate::exit::Exit::Usage);
}

#[test]
fn mistakes_are_named() {
    refused("", "");
    refused("[]", "no node");
    refused("7", "list");
    refused("[7]", "entry 1");
    refused("- name: n1\n- nam: n2", "\"name\"");
    refused("- cfg: {}", "missing");
    refused("- name: n1\n  nodes: n2", "exclude");
    refused("- name: [n1]", "text");
    refused("- nodes: n[1-", "brackets");
    refused("- name: n1\n  cfg: {/RunState: SINC}", "SYNC");
    refused("- name: n1\n  cfg: {/RunState: {a: b}}", "/RunState");
    refused("- nodes: n1\n  cfg: {/image/name: '{x}'}", "{x}");
    refused(
        "- nodes: n[1-2]\n  id: 00000000-0000-0000-0000-000000000001",
        "one node",
    );
    refused("- name: n1\n  id: x", "id");
    refused("{\"name\": ", "YAML");
    refused("- name: n1\n  groups: rack1", "groups");
}
