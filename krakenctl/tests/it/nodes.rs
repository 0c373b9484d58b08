//! Nodes: add, list, show, set, unset, delete.

use proto::v1;

use crate::fake_head::{FakeHead, Run, change, text};

#[test]
fn nodes_come_and_go() {
    let head = FakeHead::start();
    let run = head.run(&["node", "list"]).ends(0);
    assert!(
        run.out.is_empty() && run.err.contains("node add --help"),
        "{run:?}"
    );

    let add = [
        "node",
        "add",
        "n[1-3]",
        "--group",
        "rack1",
        "--mac",
        "52:54:00:4b:00:{i:02x}",
        "--address",
        "10.77.0.{i+10}/24",
    ];
    let run = head.run(&add).ends(0);
    assert_eq!(run.out, "added n[1-3] (3 nodes), revision 4\n");
    head.run(&add).ends(7);

    head.discover("n2", "/PhysState", "POWER_ON");
    head.run(&["node", "set", "n2", "/RunState=SYNC", "--reason", "try"])
        .ends(0);
    assert_eq!(head.world().reason, "try");
    let nodes = head.run(&["node", "list", "-o", "json"]).ends(0).json();
    assert_eq!(nodes[1]["cfg"]["/ipv4/boot/mac"], "52:54:00:4b:00:02");
    assert_eq!(nodes[1]["cfg"]["/RunState"], "SYNC");
    assert_eq!(nodes[1]["dsc"]["/PhysState"], "POWER_ON");
    assert_eq!(nodes[2]["groups"][0], "rack1");

    let run = head
        .run(&["node", "list", "-u", "/ipv4/boot/address"])
        .ends(0);
    let expect = "\
NAME  PHYSSTATE  RUNSTATE         IMAGE  GROUPS  NOTE  /ipv4/boot/address
n1    -          -                -      rack1   -     10.77.0.11/24
n2    POWER_ON   unknown -> SYNC  -      rack1   -     10.77.0.12/24
n3    -          -                -      rack1   -     10.77.0.13/24
";
    assert_eq!(run.out, expect);
    assert_eq!(
        head.run(&["node", "list", "-o", "name"]).ends(0).out,
        "n1\nn2\nn3\n"
    );
    assert_eq!(
        head.run(&["node", "list", "--fold"]).ends(0).out,
        "n[1-3]\n"
    );
    let csv = head.run(&["node", "list", "n1", "-o", "csv"]).ends(0).out;
    assert!(
        csv.starts_with(
            "name,physstate,runstate,image,groups,note,address,mac,seen,revision,id\r\nn1,"
        ),
        "{csv}"
    );

    head.run(&["node", "set", "n3", "--parent", "n1"]).ends(0);
    let page = head.run(&["node", "show", "n3"]).ends(0).out;
    assert!(page.contains("  parent     n1\n"), "{page}");
    let nodes = head.run(&["node", "list", "n3", "-o", "json"]).ends(0);
    assert_eq!(nodes.json()[0]["parent_name"], "n1");

    head.run(&["node", "unset", "n2", "/RunState"]).ends(0);
    let page = head.run(&["node", "show", "n2"]).ends(0).out;
    assert!(
        page.contains("/PhysState") && !page.contains("/RunState"),
        "{page}"
    );

    assert_eq!(
        head.run(&["node", "delete", "n[1-2]"]).ends(0).out,
        "deleted n[1-2] (2 nodes), revision 8\n"
    );
    head.run(&["node", "show", "n1"]).ends(4);
}

/// What one head printed, another takes in.
#[test]
fn a_listing_can_be_added_elsewhere() {
    let head = FakeHead::start();
    head.run(&[
        "node",
        "add",
        "n[1-2]",
        "--address-start",
        "10.0.0.1/24",
        "/RunState=SYNC",
    ])
    .ends(0);
    for format in ["yaml", "json"] {
        let listing = head.run(&["node", "list", "-o", format]).ends(0).out;
        let other = FakeHead::start();
        Run::of(other.command(&["node", "add", "-f", "-"]), &listing).ends(0);
        let values = |head: &FakeHead| head.run(&["node", "list", "-o", "csv"]).out;
        assert_eq!(values(&other), values(&head));
    }
}

#[test]
fn names_come_from_standard_input() {
    let head = FakeHead::start();
    head.run(&["node", "add", "n[1-4]"]).ends(0);
    let run = Run::of(
        head.command(&["node", "list", "-", "-o", "name"]),
        "n1\nn3 n4\n",
    )
    .ends(0);
    assert_eq!(run.out, "n1\nn3\nn4\n");
    Run::of(head.command(&["node", "delete", "-"]), "\n").ends(2);
    assert_eq!(head.world().nodes.len(), 4);
}

