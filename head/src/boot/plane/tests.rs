//! The whole boot plane against the clients that people have, in a network of its own.

use super::*;
use crate::boot::netns::{self, Network, sh};
use crate::boot::table::tests::{armed_node, node, table};
use crate::boot::{
    BootImage, BootNode, BootStage, ClientArch, GrantArchive, GrantRefused, Loader, PendingMachine,
};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const LOADER_BYTES: usize = 300_000;

/// A running boot plane with nodes n1 (armed) and n2, and a folder for files.
struct Plane {
    runtime: tokio::runtime::Runtime,
    events: mpsc::Receiver<BootEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
    table: Arc<BootTable>,
    dir: tempfile::TempDir,
    log: Log,
}

/// What the head logs; each test that enters the network is a process of its own, so it may have the whole log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("unpoisoned")).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Plane {
    fn start() -> Self {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        let dir = tempfile::tempdir().expect("temporary folder");
        let (kernel, initramfs) = (dir.path().join("vmlinuz"), dir.path().join("initramfs"));
        fs::write(&kernel, content(3_000_001)).expect("write");
        fs::write(&initramfs, b"initramfs").expect("write");
        let with_files = |node| BootNode {
            kernel: kernel.clone(),
            initramfs: initramfs.clone(),
            ..node
        };
        let table = table([with_files(armed_node(1)), with_files(node(2))]);
        let loader = |arch, name: &str| Loader {
            arch,
            name: name.into(),
            bytes: content(LOADER_BYTES).into(),
        };
        let loaders = Loaders::new(vec![
            loader(ClientArch::Bios, "undionly.kpxe"),
            loader(ClientArch::UefiX86_64, "ipxe.efi"),
        ]);
        let config = BootPlaneConfig {
            interfaces: vec!["boot0".into()],
            http_port: 8080,
            sync_port: 31415,
            loaders: loaders.expect("two loaders"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let stop = CancellationToken::new();
        let (events, tasks) = {
            let _context = runtime.enter();
            super::start(&config, Arc::clone(&table), &stop)
        };
        Plane {
            runtime,
            events,
            tasks,
            stop,
            table,
            dir,
            log,
        }
    }

    /// The next event that the caller wants, skipping others.
    fn wait_for<T>(&mut self, what: &str, mut wanted: impl FnMut(BootEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the plane runs");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        let found = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), found).await });
        found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// Waits for a line of the log, as the lab reads it.
    fn wait_for_stage(&self, stage: BootStage) {
        let line = format!("boot stage node=n1 stage={stage}");
        netns::until(&line, || self.log.text().contains(&line));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn listens(&self) {
        netns::until("the servers listen", || {
            let udp = sh("cat /proc/net/udp /proc/net/tcp");
            // 67, 69 and 8080
            [":0043 ", ":0045 ", ":1F90 "]
                .iter()
                .all(|port| udp.contains(port))
        });
    }

    fn finish(self) {
        self.stop.cancel();
        let ended = async { tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await };
        self.runtime
            .block_on(ended)
            .expect("all servers end within the 5 s that the head has");
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 % 253) as u8).collect()
}

/// Network and plane, linked; for a client with the address of node `n<i>`.
fn connected(network: &Network, i: u8) -> Plane {
    let plane = Plane::start();
    network.connect(&node(i).mac.to_string());
    plane.listens();
    plane
}

/// udhcpc, once, with a script that sets the address and shows what came.
fn udhcpc(network: &Network, plane: &Plane, options: &str) -> std::process::Output {
    let script = plane.path("udhcpc.sh");
    let text = "#!/bin/sh\n\
        [ \"$1\" = bound ] || [ \"$1\" = renew ] || exit 0\n\
        ip addr replace $ip/$mask dev $interface\n\
        echo \"$1 ip=$ip mask=$mask router=$router hostname=$hostname dns=$dns lease=$lease serverid=$serverid \
        siaddr=$siaddr boot_file=$boot_file\"\n";
    fs::write(&script, text).expect("write");
    sh(&format!("chmod 755 {}", script.display()));
    network.output(&format!(
        "busybox udhcpc -i client0 -f -n -t 3 -T 1 -s {} {options}",
        script.display()
    ))
}

#[test]
fn udhcpc_gets_its_reservation_without_and_with_the_broadcast_flag() {
    let test = "udhcpc_gets_its_reservation_without_and_with_the_broadcast_flag";
    let Some(network) = netns::enter(module_path!(), test, &["busybox"]) else {
        return;
    };
    let plane = connected(&network, 1);
    for options in ["-q", "-q -B", "-q -r 10.77.0.11", "-q -r 10.77.0.99"] {
        let output = udhcpc(&network, &plane, options);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{options}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let expect = "bound ip=10.77.0.11 mask=24 router=10.77.0.1 hostname=n1 dns=10.77.0.1 \
            lease=86400 serverid=10.77.0.1 ";
        assert!(text.contains(expect), "{options}: {text}");
    }
    plane.finish();
}

#[test]
fn an_operating_system_renews_and_releases() {
    let test = "an_operating_system_renews_and_releases";
    let Some(network) = netns::enter(module_path!(), test, &["dhclient"]) else {
        return;
    };
    let plane = connected(&network, 2);
    let leases = plane.path("leases");
    let client = |arguments: &str| {
        let dir = plane.dir.path().display();
        network.run(&format!(
            "dhclient -4 -v {arguments} -sf /bin/true -lf {dir}/leases -pf {dir}/pid client0"
        ))
    };
    let text = client("-1");
    assert!(
        text.contains("DHCPACK of 10.77.0.12 from 10.77.0.1"),
        "{text}"
    );
    let lease = fs::read_to_string(&leases).expect("leases");
    assert!(lease.contains("fixed-address 10.77.0.12;"), "{lease}");
    assert!(lease.contains("option host-name \"n2\";"), "{lease}");
    // A second start is INIT-REBOOT: a REQUEST for the address of the lease file, without DISCOVER.
    network.run(&format!("kill $(cat {}/pid)", plane.dir.path().display()));
    let text = client("-1");
    assert!(
        text.contains("DHCPREQUEST for 10.77.0.12") && !text.contains("DHCPDISCOVER"),
        "{text}"
    );
    assert!(text.contains("DHCPACK of 10.77.0.12"), "{text}");
    network.run("ip addr add 10.77.0.12/24 dev client0");
    let text = client("-r");
    assert!(text.contains("DHCPRELEASE of 10.77.0.12"), "{text}");
    // Its address changed: INIT-REBOOT is told no, and gets the other one.
    network.run("ip addr flush dev client0");
    let moved = BootNode {
        address: "10.77.0.42/24".parse().expect("an address"),
        ..node(2)
    };
    plane.table.replace_node(moved);
    fs::write(&leases, lease).expect("the old lease");
    let text = client("-1");
    assert!(
        text.contains("DHCPNAK") && text.contains("DHCPACK of 10.77.0.42"),
        "{text}"
    );
    plane.finish();
}

#[test]
fn a_renewal_comes_by_unicast_and_is_answered() {
    let test = "a_renewal_comes_by_unicast_and_is_answered";
    let Some(network) = netns::enter(module_path!(), test, &["busybox"]) else {
        return;
    };
    let plane = connected(&network, 1);
    let out = plane.path("out");
    let _ = udhcpc(&network, &plane, "-q");
    let command = format!(
        "busybox udhcpc -i client0 -f -t 3 -T 1 -s {0}/udhcpc.sh > {0}/out 2>&1 & echo $! > {0}/pid; wait || true",
        plane.dir.path().display()
    );
    let mut client = network.client(&command).spawn().expect("udhcpc starts");
    let printed = |text: &str| fs::read_to_string(&out).is_ok_and(|out| out.contains(text));
    netns::until("a lease", || printed("bound ip=10.77.0.11"));
    sh(&format!(
        "kill -USR1 $(cat {}/pid)",
        plane.dir.path().display()
    ));
    netns::until("a renewal", || printed("renew ip=10.77.0.11"));
    sh(&format!("kill $(cat {}/pid)", plane.dir.path().display()));
    client.wait().expect("udhcpc ends");
    plane.finish();
}

#[test]
fn an_unknown_machine_gets_no_lease_and_is_reported() {
    let test = "an_unknown_machine_gets_no_lease_and_is_reported";
    let Some(network) = netns::enter(module_path!(), test, &["busybox"]) else {
        return;
    };
    let mut plane = connected(&network, 9);
    let output = udhcpc(
        &network,
        &plane,
        "-q -x hostname:stranger -V PXEClient:Arch:00007:UNDI:003016",
    );
    assert!(!output.status.success(), "a stranger got a lease");
    let machine = plane.wait_for("the report", |event| match event {
        BootEvent::PendingMachine(machine) => Some(machine),
        _ => None,
    });
    assert_eq!(
        machine,
        PendingMachine {
            mac: node(9).mac,
            uuid: None,
            arch: Some(ClientArch::UefiX86_64),
            vendor_class: Some("PXEClient:Arch:00007:UNDI:003016".into()),
            interface: "boot0".into(),
            giaddr: None,
            circuit: None,
            hostname: Some("stranger".into()),
        }
    );
    // Enrolled: the same machine gets its lease at once.
    plane.table.replace_node(node(9));
    assert!(udhcpc(&network, &plane, "-q").status.success());
    plane.finish();
}

#[test]
fn firmware_and_ipxe_are_told_what_to_load() {
    let test = "firmware_and_ipxe_are_told_what_to_load";
    let Some(network) = netns::enter(module_path!(), test, &["busybox"]) else {
        return;
    };
    let plane = connected(&network, 1);
    for (options, expect) in [
        (
            "-q -V PXEClient:Arch:00000:UNDI:002001 -x 0x5d:0000",
            "boot_file=undionly.kpxe",
        ),
        (
            "-q -V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007",
            "boot_file=ipxe.efi",
        ),
        (
            "-q -V PXEClient:Arch:00000:UNDI:002001 -x 0x4d:69505845",
            "boot_file=http://10.77.0.1:8080/boot/52:54:00:4b:00:01/script",
        ),
    ] {
        let output = udhcpc(&network, &plane, options);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains(expect),
            "{options}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    plane.wait_for_stage(BootStage::Dhcp);
    plane.finish();
}

#[test]
fn an_interface_that_comes_late_or_again_is_served() {
    let test = "an_interface_that_comes_late_or_again_is_served";
    let Some(network) = netns::enter(module_path!(), test, &["busybox"]) else {
        return;
    };
    let plane = connected(&network, 1);
    assert!(udhcpc(&network, &plane, "-q").status.success());
    sh("ip link del boot0");
    network.connect(&node(2).mac.to_string());
    netns::until("a lease on the new interface", || {
        udhcpc(&network, &plane, "-q").status.success()
    });
    let script =
        network.run("busybox wget -q -O - http://10.77.0.1:8080/boot/52:54:00:4b:00:02/script");
    assert!(script.contains("n2 is not to boot yet"), "{script}");
    plane.finish();
}

#[test]
fn tftp_clients_get_loaders_and_scripts_and_nothing_else() {
    let test = "tftp_clients_get_loaders_and_scripts_and_nothing_else";
    let Some(network) = netns::enter(module_path!(), test, &["tftp", "atftp"]) else {
        return;
    };
    let plane = connected(&network, 1);
    network.run("ip addr add 10.77.0.11/24 dev client0");
    let dir = plane.dir.path().display().to_string();
    let expect = content(LOADER_BYTES);
    let got = |name: &str| fs::read(plane.path(name)).unwrap_or_default();
    network.run(&format!(
        "tftp -m octet 10.77.0.1 -c get undionly.kpxe {dir}/hpa"
    ));
    assert!(got("hpa") == expect, "tftp-hpa");
    for (name, options) in [
        ("plain", ""),
        ("blksize", "--option 'blksize 1428'"),
        (
            "window",
            "--option 'blksize 1428' --option 'windowsize 16' --option 'tsize 0'",
        ),
        (
            "greedy",
            "--option 'blksize 65464' --option 'windowsize 65535'",
        ),
        ("tiny", "--option 'blksize 8'"),
    ] {
        network.run(&format!(
            "atftp {options} -g -r /ipxe.efi -l {dir}/{name} 10.77.0.1"
        ));
        assert!(
            got(name) == expect,
            "atftp {name}: {} bytes",
            got(name).len()
        );
    }
    network.run(&format!(
        "atftp -g -r boot/52:54:00:4b:00:01/script -l {dir}/script 10.77.0.1"
    ));
    assert!(
        String::from_utf8(got("script"))
            .expect("text")
            .starts_with("#!ipxe\n")
    );
    plane.wait_for_stage(BootStage::Loader);
    plane.wait_for_stage(BootStage::Script);

    let long = "a".repeat(400);
    for (name, reason) in [
        ("../../../../etc/passwd", "Permission denied"),
        ("boot/../../etc/passwd", "Permission denied"),
        (long.as_str(), "Permission denied"),
        ("etc/passwd", "File not found"),
        ("missing.efi", "File not found"),
    ] {
        let text = network.output(&format!(
            "tftp -m octet 10.77.0.1 -c get {name} {dir}/stolen"
        ));
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains(reason), "{name}: {text}");
        assert!(
            fs::read(plane.path("stolen"))
                .unwrap_or_default()
                .is_empty(),
            "{name}"
        );
    }
    fs::write(plane.path("mine"), b"mine").expect("write");
    let text = network.output(&format!(
        "tftp -m octet 10.77.0.1 -c put {dir}/mine undionly.kpxe"
    ));
    assert!(
        String::from_utf8_lossy(&text.stdout).contains("Permission denied"),
        "a write was not refused"
    );
    plane.finish();
}

#[test]
fn curl_gets_files_ranges_and_grants() {
    let test = "curl_gets_files_ranges_and_grants";
    let Some(network) = netns::enter(module_path!(), test, &["curl"]) else {
        return;
    };
    let plane = connected(&network, 1);
    network.run("ip addr add 10.77.0.11/24 dev client0");
    let (stop, table, dir) = (
        plane.stop.clone(),
        Arc::clone(&plane.table),
        plane.dir.path().to_owned(),
    );
    let base = "http://10.77.0.1:8080";
    let boot = format!("{base}/boot/52:54:00:4b:00:01");
    let kernel = content(3_000_001);

    let log = plane.log.clone();
    // The engine: two deliveries, then no more.
    let mut events = plane.events;
    let engine = plane.runtime.spawn(async move {
        let mut grants = 0;
        while let Some(event) = events.recv().await {
            if let BootEvent::GrantFetch { reply, .. } = event {
                grants += 1;
                let archive = GrantArchive(format!("archive {grants}").into_bytes());
                let _ = reply.send(if grants <= 2 {
                    Ok(archive)
                } else {
                    Err(GrantRefused::Unknown)
                });
            }
        }
        grants
    });

    let script = network.run(&format!("curl -sSf {boot}/script"));
    assert!(
        script.contains("kraken.parent=10.77.0.1:31415 kraken.http=10.77.0.1:8080"),
        "{script}"
    );
    network.run(&format!(
        "curl -sSf -o {0}/whole {boot}/kernel -o {0}/initramfs.got {boot}/initramfs",
        dir.display()
    ));
    assert!(fs::read(dir.join("whole")).expect("read") == kernel);
    network.run(&format!(
        "curl -sSf -r 1000-1999999 -o {}/part {boot}/kernel",
        dir.display()
    ));
    assert!(fs::read(dir.join("part")).expect("read") == kernel[1000..2_000_000]);
    fs::write(dir.join("resumed"), &kernel[..123_456]).expect("write");
    network.run(&format!(
        "curl -sSf -C - -o {}/resumed {boot}/kernel",
        dir.display()
    ));
    assert!(fs::read(dir.join("resumed")).expect("read") == kernel);

    let head = network
        .run(&format!("curl -sSf -I {boot}/kernel"))
        .to_lowercase();
    assert!(
        head.contains("content-length: 3000001") && head.contains("accept-ranges: bytes"),
        "{head}"
    );
    let etag = head
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .expect("a tag")
        .trim()
        .to_owned();
    let status = |arguments: &str| {
        network.run(&format!(
            "curl -sS -o /dev/null -w '%{{http_code}}' --path-as-is {arguments}"
        ))
    };
    assert_eq!(
        status(&format!("-H 'If-None-Match: {etag}' {boot}/kernel")),
        "304"
    );
    assert_eq!(
        status(&format!("-r 0-0 -H 'If-Range: {etag}' {boot}/kernel")),
        "206"
    );
    assert_eq!(
        status(&format!("-r 0-0 -H 'If-Range: \"old\"' {boot}/kernel")),
        "200"
    );
    assert_eq!(status(&format!("-r 3000001- {boot}/kernel")), "416");
    assert_eq!(status(&format!("-X POST {boot}/script")), "405");
    for stray in [
        "",
        "/",
        "/../../etc/passwd",
        "/boot/../../../etc/passwd",
        "/blobs/..%2f..%2fetc%2fpasswd",
        "/boot/52:54:00:4b:00:09/script",
    ] {
        assert_eq!(status(&format!("'{base}{stray}'")), "404", "{stray}");
    }
    let reused = network.run(&format!(
        "curl -sS -w '%{{num_connects}}' -o /dev/null {boot}/script -o /dev/null {boot}/script"
    ));
    assert_eq!(reused, "10", "one connection for both");

    let grant = armed_node(1).armed.expect("armed").grant_id;
    let fetch = || network.output(&format!("curl -sSf {base}/g/{grant}"));
    assert_eq!(status(&format!("-I {base}/g/{grant}")), "200");
    assert_eq!(fetch().stdout, b"archive 1");
    assert_eq!(fetch().stdout, b"archive 2");
    assert!(!fetch().status.success());
    assert_eq!(status(&format!("{base}/g/{grant}")), "403");
    assert_eq!(
        status(&format!("{base}/g/00000000-0000-0000-0000-00000000ffff")),
        "404"
    );

    let hash = "ab".repeat(32);
    fs::write(dir.join(&hash), b"a layer").expect("write");
    fs::write(dir.join("manifest.json"), b"{}").expect("write");
    table.replace_images([BootImage {
        name: "demo".parse().expect("a name"),
        manifest: dir.join("manifest.json"),
        blobs: vec![(hash.parse().expect("a hash"), dir.join(&hash))],
    }]);
    assert_eq!(
        network.run(&format!("curl -sSf {base}/images/demo/manifest")),
        "{}"
    );
    assert_eq!(
        network.run(&format!("curl -sSf -r 2- {base}/blobs/{hash}")),
        "layer"
    );
    assert_eq!(status(&format!("{base}/blobs/{}", "cd".repeat(32))), "404");
    fs::remove_file(dir.join(&hash)).expect("remove");
    std::os::unix::fs::symlink("/etc/passwd", dir.join(&hash)).expect("link");
    assert_eq!(
        status(&format!("{base}/blobs/{hash}")),
        "503",
        "a link in place of a blob"
    );

    stop.cancel();
    plane.runtime.block_on(plane.tasks.wait());
    drop(plane.table);
    let ended = async { tokio::time::timeout(Duration::from_secs(10), engine).await };
    let grants = plane
        .runtime
        .block_on(ended)
        .expect("the queue closes")
        .expect("no panic");
    assert_eq!(grants, 4, "HEAD is no delivery");
    let text = log.text();
    let stages: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split("stage=").nth(1)?.split(' ').next())
        .collect();
    assert_eq!(stages, ["script", "kernel", "initramfs", "grant"], "{text}");
}
