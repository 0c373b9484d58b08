//! What was written can be looked at, compared and taken back; trials end by themselves; writes are made once (fault F57).

use proto::v1;
use proto::v1::WriteOptions;
use proto::v1::plan_request::Write;
use tonic::Code;

use crate::plan::what_if;
use crate::rig::{Client, Rig, add, change, delete, eventually, list, node, set, text, version};

pub(crate) async fn history(client: &mut Client, nodes: &str) -> Vec<v1::Revision> {
    let request = v1::ListHistoryRequest {
        nodes: nodes.into(),
        ..v1::ListHistoryRequest::default()
    };
    client
        .list_history(request)
        .await
        .unwrap()
        .into_inner()
        .revisions
}

pub(crate) async fn undo(
    client: &mut Client,
    revision: u64,
    force: bool,
) -> Result<v1::WriteResponse, tonic::Status> {
    let request = v1::UndoRequest {
        revision,
        force,
        ..v1::UndoRequest::default()
    };
    client.undo(request).await.map(tonic::Response::into_inner)
}

async fn cfg(client: &mut Client, name: &str, url: &str) -> Option<String> {
    text(list(client, name).await.unwrap()[0].cfg.as_ref(), url)
}

fn value(value: Option<&v1::Value>) -> String {
    let values = value.map(|value| v1::Values {
        values: vec![v1::ValueChange {
            url: "x".into(),
            value: Some(value.clone()),
        }],
    });
    text(values.as_ref(), "x").unwrap_or_default()
}

/// `nodes what old->new`, one a line.
pub(crate) fn lines(changes: &[v1::Difference]) -> Vec<String> {
    let line = |change: &v1::Difference| {
        let (old, new) = (value(change.old.as_ref()), value(change.new.as_ref()));
        format!("{} {} {old}->{new}", change.nodes, change.what)
    };
    changes.iter().map(line).collect()
}

#[tokio::test]
async fn writes_are_shown_compared_and_taken_back() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    let nodes = (1..=3).map(|i| {
        node(
            &format!("n{i}"),
            &[("/Platform", "old"), ("/power/password", "hunter1")],
        )
    });
    add(&mut client, nodes.collect()).await.unwrap();
    let request = v1::SetNodesRequest {
        nodes: "n[1-2]".into(),
        changes: vec![
            set("/Platform", "new"),
            set("/power/password", "hunter2"),
            set("/Arch", "x86_64"),
        ],
        add_groups: vec!["rack1".into()],
        options: Some(WriteOptions {
            reason: "ticket 7".into(),
            ..WriteOptions::default()
        }),
        ..v1::SetNodesRequest::default()
    };
    assert_eq!(
        client
            .set_nodes(request)
            .await
            .unwrap()
            .into_inner()
            .revision,
        3
    );
    delete(&mut client, "n3").await.unwrap();

    // A restart changes nothing of it.
    head.kill();
    let (_head, mut client) = rig.start().await;
    let all = history(&mut client, "").await;
    let numbers: Vec<u64> = all.iter().map(|entry| entry.revision).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    let uid = nix::unistd::geteuid();
    assert_eq!(
        (all[1].author.clone(), all[1].reason.as_str()),
        (format!("uid {uid}"), "ticket 7")
    );
    assert!(all[1].at_ms > 0 && all[1].undoable);
    let expect = [
        "n[1-2] group rack1 ->Some(BoolValue(true))",
        "n[1-2] /Arch ->x86_64",
        "n[1-2] /Platform old->new",
        "n[1-2] /power/password (secret)->(secret)",
    ];
    assert_eq!(lines(&all[1].changes), expect);
    assert!(
        lines(&all[0].changes).contains(&"n3 node Some(BoolValue(true))->".to_owned()),
        "{all:?}"
    );
    assert!(!format!("{all:?}").contains("hunter"), "{all:?}");
    // Deleted nodes are found by name, and only what concerns them is told.
    let of_n3 = history(&mut client, "n3").await;
    assert_eq!(
        of_n3.iter().map(|entry| entry.revision).collect::<Vec<_>>(),
        [4, 2]
    );
    assert!(
        of_n3
            .iter()
            .flat_map(|entry| &entry.changes)
            .all(|change| change.nodes == "n3")
    );

    let diff = v1::DiffRequest {
        from: 2,
        to: 3,
        nodes: "n1".into(),
    };
    let diff = client.diff(diff).await.unwrap().into_inner();
    assert_eq!(
        lines(&diff.changes),
        expect.map(|line| line.replace("n[1-2]", "n1"))
    );
    let bad = v1::DiffRequest {
        from: 9,
        to: 3,
        nodes: String::new(),
    };
    assert_eq!(
        client.diff(bad).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    // A deleted node comes back as it was, secrets too.
    assert_eq!(undo(&mut client, 4, false).await.unwrap().nodes, ["n3"]);
    assert_eq!(
        cfg(&mut client, "n3", "/Platform").await.as_deref(),
        Some("old")
    );
    // The mark of a secret, written back, changes nothing; and an undo of that write neither.
    let marked = change(
        &mut client,
        "n1",
        vec![
            set("/power/password", "(secret)"),
            set("/Platform", "newer"),
        ],
    )
    .await
    .unwrap();
    let last = history(&mut client, "n1").await;
    assert_eq!(lines(&last[0].changes), ["n1 /Platform new->newer"]);
    undo(&mut client, marked.revision, false).await.unwrap();
    assert_eq!(
        cfg(&mut client, "n1", "/Platform").await.as_deref(),
        Some("new")
    );
    assert_eq!(stored(&rig, "n1"), "hunter2");
    undo(&mut client, 3, false).await.unwrap();
    assert_eq!(stored(&rig, "n1"), "hunter1");
    assert_eq!(cfg(&mut client, "n2", "/Arch").await, None);
    assert!(list(&mut client, "n2").await.unwrap()[0].groups.is_empty());
    let nothing = undo(&mut client, 99, false).await.unwrap_err();
    assert_eq!(
        (nothing.code(), nothing.message().contains("no revision 99")),
        (Code::NotFound, true)
    );

    // Back to the start, and back again.
    let to = |to_revision| v1::UndoRequest {
        to_revision,
        ..v1::UndoRequest::default()
    };
    let back = client.undo(to(1)).await.unwrap().into_inner();
    assert_eq!(list(&mut client, "@*").await.unwrap().len(), 1);
    undo(&mut client, back.revision, false).await.unwrap();
    assert_eq!(list(&mut client, "n*").await.unwrap().len(), 3);
    assert_eq!(stored(&rig, "n3"), "hunter1");
}

