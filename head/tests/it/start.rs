//! A head starts with what it has, or says in a sentence why not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proto::v1;

use crate::rig::{Rig, WAIT, add, connect, eventually, list, node, text, version};

#[tokio::test]
async fn f07_a_second_head_is_refused_and_the_first_goes_on() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    let (status, said) = rig.run();
    assert_eq!(status.code(), Some(1));
    let sentence = format!(
        "another kraken-head uses the state directory {} (pid {})",
        rig.path("state").display(),
        head.pid()
    );
    assert!(said.contains(&sentence), "{said}");
    assert_eq!(list(&mut client, "").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_head_keeps_its_nodes_its_identity_and_its_name() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    let first = version(&mut client).await;
    assert_eq!((first.cluster.as_str(), first.revision), ("test", 1));
    add(&mut client, vec![node("n1", &[("/RunState", "SYNC")])])
        .await
        .unwrap();
    let before = list(&mut client, "").await.unwrap();
    assert!(
        before
            .iter()
            .any(|node| node.name == "head" && node.is_head)
    );
    let (status, took) = head.terminate();
    assert!(
        status.success() && took < Duration::from_secs(5),
        "{status} after {took:?}"
    );

    let (head, mut client) = rig.start().await;
    let after = list(&mut client, "").await.unwrap();
    let names = |nodes: &[v1::Node]| {
        nodes
            .iter()
            .map(|node| (node.id.clone(), node.name.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after));
    let second = version(&mut client).await;
    assert_eq!(second.revision, 2);
    assert!(second.epoch > first.epoch);
    head.kill();

    let other_name = "name = \"other\"\n";
    let text = fs::read_to_string(rig.path("head.toml")).unwrap();
    fs::write(rig.path("head.toml"), format!("{other_name}{text}")).unwrap();
    let (status, said) = rig.run();
    assert_eq!(status.code(), Some(1));
    assert!(
        said.contains("this head is node head in its state directory"),
        "{said}"
    );
    fs::write(rig.path("head.toml"), format!("name = \"n1\"\n{text}")).unwrap();
    assert!(rig.run().1.contains("this head is node head"));
}

#[test]
fn what_is_wrong_at_the_start_is_said_in_a_sentence() {
    let rig = Rig::new("");
    let refused = |code: i32, part: &str| {
        let (status, said) = rig.run();
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(said.contains(part), "{said}");
    };
    rig.configure("[boot]\nhttp_prot = 1\n");
    refused(
        2,
        "there is no key boot.http_prot; did you mean boot.http_port?",
    );
    rig.configure("");
    let secret = rig.path("keys/cluster.key");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    refused(1, "can be read by other users: chmod 600");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let public = fs::read(rig.path("keys/cluster.pub")).unwrap();
    fs::write(rig.path("keys/cluster.pub"), "00".repeat(32)).unwrap();
    refused(1, "does not belong to cluster.key");
    fs::write(rig.path("keys/cluster.pub"), public).unwrap();
    let ours = rig.path("keys/ca.pem");
    let certificate = fs::read(&ours).unwrap();
    let other = Rig::new("");
    fs::copy(other.path("keys/ca.pem"), &ours).unwrap();
    refused(1, "ca.key does not belong to ca.pem");
    fs::write(&ours, certificate).unwrap();
    fs::rename(rig.path("keys/ca.pem"), rig.path("keys/gone")).unwrap();
    refused(1, "make the cluster's keys with `kraken-image keys");
    fs::rename(rig.path("keys/gone"), rig.path("keys/ca.pem")).unwrap();
    fs::write(
        rig.path("state/kraken.db"),
        "this is no database, whatever its name says",
    )
    .unwrap();
    refused(1, "is damaged");
    let output = rig
        .command()
        .args(["--config", "/no/such/file.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn config_check_and_show_start_nothing() {
    let rig = Rig::new("[power]\npoll = \"7s\"\n");
    let output = rig.command().args(["config", "check"]).output().unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .ends_with("head.toml is good\n")
    );
    let output = rig
        .command()
        .args(["config", "show"])
        .env("KRAKEN_ENGINE_ATTEMPTS", "9")
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("power.poll = \"7s\"  # ")
            && shown.contains("engine.attempts = \"9\"  # KRAKEN_ENGINE_ATTEMPTS"),
        "{shown}"
    );
    assert!(!rig.path("state").exists());
}

#[tokio::test]
async fn f59_signals_do_what_they_should() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    let mut watch = client
        .watch(v1::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let good = fs::read_to_string(rig.path("head.toml")).unwrap();
    fs::write(rig.path("head.toml"), "nonsense = 1\n").unwrap();
    head.signal(nix::sys::signal::Signal::SIGHUP);
    head.logged("the configuration is not good").await;
    fs::write(rig.path("head.toml"), good).unwrap();
    head.signal(nix::sys::signal::Signal::SIGHUP);
    head.logged("the configuration is good").await;
    assert_eq!(list(&mut client, "").await.unwrap().len(), 1);
    // An open stream does not hold up the end.
    let (status, took) = head.terminate();
    assert!(
        status.success() && took < Duration::from_secs(5),
        "{status} after {took:?}"
    );
    assert!(
        tokio::time::timeout(WAIT, async {
            while let Ok(Some(_)) = watch.message().await {}
        })
        .await
        .is_ok()
    );
    assert!(
        connect(&rig.path("run/api.sock")).await.is_err(),
        "the socket is gone"
    );
}

#[tokio::test]
async fn a_machine_without_ca_certificates_runs_a_head_and_says_what_is_missing() {
    let rig = Rig::new("[power]\npoll = \"1s\"\n");
    let (file, folder) = (rig.path("ca-certificates.crt"), rig.path("no-certificates"));
    fs::create_dir(&folder).unwrap();
    let mut command = rig.command();
    command
        .env("SSL_CERT_FILE", &file)
        .env("SSL_CERT_DIR", &folder);
    let (head, mut client) = rig.start_with(command).await;
    let missing = "install the package ca-certificates";
    let warned = "BMCs under https cannot be reached";
    assert!(head.logged(warned).await.contains(missing));
    // Nothing listens on port 1, so whoever gets as far as to ask is refused.
    let bmc = |name, scheme: &str| {
        let target = format!("{scheme}://127.0.0.1:1/redfish/v1/Systems/1");
        node(
            name,
            &[("/power/driver", "REDFISH"), ("/power/target", &target)],
        )
    };
    let mut unchecked = bmc("unchecked", "https");
    let insecure = v1::ValueChange {
        url: "/power/insecure".into(),
        value: Some(v1::Value {
            kind: Some(v1::value::Kind::BoolValue(true)),
        }),
    };
    unchecked.cfg.as_mut().unwrap().values.push(insecure);
    let nodes = vec![bmc("checked", "https"), bmc("plain", "http"), unchecked];
    add(&mut client, nodes).await.unwrap();
    let error = async |name: &str, part: &str| {
        eventually(&format!("{part:?} of {name}"), || {
            let (mut client, name) = (client.clone(), name.to_owned());
            async move {
                let nodes = list(&mut client, &name).await.ok()?;
                text(nodes[0].dsc.as_ref(), "/power/last_error").filter(|said| said.contains(part))
            }
        })
        .await
    };
    error("plain", "the BMC does not answer").await;
    error("unchecked", "the BMC does not answer").await;
    error("checked", missing).await;
    assert_eq!(head.log().matches(warned).count(), 1, "{}", head.log());
    // Once there is one, nobody has to restart anything.
    fs::copy(rig.path("keys/ca.pem"), &file).unwrap();
    error("checked", "the BMC does not answer").await;
}
