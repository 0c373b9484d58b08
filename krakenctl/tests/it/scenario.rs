//! `plan --scenario` and `node explain --scenario` answer for every file of the engine's scenarios, in words for operators.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn files() -> Vec<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/scenarios"));
    let mut files: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

fn krakenctl(args: &[&str], file: &Path) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_krakenctl"))
        .args(args)
        .arg("--scenario")
        .arg(file)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// What the exit code is to be: `plan` says by it whether there is something to do, and whether that can be done.
fn exit(args: &[&str], out: &str) -> i32 {
    let cases = out.trim_end().split("\n\n").count();
    let with = |text: &str| out.lines().filter(|line| line.starts_with(text)).count();
    let (stuck, idle) = (with("no path: "), with("converged: "));
    match (args, stuck) {
        (["plan"], 0) if idle == cases => 0,
        (["plan"], 0) => 8,
        (["plan"], stuck) if stuck == cases => 1,
        (["plan"], _) => 3,
        _ => 0,
    }
}

#[test]
fn what_a_case_says_of_its_planner_counts() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/scenarios"));
    let (_, out, _) = krakenctl(&["plan"], &root.join("side_by_side.txt"));
    let (_, chain) = out.split_once("one after the other\n").unwrap();
    let chain = chain.split("\n\n").next().unwrap();
    assert!(chain.contains("storage/tune"), "{chain}");
    assert!(
        !chain.contains("at once") && !chain.contains("after 1"),
        "{chain}"
    );
    let (code, out, _) = krakenctl(&["plan"], &root.join("busy.txt"));
    assert!(!out.contains("no path"), "{out}");
    assert!(
        out.contains("held until the job ends that runs on the node; then:\nSTEP"),
        "{out}"
    );
    assert_eq!(code, 8);
}

#[test]
fn what_is_no_scenario_file_is_told_how_one_looks() {
    let directory = tempfile::tempdir().unwrap();
    for text in ["", "root:x:0:0:root:/root:/bin/bash\n"] {
        let file = directory.path().join("passwd");
        fs::write(&file, text).unwrap();
        for args in [&["plan"][..], &["node", "explain"]] {
            let (code, out, err) = krakenctl(args, &file);
            assert_eq!((code, out.as_str()), (2, ""));
            assert!(
                err.contains("passwd: line 1: this is no scenario file")
                    && err.contains("case: TITLE"),
                "{err}"
            );
        }
    }
}

#[test]
fn every_file_is_planned_and_explained() {
    let files = files();
    assert!(files.len() >= 60, "{} files", files.len());
    for file in files {
        let titles = fs::read_to_string(&file).unwrap();
        let titles: Vec<&str> = titles
            .lines()
            .filter_map(|line| line.strip_prefix("case: "))
            .collect();
        for args in [&["plan"][..], &["node", "explain"]] {
            let (code, out, err) = krakenctl(args, &file);
            assert_eq!(
                (code, err.as_str()),
                (exit(args, &out), ""),
                "{}",
                file.display()
            );
            for title in &titles {
                assert!(out.contains(title), "{}: {title} in\n{out}", file.display());
            }
            // Words of programmers, not of operators.
            for word in [
                "None", "Some(", "Err(", "NoPath", "Instant", "{", "panicked",
            ] {
                assert!(!out.contains(word), "{}: {word} in\n{out}", file.display());
            }
        }
    }
}

#[test]
fn a_file_that_says_nonsense_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("odd.txt");
    fs::write(&file, "case: odd\nmutations: vbox\n> fly\n").unwrap();
    let (code, out, err) = krakenctl(&["plan"], &file);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("odd.txt: line 3: \"fly\" is no step"), "{err}");
}