/// The password that the store keeps: the API shows none.
fn stored(rig: &Rig, node: &str) -> String {
    let db = rusqlite::Connection::open(rig.path("state/kraken.db")).unwrap();
    let query =
        "SELECT value FROM cfg JOIN nodes ON node = id WHERE name = ?1 AND url = '/power/password'";
    let bytes: Vec<u8> = db.query_row(query, [node], |row| row.get(0)).unwrap();
    let value = <v1::Value as prost::Message>::decode(&bytes[..]).unwrap();
    match value.kind {
        Some(v1::value::Kind::TextValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_undo_does_not_overwrite_what_others_meant() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[]), node("n2", &[])])
        .await
        .unwrap();
    change(
        &mut client,
        "n[1-2]",
        vec![set("/Platform", "a"), set("/Arch", "x")],
    )
    .await
    .unwrap();
    change(&mut client, "n2", vec![set("/Platform", "b")])
        .await
        .unwrap();
    let refused = undo(&mut client, 3, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    let uid = nix::unistd::geteuid();
    let expect = format!("/Platform of n2 is b by revision 4 (uid {uid}), not a");
    assert!(
        refused.message().contains(&expect) && refused.message().contains("--force"),
        "{refused}"
    );
    assert_eq!(
        cfg(&mut client, "n1", "/Platform").await.as_deref(),
        Some("a")
    );
    // A node that was changed since is not deleted by the way.
    let refused = undo(&mut client, 2, false).await.unwrap_err();
    assert!(
        refused
            .message()
            .contains("node of n1 is changed by revision 3"),
        "{refused}"
    );
    // What was changed back stands in nobody's way.
    undo(&mut client, 4, false).await.unwrap();
    undo(&mut client, 3, false).await.unwrap();
    assert_eq!(cfg(&mut client, "n2", "/Platform").await, None);
    let dry = v1::UndoRequest {
        revision: 2,
        force: true,
        ..v1::UndoRequest::default()
    };
    let dry = v1::PlanRequest {
        nodes: String::new(),
        write: Some(v1::plan_request::Write::Undo(dry)),
    };
    let told = client.plan(dry).await.unwrap().into_inner();
    assert_eq!(
        lines(&told.changes),
        ["n[1-2] node Some(BoolValue(true))->"]
    );
    undo(&mut client, 2, true).await.unwrap();
    assert_eq!(list(&mut client, "@*").await.unwrap().len(), 1);
}

