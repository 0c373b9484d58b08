//! Claim: a boot grant lets one key join, once. Who comes second with a grant that was captured off the wire is refused, the head
//! says so aloud, and the node that used it stays as it is.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use vm_tests::{artifacts::Artifacts, cluster::Cluster};

use crate::lab::{self, SOON};

/// How long the thief may try.
const TRIES: Duration = Duration::from_secs(8);

#[test]
fn grant_is_used_once() {
    lab::claim("grant_is_used_once", |cluster, artifacts| {
        let folder = tempfile::tempdir().expect("a folder");
        lab::pull_plug_and_wait(cluster, "n2");
        let mut grant = None;
        cluster
            .wait(SOON, "the capture has the grant", || {
                grant = grant_in(&fs::read(cluster.files.capture())?);
                Ok(grant.is_some())
            })
            .expect("a grant went over the wire");
        let grant = grant.expect("as waited for");

        let resets = cluster.all_resets().expect("counts");
        let refused = || {
            cluster
                .metric("kraken_joins_total", "refused")
                .expect("a metric")
        };
        let (before, lines) = (refused(), cluster.head_log().len());
        let certificate = cluster.known("n2", "/host/boot_id").expect("an id");
        let output = join(cluster, artifacts, folder.path(), &grant);
        assert!(
            refused() > before,
            "the head refused; the thief said: {output}"
        );
        let log = cluster.head_log();
        let alarm = log[lines..].iter().find(|line| {
            let text = line.to_string().to_lowercase();
            ["WARN", "ERROR"]
                .iter()
                .any(|level| line["level"] == *level)
                && text.contains("grant")
        });
        assert!(alarm.is_some(), "and raised an alarm: {:?}", &log[lines..]);
        cluster
            .wait(SOON, "n2 is still up", || cluster.is_up("n2"))
            .expect("the rightful node stays");
        assert_eq!(
            cluster.known("n2", "/host/boot_id").expect("an id"),
            certificate,
            "as the machine it was"
        );
        assert_eq!(
            cluster.all_resets().expect("counts"),
            resets,
            "and nobody touched its power"
        );
    });
}

/// The last grant file in a capture.
fn grant_in(capture: &[u8]) -> Option<String> {
    let magic = b"kraken-grant-v1\n";
    let at = capture
        .windows(magic.len())
        .rposition(|bytes| bytes == magic)?;
    let text = String::from_utf8_lossy(&capture[at..capture.len().min(at + 512)]).into_owned();
    let lines: Vec<&str> = text.lines().take(5).collect();
    let secret = lines.get(4)?.get(..7 + 64)?;
    Some(format!("{}\n{secret}\n", lines[..4].join("\n")))
}

/// Runs an agent of the thief's own next to the head, with everything that the node had. Returns what it said.
fn join(cluster: &Cluster, artifacts: &Artifacts, folder: &Path, grant: &str) -> String {
    let (etc, run) = (folder.join("etc"), folder.join("run"));
    fs::create_dir_all(&etc).expect("a folder");
    for name in ["ca.pem", "cluster.pub"] {
        fs::copy(artifacts.keys.join(name), etc.join(name)).expect("a public key");
    }
    fs::write(etc.join("build"), "{\"time\": 0, \"agent\": \"0.1.0\"}\n").expect("a build stamp");
    fs::write(etc.join("grant"), grant).expect("the grant");
    fs::set_permissions(etc.join("grant"), fs::Permissions::from_mode(0o400)).expect("a mode");
    let console = cluster.console("n2");
    let line = console
        .lines()
        .rev()
        .find_map(|line| line.split_once("Kernel command line: "));
    let line = line.expect("the kernel tells its command line").1.trim();
    let agent = artifacts.agent.display().to_string();
    let argv = [
        &agent,
        "--plain",
        "--run-dir",
        &run.display().to_string(),
        "--etc",
        &etc.display().to_string(),
        "--cmdline",
        line,
    ];
    let limit = TRIES.as_secs().to_string();
    let mut bounded = vec!["timeout", limit.as_str()];
    bounded.extend(argv);
    let output = cluster.run(&bounded, TRIES + SOON).expect("an agent");
    format!("{}{}", output.stdout, output.stderr)
}
