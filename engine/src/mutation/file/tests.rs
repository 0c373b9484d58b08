use std::fs;

use super::*;
use crate::extension::{Field, Format};
use crate::mutation::{Condition, MutationContext, MutationId, NumberRange};
use crate::state::{Float, Number};

/// `/PhysState` and `/Busy` as the core has them, and one of each other kind.
fn schema() -> Schema {
    let field = |kind, format| Field {
        format,
        discoverable: true,
        ..Field::new(kind)
    };
    let names = |names: &[&str]| Kind::Enum(names.iter().map(|name| (*name).to_owned()).collect());
    let mut schema = Schema::default();
    let power = names(&["PHYS_UNKNOWN", "POWER_OFF", "POWER_ON", "PHYS_HANG"]);
    schema.add("/PhysState".to_owned(), field(power, Format::Plain));
    schema.add(
        "/Busy".to_owned(),
        field(names(&["FREE", "BUSY"]), Format::Plain),
    );
    let int = Kind::Int {
        min: 0,
        max: i64::MAX,
    };
    schema.add(
        "/limit/time".to_owned(),
        field(int.clone(), Format::Duration),
    );
    schema.add("/limit/count".to_owned(), field(int, Format::Plain));
    schema.add("/net/ip".to_owned(), field(Kind::Text, Format::Ip));
    schema
}

fn one(text: &str) -> Mutation {
    let file = read(
        "m.toml",
        &format!("module = \"m\"\n[[mutation]]\nname = \"A\"\n{text}"),
        &schema(),
    )
    .unwrap();
    file.mutations.into_iter().next().unwrap().1
}

/// The problems of a text, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let error = read("m.toml", text, &schema()).unwrap_err();
    let lines = error.problems.iter().map(ToString::to_string);
    lines
        .map(|line| line.strip_prefix("m.toml").unwrap().to_owned())
        .collect()
}

#[test]
fn every_key_of_a_mutation() {
    let text = r#"
module = "vbox"
discoverables = ["/vbox/uptime"]
[[mutation]]
name = "OFFtoON"
context = "CHILD"
mutates  = { "/PhysState" = { from = ["POWER_OFF", "PHYS_UNKNOWN"], to = "POWER_ON" } }
requires = { "/Platform" = ["vbox", "qemu"], "/site/rack" = 3 }
excludes = { "/Busy" = "BUSY", "/site/locked" = true }
requires_of = [{ who = "parent", url = "/RunState", any_of = ["SYNC"] }, { who = "@io", url = "/PhysState", any_of = "POWER_ON" }]
timeout  = "1m30s"
fail_to  = { "/PhysState" = "PHYS_HANG" }
cost = 0
disruptive = true
[[depends]]
url = "/pxe/state"
conditions = { "/PhysState" = "POWER_ON" }
"#;
    let file = read("vbox.toml", text, &schema()).unwrap();
    let (line, mutation) = &file.mutations[0];
    assert_eq!(
        (*line, mutation.id.clone()),
        (4, MutationId::new("vbox", "OFFtoON"))
    );
    assert_eq!(mutation.context, MutationContext::Child);
    assert_eq!(mutation.mutates[0].from, [Some("POWER_OFF".into()), None]);
    assert_eq!(mutation.mutates[0].to, Some("POWER_ON".into()));
    assert_eq!(
        mutation.requires[0].values(),
        [Some("vbox".into()), Some("qemu".into())]
    );
    assert_eq!(
        mutation.requires[1],
        Condition::is("/site/rack".parse().unwrap(), 3)
    );
    assert_eq!(
        mutation.excludes[1],
        Condition::is("/site/locked".parse().unwrap(), true)
    );
    let others: Vec<(String, String)> = mutation
        .requires_of
        .iter()
        .map(|others| (others.who.to_string(), others.condition.url.to_string()))
        .collect();
    assert_eq!(
        others,
        [
            ("parent".to_owned(), "/RunState".to_owned()),
            ("@io".to_owned(), "/PhysState".to_owned())
        ]
    );
    assert_eq!(mutation.timeout, Some(std::time::Duration::from_secs(90)));
    assert_eq!(mutation.fail_to[0].value, Some("PHYS_HANG".into()));
    assert_eq!((mutation.cost, mutation.disruptive), (0, true));
    assert_eq!(file.dependencies[0].1.conditions.len(), 1);
    assert_eq!(file.discoverables, ["/vbox/uptime".parse().unwrap()]);
}

