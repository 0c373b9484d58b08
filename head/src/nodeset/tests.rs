use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A stand-in: names, groups, and one known value each.
#[derive(Default)]
struct FakeInventory {
    nodes: BTreeMap<NodeName, (Vec<&'static str>, &'static str)>,
}

impl FakeInventory {
    fn rack() -> Self {
        let mut fake = Self::default();
        for i in 1..=9 {
            let groups = if i % 2 == 0 {
                vec!["rack1", "even"]
            } else {
                vec!["rack1"]
            };
            let state = if i == 7 { "ERROR" } else { "SYNC" };
            fake.nodes
                .insert(format!("n{i}").parse().unwrap(), (groups, state));
        }
        fake.nodes.insert("login".parse().unwrap(), (vec![], ""));
        fake
    }

    fn those(
        &self,
        keep: impl Fn(&(Vec<&'static str>, &'static str)) -> bool,
    ) -> BTreeSet<NodeName> {
        self.nodes
            .iter()
            .filter(|(_, node)| keep(node))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl Inventory for FakeInventory {
    fn all(&self) -> BTreeSet<NodeName> {
        self.those(|_| true)
    }
    fn has(&self, name: &NodeName) -> bool {
        self.nodes.contains_key(name)
    }
    fn group(&self, group: &str) -> Option<BTreeSet<NodeName>> {
        Some(self.those(|(groups, _)| groups.contains(&group))).filter(|names| !names.is_empty())
    }
    fn having(&self, url: &StateUrl, value: &str) -> Result<BTreeSet<NodeName>, String> {
        match url.as_str() {
            "/RunState" => Ok(self.those(|(_, state)| *state == value)),
            other => Err(format!("no extension has {other}")),
        }
    }
}

fn resolve(text: &str) -> Result<String, String> {
    let names = NodeSet::parse(text)
        .and_then(|set| set.resolve(&FakeInventory::rack()))
        .map_err(|error| error.to_string())?;
    Ok(fold(names.iter().map(NodeName::as_str)).join(","))
}

#[track_caller]
fn check(text: &str, expect: &str) {
    assert_eq!(resolve(text).as_deref(), Ok(expect), "{text}");
}

#[track_caller]
fn refused(text: &str, part: &str) {
    let error = resolve(text).expect_err(text);
    assert!(error.contains(part), "{text}: {error}");
}

#[test]
fn a_list_of_groups_is_told_from_their_nodes() {
    let apart = |text: &str| {
        let (groups, rest) = NodeSet::parse(text).unwrap().groups_apart();
        (groups.into_iter().collect::<Vec<_>>().join(" "), rest)
    };
    let set = |text: &str| Some(NodeSet::parse(text).unwrap());
    assert_eq!(apart("@b, @a"), ("a b".into(), None));
    assert_eq!(
        apart("n[1,3],@a,n7"),
        ("a".into(), set("n[1,3],n7")),
        "the rest is nodes"
    );
    for nodes in ["n1", "@*", "@a!n7", "@a&@b", "@a,n1!n2"] {
        assert_eq!(apart(nodes), (String::new(), set(nodes)), "{nodes}");
    }
}

#[test]
fn clustershells_grammar() {
    check("", "n[1-9],login");
    check("n1", "n1");
    check("N1", "n1");
    check("n[1-3],n5", "n[1-3,5]");
    check("n[1-9/3]", "n[1,4,7]");
    check("n[1,3-4]", "n[1,3-4]");
    check("@rack1&@even!n4", "n[2,6,8]");
    check("@rack1 ! n[1-8]", "n9");
    check("n[1-3]^n[2-4]", "n[1,4]");
    check("@*!@rack1", "login");
    check("n*!n[1-7]", "n[8-9]");
    check("lo?in", "login");
    check("run=ERROR", "n7");
    check("/RunState=ERROR,n1", "n[1,7]");
    check("run=", "login");
    check("n7!run=ERROR", "");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    refused("n[1-3", "'[' is never closed");
    refused("n1]", "at character 3: ']' without '['");
    refused(
        "n1,,n2",
        "at character 4: a name, @group or selector is missing",
    );
    refused("n1!", "is missing");
    refused("n[3-1]", "runs backwards");
    refused("n[1-3/0]", "step 0");
    refused("n[a-b]", "is not a number");
    refused("n[01-002]", "different lengths");
    refused("n_1", "'_' is no part of a name");
    refused("colour=red", "a selector is run=");
    refused("/nix/da=1", "no extension has /nix/da");
    refused("@", "a group's name");
    refused("@nobody", "no node is in group @nobody");
    refused("n[8-12]", "there is no node n[10-12]");
    refused("[1][1][1][1][1]", "at most 4 pairs");
}

#[test]
fn sizes_are_capped() {
    refused("n[1-999999999]", "more than 100000 names");
    refused("n[1-60000],m[1-60000]", "more than 100000 names");
    refused("n[1-999][1-999]", "more than 100000 names");
    refused("n[1-9999999999999]", "not a number of at most 12 digits");
    refused(&"n1,".repeat(MAX_TEXT_BYTES), "longer than");
    let most = format!("n[1-{MAX_NAMES}]!n[10-{MAX_NAMES}]");
    assert_eq!(NodeSet::parse(&most), Err(NodeSetError::TooMany));
    assert!(NodeSet::parse(&format!("n[1-{MAX_NAMES}]")).is_ok());
}

#[test]
fn names_fold() {
    let folds = |names: &[&str]| fold(names.iter().copied()).join(",");
    assert_eq!(folds(&["n1", "n2", "n3", "n10"]), "n[1-3,10]");
    assert_eq!(folds(&["n001", "n002", "n100"]), "n[001-002,100]");
    assert_eq!(folds(&["n1"]), "n1");
    assert_eq!(folds(&["login", "r1n2.ib", "r1n3.ib"]), "r1n[2-3].ib,login");
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in ".{0,80}") {
        let _ = NodeSet::parse(&text);
    }

    #[test]
    fn texts_of_the_alphabet_never_panic(text in "[n0-9,!&^@*?=\\[\\]/-]{0,60}") {
        if let Ok(set) = NodeSet::parse(&text) {
            let _ = set.resolve(&FakeInventory::rack());
        }
    }

    #[test]
    fn folding_and_writing_out_are_inverse(names in proptest::collection::btree_set("[a-c][0-9]{0,3}(-ib)?", 0..60)) {
        let folded = fold(names.iter().map(String::as_str));
        let out: BTreeSet<String> =
            folded.iter().flat_map(|part| Pattern::parse(part).expect("a fold parses").names()).collect();
        prop_assert_eq!(out, names);
    }

    #[test]
    fn operators_are_those_of_sets(a in 1..9_u8, b in 1..9_u8, c in 1..9_u8, d in 1..9_u8) {
        let range = |x: u8, y: u8| x.min(y)..=x.max(y);
        let text = |x: u8, y: u8| format!("n[{}-{}]", x.min(y), x.max(y));
        for (sign, keep) in [
            (",", (|x, y| x | y) as fn(bool, bool) -> bool),
            ("!", |x, y| x & !y),
            ("&", |x, y| x & y),
            ("^", |x, y| x ^ y),
        ] {
            let set = NodeSet::parse(&format!("{}{sign}{}", text(a, b), text(c, d))).expect("parses");
            let names = set.resolve(&FakeInventory::rack()).expect("all exist");
            let expect: BTreeSet<NodeName> = (1..=9)
                .filter(|i| keep(range(a, b).contains(i), range(c, d).contains(i)))
                .map(|i| format!("n{i}").parse().expect("a name"))
                .collect();
            prop_assert_eq!(names, expect);
        }
    }
}
