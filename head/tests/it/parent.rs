//! A node is given another parent (`krakenctl node set NODES --parent NODE`): tried beforehand, refused where it makes no tree, shown, taken back,
//! kept over a restart; and its agent joins again while nothing is switched.

use proto::v1;
use proto::v1::plan_request::Write;
use tonic::Code;

use crate::child::{By, Credentials};
use crate::history::{history, lines, undo};
use crate::plan::what_if;
use crate::plant::Plant;
use crate::rig::{Client, Rig, WAIT, add, delete, eventually, list, node, wait_dsc};

fn to(nodes: &str, parent: &str) -> v1::SetNodesRequest {
    v1::SetNodesRequest {
        nodes: nodes.into(),
        parent: Some(parent.into()),
        ..v1::SetNodesRequest::default()
    }
}

async fn give(
    client: &mut Client,
    nodes: &str,
    parent: &str,
) -> Result<v1::WriteResponse, tonic::Status> {
    let written = client.set_nodes(to(nodes, parent)).await;
    written.map(tonic::Response::into_inner)
}

async fn dry(
    client: &mut Client,
    nodes: &str,
    parent: &str,
) -> Result<v1::PlanResponse, tonic::Status> {
    what_if(client, Write::Set(to(nodes, parent))).await
}

async fn parent(client: &mut Client, name: &str) -> String {
    let node = list(client, name).await.unwrap().remove(0);
    let of = list(client, &node.parent_name).await.unwrap().remove(0);
    assert_eq!(node.parent_id, of.id, "the name is of the id");
    node.parent_name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_a_node_is_given_another_parent_over_the_api() {
    let plant = Plant::new();
    let (head, mut client) = plant.rig.start().await;
    let n1 = plant.enrol(&mut client).await;
    let grant = plant.boot().await;
    let mut credentials = Credentials::new();
    let mut child = plant.join(&credentials, By::Grant(&grant)).await.unwrap();
    credentials.certificate = Some(child.accept.certificate.clone());
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    add(&mut client, vec![node("r1", &[]), node("r2", &[])])
        .await
        .unwrap();
    let all = list(&mut client, "").await.unwrap();
    let own = all.iter().find(|node| node.is_head).unwrap().name.clone();
    assert_eq!(parent(&mut client, "n1").await, own);

    // Beforehand: what would change, and that nothing would fire; nothing is written.
    let told = dry(&mut client, "n1,r2", "r1").await.unwrap();
    assert_eq!(lines(&told.changes), [format!("n1,r2 parent {own}->r1")]);
    assert!(told.groups.iter().all(|group| group.steps.is_empty()));
    assert_eq!(parent(&mut client, "n1").await, own);

    let written = give(&mut client, "n1", "r1").await.unwrap();
    assert_eq!(written.nodes, ["n1"]);
    assert_eq!(parent(&mut client, "n1").await, "r1");
    let ended =
        tokio::time::timeout(WAIT, async { while child.stream_frame().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "its agent is to join again");
    let again = plant.join(&credentials, By::Certificate(n1)).await.unwrap();
    assert!(again.session != child.session);
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;

    // Where it makes no tree, it is refused in both ways, and nothing happens.
    for (nodes, parent, code, part) in [
        (
            "n1",
            "n1",
            Code::InvalidArgument,
            "cannot be its own parent",
        ),
        (
            "r1",
            "n1",
            Code::InvalidArgument,
            "node r1 cannot be below n1, which is below r1 itself: move n1 first",
        ),
        ("n1", "nobody", Code::NotFound, "there is no node nobody"),
        ("n1", "-x-", Code::InvalidArgument, "-x-"),
        (
            &own[..],
            "r1",
            Code::InvalidArgument,
            "is this head: it has no parent",
        ),
        // All or nothing: r2 could go.
        (
            "r[1-2]",
            "n1",
            Code::InvalidArgument,
            "r1 cannot be below n1",
        ),
    ] {
        for refused in [
            give(&mut client, nodes, parent).await.map(drop),
            dry(&mut client, nodes, parent).await.map(drop),
        ] {
            let status = refused.unwrap_err();
            assert_eq!(status.code(), code, "{nodes} to {parent}: {status:?}");
            assert!(status.message().contains(part), "{}", status.message());
        }
    }
    assert_eq!(parent(&mut client, "r2").await, own);

    // History, the difference, and back again; what others did since is not overwritten.
    let shown = history(&mut client, "n1").await;
    assert_eq!(lines(&shown[0].changes), [format!("n1 parent {own}->r1")]);
    assert!(shown[0].undoable);
    let diff = client.diff(v1::DiffRequest {
        from: written.revision - 1,
        ..v1::DiffRequest::default()
    });
    let diff = diff.await.unwrap().into_inner();
    assert_eq!(lines(&diff.changes), [format!("n1 parent {own}->r1")]);
    let later = give(&mut client, "n1", "r2").await.unwrap();
    let refused = undo(&mut client, written.revision, false).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    let text = format!("parent of n1 is r2 by revision {}", later.revision);
    assert!(refused.message().contains(&text), "{}", refused.message());
    assert!(
        refused.message().contains("not r1"),
        "{}",
        refused.message()
    );
    undo(&mut client, later.revision, false).await.unwrap();
    assert_eq!(parent(&mut client, "n1").await, "r1");

    // A trial comes back by itself.
    let mut request = to("n1", "r2");
    request.options = Some(v1::WriteOptions {
        try_ms: 1_000,
        ..v1::WriteOptions::default()
    });
    client.set_nodes(request).await.unwrap();
    eventually("the end of the trial", || {
        let mut client = client.clone();
        async move { (parent(&mut client, "n1").await == "r1").then_some(()) }
    })
    .await;

    // A parent with a child stays; a restart keeps the tree; nothing was ever switched.
    let refused = delete(&mut client, "r1").await.unwrap_err();
    assert!(refused.message().contains("node r1 is the parent of n1"));
    head.kill();
    let (_head, mut client) = plant.rig.start().await;
    assert_eq!(parent(&mut client, "n1").await, "r1");
    plant.join(&credentials, By::Certificate(n1)).await.unwrap();
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    give(&mut client, "n1", &own).await.unwrap();
    assert_eq!(parent(&mut client, "n1").await, own);
    assert_eq!(plant.switched(), "on ");
}

#[tokio::test]
async fn what_becomes_of_children_when_parents_go_and_come_back() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    let names = ["a1", "b1", "c1", "r1", "n1"];
    add(&mut client, names.map(|name| node(name, &[])).into())
        .await
        .unwrap();
    give(&mut client, "b1", "a1").await.unwrap();
    give(&mut client, "c1", "b1").await.unwrap();

    // Parents go with their children, in whatever order they are named, and come back with them.
    let gone = delete(&mut client, "a1,b1,c1").await.unwrap();
    undo(&mut client, gone.revision, false).await.unwrap();
    assert_eq!(parent(&mut client, "b1").await, "a1");
    assert_eq!(parent(&mut client, "c1").await, "b1");

    // A trial whose old parent is gone is over all the same: its node stays where it is. One whose old parent is below it by now, too.
    give(&mut client, "n1", "r1").await.unwrap();
    for (old, write) in [("r1", None), ("c1", Some(("c1", "n1")))] {
        let mut request = to("n1", "a1");
        request.options = Some(v1::WriteOptions {
            try_ms: 2_000,
            ..v1::WriteOptions::default()
        });
        assert_eq!(parent(&mut client, "n1").await, old);
        client.set_nodes(request).await.unwrap();
        match write {
            Some((node, parent)) => give(&mut client, node, parent).await.map(drop).unwrap(),
            None => delete(&mut client, old).await.map(drop).unwrap(),
        }
        eventually("the end of the trial", || {
            let mut client = client.clone();
            async move {
                let n1 = list(&mut client, "n1").await.ok()?.remove(0);
                n1.trials.is_empty().then_some(())
            }
        })
        .await;
        assert_eq!(parent(&mut client, "n1").await, "a1");
        // For the next round.
        give(&mut client, "n1", "c1").await.map(drop).ok();
    }
    // What cannot be forced is left as it is.
    add(&mut client, vec![node("d1", &[])]).await.unwrap();
    give(&mut client, "n1", "d1").await.unwrap();
    let moved = give(&mut client, "n1", "a1").await.unwrap();
    delete(&mut client, "d1").await.unwrap();
    let refused = undo(&mut client, moved.revision, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    undo(&mut client, moved.revision, true).await.unwrap();
    assert_eq!(parent(&mut client, "n1").await, "a1");
}
