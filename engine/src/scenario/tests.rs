//! The files of `engine/scenarios` come out as written; `UPDATE_EXPECT=1` rewrites what they expect.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::extension::Schema;
use crate::mutation::file::load_dir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

fn set(case: &Case) -> MutationSet {
    load_dir(
        &root().join("sets").join(&case.mutations),
        &Schema::default(),
    )
    .unwrap()
    .with_reported(&Schema::built_in())
}

/// The file as it should be: every header, with the answer that comes out now.
fn played(scenario: &Scenario) -> String {
    let mut text = scenario.title.clone();
    for case in &scenario.cases {
        let _ = write!(text, "\n{case}{}", case.answer(&set(case)).unwrap());
    }
    text
}

#[test]
fn scenarios_come_out_as_written() {
    let mut wrong = String::new();
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        let scenario =
            Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let played = played(&scenario);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, &played).unwrap();
        } else if played != text {
            let _ = write!(wrong, "--- {}\n{played}\n", path.display());
        }
    }
    assert!(
        wrong.is_empty(),
        "these come out otherwise than written (UPDATE_EXPECT=1 rewrites them):\n{wrong}"
    );
}

/// The table of the documents: every row names files that there are, and every file is in some row.
#[test]
fn there_is_a_file_for_every_row_of_semantics() {
    let text = include_str!("../../docs/mutation-graph.md");
    let (_, table) = text.split_once("<!-- scenarios: begin -->").unwrap();
    let (table, _) = table.split_once("<!-- scenarios: end -->").unwrap();
    let mut named = BTreeSet::new();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    for row in rows.skip(2) {
        let (_, files) = row.trim_end_matches(" |").rsplit_once("| ").unwrap();
        for file in files.split(", ") {
            let name = file
                .strip_prefix('`')
                .and_then(|file| file.strip_suffix('`'));
            named.insert(
                name.unwrap_or_else(|| panic!("no file in {row}"))
                    .to_owned(),
            );
        }
    }
    let names = files().into_iter();
    let names = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    assert_eq!(named, names.collect::<BTreeSet<String>>());
}

#[test]
fn every_case_can_be_explained() {
    for path in files() {
        let scenario = Scenario::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        for case in &scenario.cases {
            let report = case.report(&set(case)).unwrap();
            let deleted = case.script.iter().any(|line| line.step == Step::Delete);
            let text = report.map_or_else(String::new, |report| report.to_string());
            assert!(
                deleted || text.lines().count() > 1 || text.contains("as it should be"),
                "{}: {}",
                path.display(),
                case.title
            );
        }
    }
}

#[test]
fn nonsense_is_refused_with_its_line() {
    let error = |text: &str| Scenario::parse(text).unwrap_err().to_string();
    assert_eq!(
        error("A title.\n\ncase: one\nmutations: dummy\n> fly\n"),
        "line 5: \"fly\" is no step; steps are discover, run, fail, wait, agent back, agent lost, set, join, move, freeze, thaw, release, \
         restart, delete and explain"
    );
    assert_eq!(
        error("case: one\nmutations: dummy\ncgf: /a=1\n"),
        "line 3: there is no key \"cgf\"; keys are mutations, groups, parent, cfg, dsc, node, costs, limits, \
         breaker and `side by side: no`"
    );
    assert_eq!(
        error("case: one\nmutations: dummy\n> wait long\n"),
        "line 3: \"long\" is no time; one is `30s` or `5m`"
    );
    assert_eq!(
        error("root:x:0:0:root:/root:/bin/bash\n"),
        format!("line 1: {NO_CASE}")
    );
    assert_eq!(error(""), format!("line 1: {NO_CASE}"));
    assert_eq!(
        error("case: one\n----\n"),
        "line 1: the case names no set: add `mutations: NAME`"
    );
    assert_eq!(
        error("case: one\nmutations: dummy\nlimits: rack at_once=1\n"),
        "line 3: \"rack\" is not `cluster`, a @group or a module/NAME"
    );
    assert_eq!(
        error("case: one\nmutations: dummy\nlimits: cluster at_once=few\n"),
        "line 3: \"at_once=few\" is no limit; one is at_once=1, per_minute=2 or percent_per_minute=10"
    );
    assert_eq!(
        error("case: one\nmutations: dummy\nbreaker: often\n"),
        "line 3: \"often\" is no breaker; one is `2 of 3`"
    );
    assert_eq!(
        error("case: one\nmutations: dummy\n> n2: fly\n")
            .split(';')
            .next(),
        Some("line 3: \"fly\" is no step")
    );
}
