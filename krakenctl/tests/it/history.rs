//! `history`, `diff`, `undo`, `confirm` and `--try`: what is asked, what is shown, and the exit codes.

use proto::v1;

use crate::fake_head::{FakeHead, text};

fn difference(nodes: &str, count: u32, what: &str, old: &str, new: &str) -> v1::Difference {
    let value = |word: &str| (!word.is_empty()).then(|| text(word));
    v1::Difference {
        nodes: nodes.into(),
        count,
        what: what.into(),
        old: value(old),
        new: value(new),
    }
}

fn revisions() -> v1::ListHistoryResponse {
    let set = v1::Revision {
        revision: 17,
        at_ms: 1_000,
        author: "uid 0".into(),
        reason: "ticket 7".into(),
        changes: vec![
            difference("n[1-64]", 64, "/PhysState", "POWER_ON", "POWER_OFF"),
            difference("n3", 1, "group rack1", "", "yes"),
            difference("n3", 1, "/power/password", "hunter1", "hunter2"),
        ],
        trial_until_ms: 2_000,
        undoable: true,
        ..v1::Revision::default()
    };
    let freeze = v1::Revision {
        revision: 16,
        author: "kraken-head".into(),
        changes: vec![difference("", 0, "frozen", "yes", "")],
        settles: vec![12],
        notes: vec!["extension site: /site/rack came".into()],
        ..v1::Revision::default()
    };
    v1::ListHistoryResponse {
        revisions: vec![set, freeze],
        revision: 17,
    }
}

#[test]
fn history_tells_who_what_and_why() {
    let head = FakeHead::start();
    head.world().history = revisions();
    let run = head
        .run(&["history", "n[1-64]", "--since", "12", "-n", "50"])
        .ends(0);
    for part in [
        "revision 17  ",
        "ago  uid 0\n  ticket 7\n",
        "on trial: taken back in 0s unless confirmed (krakenctl confirm 17)",
        "n[1-64]  /PhysState       POWER_ON  POWER_OFF",
        "n3       group rack1      no        yes",
        "the cluster  frozen  yes   no",
        "ends the trial of revision 12",
        "extension site: /site/rack came",
    ] {
        assert!(run.out.contains(part), "{part:?} is not in\n{}", run.out);
    }
    let asked = head.world().asked_history.clone();
    assert_eq!(
        (asked.nodes.as_str(), asked.since_revision, asked.limit),
        ("n[1-64]", 12, 50)
    );
    for format in ["table", "wide", "json", "yaml", "csv"] {
        let run = head.run(&["history", "-o", format]).ends(0);
        assert!(!run.out.contains("hunter"), "{format}: {}", run.out);
    }
    let json = head.run(&["history", "-o", "json"]).ends(0).json();
    assert_eq!(json[0]["changes"][0]["nodes"], "n[1-64]");
    assert_eq!(json[0]["trial_until_ms"], 2_000);
    assert_eq!(json[1]["settles"][0], 12);
    head.run(&["history", "--since", "2h"]).ends(0);
    assert!(head.world().asked_history.since_ms > 1_600_000_000_000);
    head.run(&["history", "--since", "yesterday"]).ends(2);
    head.world().history.revisions.clear();
    let none = head.run(&["history", "n9"]).ends(0);
    assert_eq!(
        (none.out.as_str(), none.err.as_str()),
        ("", "nothing was written there (revision 17)\n")
    );
}

#[test]
fn diff_and_undo_end_as_scripts_expect() {
    let head = FakeHead::start();
    head.world().revision = 20;
    head.run(&["diff", "17"]).ends(0);
    head.world().plan.changes = vec![difference("n[1-33]", 33, "/Platform", "a", "b")];
    let run = head.run(&["diff", "17", "n[1-33]", "-o", "json"]).ends(8);
    assert_eq!(
        (&run.json()["from"], &run.json()["to"]),
        (&17.into(), &20.into())
    );
    assert!(
        head.run(&["diff", "17", "19"])
            .ends(8)
            .out
            .contains("n[1-33]  /Platform  a     b")
    );
    head.run(&["diff", "17", "x", "n1"]).ends(2);

    // 33 nodes: more than a person sees at a glance.
    let refused = head.run(&["undo", "17"]).ends(2);
    assert!(
        refused.err.contains("--yes") && refused.err.contains("33 nodes"),
        "{refused:?}"
    );
    let dry = head.run(&["undo", "17", "--dry-run"]).ends(8);
    assert!(dry.out.contains("n[1-33]"), "{dry:?}");
    let done = head
        .run(&["undo", "17", "--yes", "--reason", "wrong rack"])
        .ends(0);
    assert_eq!(done.out, "changed back n1 (1 node), revision 21\n");
    assert_eq!(head.world().reason, "wrong rack");
    head.run(&["undo", "--to", "16", "--yes"]).ends(0);
    for bad in [&["undo"][..], &["undo", "17", "--to", "16"], &["undo", "0"]] {
        head.run(bad).ends(2);
    }
    let calls = head.world().calls.clone();
    assert_eq!(calls.iter().filter(|call| *call == "undo").count(), 2);
    head.world().refuse = Some(tonic::Status::aborted(
        "revision 17 was followed by other changes",
    ));
    head.run(&["undo", "17", "--yes"]).ends(7);
}

#[test]
fn a_trial_says_how_it_ends() {
    let head = FakeHead::start();
    head.add("n1");
    let run = head
        .run(&[
            "node",
            "set",
            "n1",
            "/Platform=x",
            "--try",
            "10m",
            "--idempotency-key",
            "k1",
        ])
        .ends(0);
    assert!(
        run.out
            .contains("krakenctl confirm 2 lets it stay, krakenctl undo 2 takes it back"),
        "{}",
        run.out
    );
    let options = head.world().options.clone();
    assert_eq!(
        (options.try_ms, options.idempotency_key.as_str()),
        (600_000, "k1")
    );
    assert_eq!(
        head.run(&["confirm", "2"]).ends(0).out,
        "revision 2 stays (revision 3)\n"
    );
    head.run(&["freeze", "--try", "1m"]).ends(0);
    assert_eq!(head.world().options.try_ms, 60_000);
    head.run(&["node", "set", "n1", "/Platform=x", "--try", "soon"])
        .ends(2);
    let until_ms = 4_000_000_000_000;
    let trial = v1::Trial {
        revision: 2,
        until_ms,
    };
    head.world().nodes.get_mut("n1").unwrap().trials = vec![trial];
    let shown = head.run(&["node", "show", "n1"]).ends(0);
    assert!(
        shown.out.contains("unless: krakenctl confirm 2"),
        "{}",
        shown.out
    );
}
