//! Claim: TFTP and HTTP serve the virtual table and nothing else; no request string becomes a path.

use std::time::Duration;

use vm_tests::{cluster::Cluster, network};

use crate::lab;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn tftp_and_http_stay_inside() {
    lab::claim("tftp_and_http_stay_inside", |cluster, artifacts| {
        let mac = network::node_mac(1);
        assert_eq!(
            http(cluster, &format!("/boot/{mac}/script")),
            200,
            "what is in the table is served"
        );
        let long = format!("/boot/{}/script", "a".repeat(1024));
        let secrets = artifacts.keys.join("cluster.key");
        let absolute = format!("/{}", secrets.display());
        for path in [
            "/../../../../etc/passwd",
            "/boot/../../../../etc/passwd",
            "/boot/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "/boot/52:54:00:4b:00:01/../../../etc/passwd",
            "/images/../../../../etc/passwd/manifest",
            "/images/..%2f..%2f..%2fetc%2fpasswd/manifest",
            "/images/demo%00/manifest",
            "/blobs/../../../../etc/passwd",
            "/blobs/..%2f..%2fimages",
            "/g/../../../../etc/passwd",
            "//etc/passwd",
            "/etc/passwd",
            "/keys/cluster.key",
            &absolute,
            &long,
        ] {
            let status = http(cluster, path);
            assert!((400..500).contains(&status), "GET {path}: {status}");
        }
        for name in [
            "../../../../etc/passwd",
            "/etc/passwd",
            "..%5c..%5cetc/passwd",
            "boot/../../../../etc/passwd",
            "undionly.kpxe%00/../../etc/passwd",
            "etc/passwd",
        ] {
            let url = format!("tftp://{}/{name}", network::HEAD);
            let got = cluster.http_get(&url).expect("a request");
            assert!(got.is_none(), "TFTP {name}: {got:?}");
        }
        let loader = std::fs::metadata("/usr/lib/ipxe/undionly.kpxe")
            .expect("the loader")
            .len();
        let size = tftp_size(cluster, "undionly.kpxe");
        assert_eq!(size, loader, "what is in the table is served");
        let version = cluster.ctl(&["version"]).expect("the head lives");
        assert!(!version.is_empty());
    });
}

fn http(cluster: &Cluster, path: &str) -> u32 {
    let url = format!("http://{}:8080{path}", network::HEAD);
    let argv = [
        "curl",
        "--silent",
        "--path-as-is",
        "--max-time",
        "5",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        &url,
    ];
    let output = cluster.run(&argv, LIMIT).expect("curl");
    output
        .stdout
        .parse()
        .unwrap_or_else(|_| panic!("{path}: {output:?}"))
}

fn tftp_size(cluster: &Cluster, name: &str) -> u64 {
    let url = format!("tftp://{}/{name}", network::HEAD);
    let argv = [
        "curl",
        "--silent",
        "--max-time",
        "10",
        "--output",
        "/dev/null",
        "--write-out",
        "%{size_download}",
        &url,
    ];
    let output = cluster.run(&argv, LIMIT).expect("curl");
    output
        .stdout
        .parse()
        .unwrap_or_else(|_| panic!("{name}: {output:?}"))
}
