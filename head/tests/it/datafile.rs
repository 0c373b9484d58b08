//! A mutation file at work in a real head: polls that discover by themselves, exit codes that become outcomes, lines, and
//! `discover = "to"`; and what the API tells of its commands.

use std::fs;

use proto::v1;
use proto::v1::module_info::Kind;

use crate::rig::{self, Client, Rig, eventually, wait_dsc};

/// Commands look at files named after the node, in the head's state folder, where they run.
const FILE: &str = r#"
module = "tank"
discoverables = ["/host/product", "/power/last_error"]

[[poll]]
name = "level"
every = "1s"
requires = { "/power/driver" = "IPMITOOL" }
command = ["cat", "{node}.level"]
map = [{ regex = "^level (.+)$", discover = { "/host/product" = "$1" } }]
error = "/power/last_error"

[[mutation]]
name = "FILL"
context = "CHILD"
mutates = { "/Platform" = { to = "full" } }
timeout = "20s"
command = ["sh", "-c", "exec ./fill $1", "sh", "{node}"]
env = { TANK_PASSWORD = "{/power/password}", TANK_MODE = "open sesame" }
discover = "to"
exit = { 4 = { "/Platform" = "broken" }, other = "failed" }
"#;

/// Fails in the node's own way: n1 works at the second time it is run, n2 says why not, n3 is found broken, n4 tells more than is asked.
const FILL: &str = r#"#!/bin/sh
case $1 in
n1) test -e again || { touch again; exit 75; } ;;
n2) echo "no water for $TANK_PASSWORD" >&2; exit 1 ;;
n3) exit 4 ;;
n4) echo "discover /host/product cistern" ;;
esac
"#;

async fn failures(client: &Client, node: &str) -> Option<String> {
    let request = v1::ExplainRequest { nodes: node.into() };
    let reports = client.clone().explain(request).await.ok()?.into_inner();
    let failure = reports.reports[0].failures.first()?;
    Some(failure.text.clone())
}

#[tokio::test]
async fn polls_codes_lines_and_trust_reach_the_nodes() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new("");
    let folder = rig.path("state/mutations");
    fs::create_dir_all(&folder).expect("folder");
    fs::write(folder.join("tank.toml"), FILE).expect("file");
    let fill = rig.path("state/fill");
    fs::write(&fill, FILL).expect("script");
    fs::set_permissions(&fill, fs::Permissions::from_mode(0o755)).expect("mode");
    fs::write(rig.path("state/n5.level"), "level low\n").expect("level");
    let (_head, mut client) = rig.start().await;

    let wants = ["n1", "n2", "n3", "n4"].map(|name| {
        rig::node(
            name,
            &[("/Platform", "full"), ("/power/password", "hunter2")],
        )
    });
    let polled = rig::node("n5", &[("/power/driver", "IPMITOOL")]);
    rig::add(&mut client, wants.into_iter().chain([polled]).collect())
        .await
        .expect("added");
    wait_dsc(&client, "n1", "/Platform", Some("full")).await;
    assert!(rig.path("state/again").exists(), "75 is for trying again");
    wait_dsc(&client, "n3", "/Platform", Some("broken")).await;
    wait_dsc(&client, "n4", "/Platform", Some("full")).await;
    wait_dsc(&client, "n4", "/host/product", Some("cistern")).await;
    let why = eventually("the failure", || failures(&client, "n2")).await;
    assert!(
        why.contains("no water for ") && !why.contains("hunter2"),
        "{why}"
    );

    // A poll finds what nobody asked for, and says when it has no answer.
    wait_dsc(&client, "n5", "/host/product", Some("low")).await;
    fs::write(rig.path("state/n5.level"), "level high\n").expect("level");
    wait_dsc(&client, "n5", "/host/product", Some("high")).await;
    fs::remove_file(rig.path("state/n5.level")).expect("level");
    eventually("the trouble is told", || {
        let mut client = client.clone();
        async move {
            let nodes = rig::list(&mut client, "n5").await.ok()?;
            rig::text(nodes[0].dsc.as_ref(), "/power/last_error")
        }
    })
    .await;
    wait_dsc(&client, "n5", "/host/product", Some("high")).await;
    fs::write(rig.path("state/n5.level"), "level low\n").expect("level");
    wait_dsc(&client, "n5", "/host/product", Some("low")).await;
    wait_dsc(&client, "n5", "/power/last_error", None).await;

    let request = v1::ListCarriersRequest {};
    let carriers = client.list_carriers(request).await.expect("carriers");
    let carriers = carriers.into_inner().carriers;
    let of = |id: &str| carriers.iter().find(|carrier| carrier.mutation == id);
    let tank = of("tank/FILL").expect("it is told");
    assert_eq!(
        (tank.kind(), tank.command.as_str(), tank.trusts_exit),
        (Kind::File, "sh -c 'exec ./fill $1' sh {node}", true)
    );
    assert!(tank.file.ends_with("tank.toml:13"), "{}", tank.file);
    let mut names = tank.env.clone();
    names.sort();
    assert_eq!(names, ["TANK_MODE", "TANK_PASSWORD"]);
    assert!(
        !format!("{tank:?}").contains("sesame"),
        "values of variables stay in the file"
    );
    let power = carriers
        .iter()
        .find(|carrier| carrier.mutation.starts_with("power/"));
    assert_eq!(power.map(v1::Carrier::kind), Some(Kind::BuiltIn));
}

/// The kinds of all lints, and the texts of refused files.
async fn lints(client: &Client) -> Vec<String> {
    let request = v1::LintMutationsRequest {};
    let answer = client.clone().lint_mutations(request).await;
    let lints = answer.expect("lints").into_inner().lints.into_iter();
    let refused = lints.filter(|lint| lint.kind == "refused-file");
    refused.map(|lint| lint.text).collect()
}

#[tokio::test]
async fn a_bad_file_keeps_no_head_from_starting_and_is_named_until_it_is_mended() {
    let rig = Rig::new("");
    let folder = rig.path("state/mutations");
    fs::create_dir_all(&folder).expect("folder");
    fs::write(folder.join("tank.toml"), FILE).expect("file");
    let bad = folder.join("bad.toml");
    fs::write(&bad, "module = \"x\"\n[[mutation]]\nnmae = \"A\"\n").expect("file");
    let check = || rig.command().args(["config", "check"]).output().unwrap();
    let output = check();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("bad.toml:3: "), "{said}");

    let (head, mut client) = rig.start().await;
    head.logged("it is left out until it is corrected").await;
    let told = lints(&client).await;
    assert!(told[0].contains("bad.toml:2: "), "{told:?}");
    let request = v1::ListMutationsRequest {};
    let set = client.list_mutations(request).await.expect("set");
    let names: Vec<String> = set
        .into_inner()
        .mutations
        .into_iter()
        .map(|m| m.module)
        .collect();
    assert!(names.iter().any(|name| name == "tank"), "{names:?}");

    fs::write(folder.join("tank.toml"), "module = 7\n").expect("file");
    head.logged("what it said before stays in force").await;
    fs::write(folder.join("tank.toml"), FILE).expect("file");
    fs::remove_file(bad).expect("file");
    eventually("no refused file", async || {
        lints(&client).await.is_empty().then_some(())
    })
    .await;
    assert!(check().status.success());
}
