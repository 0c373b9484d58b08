use super::*;

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs
        .iter()
        .map(|(url, value)| (url.parse().unwrap(), Value::from(*value)))
        .collect()
}

#[test]
fn urls_have_one_canonical_form() {
    let url: StateUrl = "type.googleapis.com/PXE.Client/State".parse().unwrap();
    assert_eq!(url.as_str(), "/type.googleapis.com/PXE.Client/State");
    assert_eq!(
        url,
        "/type.googleapis.com/PXE.Client/State".parse().unwrap()
    );
    for bad in [
        "",
        "/",
        "//a",
        "/a/",
        "/a/../b",
        "/a b",
        "/ä",
        &"x".repeat(257),
    ] {
        assert!(bad.parse::<StateUrl>().is_err(), "{bad:?}");
    }
}

#[test]
fn node_names_are_host_names() {
    assert_eq!("N1.rack3".parse::<NodeName>().unwrap().as_str(), "n1.rack3");
    for bad in ["", "-a", "a-", "a..b", "a_b", "n[1-2]", &"x".repeat(64)] {
        assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
    }
}

#[test]
fn zero_values_are_never_stored() {
    let mut all = values(&[("/a", "x")]);
    assert!(all.set("/a".parse().unwrap(), Some(Value::text(""))));
    assert!(all.is_empty());
    assert!(!all.set("/n".parse().unwrap(), Some(Value::Int(0))));
}

#[test]
fn diff_leads_to_the_goal_and_digests_agree() {
    let mut from = values(&[("/a", "1"), ("/b", "2")]);
    let goal = values(&[("/b", "3"), ("/c", "4")]);
    let changes = from.diff(&goal);
    assert_eq!(changes.len(), 3);
    assert_ne!(from.digest(), goal.digest());
    from.apply(changes);
    assert_eq!(from, goal);
    assert_eq!(from.digest(), goal.digest());
    assert!(from.diff(&goal).is_empty());
}

#[test]
fn digest_tells_types_and_borders_apart() {
    let one: Values = [("/a".parse().unwrap(), Value::Int(1))]
        .into_iter()
        .collect();
    assert_ne!(one.digest(), values(&[("/a", "1")]).digest());
    assert_ne!(
        values(&[("/a", "b"), ("/c", "d")]).digest(),
        values(&[("/a", "b/c"), ("/d", "d")]).digest()
    );
}

#[test]
fn what_is_shared_stays_as_it_was() {
    let id = NodeId::from_bytes([1; 16]);
    let mut tree = Tree::default();
    tree.insert(Node::new(id, "n1".parse().unwrap(), None))
        .unwrap();
    let all: Vec<_> = tree.share_all().collect();
    let still = tree.still();
    tree.get_mut(id).unwrap().frozen = true;
    let later = tree.share(id).unwrap();
    tree.get_mut(id).unwrap().cfg_revision = 7;
    assert_eq!(
        (all[0].frozen, later.frozen, later.cfg_revision),
        (false, true, 0)
    );
    let stills: Vec<_> = still.iter().map(|node| (node.id, node.frozen)).collect();
    assert_eq!(stills, [(id, false)]);
    let now = tree.remove(id).unwrap();
    assert_eq!((now.frozen, now.cfg_revision), (true, 7));
}

#[test]
fn names_and_ids_are_unique_in_a_tree() {
    let id = |n: u8| NodeId::from_bytes([n; 16]);
    let mut tree = Tree::default();
    tree.insert(Node::new(id(1), "n1".parse().unwrap(), None))
        .unwrap();
    assert!(matches!(
        tree.insert(Node::new(id(2), "n1".parse().unwrap(), None)),
        Err(TreeError::NameTaken { .. })
    ));
    assert!(matches!(
        tree.insert(Node::new(id(1), "n2".parse().unwrap(), None)),
        Err(TreeError::IdTaken { .. })
    ));
    assert_eq!(tree.remove(id(1)).unwrap().name.as_str(), "n1");
    assert!(tree.by_name(&"n1".parse().unwrap()).is_none());
}

#[test]
fn a_job_is_remembered_until_somebody_knows_better() {
    let change = |text: &str| {
        let (url, value) = text.split_once('=').unwrap();
        Change {
            url: url.parse().unwrap(),
            value: (!value.is_empty()).then(|| Value::from(value)),
        }
    };
    let mut kept = Values::default();
    let table = [
        ("the agent says so", vec!["/Busy=BUSY"], true),
        ("it falls silent", vec!["/RunState=ERROR", "/Busy="], true),
        ("its boot is served", vec!["/RunState="], true),
        ("the power is seen off", vec!["/PhysState=POWER_OFF"], false),
        (
            "the agent says so",
            vec!["/RunState=SYNC", "/Busy=BUSY"],
            true,
        ),
        ("it says otherwise", vec!["/Busy="], false),
        ("the agent says so", vec!["/Busy=BUSY"], true),
        ("another one joins", vec!["/RunState=SYNC"], false),
    ];
    for (what, changes, busy) in table {
        let changes: Vec<Change> = changes.into_iter().map(change).collect();
        kept.apply(LastKnown::to_keep(&changes));
        assert_eq!(kept.get(core::BUSY).is_some(), busy, "{what}");
    }
}

#[test]
fn numbers_are_compared_by_worth() {
    let float = |x: f64| Number::of(&Value::Float(Float(x))).unwrap();
    let int = |n: i64| Number::from(n);
    let rising = [
        float(f64::NEG_INFINITY),
        float(-1e19),
        int(i64::MIN),
        float(-2.5),
        int(-2),
        float(-0.5),
        int(0),
        float(1e-300),
        int(2),
        float(2.5),
        int((1 << 53) + 1),
        float(((1_i64 << 53) + 2) as f64),
        int(i64::MAX),
        float(9_223_372_036_854_775_808.0),
        float(f64::INFINITY),
    ];
    for (at, a) in rising.iter().enumerate() {
        for (other, b) in rising.iter().enumerate() {
            assert_eq!(a.cmp(b), at.cmp(&other), "{a} and {b}");
        }
    }
    assert_eq!(int(3), float(3.0));
    assert_eq!(int(0), float(-0.0));
    assert_eq!(float(-0.0), float(0.0));
    assert_eq!(int(i64::MIN), float(-9_223_372_036_854_775_808.0));
    for none in [
        Value::Float(Float(f64::NAN)),
        Value::from("3"),
        Value::Bool(true),
    ] {
        assert!(Number::of(&none).is_none());
    }
}
