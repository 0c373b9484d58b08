//! `plan` as a process: what goes where, and the exit codes; of files without a head, and of a head that answers what the test says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use proto::v1;
use proto::v1::Outcome;

use crate::fake_head::{FakeHead, text};

const SETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/scenarios/sets");

/// Runs `plan --offline` over a set of the engine's scenarios, or over a directory.
fn plan(mutations: &Path, dsc: &str, cfg: &str, format: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let (dsc_file, cfg_file) = (
        directory.path().join("dsc.yaml"),
        directory.path().join("cfg.yaml"),
    );
    fs::write(&dsc_file, dsc).unwrap();
    fs::write(&cfg_file, cfg).unwrap();
    Command::new(env!("CARGO_BIN_EXE_krakenctl"))
        .args(["plan", "--offline", "-o", format, "--mutations"])
        .arg(mutations)
        .arg("--dsc")
        .arg(dsc_file)
        .arg("--cfg")
        .arg(cfg_file)
        .output()
        .unwrap()
}

fn layercake(dsc: &str, cfg: &str, format: &str) -> (i32, String, String) {
    let output = plan(&Path::new(SETS).join("layercake"), dsc, cfg, format);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_outcomes_in_json() {
    let cfg = "/Platform: powerapi\n/RunState: SYNC\n";
    let json = |(code, out, _): (i32, String, String)| -> (i32, serde_json::Value) {
        (code, serde_json::from_str(&out).unwrap())
    };
    let (code, path) = json(layercake("", cfg, "json"));
    assert_eq!((code, &path["outcome"]), (8, &"path".into()));
    let steps = [
        "powerapi/UKtoOFF",
        "powerapi/OFFtoON",
        "pxe/NONEtoWAIT",
        "pxe/WAITtoINIT",
        "core/INITtoSYNC",
    ];
    assert_eq!(path["steps"], serde_json::json!(steps));

    let (code, there) = json(layercake(
        "PhysState: POWER_ON\nRunState: SYNC\n",
        cfg,
        "json",
    ));
    assert_eq!(
        (code, there),
        (
            0,
            serde_json::json!({"outcome": "converged", "steps": [], "after": [], "at_most_ms": null, "power_offs": 0, "power_ons": 0, "reason": ""})
        )
    );

    let (code, none) = json(layercake(
        "PhysState: PHYS_ERROR\nRunState: UNKNOWN\n",
        cfg,
        "json",
    ));
    assert_eq!(
        (code, &none["outcome"], &none["steps"]),
        (1, &"no_path".into(), &serde_json::json!([]))
    );
    assert!(
        none["reason"]
            .as_str()
            .unwrap()
            .ends_with("no mutation leaves /PhysState=PHYS_ERROR"),
        "{none}"
    );
}

#[test]
fn the_other_formats() {
    let cfg = "/Platform: powerapi\n/PhysState: POWER_ON\n";
    let (code, names, _) = layercake("", cfg, "name");
    assert_eq!(
        (code, names.as_str()),
        (8, "powerapi/UKtoOFF\npowerapi/OFFtoON\n")
    );
    let (code, table, _) = layercake("", cfg, "table");
    assert_eq!(code, 8);
    assert!(
        table.ends_with("2 steps, cost 2; at most 20 s (never measured), 1 power-on\n"),
        "{table}"
    );
    let (code, dot, _) = layercake("", cfg, "dot");
    assert_eq!(code, 0);
    assert!(
        dot.starts_with("digraph states {") && dot.contains("powerapi/UKtoOFF"),
        "{dot}"
    );
}

#[test]
fn bad_input_is_a_matter_of_usage() {
    let (code, out, error) = layercake("/PhysState: [POWER_ON]\n", "", "json");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(error.contains("dsc.yaml:1: "), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("power.toml");
    fs::write(&file, "module = \"power\"\n[[mutation]]\nname = \"A\"\nrequirs = {}\nmutates = { \"/a\" = { to = 1 } }\n").unwrap();
    let output = plan(directory.path(), "", "", "json");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    let expect = format!(
        "{}:4: a mutation has no key `requirs`; did you mean `requires`?",
        file.display()
    );
    assert!(error.contains(&expect), "{error}");
}

fn step(mutation: &str, disruptive: bool) -> v1::ReportStep {
    v1::ReportStep {
        mutation: mutation.into(),
        context: v1::MutationContext::Child.into(),
        disruptive,
        changes: vec![v1::UrlChange {
            url: "/PhysState".into(),
            from: vec![v1::OptionalValue {
                value: Some(text("POWER_ON")),
            }],
            to: Some(v1::OptionalValue {
                value: Some(text("POWER_OFF")),
            }),
        }],
        ..v1::ReportStep::default()
    }
}

fn group(nodes: &str, count: u32, outcome: Outcome, steps: Vec<v1::ReportStep>) -> v1::PlanGroup {
    v1::PlanGroup {
        nodes: nodes.into(),
        count,
        outcome: outcome.into(),
        steps,
        ..v1::PlanGroup::default()
    }
}

#[test]
fn a_head_tells_what_groups_of_nodes_would_do() {
    let head = FakeHead::start();
    let mut busy = group(
        "n[1-60]",
        60,
        Outcome::Path,
        vec![step("power/ONtoOFF", true)],
    );
    busy.holds.push(v1::GroupHold {
        hold: Some(v1::Hold {
            kind: "busy".into(),
            text: "node n[5-7] is BUSY: a job runs on it".into(),
            lifted_by: "the end of the job".into(),
        }),
        nodes: "n[5-7]".into(),
        count: 3,
        mutation: "power/ONtoOFF".into(),
    });
    let time = |ms: u64, text: &str| v1::TimeEstimate {
        basis: "measured".into(),
        ms,
        measured_steps: 1,
        steps: 1,
        text: text.into(),
    };
    busy.estimate = Some(v1::PlanEstimate {
        reboots: 0,
        busy: "n[5-7]".into(),
        busy_count: 3,
        each: Some(v1::PathEstimate {
            time: Some(time(9_000, "about 9 s (measured)")),
            power_offs: 1,
            power_ons: 0,
            text: "about 9 s (measured), 1 power-off".into(),
        }),
        all: Some(time(180_000, "about 3 min (measured)")),
    });
    busy.interrupts.push("image/IDLEtoACTIVE".into());
    busy.back = vec![step("power/OFFtoON", false), step("core/INITtoSYNC", false)];
    let mut off = group("n65", 1, Outcome::Converged, Vec::new());
    off.back = vec![step("power/OFFtoON", false)];
    head.world().plan = v1::PlanResponse {
        revision: 7,
        groups: vec![
            busy,
            group("n[61-64]", 4, Outcome::Converged, Vec::new()),
            off,
        ],
        ..v1::PlanResponse::default()
    };
    let run = head.run(&["plan", "n[1-64]"]).ends(8);
    let expect = "\
n[1-60] (60 nodes)  1 step
     #  MUTATION       CHANGES                           BY
  -> 1  power/ONtoOFF  /PhysState POWER_ON -> POWER_OFF  its parent  disruptive
  then back power/OFFtoON, core/INITtoSYNC
  stops     image/IDLEtoACTIVE
  estimate  about 9 s (measured), 1 power-off; all of them about 3 min (measured); 3 nodes run jobs: n[5-7]
  held      busy, before power/ONtoOFF: n[5-7]: node n[5-7] is BUSY: a job runs on it
            lifted by: the end of the job

n[61-64] (4 nodes)  nothing to do

n65 (1 node)  off already, and back from there
  then back power/OFFtoON
";
    // The table of steps is the one of `explain`, and tested there.
    let without_table = |page: &str| -> String {
        let lines = page
            .lines()
            .filter(|line| !line.contains("CHANGES") && !line.contains("->"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    assert_eq!(without_table(&run.out), without_table(expect));
    assert!(
        run.out.contains("/PhysState POWER_ON -> POWER_OFF") && run.out.contains("disruptive"),
        "{}",
        run.out
    );
    assert_eq!(
        run.err,
        "58 nodes would move, 3 nodes would be held; nothing is written (revision 7)\n"
    );
    let json = head.run(&["plan", "n[1-64]", "-o", "json"]).ends(8).json();
    assert_eq!(json["groups"][0]["nodes"], "n[1-60]");
    assert_eq!(json["groups"][0]["holds"][0]["kind"], "busy");
    let estimate = &json["groups"][0]["estimate"];
    assert_eq!(estimate["busy_count"], 3);
    assert_eq!(
        (&estimate["time"]["ms"], &estimate["power_offs"]),
        (&9_000.into(), &1.into())
    );
    assert_eq!(estimate["all"]["ms"], 180_000);
    assert_eq!(json["groups"][0]["steps"][0]["mutation"], "power/ONtoOFF");
    assert_eq!(json["groups"][0]["back"][1]["mutation"], "core/INITtoSYNC");
    assert_eq!(
        head.run(&["plan", "n[1-64]", "-o", "name"])
            .ends(8)
            .out
            .lines()
            .count(),
        61
    );
}

#[test]
fn the_parked_and_the_held_are_not_said_to_move() {
    let head = FakeHead::start();
    head.world().plan = v1::PlanResponse {
        revision: 1,
        groups: vec![
            group("n1", 1, Outcome::Parked, vec![step("a/b", false)]),
            group("n2", 1, Outcome::Held, vec![step("a/b", false)]),
        ],
        ..v1::PlanResponse::default()
    };
    let run = head.run(&["plan", "@*"]).ends(3);
    assert_eq!(
        run.err,
        "no mutation would fire, 1 node would be held, 1 node is parked; nothing is written (revision 1)\n"
    );
    assert_eq!(head.run(&["plan", "@*", "-o", "name"]).out, "n2\n");
}

#[test]
fn the_exit_code_tells_who_could_not() {
    let head = FakeHead::start();
    for (groups, code) in [
        (vec![], 0),
        (vec![group("n1", 1, Outcome::Converged, vec![])], 0),
        (
            vec![group("n1", 1, Outcome::Held, vec![step("a/b", false)])],
            8,
        ),
        (vec![group("n1", 1, Outcome::NoPath, vec![])], 1),
        (
            vec![
                group("n1", 1, Outcome::NoPath, vec![]),
                group("n2", 1, Outcome::Path, vec![step("a/b", false)]),
            ],
            3,
        ),
    ] {
        head.world().plan = v1::PlanResponse {
            revision: 1,
            groups,
            ..v1::PlanResponse::default()
        };
        head.run(&["plan", "n[1-2]"]).ends(code);
    }
    for bad in [
        &["plan"][..],
        &["plan", "n1", "--offline"],
        &["plan", "--offline"],
        &["plan", "n1", "/RunState=SINK"],
        &["plan", "n1", "-o", "dot"],
    ] {
        head.run(bad).ends(2);
    }
}

#[test]
fn a_dry_run_of_a_lift_tells_who_waits_there() {
    let head = FakeHead::start();
    let thaw = ["thaw", "--mutation", "power/OFFtoON", "--dry-run"];
    let run = head.run(&thaw).ends(0);
    assert_eq!(
        (&run.out[..], &run.err[..]),
        ("", "there is nothing to lift\n")
    );
    let lifted = |nodes: &str, count| v1::GroupHold {
        hold: Some(v1::Hold {
            kind: "breaker".into(),
            text: "power/OFFtoON failed on 5 nodes and is frozen for all".into(),
            lifted_by: "krakenctl thaw --mutation power/OFFtoON".into(),
        }),
        nodes: nodes.into(),
        count,
        mutation: "power/OFFtoON".into(),
    };
    let go = group(
        "n[1-4]",
        4,
        Outcome::Path,
        vec![step("power/OFFtoON", false)],
    );
    for (nodes, count, groups, who, moves) in [
        (
            "n[1-4]",
            4,
            vec![go],
            "n[1-4] (4 nodes) wait for it",
            "4 nodes would move",
        ),
        ("n7", 1, vec![], "n7 waits for it", "no mutation would fire"),
        (
            "",
            0,
            vec![],
            "no node waits for it",
            "no mutation would fire",
        ),
    ] {
        head.world().plan = v1::PlanResponse {
            revision: 7,
            lifts: vec![lifted(nodes, count)],
            groups,
            ..v1::PlanResponse::default()
        };
        let run = head.run(&thaw).ends(8);
        let text = format!(
            "would lift breaker: power/OFFtoON failed on 5 nodes and is frozen for all; {who}\n"
        );
        assert!(run.out.starts_with(&text), "{}", run.out);
        assert_eq!(
            run.err,
            format!("{moves}; nothing was lifted (revision 7)\n")
        );
    }
    let json = head.run(&[&thaw[..], &["-o", "json"]].concat()).ends(8);
    assert_eq!(json.json()["lifts"][0]["kind"], "breaker");
    head.run(&["thaw", "--mass-failure", "--dry-run"]).ends(8);
    let asked = head.world().planned.write.clone();
    let what = Some(v1::lift_request::What::MassFailure(true));
    assert_eq!(
        asked,
        Some(v1::plan_request::Write::Lift(v1::LiftRequest { what }))
    );
    head.run(&["thaw", "--mass-failure", "--try", "1m"]).ends(2);
    assert!(!head.world().calls.contains(&"lift".to_owned()));
}

#[test]
fn a_dry_run_of_a_confirmation_tells_what_would_stay() {
    let head = FakeHead::start();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock");
    let until = u64::try_from(now.as_millis()).expect("a date") + 600_000;
    let confirm = ["confirm", "6", "--dry-run"];
    head.world().plan = v1::PlanResponse {
        revision: 7,
        trial_until_ms: until,
        stays: vec![v1::Difference {
            nodes: "n[1-2]".into(),
            count: 2,
            what: "/image/name".into(),
            old: Some(text("old")),
            new: Some(text("new")),
        }],
        ..v1::PlanResponse::default()
    };
    let run = head.run(&confirm).ends(8);
    let expect = "\
would stay
  NODES   WHAT         FROM  TO
  n[1-2]  /image/name  old   new
";
    assert_eq!(run.out, expect);
    assert!(
        run.err.starts_with("else it is taken back in ")
            && run.err.ends_with("; nothing was written (revision 7)\n"),
        "{}",
        run.err
    );
    let with = |format| head.run(&[&confirm[..], &["-o", format]].concat()).ends(8);
    let json = with("json").json();
    assert_eq!(json["stays"][0]["to"], "new");
    assert_eq!(json["trial_until_ms"], until);
    assert_eq!(with("name").out, "n1\nn2\n");
    assert_eq!(with("csv").out.lines().count(), 2);
    head.world().plan.stays.clear();
    let run = head.run(&confirm).ends(8);
    assert!(run.err.starts_with("nothing of it is as it was written"));
    assert!(!head.world().calls.contains(&"confirm".to_owned()));
}
