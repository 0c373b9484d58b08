//! Claim: a node runs the signed image that it was told to, and the image's service answers over the network.

use crate::lab::{self, NODES};

#[test]
fn image_runs_and_answers() {
    lab::claim("image_runs_and_answers", |cluster, artifacts| {
        let manifest = std::fs::read(artifacts.demo.join("manifest.json")).expect("the manifest");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        let payload = manifest["payload"].as_str().expect("a payload");
        let digest = ring::digest::digest(&ring::digest::SHA256, payload.as_bytes());
        let digest: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        for node in NODES {
            let page = cluster.page(node).expect("a request").expect("an answer");
            assert!(page.contains("image: demo"), "{page}");
            assert!(page.contains(&format!("node: {node}")), "{page}");
            assert_eq!(cluster.known(node, "/image/name").expect("a value"), "demo");
            assert_eq!(
                cluster.known(node, "/image/digest").expect("a value"),
                digest
            );
        }
    });
}