#[test]
fn a_command_on_unknown_power_is_disruptive_and_a_question_is_not() {
    let poll = r#"
[[poll]]
name = "status"
every = "10s"
command = ["true"]
map = [{ line = "on", discover = { "/PhysState" = "POWER_ON" } }]
"#;
    let is_disruptive = |run: &str, to: &str| {
        one(&format!(
            "context = \"CHILD\"\nmutates = {{ \"/PhysState\" = {{ to = \"{to}\" }} }}\n{run}\n{poll}"
        ))
        .disruptive
    };
    assert!(is_disruptive("command = [\"off\"]", "POWER_OFF"));
    assert!(is_disruptive(
        "command = [\"off\"]\nask = \"status\"",
        "POWER_OFF"
    ));
    assert!(!is_disruptive("ask = \"status\"", "POWER_OFF"));
    assert!(!is_disruptive("command = [\"on\"]", "POWER_ON"));
}

#[test]
fn what_is_left_out_has_its_default() {
    let mutation = one(r#"mutates = { "/a" = { to = "x" } }"#);
    assert_eq!(mutation.context, MutationContext::SelfNode);
    assert_eq!(mutation.mutates[0].from, [None]);
    assert_eq!(
        (mutation.timeout, mutation.cost, mutation.disruptive),
        (None, 1, false)
    );
    assert!(
        mutation.requires.is_empty() && mutation.excludes.is_empty() && mutation.fail_to.is_empty()
    );
}

#[test]
fn zeros_are_unknown() {
    for (url, zero) in [
        ("/PhysState", "\"PHYS_UNKNOWN\""),
        ("/PhysState", "\"\""),
        ("/Busy", "\"FREE\""),
        ("/limit/time", "\"0s\""),
        ("/limit/count", "0"),
        ("/else", "\"\""),
        ("/else", "0"),
        ("/else", "0.0"),
        ("/else", "false"),
    ] {
        let mutation = one(
            &format!("mutates = {{ \"{url}\" = {{ from = 'x1', to = {zero} }} }}")
                .replace("'x1'", from(url)),
        );
        assert_eq!(mutation.mutates[0].to, None, "{url} {zero}");
        let mutation = one(&format!(
            "mutates = {{ \"/a\" = {{ to = 1 }} }}\nrequires = {{ \"{url}\" = {zero} }}"
        ));
        assert_eq!(mutation.requires[0].values(), [None], "{url} {zero}");
    }
    // A name that is a zero elsewhere is a word like any other where no schema says so.
    assert_eq!(
        one(r#"mutates = { "/a" = { to = "FREE" } }"#).mutates[0].to,
        Some("FREE".into())
    );
}

/// Some value that fits.
fn from(url: &str) -> &'static str {
    match url {
        "/PhysState" => "'POWER_ON'",
        "/Busy" => "'BUSY'",
        "/limit/time" => "'5s'",
        _ => "1",
    }
}

#[test]
fn known_urls_have_their_values_checked() {
    assert_eq!(
        one(r#"mutates = { "/limit/time" = { to = "10s" } }"#).mutates[0].to,
        Some(Value::Int(10_000_000_000))
    );
    let bad = |change: &str| {
        problems(&format!(
            "module = \"m\"\n[[mutation]]\nname = \"A\"\nmutates = {{ {change} }}\n"
        ))
    };
    assert_eq!(
        bad(r#""/PhysState" = { to = "POWER_OM" }"#),
        [r#":4: /PhysState cannot be "POWER_OM"; did you mean "POWER_ON"?"#]
    );
    assert_eq!(bad(r#""/limit/count" = { to = -1 }"#).len(), 1);
    assert_eq!(bad(r#""/limit/count" = { to = "many" }"#).len(), 1);
    assert_eq!(bad(r#""/net/ip" = { to = "10.0.0" }"#).len(), 1);
    assert_eq!(bad(r#""/PhysState" = { to = 1 }"#).len(), 1);
    // A module may know more than this head does.
    assert_eq!(
        one(r#"mutates = { "/PhysState" = { to = "ASLEEP" } }"#).mutates[0].to,
        Some("ASLEEP".into())
    );
}

#[test]
fn conditions_compare_numbers() {
    let requires = |conditions: &str| {
        one(&format!(
            "mutates = {{ \"/a\" = {{ to = 1 }} }}\nrequires = {{ {conditions} }}"
        ))
        .requires
        .remove(0)
    };
    let compared = |url: &str, range: NumberRange| Condition::number(url.parse().unwrap(), range);
    assert_eq!(
        requires(r#""/v" = { at_least = 3 }"#),
        compared("/v", NumberRange::AtLeast(3.into()))
    );
    assert_eq!(
        requires(r#""/v" = { at_most = 9.5 }"#).range(),
        Number::of(&Value::Float(Float(9.5))).map(NumberRange::AtMost)
    );
    assert_eq!(
        requires(r#""/limit/count" = { at_most = 9, at_least = 0 }"#),
        compared("/limit/count", NumberRange::Between(0.into(), 9.into()))
    );
    // As people write it, where the schema knows how.
    assert_eq!(
        requires(r#""/limit/time" = { at_least = "0s", at_most = "10s" }"#),
        compared(
            "/limit/time",
            NumberRange::Between(0.into(), 10_000_000_000.into())
        )
    );
    let bad = |condition: &str| {
        problems(&format!(
            "module = \"m\"\n[[mutation]]\nname = \"A\"\nmutates = {{ \"/a\" = {{ to = 1 }} }}\nexcludes = {{ {condition} }}\n"
        ))
    };
    for (condition, problem) in [
        (
            r#""/v" = {}"#,
            ":5: the comparison of /v has neither `at_least` nor `at_most`",
        ),
        (
            r#""/v" = { at_lest = 3, at_most = 3 }"#,
            ":5: a comparison has no key `at_lest`; did you mean `at_least`?",
        ),
        (
            r#""/v" = { at_least = 9, at_most = 3 }"#,
            ":5: no value of /v is at least 9 and at most 3",
        ),
        (
            r#""/v" = { at_least = "new" }"#,
            ":5: /v can be compared only with a number: no extension has /v",
        ),
        (
            r#""/v" = { at_least = nan }"#,
            ":5: /v can be compared only with a number",
        ),
        (
            r#""/v" = { at_least = [3] }"#,
            ":5: /v can be compared only with a number",
        ),
        (
            r#""/limit/time" = { at_least = "long" }"#,
            ":5: /limit/time can be compared only with a number: /limit/time cannot be \"long\": a duration is wanted, such as 10s or 1m30s",
        ),
        (
            r#""/PhysState" = { at_least = 3 }"#,
            ":5: /PhysState is no number, so it cannot be compared; list the values",
        ),
    ] {
        assert_eq!(bad(condition), [problem], "{condition}");
    }
}

#[test]
fn problems_have_their_line_and_the_nearest_spelling() {
    let text = r#"modul = "vbox"
[[mutation]]
name = "A"
mutate = { "/a" = { to = 1 } }
[[mutation]]
mutates = { "/a" = { too = 1 }, "/b c" = { to = 2 } }
context = "CHILDS"
requires = { "/a" = [] }
timeout = "10"
cost = -1
disruptive = "no"
"#;
    assert_eq!(
        problems(text),
        [
            ":1: the file has no key `modul`; did you mean `module`?",
            ":1: the file has no `module = \"NAME\"`",
            ":2: A has no `mutates`, so it would do nothing",
            ":4: a mutation has no key `mutate`; did you mean `mutates`?",
            ":5: a mutation has no `name`",
            ":6: \"b c\" is not a state url: parts hold letters, digits and ._-:@+ only",
            ":6: a change has no key `too`; did you mean `to`?",
            ":6: the change of /a has no `to`",
            ":7: context \"CHILDS\" is none of SELF, CHILD and ALL; did you mean `CHILD`?",
            ":8: the list of values of /a is empty",
            ":9: timeout \"10\" is no duration; write it like \"10s\" or \"1m30s\"",
            ":10: cost must be a whole number from 0 to 4294967295",
            ":11: disruptive must be true or false",
        ]
        .map(|line| line.replace("\"b c\"", "\"/b c\""))
    );
}

#[test]
fn broken_toml_and_wrong_shapes_are_named() {
    assert!(problems("module = \"m\"\n[[mutation]\n")[0].starts_with(":2: "));
    assert_eq!(
        problems("module = \"m\"\nmutation = 1\n"),
        [":2: mutation must be written with double brackets, [[mutation]]"]
    );
    assert_eq!(
        problems("module = \"m\"\nmutation = [1]\n"),
        [":2: mutation must be a table, not this integer"]
    );
    assert_eq!(
        problems("module = \"a/b\"\n"),
        [":1: module \"a/b\" is not acceptable: use 1 to 64 letters, digits and ._-+"]
    );
    assert_eq!(
        problems("module = 1\n"),
        [":1: module must be a text in quotes, not this integer"]
    );
    let dated =
        "module = \"m\"\n[[mutation]]\nname = \"A\"\nmutates = { \"/a\" = { to = 1979-05-27 } }\n";
    assert_eq!(
        problems(dated),
        [":4: /a needs a text, a number, true or false, not this datetime"]
    );
    let twice = "module = \"m\"\n[[mutation]]\nname = \"A\"\nmutates = { \"/a\" = { to = 1 }, \"a\" = { to = 2 } }\n";
    assert_eq!(problems(twice), [":4: /a is named twice"]);
}

#[test]
fn texts_have_limits() {
    let large = format!("module = \"m\"\n#{}\n", "x".repeat(MAX_FILE_BYTES));
    assert_eq!(problems(&large), [": it is larger than 1048576 bytes"]);
    let mut many = "module = \"m\"\n".to_owned();
    for number in 0..100 {
        many.push_str(&format!("bad{number} = 1\n"));
    }
    assert_eq!(problems(&many).len(), MAX_PROBLEMS);
    let deep = format!("module = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(problems(&deep).len(), 1);
    let value = "x".repeat(crate::state::MAX_VALUE_BYTES + 1);
    let long = format!(
        "module = \"m\"\n[[mutation]]\nname = \"A\"\nmutates = {{ \"/a\" = {{ to = \"{value}\" }} }}\n"
    );
    assert_eq!(
        problems(&long),
        [":4: /a needs a text, a number, true or false, not this string"]
    );
}

#[test]
fn a_directory_is_read_in_the_order_of_names() {
    let root = tempdir();
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    write(
        "b.toml",
        "module = \"b\"\n[[mutation]]\nname = \"B\"\nmutates = { \"/b\" = { to = 1 } }\n",
    );
    write(
        "a.toml",
        "module = \"a\"\n[[mutation]]\nname = \"A\"\nmutates = { \"/a\" = { to = 1 } }\n",
    );
    write("notes.txt", "not TOML at all [");
    let set = load_dir(&root, &schema()).unwrap();
    let ids: Vec<String> = set
        .mutations
        .iter()
        .map(|mutation| mutation.id.to_string())
        .collect();
    assert_eq!(ids, ["a/A", "b/B"]);

    write(
        "c.toml",
        "module = \"b\"\n\n[[mutation]]\nname = \"B\"\nmutates = { \"/c\" = { to = 1 } }\n",
    );
    let error = load_dir(&root, &schema()).unwrap_err().to_string();
    let path = |name: &str| root.join(name).display().to_string();
    assert_eq!(
        error,
        format!(
            "{}:3: mutation b/B is declared already, at {}:2: give one of them another name, or take it out",
            path("c.toml"),
            path("b.toml")
        )
    );

    write(
        "c.toml",
        "module = \"c\"\n[[depends]]\nurl = \"/a\"\n[[depends]]\nurl = \"/a\"\n",
    );
    let error = load_dir(&root, &schema()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{0}:4: what /a depends on is declared already, at {0}:2: take one of them out",
            path("c.toml")
        )
    );

    fs::write(root.join("c.toml"), b"module = \"c\"\n\xff\n").unwrap();
    let error = load_dir(&root, &schema()).unwrap_err().to_string();
    assert_eq!(error, format!("{}:2: is not UTF-8 text", path("c.toml")));

    fs::remove_file(root.join("c.toml")).unwrap();
    fs::create_dir(root.join("c.toml")).unwrap();
    let error = load_dir(&root, &schema()).unwrap_err().to_string();
    assert_eq!(error, format!("{}: is not a regular file", path("c.toml")));

    let missing = load_dir(&root.join("missing"), &schema())
        .unwrap_err()
        .to_string();
    assert!(missing.contains("cannot be read"), "{missing}");
    let empty = root.join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(
        load_dir(&empty, &schema())
            .unwrap_err()
            .to_string()
            .ends_with("holds no mutation file (*.toml)")
    );
    fs::remove_dir_all(&root).unwrap();
}

/// A fresh directory; the test removes it.
fn tempdir() -> std::path::PathBuf {
    let root = std::env::temp_dir().join(format!("kraken-mutation-files-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir(&root).unwrap();
    root
}

/// Texts that the fuzzer starts from; any text at all must be read without a panic.
#[test]
fn the_corpus_is_read_without_a_panic() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/mutation_file");
    let mut seen = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let _ = read("fuzz.toml", &text[..cut], &schema());
        }
        if let Ok(file) = read("fuzz.toml", &text, &schema()) {
            let _ = crate::mutation::graph::MutationGraph::new(&file.into_set());
        }
        seen += 1;
    }
    assert!(seen >= 5, "{seen} files in {}", corpus.display());
}

#[test]
fn conditions_on_other_nodes_name_a_parent_or_a_group() {
    let wrong = |entry: &str| {
        problems(&format!(
            "module = \"m\"\n[[mutation]]\nname = \"A\"\nmutates = {{ \"/a\" = {{ to = \"x\" }} }}\nrequires_of = {entry}\n"
        ))
    };
    assert_eq!(
        wrong(r#"[{ who = "io", url = "/RunState", any_of = ["SYNC"] }]"#),
        [":5: who \"io\" is neither \"parent\" nor a group such as \"@io\""]
    );
    assert!(wrong(r#"[{ who = "@io", url = "/RunState" }]"#)[0].contains("any_of = [\"SYNC\"]"));
    assert!(wrong(r#"{ who = "@io" }"#)[0].starts_with(":5: requires_of must be a list"));
}

thread_local! {
    /// Lines that the reader looked up.
    pub(super) static LINES_SOUGHT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[test]
fn a_file_of_twice_the_mutations_is_twice_the_work() {
    let sought = |count: usize| {
        let one = |at: usize| {
            format!(
                "[[mutation]]\nname = \"M{at}\"\nmutates = {{ \"/site/u{at}\" = {{ to = \"on\" }} }}\ncommand = [\"true\"]\n"
            )
        };
        let text: String = (0..count).map(one).collect();
        LINES_SOUGHT.with(|sought| sought.set(0));
        let file = read("m.toml", &format!("module = \"m\"\n{text}"), &schema()).unwrap();
        assert_eq!(file.program.runs.len(), count);
        LINES_SOUGHT.with(std::cell::Cell::get)
    };
    let (some, twice) = (sought(200), sought(400));
    assert!(twice <= 2 * some, "{some} lines sought, then {twice}");
}

#[test]
fn sizes_compare_where_an_extension_has_them() {
    let bound = |url: &str| {
        let text = format!(
            "module = \"m\"\n[[mutation]]\nname = \"A\"\nmutates = {{ \"/a\" = {{ to = \"on\" }} }}\n\
             requires = {{ \"{url}\" = {{ at_least = \"16GiB\" }} }}\n"
        );
        let file = read("m.toml", &text, &Schema::built_in());
        file.map(|file| {
            file.mutations[0].1.requires[0]
                .range()
                .and_then(|range| range.least())
        })
    };
    assert_eq!(bound("/host/memory"), Ok(Some(Number::from(16 << 30))));
    let refused = bound("/host/cpus").unwrap_err().to_string();
    assert!(
        refused.contains("m.toml:5: /host/cpus can be compared only with a number: "),
        "{refused}"
    );
}
