//! `plan --offline` as a process: what goes where, and the exit codes. No head is involved.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

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
            serde_json::json!({"outcome": "converged", "steps": [], "reason": ""})
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
    assert!(table.ends_with("2 steps, cost 2\n"), "{table}");
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
