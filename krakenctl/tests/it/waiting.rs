//! `node set --wait`.

use std::io::{BufRead, BufReader};

use proto::v1;

use crate::fake_head::{FakeHead, Run, text};

/// A head with n1..n3 and a mutation that leads to SYNC.
fn cluster() -> FakeHead {
    let head = FakeHead::start();
    for name in ["n1", "n2", "n3"] {
        head.add(name);
    }
    head.world().mutations = v1::MutationSet {
        mutations: vec![v1::Mutation {
            module: "core".into(),
            name: "INITtoSYNC".into(),
            context: v1::MutationContext::Self_.into(),
            mutates: vec![v1::UrlChange {
                url: "/RunState".into(),
                from: vec![v1::OptionalValue::default()],
                to: Some(v1::OptionalValue {
                    value: Some(text("SYNC")),
                }),
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    head
}

fn park(head: &FakeHead, name: &str) {
    let report = v1::Report {
        node_name: name.to_owned(),
        outcome: v1::Outcome::Parked.into(),
        reason: "core/INITtoSYNC failed 3 times".into(),
        ..Default::default()
    };
    head.world().reports.insert(name.to_owned(), report);
}

#[test]
fn it_ends_when_all_are_there() {
    let head = cluster();
    let child = head.spawn(&["node", "set", "n[1-3]", "/RunState=SYNC", "--wait"]);
    head.wait_for_call("watch");
    for name in ["n2", "n1", "n3"] {
        head.discover(name, "/RunState", "INIT");
        head.discover(name, "/RunState", "SYNC");
    }
    let run = Run::from(child.wait_with_output().expect("it ends")).ends(0);
    assert!(
        run.out.starts_with("done     n[1-3] (3 nodes) within "),
        "{run:?}"
    );
    assert!(run.err.contains("n2 done after"), "{run:?}");
    assert!(!run.err.contains('\x1b'), "no bar in a pipe: {run:?}");
}

#[test]
fn what_holds_already_needs_no_waiting() {
    let head = cluster();
    for name in ["n1", "n2", "n3"] {
        head.discover(name, "/RunState", "SYNC");
    }
    let run = head
        .run(&[
            "node",
            "set",
            "@*",
            "/RunState=SYNC",
            "--wait",
            "-o",
            "json",
        ])
        .ends(0);
    assert_eq!(run.json()["done"], serde_json::json!(["n1", "n2", "n3"]));
    head.run(&["node", "set", "n1", "/ipv4/boot/mtu=9000", "--wait"])
        .ends(0);
}

#[test]
fn some_parked_is_partial_and_all_parked_a_failure() {
    let head = cluster();
    head.discover("n1", "/RunState", "SYNC");
    park(&head, "n2");
    park(&head, "n3");
    let run = head
        .run(&["node", "set", "n[1-3]", "/RunState=SYNC", "--wait"])
        .ends(3);
    assert!(
        run.out
            .contains("failed   n[2-3]  parked: core/INITtoSYNC failed 3 times"),
        "{run:?}"
    );
    assert!(run.out.contains("krakenctl node explain n2"), "{run:?}");
    let run = head
        .run(&[
            "node",
            "set",
            "n[2-3]",
            "/RunState=SYNC",
            "--wait",
            "-o",
            "json",
        ])
        .ends(1);
    assert_eq!(run.json()["failed"][1]["node"], "n3");
    assert_eq!(
        head.run(&["node", "release", "n[2-3]"]).ends(0).out,
        "released n[2-3] (2 nodes), revision 6\n"
    );
    assert_eq!(
        head.run(&["node", "retry", "n2"]).ends(0).out,
        "retrying n2 (1 node), revision 7\n"
    );
}

#[test]
fn what_nothing_that_runs_can_change_is_a_failure() {
    let head = cluster();
    let report = v1::Report {
        node_name: "n1".into(),
        outcome: v1::Outcome::NoPath.into(),
        reason: "nothing that runs can change /image/state".into(),
        ..Default::default()
    };
    head.world().reports.insert("n1".into(), report);
    let run = head
        .run(&["node", "set", "n1", "/image/state=ACTIVE", "--wait"])
        .ends(1);
    let why = "failed   n1  no path: nothing that runs can change /image/state";
    assert!(run.out.contains(why), "{run:?}");
}

#[test]
fn time_runs_out() {
    let head = cluster();
    let run = head
        .run(&[
            "node",
            "set",
            "n1",
            "/RunState=SYNC",
            "--wait",
            "--timeout",
            "300ms",
        ])
        .ends(124);
    assert!(run.out.contains("waiting  n1  /RunState"), "{run:?}");
    assert!(run.err.contains("stays set"), "{run:?}");
    assert!(head.world().nodes["n1"].cfg.is_some());
}

#[test]
fn ctrl_c_ends_the_waiting_and_tells_where_it_stands() {
    let head = cluster();
    head.discover("n1", "/RunState", "SYNC");
    // Asked why, this head says nothing: neither the news nor the operator wait for its answer.
    head.world().explains_nothing = true;
    let mut child = head.spawn(&["node", "set", "n[1-2]", "/RunState=SYNC", "--wait"]);
    let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.starts_with("n1 done after ") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).expect("lines"), 0, "it ended");
    }
    head.wait_for_call("explain");
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
    let run = Run::from(child.wait_with_output().expect("it ends")).ends(130);
    assert!(
        run.out.contains("done     n1") && run.out.contains("waiting  n2"),
        "{run:?}"
    );
}

#[test]
fn a_head_that_restarts_meanwhile_is_waited_for() {
    let mut head = cluster();
    let child = head.spawn(&["node", "set", "n[1-2]", "/RunState=SYNC", "--wait"]);
    head.wait_for_call("explain");
    head.discover("n1", "/RunState", "SYNC");
    head.stop();
    head.world().calls.clear();
    head.restart();
    head.wait_for_call("watch after 0");
    head.discover("n2", "/RunState", "SYNC");
    let run = Run::from(child.wait_with_output().expect("it ends")).ends(0);
    assert!(
        run.err.contains("lost the head") && run.err.contains("answers again"),
        "{run:?}"
    );
}

#[test]
fn another_operator_ends_the_wait_for_a_node() {
    let head = cluster();
    let child = head.spawn(&["node", "set", "n1", "/RunState=SYNC", "--wait"]);
    head.wait_for_call("explain");
    head.run(&["node", "unset", "n1", "/RunState"]).ends(0);
    let run = Run::from(child.wait_with_output().expect("it ends")).ends(1);
    assert!(
        run.out.contains("somebody else has set /RunState"),
        "{run:?}"
    );
}

/// What is kept is not always what was typed: values of extensions come as text, zeros are unset, secrets are not shown.
#[test]
fn what_the_head_made_of_a_value_is_waited_for() {
    use v1::value::Kind::{FloatValue, IntValue};
    let head = cluster();
    let value = |kind| v1::Value { kind: Some(kind) };
    head.world().kept = [
        ("/rack/gpu/power_cap", Some(value(IntValue(350)))),
        ("/rack/grace", Some(value(IntValue(95_000_000_000)))),
        ("/rack/weight", Some(value(FloatValue(12.5)))),
        ("/rack/position", None),
        ("/power/password", Some(text("(secret)"))),
    ]
    .map(|(url, kept)| (url.to_owned(), kept))
    .into();
    let set = [
        "node",
        "set",
        "n[1-2]",
        "/rack/gpu/power_cap=350",
        "/rack/grace=95s",
        "/rack/weight=12.50",
        "/rack/position=0",
        "/power/password=hush",
        "--wait",
        "--timeout",
        "20s",
    ];
    let run = head.run(&set).ends(0);
    assert!(run.out.starts_with("done     n[1-2] (2 nodes)"), "{run:?}");
    // Reported in the same form, it is compared.
    let node = |cap| v1::ValueChange {
        url: "/rack/gpu/power_cap".into(),
        value: Some(value(IntValue(cap))),
    };
    head.report("n1", node(200));
    let child = head.spawn(&set);
    head.wait_for_call("explain");
    head.report("n1", node(350));
    Run::from(child.wait_with_output().expect("it ends")).ends(0);
}

#[test]
fn the_end_of_a_trial_is_no_other_operator() {
    let head = cluster();
    let child = head.spawn(&[
        "node",
        "set",
        "n1",
        "/RunState=SYNC",
        "--wait",
        "--try",
        "200ms",
    ]);
    head.wait_for_call("set_nodes");
    // A head takes it back when its time is over, never before.
    std::thread::sleep(std::time::Duration::from_millis(200));
    head.run(&["node", "unset", "n1", "/RunState"]).ends(0);
    let run = Run::from(child.wait_with_output().expect("it ends")).ends(1);
    assert!(
        run.out
            .contains("the trial ended, and /RunState is as it was before"),
        "{run:?}"
    );
}
