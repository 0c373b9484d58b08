//! The shipped mutation file for ipmitool, against OpenIPMI's BMC simulator: it is dropped in while the head runs, and switches real power states.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use proto::v1;

use crate::rig::{Client, Rig, add, change, eventually, list, node, set, text, wait_dsc};

/// What is behind the BMC: a file with the power state, and a list of what it was told.
const CHASSIS: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >> told
op=$1
shift
case $op in
get) for name; do [ "$name" = power ] && echo "power:$(cat power)" || echo "$name:0"; done;;
set) while [ $# -gt 1 ]; do [ "$1" = power ] && echo "$2" > power; shift 2; done;;
esac
exit 0
"#;

/// A BMC with one user, and nobody behind it.
struct Sim {
    child: Child,
    folder: std::path::PathBuf,
    port: u16,
}

impl Sim {
    /// `None`, said aloud, where the programs are not installed.
    fn start(rig: &Rig) -> Option<Self> {
        let is_there = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        if !is_there("ipmi_sim") || !is_there("ipmitool") {
            eprintln!(
                "SKIPPED: no ipmi_sim or no ipmitool on this machine; apt-get install openipmi ipmitool"
            );
            return None;
        }
        let folder = rig.path("bmc");
        fs::create_dir_all(folder.join("state")).expect("folder");
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("file");
        write("chassis", CHASSIS);
        write("power", "0\n");
        fs::set_permissions(folder.join("chassis"), fs::Permissions::from_mode(0o755))
            .expect("mode");
        let free = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("address").port();
        let chassis = folder.join("chassis").display().to_string();
        write(
            "lan.conf",
            &format!(
                "name \"bmc\"\nset_working_mc 0x20\nstartlan 1\naddr 127.0.0.1 {port}\npriv_limit admin\n\
                 allowed_auths_callback md5\nallowed_auths_user md5\nallowed_auths_operator md5\nallowed_auths_admin md5\n\
                 guid a123456789abcdefa123456789abcdef\nendlan\nchassis_control \"{chassis}\"\nuser 2 true \"admin\" \"password\" admin 10 md5\n"
            ),
        );
        write(
            "sim.emu",
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
        );
        drop(free);
        let child = Command::new("ipmi_sim")
            .args(["-c", "lan.conf", "-f", "sim.emu", "-s", "state", "-n"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ipmi_sim starts");
        Some(Self {
            child,
            folder,
            port,
        })
    }

    fn power(&self) -> String {
        let text = fs::read_to_string(self.folder.join("power")).expect("power");
        text.trim().to_owned()
    }

    /// How often it was told this.
    fn told(&self, what: &str) -> usize {
        let told = fs::read_to_string(self.folder.join("told")).unwrap_or_default();
        told.lines().filter(|line| *line == what).count()
    }

    fn stop(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn mutations(client: &Client) -> Vec<String> {
    let mut client = client.clone();
    let request = v1::ListMutationsRequest {};
    let all = client.list_mutations(request).await.expect("mutations");
    let all = all.into_inner().mutations;
    all.into_iter()
        .filter(|mutation| mutation.module == "ipmitool")
        .map(|mutation| mutation.name)
        .collect()
}

#[tokio::test]
async fn the_shipped_file_switches_a_machine_whose_bmc_is_ipmi_sim() {
    let rig = Rig::new("");
    let Some(mut sim) = Sim::start(&rig) else {
        return;
    };
    let (head, mut client) = rig.start().await;
    assert_eq!(mutations(&client).await, Vec::<String>::new());

    // A file that is half written changes nothing, and says why.
    let folder = rig.path("state/mutations");
    fs::create_dir_all(&folder).expect("folder");
    let file = folder.join("ipmitool.toml");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutations/ipmitool.toml");
    let shipped = fs::read_to_string(shipped).expect("the shipped file");
    // This BMC does not answer the question for its ciphers, so a site that has it names one: it saves three seconds a command.
    let site = shipped.replace("\"lanplus\",", "\"lanplus\", \"-C\", \"3\",");
    let broken = shipped.replace("ask = \"status\"", "ask = \"statsu\"");
    fs::write(&file, broken).expect("file");
    let why = head.logged("a mutation file is not good").await;
    assert!(
        why.contains("statsu") && why.contains("did you mean `status`"),
        "{why}"
    );
    assert_eq!(mutations(&client).await, Vec::<String>::new());
    fs::write(&file, site).expect("file");
    eventually("its mutations", async || {
        (mutations(&client).await.len() == 6).then_some(())
    })
    .await;

    let mut n1 = node(
        "n1",
        &[
            ("/power/driver", "IPMITOOL"),
            ("/power/target", "127.0.0.1"),
            ("/power/username", "admin"),
            ("/power/password", "password"),
        ],
    );
    let mut port = set("/power/port", "");
    port.value = Some(v1::Value {
        kind: Some(v1::value::Kind::IntValue(sim.port.into())),
    });
    n1.cfg.as_mut().expect("values").values.push(port);
    add(&mut client, vec![n1]).await.expect("n1");

    let on = vec![set("/PhysState", "POWER_ON")];
    change(&mut client, "n1", on).await.expect("on");
    wait_dsc(&client, "n1", "/PhysState", Some("POWER_ON")).await;
    assert_eq!((sim.power().as_str(), sim.told("set power 1")), ("1", 1));
    assert_eq!(sim.told("set power 0"), 0);

    let off = vec![set("/PhysState", "POWER_OFF")];
    change(&mut client, "n1", off).await.expect("off");
    wait_dsc(&client, "n1", "/PhysState", Some("POWER_OFF")).await;
    assert_eq!((sim.power().as_str(), sim.told("set power 0")), ("0", 1));
    assert_eq!(sim.told("set power 1"), 1, "nothing was told twice");

    // A BMC that is gone says nothing about the power; the node says what is wrong, without the password.
    sim.stop();
    let error = eventually("trouble", async || {
        let nodes = list(&mut client.clone(), "n1").await.ok()?;
        text(nodes[0].dsc.as_ref(), "/power/last_error").filter(|error| !error.is_empty())
    })
    .await;
    assert!(error.contains("Unable to establish IPMI v2"), "{error}");
    wait_dsc(&client, "n1", "/PhysState", Some("POWER_OFF")).await;
    let (status, _) = head.terminate();
    assert!(status.success());
    let log = fs::read_to_string(rig.path("head.log")).expect("log");
    assert!(!log.contains("password="), "{log}");
}