#[test]
fn a_dry_run_asks_for_the_plan_and_writes_nothing() {
    let head = FakeHead::start();
    head.run(&["node", "add", "n[1-2]", "/RunState=SYNC"])
        .ends(0);
    head.world().plan = v1::PlanResponse {
        revision: 2,
        changes: vec![v1::Difference {
            nodes: "n[1-2]".into(),
            count: 2,
            what: "/RunState".into(),
            old: Some(text("SYNC")),
            new: Some(text("INIT")),
        }],
        ..v1::PlanResponse::default()
    };
    let args = [
        "node",
        "set",
        "n[1-2]",
        "/RunState=INIT",
        "--add-group",
        "@x",
        "--dry-run",
    ];
    let run = head.run(&args).ends(8);
    assert!(
        run.out.contains("n[1-2]  /RunState  SYNC  INIT"),
        "{}",
        run.out
    );
    assert!(
        run.err.contains("nothing was written (revision 2)"),
        "{}",
        run.err
    );
    let Some(v1::plan_request::Write::Set(asked)) = head.world().planned.write.clone() else {
        panic!("a write is asked about")
    };
    assert_eq!(
        (asked.nodes.as_str(), &asked.changes[..]),
        ("n[1-2]", &[change("/RunState", "INIT")][..])
    );
    assert_eq!(asked.add_groups, ["x"]);
    let plan = head.run(&["plan", "n[1-2]", "/RunState=INIT"]).ends(8);
    assert_eq!((plan.out, plan.err), (run.out, run.err));
    let names = head
        .run(&[
            "node",
            "unset",
            "n[1-2]",
            "/RunState",
            "--dry-run",
            "-o",
            "name",
        ])
        .ends(8);
    assert_eq!(names.out, "n1\nn2\n");
    head.run(&["node", "set", "n7", "/RunState=SYNC", "--dry-run"])
        .ends(4);
    head.run(&["node", "add", "n9", "--dry-run"]).ends(8);
    for args in [
        &["node", "delete", "@*"][..],
        &["node", "reboot", "@*"],
        &["node", "retry", "n1"],
        &["node", "release", "n1"],
        &["freeze"],
        &["freeze", "@*"],
        &["thaw", "n1", "-m", "0"],
        &["undo", "1"],
        &["pending", "enrol", "52:54:00:4b:00:07", "n9"],
    ] {
        let run = head.run(&[args, &["--dry-run"]].concat()).ends(8);
        assert!(
            run.err.contains("nothing was written"),
            "{args:?}: {}",
            run.err
        );
        assert!(head.world().planned.write.is_some(), "{args:?}");
        head.world().planned = v1::PlanRequest::default();
    }
    let calls = head.world().calls.clone();
    assert_eq!(
        calls
            .iter()
            .filter(|call| !["list_extensions", "list_nodes", "plan"].contains(&call.as_str()))
            .collect::<Vec<_>>(),
        ["add_nodes"],
        "of all these only the first was a write: {calls:?}"
    );
}

#[test]
fn more_nodes_than_a_person_sees_at_a_glance_need_a_yes() {
    let head = FakeHead::start();
    head.run(&["node", "add", "n[1-33]"]).ends(0);
    for args in [
        &["node", "delete", "n[1-33]"][..],
        &["node", "set", "n[1-33]", "/PhysState=POWER_OFF"],
        &["node", "unset", "n[1-33]", "/image/name"],
        &["node", "set", "n[1-2]", "/ipv4/boot/mtu=9000", "-m", "1"],
        &["thaw", "n[1-2]", "-m", "1"],
        &["node", "release", "n[1-2]", "-m", "1"],
    ] {
        let run = head.run(args).ends(2);
        assert!(
            run.err.contains("--yes") && run.err.contains("n[1-"),
            "{run:?}"
        );
    }
    let calls = head.world().calls.clone();
    assert!(
        calls
            .iter()
            .all(|call| call == "list_nodes" || call == "add_nodes"),
        "{calls:?}"
    );
    head.run(&["node", "set", "n[1-33]", "/ipv4/boot/mtu=9000"])
        .ends(0);
    head.run(&["node", "set", "n[1-33]", "/PhysState=POWER_OFF", "-m", "33"])
        .ends(0);
    head.run(&["node", "delete", "@*", "--yes"]).ends(0);
    assert!(head.world().nodes.is_empty());
}

#[test]
fn secrets_go_in_and_do_not_come_out() {
    let head = FakeHead::start();
    head.run(&["node", "add", "n1"]).ends(0);
    let file = head.folder.path().join("secret");
    std::fs::write(&file, "hunter2\n").expect("file");
    let from = format!("/power/password={}", file.display());
    // Even of a head that does not keep the secret.
    head.world().plan.changes.push(v1::Difference {
        nodes: "n1".into(),
        count: 1,
        what: "/power/password".into(),
        old: None,
        new: Some(text("hunter2")),
    });
    let dry = head
        .run(&["node", "set", "n1", "--from-file", &from, "--dry-run"])
        .ends(8);
    head.run(&["node", "set", "n1", "--from-file", &from])
        .ends(0);
    let stored = head.world().nodes["n1"].cfg.clone().unwrap_or_default();
    assert_eq!(stored.values, [change("/power/password", "hunter2")]);
    for format in ["table", "wide", "json", "yaml", "csv"] {
        let shown = head.run(&["node", "show", "n1", "-o", format]).ends(0);
        assert!(
            shown.out.contains("(secret)") && !shown.out.contains("hunter2"),
            "{shown:?}"
        );
    }
    assert!(!dry.out.contains("hunter2"), "{dry:?}");
}

#[test]
fn values_are_checked_before_anything_is_sent() {
    let head = FakeHead::start();
    head.run(&["node", "add", "n1"]).ends(0);
    let run = head.run(&["node", "set", "n1", "/RunState=SINC"]).ends(2);
    assert!(run.err.contains("UNKNOWN, INIT, SYNC, ERROR"), "{run:?}");
    head.run(&["node", "set", "n1", "/RunState"]).ends(2);
    head.run(&["node", "set", "n1", "/RunState=SYNC", "RunState=INIT"])
        .ends(2);
    head.run(&["node", "set", "n1"]).ends(2);
    head.run(&["node", "unset", "n1", "/RunState=SYNC"]).ends(2);
    head.run(&["node", "add", "n1,n[", "--group", "x"]).ends(2);
    assert_eq!(head.world().calls, ["add_nodes"]);
    let run = head.run(&["node", "set", "n1", "/site/rack=7"]).ends(2);
    assert!(
        run.err.contains("no extension has /site/rack"),
        "the head decides: {run:?}"
    );
}
