mod join;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use proto::v1;

use super::*;
use crate::event::ConnId;
use crate::mutation::{
    Condition, Dependency, Mutation, MutationContext, MutationId, MutationSet, NumberRange, Others,
    OthersCondition, UrlChange,
};
use crate::state::{
    Change, Float, MAX_LIST_ITEMS, MAX_VALUE_BYTES, MAX_VALUES, Node, NodeId, StateUrl, Value,
    Values,
};
use crate::sync::join::{
    Accepted, ChallengeMessage, GrantId, HelloMessage, ProofMessage, RefuseReason, Secret,
    SessionKeys,
};
use crate::sync::message::{Delta, Frame, Hello, Snapshot};
use crate::sync::{SessionId, SyncConfig};

fn url(text: &str) -> StateUrl {
    text.parse().unwrap()
}

fn text_change(url: &str, text: impl Into<String>) -> v1::ValueChange {
    v1::ValueChange {
        url: url.into(),
        value: Some(text_value(text)),
    }
}

fn text_value(text: impl Into<String>) -> v1::Value {
    v1::Value {
        kind: Some(v1::value::Kind::TextValue(text.into())),
    }
}

fn delta(changes: Vec<v1::ValueChange>) -> v1::Frame {
    v1::Frame {
        kind: Some(v1::frame::Kind::Delta(v1::Delta {
            base: 1,
            version: 2,
            changes,
            ..v1::Delta::default()
        })),
    }
}

fn snapshot(values: Vec<v1::ValueChange>) -> v1::Frame {
    v1::Frame {
        kind: Some(v1::frame::Kind::Snapshot(v1::Snapshot {
            values,
            ..v1::Snapshot::default()
        })),
    }
}

/// The error that a message gives, in full.
fn check<T: std::fmt::Debug>(result: Result<T, ConvertError>, expect: &str) {
    let error = result.expect_err(expect).to_string();
    assert!(
        error.starts_with(expect),
        "{error:?} does not start with {expect:?}"
    );
}

#[test]
fn an_unchanged_hello_is_tiny() {
    let hello = |version, probe| {
        Frame::Hello(Hello {
            version,
            digest: u64::MAX,
            have: version,
            probe,
        })
    };
    assert!(encode_frame(&hello(1_000_000, false)).len() <= 20);
    assert!(
        encode_frame(&hello(u64::MAX, true)).len() <= 64,
        "DESIGN 8: at most 64 bytes of payload"
    );
}

/// F16: what a node can hold passes, one more does not.
#[test]
fn s23_limits_are_exact() {
    let at = |n: usize| delta(vec![text_change("/a", "x".repeat(n))]);
    assert!(frame_from_proto(at(MAX_VALUE_BYTES)).is_ok());
    check(
        frame_from_proto(at(MAX_VALUE_BYTES + 1)),
        "delta.changes[0].value has 65537 bytes, more than 65536",
    );

    let many = |n: usize| {
        delta(
            (0..n)
                .map(|n| text_change(&format!("/x{n}"), "1"))
                .collect(),
        )
    };
    assert!(frame_from_proto(many(MAX_VALUES)).is_ok());
    check(
        frame_from_proto(many(MAX_VALUES + 1)),
        "delta.changes has 4097 items, more than 4096",
    );

    let list = |n: usize| v1::Value {
        kind: Some(v1::value::Kind::ListValue(v1::ValueList {
            items: vec![text_value("x"); n],
        })),
    };
    assert!(value_from_proto(list(MAX_LIST_ITEMS)).is_ok());
    check(
        value_from_proto(list(MAX_LIST_ITEMS + 1)),
        "items has 1025 items, more than 1024",
    );

    let padding = |n: usize| {
        // An unknown field of the frame: tag 15, length-delimited.
        let mut bytes = vec![0x7a, 0, 0, 0];
        let length = n - 4;
        bytes[1..4].copy_from_slice(&[
            (length & 0x7f) as u8 | 0x80,
            (length >> 7 & 0x7f) as u8 | 0x80,
            (length >> 14) as u8,
        ]);
        bytes.resize(n, 0);
        bytes
    };
    check(decode_frame(&padding(MAX_MESSAGE_BYTES)), "kind is missing");
    check(
        decode_frame(&padding(MAX_MESSAGE_BYTES + 1)),
        "the message has 1048577 bytes, more than 1048576",
    );
}

