//! Freeze, pending, images, mutations, explain, version, completion.

use proto::v1;

use crate::fake_head::{FakeHead, Run, krakenctl};

#[test]
fn freeze_and_thaw() {
    let head = FakeHead::start();
    head.add("n1");
    assert_eq!(
        head.run(&["freeze", "--reason", "fire"]).ends(0).out,
        "froze the cluster, revision 2\n"
    );
    assert_eq!(head.world().reason, "fire");
    assert!(
        head.run(&["node", "list"])
            .ends(0)
            .err
            .contains("krakenctl thaw")
    );
    assert!(head.run(&["version"]).ends(0).out.contains(", frozen"));
    head.run(&["thaw"]).ends(0);
    assert_eq!(
        head.run(&["freeze", "n1"]).ends(0).out,
        "froze n1 (1 node), revision 4\n"
    );
    assert!(head.run(&["node", "list"]).ends(0).out.contains("frozen"));
    head.run(&["thaw", "n1"]).ends(0);
    assert!(!head.world().frozen && !head.world().nodes["n1"].frozen);
    head.run(&["thaw", "n9"]).ends(4);
}

#[test]
fn groups_are_frozen_as_such() {
    let head = FakeHead::start();
    head.add("n1");
    let (group, set) = ("rack3", "@rack3".to_owned());
    let groups = vec![group.to_owned()];
    head.world().nodes.get_mut("n1").unwrap().groups = groups;
    assert_eq!(
        head.run(&["freeze", "--list"]).ends(0).err,
        "nothing is frozen\n"
    );
    let froze = head.run(&["freeze", &set, "--reason", "heat"]).ends(0);
    assert_eq!(froze.out, format!("froze group {group}, revision 2\n"));
    let list = head.run(&["freeze", "--list"]).ends(0).out;
    for word in [&set, "alice", "heat", &format!("krakenctl thaw {set}")] {
        assert!(list.contains(word), "{list}");
    }
    let json = head.run(&["freeze", "--list", "-o", "json"]).ends(0).out;
    assert!(json.contains("\"kind\": \"group\"") || json.contains("\"kind\":\"group\""));
    let nodes = head.run(&["node", "list"]).ends(0);
    assert!(nodes.out.contains(&format!("frozen with {set}")));
    assert!(nodes.err.contains("krakenctl freeze --list"));
    let version = head.run(&["version"]).ends(0).out;
    assert!(version.contains(&format!("frozen: {set}")), "{version}");

    // What is thawed apart says what still holds.
    let left =
        format!("n1 stays frozen with the group {group}, by alice: heat: krakenctl thaw {set}\n");
    assert_eq!(head.run(&["thaw", "n1"]).ends(0).err, left);
    assert_eq!(head.run(&["thaw"]).ends(0).err, left);
    head.run(&["freeze", "n1"]).ends(0);
    let thawed = head.run(&["thaw", &set]).ends(0);
    assert_eq!(thawed.out, format!("thawed group {group}, revision 6\n"));
    assert_eq!(thawed.err, "n1 stays frozen by name: krakenctl thaw n1\n");
    head.run(&["freeze", "--list", &set]).ends(2);
}

