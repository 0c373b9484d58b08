//! What is kept of a cluster that did not do what was claimed: consoles, logs, state and packets, in one folder.

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use crate::{cluster::Cluster, paths};

/// What the state dump asks the head, and the file for the answer.
const QUESTIONS: [(&str, &[&str]); 4] = [
    ("nodes.json", &["node", "list", "-o", "json"]),
    ("nodes.txt", &["node", "list"]),
    ("pending.json", &["pending", "list", "-o", "json"]),
    ("images.json", &["image", "list", "-o", "json"]),
];

/// Copies all evidence of `cluster` into a fresh folder under `target/lab/failures` and returns it. Goes on after errors.
pub fn keep(cluster: &Cluster, claim: &str, why: &str) -> Result<PathBuf> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let folder = paths::failures().join(format!("{claim}-{stamp}"));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("why.txt"), why)?;
    for (file, question) in QUESTIONS {
        keep_answer(cluster, &folder.join(file), question);
    }
    for machine in &cluster.spec.machines {
        let question = ["node", "explain", &machine.name];
        keep_answer(
            cluster,
            &folder.join(format!("explain-{}.txt", machine.name)),
            &question,
        );
    }
    match cluster.status() {
        Ok(status) => fs::write(
            folder.join("machines.json"),
            serde_json::to_vec_pretty(&status)?,
        )?,
        Err(error) => fs::write(folder.join("machines.json"), format!("{error:#}"))?,
    }
    for entry in fs::read_dir(&cluster.files.0)?.flatten() {
        let path = entry.path();
        let kept = path.extension().is_some_and(|ext| {
            ["log", "pcap", "toml", "json"]
                .iter()
                .any(|kept| ext == *kept)
        });
        if kept {
            fs::copy(&path, folder.join(entry.file_name()))?;
        }
    }
    Ok(folder)
}

fn keep_answer(cluster: &Cluster, file: &std::path::Path, question: &[&str]) {
    let text = match cluster.krakenctl(question) {
        Ok(output) => format!("{}{}", output.stdout, output.stderr),
        Err(error) => format!("{error:#}\n"),
    };
    if let Err(error) = fs::write(file, text) {
        eprintln!("lab: {}: {error}", file.display());
    }
}