fn on_trial(nodes: &str, change: v1::ValueChange, try_ms: u64) -> v1::SetNodesRequest {
    v1::SetNodesRequest {
        nodes: nodes.into(),
        changes: vec![change],
        options: Some(WriteOptions {
            try_ms,
            reason: "new firmware".into(),
            ..WriteOptions::default()
        }),
        ..v1::SetNodesRequest::default()
    }
}

#[tokio::test]
async fn a_trial_ends_by_itself_over_a_restart_unless_it_is_confirmed() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    let nodes = (1..=3).map(|i| node(&format!("n{i}"), &[("/Platform", "old")]));
    add(&mut client, nodes.collect()).await.unwrap();
    let short = client
        .set_nodes(on_trial("n[1-2]", set("/Platform", "new"), 1_500))
        .await
        .unwrap()
        .into_inner();
    let long = client
        .set_nodes(on_trial("n3", set("/Platform", "new"), 3_600_000))
        .await
        .unwrap()
        .into_inner();
    assert!(short.trial_until_ms > 0);
    change(&mut client, "n2", vec![set("/Platform", "mine")])
        .await
        .unwrap();
    head.kill();
    let (_head, mut client) = rig.start().await;
    let shown = list(&mut client, "n3").await.unwrap();
    assert_eq!(
        shown[0].trials,
        [v1::Trial {
            revision: long.revision,
            until_ms: long.trial_until_ms
        }]
    );
    let explained = client
        .explain(v1::ExplainRequest { nodes: "n3".into() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(explained.reports[0].trials, shown[0].trials);
    eventually("the end of the trial", || {
        let mut client = client.clone();
        async move {
            (cfg(&mut client, "n1", "/Platform").await.as_deref() == Some("old")).then_some(())
        }
    })
    .await;
    // What somebody wrote since is theirs.
    assert_eq!(
        cfg(&mut client, "n2", "/Platform").await.as_deref(),
        Some("mine")
    );
    let all = history(&mut client, "n[1-3]").await;
    assert_eq!(
        (all[0].author.as_str(), &all[0].settles[..]),
        ("kraken-head", &[short.revision][..])
    );
    assert!(
        all[0]
            .reason
            .contains("(new firmware) was on trial and not confirmed"),
        "{}",
        all[0].reason
    );
    let open: Vec<u64> = all
        .iter()
        .filter(|entry| entry.trial_until_ms != 0)
        .map(|entry| entry.revision)
        .collect();
    assert_eq!(open, [long.revision]);

    let confirm = |revision| v1::ConfirmRequest {
        revision,
        options: None,
    };
    // Beforehand: what would stay of it, and nothing is written.
    let asked = version(&mut client).await.revision;
    let told = what_if(&mut client, Write::Confirm(confirm(long.revision)));
    let told = told.await.unwrap();
    assert_eq!(lines(&told.stays), ["n3 /Platform old->new"]);
    assert_eq!(
        (told.trial_until_ms, told.revision),
        (long.trial_until_ms, asked)
    );
    assert!(told.changes.is_empty() && told.groups.is_empty());
    let over = what_if(&mut client, Write::Confirm(confirm(short.revision)));
    assert_eq!(over.await.unwrap_err().code(), Code::NotFound);
    assert_eq!(version(&mut client).await.revision, asked);

    client.confirm(confirm(long.revision)).await.unwrap();
    assert!(list(&mut client, "n3").await.unwrap()[0].trials.is_empty());
    assert_eq!(
        cfg(&mut client, "n3", "/Platform").await.as_deref(),
        Some("new")
    );
    let twice = client.confirm(confirm(long.revision)).await.unwrap_err();
    assert_eq!(twice.code(), Code::NotFound);
    assert!(twice.message().contains("is not on trial"), "{twice}");
    // Undone by hand, a trial is over, too.
    let again = client
        .set_nodes(on_trial("n3", set("/Platform", "x"), 3_600_000))
        .await
        .unwrap()
        .into_inner();
    // What somebody else decided since is nothing that could stay.
    let mine = change(&mut client, "n3", vec![set("/Platform", "mine")]);
    let mine = mine.await.unwrap();
    let told = what_if(&mut client, Write::Confirm(confirm(again.revision)));
    assert!(told.await.unwrap().stays.is_empty());
    undo(&mut client, mine.revision, false).await.unwrap();
    undo(&mut client, again.revision, false).await.unwrap();
    assert!(list(&mut client, "n3").await.unwrap()[0].trials.is_empty());
    let forever = client
        .set_nodes(on_trial("n3", set("/Platform", "x"), 1))
        .await
        .unwrap_err();
    assert_eq!(forever.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn f57_a_stale_if_revision_changes_nothing() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    let by = |if_revision, platform: &str| {
        let mut client = client.clone();
        let request = v1::SetNodesRequest {
            nodes: "n1".into(),
            changes: vec![set("/Platform", platform)],
            options: Some(WriteOptions {
                if_revision,
                ..WriteOptions::default()
            }),
            ..v1::SetNodesRequest::default()
        };
        async move { client.set_nodes(request).await }
    };
    // Two editors have read revision 2; the second one hears of the first.
    by(2, "first").await.unwrap();
    let stale = by(2, "second").await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    assert!(
        stale.message().contains("revision 3, not 2: read again"),
        "{stale}"
    );
    assert_eq!(
        cfg(&mut client, "n1", "/Platform").await.as_deref(),
        Some("first")
    );
}

#[tokio::test]
async fn f57_a_repeated_key_gets_the_same_answer() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[]), node("n2", &[])])
        .await
        .unwrap();
    let options = || {
        Some(WriteOptions {
            idempotency_key: "job-7".into(),
            ..WriteOptions::default()
        })
    };
    let delete = |nodes: &str| v1::DeleteNodesRequest {
        nodes: nodes.into(),
        options: options(),
    };
    // At once, from several callers, and after a crash: one write, one answer, though the node is gone by it.
    let (mut a, mut b) = (client.clone(), client.clone());
    let (first, second) = tokio::join!(a.delete_nodes(delete("n1")), b.delete_nodes(delete("n1")));
    let answer = first.unwrap().into_inner();
    assert_eq!(second.unwrap().into_inner(), answer);
    assert_eq!(
        (answer.revision, &answer.nodes[..]),
        (3, &["n1".to_owned()][..])
    );
    head.kill();
    let (_head, mut client) = rig.start().await;
    assert_eq!(
        client
            .delete_nodes(delete("n1"))
            .await
            .unwrap()
            .into_inner(),
        answer
    );
    let other = client.delete_nodes(delete("n2")).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    assert!(
        other
            .message()
            .contains("was used for another write, revision 3"),
        "{other}"
    );
    let version = version(&mut client).await;
    assert_eq!(version.revision, 3);
}

