//! `mutation lint` as a process: a file for each kind of doubt with the words and the exit code, and sets without any.

use std::path::Path;
use std::process::Command;

use proto::v1;

use crate::fake_head::FakeHead;

/// Lints the text of files; the exit code, standard output and standard error.
fn lint(files: &[&str], format: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let names = files.iter().enumerate().map(|(at, text)| {
        let path = folder.path().join(format!("{at}.toml"));
        std::fs::write(&path, text).unwrap();
        path
    });
    let names: Vec<_> = names.collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_krakenctl"));
    command.args(["mutation", "lint", "-o", format, "--offline"]);
    let output = command.args(names).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A mutation of `/a/state` without conditions, and what is said of it besides.
fn changes(name: &str, from: &str, to: &str, more: &str) -> String {
    let from = match from {
        "" => String::new(),
        from => format!("from = \"{from}\", "),
    };
    format!(
        "[[mutation]]\nname = \"{name}\"\nmutates = {{ \"/a/state\" = {{ {from}to = \"{to}\" }} }}\n{more}\n"
    )
}

/// A module whose `/a/state` goes round, with more mutations.
fn module(more: &str) -> String {
    let round = [
        changes("IN", "", "ONE", ""),
        changes("ON", "ONE", "TWO", ""),
        changes("BACK", "TWO", "ONE", ""),
    ];
    format!("module = \"m\"\n{}{more}", round.concat())
}

#[test]
fn sets_in_order_end_with_0() {
    let (code, out, err) = lint(&[&module("")], "table");
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.contains("3 mutations, 0 warnings, 0 notes"), "{err}");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../head/mutations");
    for file in std::fs::read_dir(shipped).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let (code, out, _) = lint(&[&text], "json");
        assert_eq!((code, out.trim()), (0, "[]"));
    }
}

#[test]
fn each_kind_of_doubt_is_told_with_its_exit_code() {
    let power = "module = \"p\"\n[[mutation]]\nname = \"FIND\"\nmutates = { \"/PhysState\" = { to = \"POWER_ON\" } }\n\
         [[mutation]]\nname = \"OFF\"\nmutates = { \"/PhysState\" = { from = \"POWER_ON\", to = \"POWER_OFF\" } }\n\
         [[mutation]]\nname = \"ON\"\nmutates = { \"/PhysState\" = { from = \"POWER_OFF\", to = \"POWER_ON\" } }\n";
    let cases: [(String, i32, &str, &str); 10] = [
        (
            changes("X", "ONE", "TWO", "requires = { \"/Arch\" = \"x86\" }\nexcludes = { \"/Arch\" = \"x86\" }"),
            1,
            "never-fires",
            "m/X can never fire because what it demands of /Arch contradicts itself",
        ),
        (
            changes("X", "TOW", "ONE", ""),
            1,
            "never-fires",
            "m/X can never fire because it starts from /a/state=TOW, which nothing sets",
        ),
        (
            changes("X", "ONE", "FATAL", ""),
            1,
            "no-way-out",
            "/a/state=FATAL is a failure that no mutation leads out of",
        ),
        (
            changes("X", "ONE", "THREE", ""),
            0,
            "trap",
            "value THREE of /a/state can be entered, by m/X, but never left",
        ),
        (
            changes("X", "TWO", "ONE", ""),
            1,
            "same-change",
            "m/BACK and m/X claim the same change, /a/state TWO -> ONE",
        ),
        (
            changes("X", "ONE", "TWO", "cost = 2\nfail_to = { \"/a/state\" = \"TWO\" }"),
            1,
            "useless-fail-to",
            "m/X has a fail_to but no timeout",
        ),
        (
            changes("X", "ONE", "TWO", "cost = 2000000"),
            0,
            "huge-cost",
            "m/X costs 2000000, more than any detour",
        ),
        (
            changes("X", "ONE", "TWO", "cost = 2\nrequires = { \"/n\" = { at_most = 9 } }"),
            0,
            "zero-in-range",
            "m/X compares /n of at most 9, but 0 is stored as unknown",
        ),
        (
            format!(
                "{}{}",
                changes("OVER", "ONE", "TWO", "cost = 0"),
                changes("AGAIN", "TWO", "ONE", "cost = 0")
            ),
            0,
            "free-circle",
            "m/AGAIN and m/OVER lead /a/state in a circle at no cost",
        ),
        (
            "[[mutation]]\nname = \"X\"\nmutates = { \"/b/state\" = { from = \"ONE\", to = \"TWO\" } }\n\
             [[mutation]]\nname = \"Y\"\nmutates = { \"/b/state\" = { from = \"TWO\", to = \"ONE\" } }\n"
                .to_owned(),
            0,
            "island",
            "m/X can never fire because it starts from /b/state=ONE, which only m/Y would set",
        ),
    ];
    for (more, expect, kind, words) in &cases {
        told(&[&module(more)], *expect, kind, words);
    }
    told(
        &[power],
        1,
        "not-disruptive",
        "p/OFF takes /PhysState away from POWER_ON but is not marked disruptive",
    );
    let other = "module = \"n\"\n".to_owned() + &changes("LOOK", "", "TWO", "");
    told(
        &[&module(""), &other],
        1,
        "two-finders",
        "m/IN and n/LOOK both find out /a/state where it is unknown, and expect different values, ONE and TWO",
    );
    let poll = |module: &str| {
        format!(
            "module = \"{module}\"\ndiscoverables = [\"/b/heat\"]\n[[poll]]\nname = \"look\"\nevery = \"30s\"\ncommand = [\"true\"]\n\
             map = [{{ line = \"hot\", discover = {{ \"/b/heat\" = \"HIGH\" }} }}]\n"
        )
    };
    told(
        &[&poll("x"), &poll("y")],
        1,
        "two-finders",
        "the polls look of x and look of y both look for /b/heat on the same nodes",
    );
}

