use std::fs;

use super::*;

const POWER: &str = r#"
module = "vbox"
[[mutation]]
name = "UKtoOFF"
context = "CHILD"
mutates = { "/PhysState" = { to = "POWER_OFF" } }
requires = { "/Platform" = "vbox" }
[[mutation]]
name = "OFFtoON"
context = "CHILD"
mutates = { "/PhysState" = { from = "POWER_OFF", to = "POWER_ON" } }
requires = { "/Platform" = "vbox", "/site/rack" = [1, 2] }
"#;

fn parse(text: &str) -> Result<Values, String> {
    state_file::parse("dsc.yaml", text, &Schema::built_in())
}

/// Plans over files; the view and the exit code.
fn plan(mutations: &str, dsc: &str, cfg: &str) -> (PlanView, Exit) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("power.toml"), mutations).unwrap();
    let set = load_dir(directory.path(), &Schema::built_in()).unwrap();
    let graph = MutationGraph::new(&set).unwrap();
    view(
        &graph,
        &graph.plan(&parse(dsc).unwrap(), &parse(cfg).unwrap()),
    )
}

#[test]
fn the_three_outcomes_have_their_exit_codes() {
    let cfg = "/Platform: vbox\n/site/rack: 2\n/PhysState: POWER_ON\n";
    let (path, exit) = plan(POWER, "", cfg);
    assert_eq!(
        serde_json::to_string(&path).unwrap(),
        r#"{"outcome":"path","steps":["vbox/UKtoOFF","vbox/OFFtoON"],"after":[[],[0]],"at_most_ms":null,"power_offs":0,"power_ons":1,"reason":""}"#
    );
    assert_eq!(exit, Exit::Pending);

    let (there, exit) = plan(POWER, "PhysState: POWER_ON", cfg);
    assert_eq!(
        (there.outcome, there.steps.len(), exit),
        ("converged", 0, Exit::Ok)
    );

    let (none, exit) = plan(
        POWER,
        "",
        "{ Platform: vbox, /site/rack: 3, PhysState: POWER_ON }",
    );
    assert_eq!((none.outcome, exit), ("no_path", Exit::Failure));
    assert_eq!(
        none.reason,
        "/PhysState=POWER_ON cannot be reached from /PhysState unknown: \
         vbox/OFFtoON could set it but requires /site/rack=1 or 2, where Cfg says 3"
    );
}

#[test]
fn state_files_hold_plain_values() {
    let values = parse("# node n1\nPhysState: PHYS_UNKNOWN\n/Busy: FREE\n/a: on\n/b: '1'\n/c: 1\n/d: true\n/e: ~\n/f: 0\n/g:\n/h: 1.5\n").unwrap();
    let shown: Vec<String> = values
        .iter()
        .map(|(url, value)| format!("{url}={value}"))
        .collect();
    assert_eq!(shown, ["/a=on", "/b=1", "/c=1", "/d=true", "/h=1.5"]);
    assert_eq!(values.text("/b"), Some("1"));
    assert_eq!(values.get("/c"), Some(&engine::state::Value::Int(1)));
    for empty in ["", "---\n", "{}", "# nothing\n", "null"] {
        assert!(parse(empty).unwrap().is_empty(), "{empty:?}");
    }
}

#[test]
fn a_bad_state_file_is_named_with_its_line() {
    for (text, expect) in [
        ("/a: 1\n/b c: 2\n", "dsc.yaml:2: "),
        ("/a: 1\na: 2\n", "dsc.yaml:2: /a is named twice"),
        ("/a: 1\n/a: 2\n", "dsc.yaml:2: "),
        ("/a: 1\n/b: [1, 2]\n", "dsc.yaml:2: "),
        ("/a: 1\n/b: { x: 1 }\n", "dsc.yaml:2: "),
        (
            "/RunState: SYNCH\n",
            "dsc.yaml:1: /RunState cannot be \"SYNCH\"; did you mean \"SYNC\"?",
        ),
        (
            "- /a\n",
            "dsc.yaml: invalid type: sequence, expected a flat map",
        ),
        ("/a: 9999999999999999999\n", "dsc.yaml:1: "),
        ("/a: 1\n  /b: 2\n", "dsc.yaml:"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expect), "{text:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn urls_that_nothing_mentions_are_doubted_when_they_look_like_slips() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("power.toml"), POWER).unwrap();
    let schema = Schema::built_in();
    let graph = MutationGraph::new(&load_dir(directory.path(), &schema).unwrap()).unwrap();
    let cfg = parse("/PhysStat: POWER_ON\n/Platform: vbox\n/site/other: 1\n").unwrap();
    assert_eq!(
        doubts(&graph, &schema, &Values::default(), &cfg),
        ["no mutation mentions /PhysStat of the Cfg file; did you mean /PhysState?"]
    );
}
