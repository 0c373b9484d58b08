//! The text scenarios of `engine/scenarios`. `UPDATE_EXPECT=1` rewrites what they expect.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::*;
use crate::extension::Schema;
use crate::mutation::file::load_dir;

/// A case: header lines `key: value`, then after `----` what is expected, up to an empty line.
fn run(root: &Path, text: &str) -> String {
    let mut output = String::new();
    let mut lines = text.lines().peekable();
    let mut header: Vec<(&str, &str)> = Vec::new();
    while let Some(line) = lines.next() {
        let _ = writeln!(output, "{line}");
        if line == "----" {
            while lines.next_if(|line| !line.is_empty()).is_some() {}
            output.push_str(&answer(root, &header));
            header.clear();
        } else if let Some((key, value)) = line.split_once(':') {
            header.push((key, value.trim()));
        }
    }
    output
}

fn answer(root: &Path, header: &[(&str, &str)]) -> String {
    let get = |key: &str| {
        header
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| *value)
    };
    let set = load_dir(
        &root.join("sets").join(get("mutations").unwrap()),
        &Schema::default(),
    )
    .unwrap();
    let graph = MutationGraph::new(&set).unwrap();
    let cfg = values(get("cfg").unwrap());
    let mut dsc = values(get("dsc").unwrap());
    let mut text = String::new();
    if let Some(discovered) = get("discover") {
        let discovered = values(discovered);
        let changed: Vec<StateUrl> = discovered.iter().map(|(url, _)| url.clone()).collect();
        dsc.apply(discovered.to_changes());
        for url in graph.forget(&dsc, &cfg, &changed) {
            let _ = writeln!(text, "forgets {url}");
            dsc.set(url, None);
        }
    }
    let plan = if get("discover").or(get("live")).is_some() {
        let goal = graph.effective_goal(&cfg);
        for (url, cause) in &goal.suspended {
            let _ = writeln!(text, "sets {url} aside for {cause}");
        }
        graph.plan_to(&dsc, &cfg, &goal.goal)
    } else {
        graph.plan(&dsc, &cfg)
    };
    match plan {
        Plan::Converged => text.push_str("converged\n"),
        Plan::Path(path) => {
            for step in &path.steps {
                let _ = writeln!(text, "{step}");
            }
            let _ = writeln!(text, "cost {}", path.cost);
        }
        Plan::NoPath(no_path) => {
            let _ = writeln!(text, "no path: {no_path}");
        }
    }
    text
}

#[test]
fn scenarios_come_out_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let output = run(&root, &text);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, output).unwrap();
        } else {
            assert_eq!(
                output,
                text,
                "{} (UPDATE_EXPECT=1 rewrites it)",
                path.display()
            );
        }
    }
}