/// Nodes as they are between two writes: many nodes are read in parts, and a write may fall between them.
async fn list_unwritten(client: &mut Client, nodes: &str) -> Vec<v1::Node> {
    loop {
        let before = version(client).await.revision;
        let listed = list(client, nodes).await.unwrap();
        if version(client).await.revision == before {
            return listed;
        }
    }
}

#[tokio::test]
async fn f57_a_client_gone_mid_bulk_leaves_all_or_nothing() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    let nodes = (1..=500).map(|i| node(&format!("n{i}"), &[]));
    add(&mut client, nodes.collect()).await.unwrap();
    for round in 1..=8_u32 {
        let mut gone = crate::rig::connect(&rig.path("run/api.sock"))
            .await
            .unwrap();
        let platform = format!("round{round}");
        let write = tokio::spawn(async move {
            change(&mut gone, "n*", vec![set("/Platform", &platform)]).await
        });
        // Gone at any moment from before the request is read to after the answer is sent.
        for _ in 0..round * 40 {
            tokio::task::yield_now().await;
        }
        write.abort();
        let values: std::collections::BTreeSet<_> = list_unwritten(&mut client, "n*")
            .await
            .iter()
            .map(|node| text(node.cfg.as_ref(), "/Platform"))
            .collect();
        assert_eq!(values.len(), 1, "{values:?}");
    }
    // What is durable says the same.
    let before: Vec<_> = list_unwritten(&mut client, "n*")
        .await
        .into_iter()
        .map(|node| (node.name, node.cfg))
        .collect();
    head.kill();
    let (_head, mut client) = rig.start().await;
    let after: Vec<_> = list(&mut client, "n*")
        .await
        .unwrap()
        .into_iter()
        .map(|node| (node.name, node.cfg))
        .collect();
    assert_eq!(after.len(), before.len());
    let platforms =
        |nodes: &[(String, Option<v1::Values>)]| -> std::collections::BTreeSet<Option<String>> {
            nodes
                .iter()
                .map(|(_, cfg)| text(cfg.as_ref(), "/Platform"))
                .collect()
        };
    assert_eq!(platforms(&after).len(), 1);
}