#[test]
fn extensions_come_and_go() {
    let head = FakeHead::start();
    head.add("n1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.proto");
    let path = file.to_str().unwrap();
    head.run(&["extension", "add", path]).ends(2);
    std::fs::write(&file, "message").unwrap();
    let bad = head.run(&["extension", "add", path]).ends(2).err;
    assert!(bad.contains("site.proto:1: no extension"), "{bad}");
    let source = "option (kraken.v1.extension) = \"site\";\n";
    std::fs::write(&file, source).unwrap();
    let dry = head.run(&["extension", "add", path, "--dry-run"]).ends(8);
    assert_eq!(dry.out, "would be done: extension add site\n");
    let added = head.run(&["extension", "add", path]).ends(0);
    assert_eq!(added.out, "extension add site, revision 2\n");

    // Values of a schema that came at run time are shown by it: units, durations, and no secrets.
    let field = |url: &str, kind: v1::extension_field::Kind| v1::ExtensionField {
        url: url.into(),
        kind: kind.into(),
        max: 1000,
        ..Default::default()
    };
    use v1::extension_field::Kind::{Int, Text};
    head.world().extensions[0].fields = vec![
        v1::ExtensionField {
            unit: "W".into(),
            zero: "no limit".into(),
            help: "Limit of the board.".into(),
            ..field("/site/cap", Int)
        },
        v1::ExtensionField {
            format: v1::Format::Duration.into(),
            discoverable: true,
            ..field("/site/grace", Int)
        },
        v1::ExtensionField {
            secret: true,
            ..field("/site/token", Text)
        },
    ];
    let shown = head.run(&["extension", "show", "site"]).ends(0).out;
    for part in [
        "site (site.proto)",
        "/site/cap",
        "whole number from 0",
        "no limit",
        "Limit of the board.",
        "duration",
        "ACCESS",
        "reported",
        "secret, stays on the head",
    ] {
        assert!(shown.contains(part), "{shown} lacks {part:?}");
    }
    assert_eq!(
        head.run(&["extension", "show", "site", "--source"])
            .ends(0)
            .out,
        source
    );
    head.run(&["extension", "show", "nosuch"]).ends(4);
    let show = |format| {
        head.run(&["extension", "show", "site", "-o", format])
            .ends(0)
            .out
    };
    assert!(show("name").starts_with("/site/") && !show("name").contains(' '));
    let csv = show("csv");
    assert!(
        csv.to_lowercase().starts_with("url,type,unit,access,"),
        "{csv}"
    );
    let listed = head
        .run(&["extension", "list", "-o", "json"])
        .ends(0)
        .json();
    assert_eq!(listed[0]["fields"][2]["secret"], true);
    let int = |n| v1::Value {
        kind: Some(v1::value::Kind::IntValue(n)),
    };
    let text = |text: &str| v1::Value {
        kind: Some(v1::value::Kind::TextValue(text.into())),
    };
    let values = [
        ("/site/cap", int(350)),
        ("/site/grace", int(90_000_000_000)),
        ("/site/token", text("t0k3n")),
    ];
    let cfg = values.map(|(url, value)| v1::ValueChange {
        url: url.into(),
        value: Some(value),
    });
    if let Some(node) = head.world().nodes.get_mut("n1") {
        node.cfg = Some(v1::Values {
            values: cfg.to_vec(),
        });
    }
    let shown = head.run(&["node", "show", "n1"]).ends(0).out;
    assert!(
        shown.contains("350 W") && shown.contains("1m30s"),
        "{shown}"
    );
    assert!(!shown.contains("t0k3n"), "{shown}");

    let held = head.run(&["extension", "remove", "site"]).ends(1).err;
    assert!(held.contains("n1 has a value of /site/rack"), "{held}");
    let gone = head
        .run(&["extension", "remove", "site", "--force"])
        .ends(0)
        .out;
    assert!(gone.contains("values of n1 were unset"), "{gone}");
    let help = head.run(&["extension", "add", "--help"]).ends(0).out;
    assert!(help.contains("option (kraken.v1.extension)"), "{help}");
}

#[test]
fn an_unknown_machine_becomes_a_node() {
    let head = FakeHead::start();
    assert!(head.run(&["pending", "list"]).ends(0).out.is_empty());
    head.world().pending.push(v1::Pending {
        mac: "52:54:00:4b:00:07".into(),
        arch: 7,
        vendor_class: "PXE\x1b[31mClient".into(),
        interface: "br0".into(),
        count: 3,
        last_seen_ms: 1,
        ..Default::default()
    });
    let table = head.run(&["pending", "list", "-o", "wide"]).ends(0).out;
    assert!(
        table.contains("UEFI x86-64") && !table.contains('\x1b'),
        "{table}"
    );
    assert_eq!(
        head.run(&["pending", "list", "-o", "json"]).ends(0).json()[0]["interface"],
        "br0"
    );
    let enrol = [
        "pending",
        "enrol",
        "52:54:00:4b:00:07",
        "n7",
        "--address",
        "10.77.0.17/24",
        "-g",
        "rack1",
        "/RunState=SYNC",
    ];
    assert_eq!(
        head.run(&enrol).ends(0).out,
        "enrolled n7 (1 node), revision 2\n"
    );
    let node = &head.run(&["node", "list", "-o", "json"]).ends(0).json()[0];
    assert_eq!(node["cfg"]["/ipv4/boot/mac"], "52:54:00:4b:00:07");
    assert_eq!(node["cfg"]["/RunState"], "SYNC");
    assert_eq!(node["groups"][0], "rack1");
    head.run(&enrol).ends(4);
}