#[test]
fn faults_name_their_field() {
    check(decode_frame(b"\xff"), "the message cannot be read");
    check(decode_frame(b""), "kind is missing");
    check(
        decode_frame(b"\x12\x80\x80\x80\x80\x04"),
        "the message cannot be read",
    );
    check(
        frame_from_proto(delta(vec![text_change("/a b", "x")])),
        "delta.changes[0].url \"/a b\" is not a state url",
    );
    let unset = v1::ValueChange {
        url: "/a".into(),
        value: None,
    };
    assert!(
        frame_from_proto(delta(vec![unset.clone()])).is_ok(),
        "a delta may unset"
    );
    check(
        frame_from_proto(snapshot(vec![unset])),
        "snapshot.values[0].value is missing",
    );
    check(
        frame_from_proto(snapshot(vec![text_change("/a", "")])),
        "snapshot.values[0].value is missing",
    );
    let twice = vec![text_change("/a", "1"), text_change("a", "2")];
    check(
        frame_from_proto(snapshot(twice)),
        "snapshot.values names /a twice",
    );
    let empty = v1::ValueChange {
        url: "/a".into(),
        value: Some(v1::Value { kind: None }),
    };
    check(
        frame_from_proto(delta(vec![empty])),
        "delta.changes[0].value is missing",
    );
    let nested = v1::Value {
        kind: Some(v1::value::Kind::ListValue(v1::ValueList {
            items: vec![v1::Value {
                kind: Some(v1::value::Kind::ListValue(v1::ValueList::default())),
            }],
        })),
    };
    check(value_from_proto(nested), "items[0] is a list inside a list");
    let mut back = delta(vec![]);
    if let Some(v1::frame::Kind::Delta(delta)) = &mut back.kind {
        delta.version = 1;
    }
    check(
        frame_from_proto(back),
        "delta.version is 1, not within 2 and",
    );
    let mut cut = delta(vec![]);
    if let Some(v1::frame::Kind::Delta(delta)) = &mut cut.kind {
        delta.signature = vec![0; 63];
    }
    check(
        frame_from_proto(cut),
        "delta.signature has 63 bytes, not 64",
    );
}

/// S23, F45: a message nested far deeper than the schema allows is an error, not a stack overflow.
#[test]
fn f45_deep_nesting_is_refused() {
    let mut value: Vec<u8> = Vec::new();
    for _ in 0..10_000 {
        // ValueList { items: [value] } inside Value { list_value }.
        for tag in [0x0a, 0x32] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(value.len() as u64, &mut outer);
            outer.append(&mut value);
            value = outer;
        }
        if value.len() > 60_000 {
            break;
        }
    }
    assert!(v1::Value::decode(&value[..]).is_err());
}

#[test]
fn a_zero_value_unsets() {
    let change = change_from_proto(text_change("/a", "")).unwrap();
    assert_eq!(change, Change::unset(url("/a")));
}

fn sample_mutation() -> Mutation {
    Mutation {
        id: MutationId::new("pxe", "WAITtoINIT"),
        context: MutationContext::Child,
        mutates: vec![UrlChange {
            url: url("/pxe/state"),
            from: vec![Some("WAIT".into()), None],
            to: Some("INIT".into()),
        }],
        requires: vec![Condition::is(url("/PhysState"), "POWER_ON")],
        excludes: vec![
            Condition::any_of(url("/Busy"), vec![Some("BUSY".into()), None]),
            Condition::number(url("/host/temperature"), NumberRange::AtLeast(90.into())),
        ],
        requires_of: ["parent", "@io"]
            .map(|who| OthersCondition {
                who: Others::parse(who).unwrap(),
                condition: Condition::is(url("/RunState"), "SYNC"),
            })
            .to_vec(),
        timeout: Some(Duration::from_secs(180)),
        fail_to: vec![Change::set(url("/PhysState"), "PHYS_HANG".into())],
        cost: 3,
        disruptive: true,
    }
}

fn sample_set() -> MutationSet {
    MutationSet {
        generation: 9,
        mutations: vec![sample_mutation()],
        dependencies: vec![Dependency {
            url: url("/RunState"),
            conditions: vec![Condition::is(url("/PhysState"), "POWER_ON")],
        }],
        discoverables: vec![url("/host/cpus")],
        one_by_one: true,
    }
}

