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
            assert_eq!((code, err.as_str()), (0, ""), "{}", file.display());
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
