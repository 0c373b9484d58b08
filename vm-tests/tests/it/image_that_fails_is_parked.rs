//! Claim: a node whose image always fails ends parked with a reason that its head tells, and is released by one command once the image is mended.

use crate::lab::{self, BOOT_TIME, SOON};

#[test]
fn image_that_fails_is_parked() {
    lab::claim("image_that_fails_is_parked", |cluster, artifacts| {
        let set = |values: &[&str]| lab::set(cluster, "n2", values);
        let explain = || -> anyhow::Result<serde_json::Value> {
            let text = cluster.ctl(&["node", "explain", "n2", "-o", "json"])?;
            let reports: serde_json::Value = serde_json::from_str(&text)?;
            Ok(reports[0].clone())
        };
        let (broken, mended) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        lab::add_image(cluster, artifacts, broken.path(), "moody", "exit 3");
        set(&["/image/state=IDLE"]);
        lab::wait_image(cluster, "n2", "IDLE", SOON);
        set(&["/image/name=moody", "/image/state=ACTIVE"]);
        let parked = || Ok(explain()?["outcome"] == "parked");
        cluster
            .wait(BOOT_TIME, "the node gives up", parked)
            .expect("parked");
        let report = explain().expect("a report");
        let reason = report["reason"].as_str().expect("a reason");
        assert!(
            reason.contains("the node itself gave up: image/"),
            "{reason}"
        );
        let history = report["history"].as_array().expect("a history");
        let tried = history
            .iter()
            .filter(|attempt| attempt["mutation"] == "image/ERRORtoACTIVE");
        assert!(tried.count() >= 3, "{history:?}");
        assert_eq!(
            cluster.known("n2", "/RunState").expect("a state"),
            "SYNC",
            "the node itself is well"
        );

        let works = "exec /bin/busybox sleep 1000";
        lab::add_image(cluster, artifacts, mended.path(), "moody", works);
        cluster.ctl(&["node", "release", "n2"]).expect("released");
        lab::wait_image(cluster, "n2", "ACTIVE", BOOT_TIME);
        assert_eq!(explain().expect("a report")["outcome"], "converged");

        set(&["/image/state=IDLE"]);
        lab::wait_image(cluster, "n2", "IDLE", SOON);
        set(&["/image/name=demo", "/image/state=ACTIVE"]);
        lab::wait_up(cluster, &["n2"]);
    });
}
