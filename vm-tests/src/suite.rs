//! `cargo lab test`: every test there is, and one closing line that says how many.
//!
//! Formatting, lints, documentation, the workspace's tests, and with them the VM claims, which run only when the lab tells
//! them where the artifacts are. Nothing is skipped: what cannot run has failed.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{artifacts, doctor, paths, ui};

/// Lines shown of what a panic says: an explanation of a node is that long.
const PANIC_LINES: usize = 30;

/// Names the file that lists the artifacts. Without it, VM claims say that they did not run.
pub const ARTIFACTS_VARIABLE: &str = "KRAKEN_LAB_ARTIFACTS";

/// Time for one fuzz target: enough to see a parser that became careless, short enough for every run.
const FUZZ_SECONDS: u32 = 20;

/// Passed and failed tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    fn one(passed: bool) -> Self {
        Self {
            passed: u64::from(passed),
            failed: u64::from(!passed),
            ignored: 0,
        }
    }
}

/// Runs all, or only the VM claims whose name contains one of `claims`. Returns the exit code.
pub fn run(claims: &[String]) -> Result<u8> {
    let started = Instant::now();
    doctor::ensure()?;
    let mut rows = vec![
        ["what", "passed", "failed", "time"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut total = Count::default();
    let mut note = |what: &str, count: Count, time: Duration| {
        rows.push(vec![
            what.to_owned(),
            count.passed.to_string(),
            count.failed.to_string(),
            ui::seconds(time),
        ]);
        total.add(count);
    };
    let all = claims.is_empty();
    if all {
        for (what, command) in checks() {
            let begun = Instant::now();
            let passed = check(what, command);
            note(what, Count::one(passed), begun.elapsed());
        }
    }
    let built = artifacts::build()?;
    let list = paths::lab().join("artifacts.json");
    fs::write(&list, serde_json::to_vec_pretty(&built)?)?;
    let begun = Instant::now();
    let mut command = artifacts::cargo();
    command.env(ARTIFACTS_VARIABLE, &list);
    if all {
        command.args(["test", "--workspace", "--no-fail-fast"]);
    } else {
        // One build of one feature set: the same packages, the other tests filtered out.
        command.args(["test", "--workspace", "--test", "it", "--"]);
        command.args(claims);
    }
    note("tests", tests(&mut command)?, begun.elapsed());

    if all {
        for (what, command) in fuzz_targets() {
            let begun = Instant::now();
            let passed = check(&what, command);
            note(&what, Count::one(passed), begun.elapsed());
        }
    }

    println!("\n{}", ui::table(&rows));
    if total.ignored > 0 {
        println!(
            "{} tests are marked as ignored; that counts as failure",
            total.ignored
        );
    }
    let failed = total.failed + total.ignored;
    println!("in {}", ui::seconds(started.elapsed()));
    println!("{} passed, {failed} failed", total.passed);
    Ok(u8::from(failed > 0 || total.passed == 0))
}

fn checks() -> Vec<(&'static str, Command)> {
    let command = |args: &[&str]| {
        let mut command = artifacts::cargo();
        command.args(args);
        command
    };
    let mut doc = command(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    vec![
        ("format", command(&["fmt", "--all", "--check"])),
        (
            "lints",
            command(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ]),
        ),
        ("documentation", doc),
    ]
}

/// Every fuzz target for a short time, where cargo-fuzz and the compiler that it needs are installed.
fn fuzz_targets() -> Vec<(String, Command)> {
    let is_there = Command::new("cargo")
        .args(["+nightly", "fuzz", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!(
            "lab: cargo-fuzz is not installed: the tests replay the corpora, nothing beyond them is tried"
        );
        return Vec::new();
    }
    let mut found = Vec::new();
    for member in fs::read_dir(paths::workspace())
        .into_iter()
        .flatten()
        .flatten()
    {
        let folder = member.path().join("fuzz/fuzz_targets");
        for target in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = target
                .path()
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
            let Some(name) = name else { continue };
            let mut command = artifacts::cargo();
            command
                .current_dir(member.path())
                .args(["+nightly", "fuzz", "run", &name]);
            command.args(["--", &format!("-max_total_time={FUZZ_SECONDS}")]);
            found.push((format!("fuzz {name}"), command));
        }
    }
    found
}

fn check(what: &str, mut command: Command) -> bool {
    let stage = ui::Stage::start(what);
    let log = paths::lab().join("log").join(format!("{what}.log"));
    match stage.run(&mut command, &log) {
        Ok(()) => {
            stage.done("passed");
            true
        }
        Err(error) => {
            stage.done("FAILED");
            eprintln!("{error:#}");
            false
        }
    }
}

fn tests(command: &mut Command) -> Result<Count> {
    let stage = ui::Stage::start("tests");
    let log = paths::lab().join("log/tests.log");
    let mut count = Count::default();
    let mut panic_lines = 0_usize;
    let outcome = stage.run_lines(command, &log, &mut |line| {
        if let Some(result) = result_of(line) {
            count.add(result);
        }
        panic_lines = panic_lines.saturating_sub(1);
        if line.contains("panicked at ") {
            panic_lines = PANIC_LINES;
        } else if line.starts_with("note: ") || line.starts_with("stack backtrace:") {
            panic_lines = 0;
        }
        let shown = ["FAILED", "SKIP", "claim "];
        if panic_lines > 0 || shown.iter().any(|word| line.contains(word)) {
            stage.line(line);
        }
    })?;
    if let Err(failure) = outcome {
        stage.done("FAILED");
        eprintln!("{failure}");
        // A test program that cannot be built or that dies prints no result of its own.
        count.failed = count.failed.max(1);
    } else {
        stage.done(&format!("{} passed", count.passed));
    }
    Ok(count)
}

/// The counts in libtest's closing line of one test program.
fn result_of(line: &str) -> Option<Count> {
    let line = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        let (before, _) = line.split_once(word)?;
        before.trim_end().rsplit([' ', '.']).next()?.parse().ok()
    };
    Some(Count {
        passed: number("passed")?,
        failed: number("failed")?,
        ignored: number("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_closing_line_is_counted() {
        let line = "test result: FAILED. 11 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        let count = Count {
            passed: 11,
            failed: 2,
            ignored: 1,
        };
        assert_eq!(result_of(line), Some(count));
        assert_eq!(result_of("test it::works ... ok"), None);
    }
}