/// The doubt is told in JSON and for people.
#[track_caller]
fn told(files: &[&str], expect: i32, kind: &str, words: &str) {
    let (code, out, err) = lint(files, "json");
    assert_eq!(code, expect, "{kind}: {out}{err}");
    let lints: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    let found = lints
        .iter()
        .find(|lint| lint["kind"] == kind && lint["text"].as_str().unwrap().starts_with(words));
    let found = found.unwrap_or_else(|| panic!("{kind}: {out}"));
    let (_, table, _) = lint(files, "table");
    assert!(
        table.contains(words) && table.contains(found["severity"].as_str().unwrap()),
        "{table}"
    );
}

#[test]
fn files_that_cannot_be_used_end_with_2() {
    let (code, _, err) = lint(&["module = \"m\"\n[[mutation]]\nnome = \"X\"\n"], "table");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("0.toml:3: "), "{err}");
    let missing = Command::new(env!("CARGO_BIN_EXE_krakenctl"))
        .args(["mutation", "lint", "--offline", "/nowhere"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn the_set_of_a_head_is_linted_and_files_that_it_refuses_are_named() {
    let head = FakeHead::start();
    let lint = |severity: &str, kind: &str, text: &str| v1::MutationLint {
        severity: severity.into(),
        kind: kind.into(),
        text: text.into(),
    };
    head.world().lints = v1::LintMutationsResponse {
        lints: vec![lint("note", "trap", "value ONE of /a/state can be entered")],
        mutations: 1,
    };
    let run = head.run(&["mutation", "lint"]).ends(0);
    assert!(run.out.contains("value ONE of /a/state"), "{run:?}");
    assert!(
        run.err.contains("1 mutation, 0 warnings, 1 note"),
        "{run:?}"
    );
    let bad = lint(
        "warn",
        "refused-file",
        "/m/a.toml:3: no (the file is left out)",
    );
    head.world().lints.lints.insert(0, bad);
    let run = head.run(&["mutation", "lint"]).ends(1);
    assert!(run.out.contains("/m/a.toml:3: no"), "{run:?}");

    head.world().refused_files = vec![v1::RefusedFile {
        file: "/m/a.toml".into(),
        problems: vec!["/m/a.toml:3: no".into()],
        earlier_in_force: false,
    }];
    let run = head.run(&["mutation", "list"]).ends(0);
    let told = "mutation file /m/a.toml is refused, it is left out:\n  /m/a.toml:3: no\n";
    assert!(run.err.contains(told), "{run:?}");
}
