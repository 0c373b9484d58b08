//! Changes of extensions taken back: added ones go, removed ones return with their values, and what others rely on stays.

use super::*;

async fn undo(
    client: &mut Client,
    request: v1::UndoRequest,
) -> Result<v1::WriteResponse, tonic::Status> {
    client.undo(request).await.map(tonic::Response::into_inner)
}

fn one(revision: u64) -> v1::UndoRequest {
    v1::UndoRequest {
        revision,
        ..v1::UndoRequest::default()
    }
}

/// What a dry run of an undo says it would change.
async fn would(client: &mut Client, request: v1::UndoRequest) -> Vec<String> {
    let request = v1::PlanRequest {
        nodes: String::new(),
        write: Some(v1::plan_request::Write::Undo(request)),
    };
    let told = client.plan(request).await.unwrap().into_inner();
    told.changes.into_iter().map(|line| line.what).collect()
}

async fn sources(client: &mut Client) -> Vec<(String, usize)> {
    let all = extensions(client).await.into_iter();
    let site = all.filter(|one| one.name == "site" && !one.file.is_empty());
    site.map(|one| (one.problem, one.fields.len())).collect()
}

#[tokio::test]
async fn what_was_added_changed_or_removed_is_taken_back() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    let small = proto("site", "  string rack = 1;");
    let large = proto("site", "  string rack = 1;\n  string row = 2;");
    let added = extend(&mut client, &small).await.unwrap().revision;
    let changed = extend(&mut client, &large).await.unwrap().revision;
    change(
        &mut client,
        "n1",
        vec![set("/site/rack", "r1"), set("/site/row", "b")],
    )
    .await
    .unwrap();

    // A value hangs on it; then somebody changed it again.
    let refused = undo(&mut client, one(changed)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("n1") && refused.message().contains("/site/row"),
        "{refused}"
    );
    let refused = undo(&mut client, one(added)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert!(
        refused
            .message()
            .contains("extension site was changed again since"),
        "{refused}"
    );

    // With what it took along.
    let removed = remove(&mut client, "site", true).await.unwrap().revision;
    assert_eq!(sources(&mut client).await, []);
    let before = list(&mut client, "n1").await.unwrap();
    let told = would(&mut client, one(removed)).await;
    assert_eq!(told, ["extension site", "/site/rack", "/site/row"]);
    assert_eq!(list(&mut client, "n1").await.unwrap(), before);
    assert_eq!(sources(&mut client).await, [], "a dry run writes nothing");
    let back = undo(&mut client, one(removed)).await.unwrap();
    assert_eq!(back.nodes, ["n1"]);
    assert_eq!(sources(&mut client).await, [(String::new(), 2)]);
    assert_eq!(
        cfg(&mut client, "n1", "/site/row").await.as_deref(),
        Some("b")
    );

    // It shows in history, and what was taken back can be taken back.
    let request = v1::ListHistoryRequest::default();
    let told = client.list_history(request).await.unwrap().into_inner();
    let newest = &told.revisions[0];
    assert_eq!(newest.reason, format!("undo of revision {removed}"));
    assert!(newest.undoable && newest.notes[0].starts_with("extension add site"));
    change(
        &mut client,
        "n1",
        vec![v1::ValueChange {
            url: "/site/row".into(),
            value: None,
        }],
    )
    .await
    .unwrap();
    undo(&mut client, one(changed)).await.unwrap();
    assert_eq!(sources(&mut client).await, [(String::new(), 1)]);

    // To a time before: on its own only, and freely once it is as it was then.
    let to = v1::UndoRequest {
        to_revision: added - 1,
        ..v1::UndoRequest::default()
    };
    let refused = undo(&mut client, to).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("krakenctl undo"), "{refused}");

    drop(client);
    head.terminate();
    let (_head, mut client) = rig.start().await;
    assert_eq!(sources(&mut client).await, [(String::new(), 1)]);
    assert_eq!(
        cfg(&mut client, "n1", "/site/rack").await.as_deref(),
        Some("r1")
    );
}

#[tokio::test]
async fn an_addition_that_nobody_uses_goes_again() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    let added = extend(&mut client, SITE).await.unwrap().revision;
    let request = v1::UndoRequest {
        options: Some(v1::WriteOptions {
            idempotency_key: "once".into(),
            ..v1::WriteOptions::default()
        }),
        ..one(added)
    };
    let first = undo(&mut client, request.clone()).await.unwrap();
    assert_eq!(sources(&mut client).await, []);
    assert!(!rig.path("state/extensions/site.proto").exists());
    // Sent again, it is answered and not made.
    assert_eq!(undo(&mut client, request).await.unwrap(), first);
    let to = v1::UndoRequest {
        to_revision: added - 1,
        ..v1::UndoRequest::default()
    };
    undo(&mut client, to).await.unwrap();
    undo(&mut client, one(first.revision)).await.unwrap();
    assert!(rig.path("state/extensions/site.proto").exists());
}