#[test]
fn images() {
    let head = FakeHead::start();
    head.run(&["image", "list"]).ends(0);
    let add = |more: &[&str], code| {
        let mut add = head.command(&[&["image", "add", "demo"], more].concat());
        add.current_dir(head.folder.path());
        Run::of(add, "").ends(code)
    };
    let (path, digest) = (head.folder.path().join("demo"), "ab".repeat(32));
    let path = path.display();
    let told = add(&["--dry-run"], 8);
    assert_eq!(
        told.out,
        format!("would add {path}, 3 MiB, sha256 {digest}\n  1 file, 3 MiB, would be copied\n")
    );
    assert!(head.world().images.is_empty());
    let json = add(&["--dry-run", "-o", "json"], 8).json();
    assert_eq!(
        (&json["new_files"], &json["replaces"], &json["digest"]),
        (&1.into(), &serde_json::Value::Null, &digest[..].into())
    );
    let run = add(&[], 0);
    assert_eq!(
        run.out,
        format!("added {path}, 3 MiB, sha256 {digest}\n  1 file, 3 MiB, copied\n")
    );
    let there = format!("{path} is there already, sha256 {digest}\n");
    assert_eq!(add(&["--dry-run"], 0).out, there);
    assert_eq!(add(&[], 0).out, there);
    head.world().images[0].digest = "cd".repeat(32);
    let run = add(&["--dry-run"], 8);
    let old = format!("  in place of the one with sha256 {}\n", "cd".repeat(32));
    assert!(run.out.contains(&old), "{}", run.out);
    assert!(run.out.ends_with("  all its files are there already\n"));
    let path = head.run(&["image", "list", "-o", "name"]).ends(0).out;
    assert_eq!(
        path.trim(),
        head.folder.path().join("demo").display().to_string(),
        "the head gets an absolute path"
    );
    assert!(
        head.run(&["image", "list"])
            .ends(0)
            .out
            .contains("cdcdcdcdcdcd  3 MiB")
    );
}

#[test]
fn explain_reads_well_and_is_data_too() {
    let head = FakeHead::start();
    head.add("n1");
    head.world().reports.insert(
        "n1".into(),
        v1::Report {
            node_name: "n1".into(),
            outcome: v1::Outcome::NoPath.into(),
            reason: "nothing leads from /PhysState unknown to POWER_ON: power/UKtoOFF requires /power/driver".into(),
            ..Default::default()
        },
    );
    let page = head.run(&["node", "explain", "n1"]).ends(0).out;
    assert!(
        page.starts_with("n1  no path") && page.contains("requires /power/driver"),
        "{page}"
    );
    assert_eq!(
        head.run(&["node", "explain", "n1", "-o", "json"])
            .ends(0)
            .json()[0]["outcome"],
        "no_path"
    );
    assert!(
        head.run(&["node", "explain", "n1", "-o", "wide"])
            .ends(0)
            .out
            .contains("no_path")
    );
    head.run(&["node", "explain", "n9"]).ends(4);
}

#[test]
fn versions_and_completion() {
    let head = FakeHead::start();
    let version = head.run(&["version", "-o", "json"]).ends(0).json();
    assert_eq!(
        (&version["head"]["version"], &version["head"]["cluster"]),
        (&"9.9.9".into(), &"lab".into())
    );
    Run::of(krakenctl(&["version", "--client"]), "").ends(0);
    let gone = Run::of(krakenctl(&["version", "--socket", "/nonexistent"]), "").ends(6);
    assert!(gone.out.starts_with("krakenctl"), "{gone:?}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            Run::of(krakenctl(&["completion", shell]), "")
                .ends(0)
                .out
                .contains("krakenctl")
        );
    }
}

/// What bash does on <Tab>, in bash itself.
#[test]
fn completion_knows_the_nodes_of_the_head() {
    let mut head = FakeHead::start();
    let socket = head.socket();
    head.run(&["node", "add", "n[1-3]", "--group", "rack1"])
        .ends(0);
    let script = r#"
        source <(krakenctl completion bash)
        for COMP_LINE; do
            COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMPREPLY=()
            _krakenctl 2> /dev/null
            echo "${COMPREPLY[*]}"
        done"#;
    let complete = |line: &str| {
        let mut bash = std::process::Command::new("bash");
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_krakenctl"));
        let folder = program.parent().expect("folder").display();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
        bash.args(["--norc", "-c", script, "bash", line])
            .env("PATH", path)
            .env("KRAKEN_SOCKET", &socket);
        Run::of(bash, "").ends(0).out.trim_end().to_owned()
    };
    assert_eq!(complete("krakenctl node show n"), "n1 n2 n3");
    assert_eq!(complete("krakenctl node show "), "n1 n2 n3");
    assert_eq!(complete("krakenctl node rel"), "release");
    assert_eq!(complete("krakenctl node set n1 /RunS"), "/RunState=");
    // Readline replaces what stands behind its own word breaks, and counts '@' to the word that it begins.
    assert_eq!(complete("krakenctl node set n1 /RunState=SY"), "SYNC");
    assert_eq!(complete("krakenctl freeze @r"), "@rack1");
    assert_eq!(complete("krakenctl freeze n1,@r"), "@rack1");
    head.stop();
    assert_eq!(
        complete("krakenctl node show n"),
        "",
        "a head that is away completes nothing"
    );
}