#[test]
fn mutation_sets_come_back() {
    let set = sample_set();
    assert_eq!(
        mutation_set_from_proto(mutation_set_to_proto(&set)).unwrap(),
        set
    );
}

#[test]
fn mutation_sets_are_checked_and_ordered() {
    let edit = |edit: fn(&mut v1::MutationSet)| {
        let mut set = mutation_set_to_proto(&sample_set());
        edit(&mut set);
        mutation_set_from_proto(set)
    };
    check(
        edit(|set| set.mutations.push(set.mutations[0].clone())),
        "mutations names pxe/WAITtoINIT twice",
    );
    check(
        edit(|set| set.mutations[0].module = "a/b".into()),
        "mutations[0].module is no name",
    );
    check(
        edit(|set| set.mutations[0].name = String::new()),
        "mutations[0].name is missing",
    );
    check(
        edit(|set| set.mutations[0].name = "x".repeat(65)),
        "mutations[0].name has 65 bytes",
    );
    check(
        edit(|set| set.mutations[0].requires_of[1].who = "io".into()),
        "mutations[0].requires_of[1].who is no name",
    );
    check(
        edit(|set| set.mutations[0].context = 9),
        "mutations[0].context is 9, which this version does not know",
    );
    check(
        edit(|set| set.mutations[0].context = 0),
        "mutations[0].context is missing",
    );
    check(
        edit(|set| set.mutations[0].mutates.clear()),
        "mutations[0].mutates is missing",
    );
    check(
        edit(|set| {
            let again = set.mutations[0].mutates[0].clone();
            set.mutations[0].mutates.push(again);
        }),
        "mutations[0].mutates names /pxe/state twice",
    );
    check(
        edit(|set| set.mutations[0].mutates[0].from.clear()),
        "mutations[0].mutates[0].from is missing",
    );
    check(
        edit(|set| set.mutations[0].requires[0].any_of.clear()),
        "mutations[0].requires[0].any_of is missing",
    );
    check(
        edit(|set| set.mutations[0].excludes[1].any_of = vec![v1::OptionalValue::default()]),
        "mutations[0].excludes[1].any_of cannot stand beside at_least and at_most",
    );
    check(
        edit(|set| {
            set.mutations[0].excludes[1].at_most = Some(value_to_proto(&Value::from("hot")));
        }),
        "mutations[0].excludes[1].at_most is no number",
    );
    check(
        edit(|set| {
            let nan = Value::Float(crate::state::Float(f64::NAN));
            set.mutations[0].excludes[1].at_least = Some(value_to_proto(&nan));
        }),
        "mutations[0].excludes[1].at_least is no number",
    );
    check(
        edit(|set| set.mutations[0].excludes[0].url = "//".into()),
        "mutations[0].excludes[0].url",
    );
    check(
        edit(|set| set.mutations[0].requires = vec![set.mutations[0].requires[0].clone(); 65]),
        "mutations[0].requires has 65 items, more than 64",
    );
    check(
        edit(|set| set.dependencies.push(set.dependencies[0].clone())),
        "dependencies names /RunState twice",
    );
    check(
        edit(|set| set.discoverables[0] = " ".into()),
        "discoverables[0]",
    );
    let ordered = edit(|set| {
        let mut first = set.mutations[0].clone();
        first.module = "a".into();
        set.mutations.push(first);
    });
    let ids: Vec<String> = ordered
        .unwrap()
        .mutations
        .iter()
        .map(|mutation| mutation.id.to_string())
        .collect();
    assert_eq!(ids, ["a/WAITtoINIT", "pxe/WAITtoINIT"]);
}

#[test]
fn nodes_come_back_and_are_checked() {
    let new_id = NodeId::from_bytes([8; 16]);
    let mut node = Node::new(
        NodeId::from_bytes([1; 16]),
        "n1".parse().unwrap(),
        Some(NodeId::from_bytes([2; 16])),
    );
    node.groups = BTreeSet::from(["rack3".to_owned()]);
    node.labels.insert("owner".into(), "physics".into());
    node.cfg.set(url("/RunState"), Some("SYNC".into()));
    node.frozen = true;
    let message = node_to_proto(&node, NodeFacts::default());
    assert_eq!(node_from_proto(message.clone(), new_id).unwrap(), node);
    let edit = |edit: fn(&mut v1::Node)| {
        let mut node = message.clone();
        edit(&mut node);
        node_from_proto(node, new_id)
    };
    assert_eq!(edit(|node| node.id.clear()).unwrap().id, new_id);
    assert!(
        edit(|node| node.dsc = Some(v1::Values {
            values: vec![text_change("/a", "x")]
        }))
        .unwrap()
        .dsc
        .is_empty()
    );
    check(edit(|node| node.id.truncate(3)), "id has 3 bytes");
    check(
        edit(|node| node.name = "-".into()),
        "name \"-\" is not a node name",
    );
    check(
        edit(|node| node.groups = vec!["a b".into()]),
        "groups[0] is no name",
    );
    check(
        edit(|node| node.groups = vec!["g".into(); 65]),
        "groups has 65 items",
    );
    check(
        edit(|node| {
            node.labels.insert("k".into(), "x".repeat(257));
        }),
        "labels.k has 257 bytes",
    );
    check(
        edit(|node| {
            node.cfg = Some(v1::Values {
                values: vec![text_change("/a", "x"); 2],
            })
        }),
        "cfg.values names /a twice",
    );
}

fn plain_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Bool(true)),
        any::<i64>()
            .prop_filter("zero is no value", |n| *n != 0)
            .prop_map(Value::Int),
        any::<f64>()
            .prop_filter("zero is no value", |x| *x != 0.0)
            .prop_map(|x| Value::Float(Float(x))),
        ".{1,20}".prop_map(Value::text),
        proptest::collection::vec(any::<u8>(), 1..20).prop_map(|bytes| Value::Bytes(bytes.into())),
    ]
}

fn any_values() -> impl Strategy<Value = Values> {
    let value = prop_oneof![4 => plain_value(), 1 => proptest::collection::vec(plain_value(), 1..5).prop_map(Value::List)];
    proptest::collection::btree_map("(/[a-z]{1,8}){1,4}", value, 0..20).prop_map(|values| {
        values
            .into_iter()
            .map(|(at, value)| (url(&at), value))
            .collect()
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let numbers = (any::<u64>(), 0..u64::MAX / 2, any::<u64>(), any::<bool>());
    (
        0..4,
        numbers,
        any_values(),
        prop_oneof![Just(vec![]), Just(vec![7; 64])],
    )
        .prop_map(
            |(kind, (digest, version, have, probe), values, signature)| match kind {
                0 => Frame::Hello(Hello {
                    version,
                    digest,
                    have,
                    probe,
                }),
                1 => Frame::Delta(Delta {
                    base: version,
                    version: version + 1,
                    changes: values.to_changes(),
                    digest,
                    signature,
                    have,
                }),
                2 => Frame::Snapshot(Snapshot {
                    version,
                    values: values.to_changes(),
                    digest,
                    signature,
                    have,
                }),
                _ => Frame::SnapshotRequest { have },
            },
        )
}

proptest! {
    #[test]
    fn every_frame_comes_back(frame in any_frame()) {
        prop_assert_eq!(decode_frame(&encode_frame(&frame)).unwrap(), frame);
    }

    #[test]
    fn every_set_of_values_comes_back(values in any_values()) {
        let back = values_from_proto(values_to_proto(&values)).unwrap();
        prop_assert_eq!(back.digest(), values.digest());
        prop_assert_eq!(back, values);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        arbitrary_bytes(&bytes);
    }

    /// Bytes that are nearly right get further than noise.
    #[test]
    fn no_damaged_frame_panics(frame in any_frame(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut bytes = encode_frame(&frame);
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        arbitrary_bytes(&bytes);
    }
}

/// Whatever is read at all is read again equal after it was written: what passes is canonical.
fn arbitrary_bytes(bytes: &[u8]) {
    if let Ok(frame) = decode_frame(bytes) {
        assert_eq!(decode_frame(&encode_frame(&frame)).unwrap(), frame);
    }
    let _ = v1::MutationSet::decode(bytes).map(mutation_set_from_proto);
    let _ = v1::JoinHello::decode(bytes).map(join_hello_from_proto);
    let _ = v1::JoinAccept::decode(bytes).map(accept_from_proto);
    let _ = v1::Node::decode(bytes).map(|node| node_from_proto(node, NodeId::from_bytes([1; 16])));
}
