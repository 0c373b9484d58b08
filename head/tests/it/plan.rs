//! What a write would lead to, asked of a real head: nothing is written, and what was told comes true.

use proto::v1;
use proto::v1::lift_request::What;
use proto::v1::plan_request::Write;
use tonic::Code;

use crate::memory;
use crate::rig::{Client, Rig, add, change, eventually, list, node, set, version};

/// Power control that is never used: the cluster is frozen.
const POWER: &str =
    "[power]\ncommand = { on = [\"false\"], off = [\"false\"], status = [\"false\"] }\n";

pub(crate) async fn plan(
    client: &mut Client,
    nodes: &str,
    changes: Vec<v1::ValueChange>,
) -> Result<v1::PlanResponse, tonic::Status> {
    let set = v1::SetNodesRequest {
        nodes: nodes.into(),
        changes,
        ..v1::SetNodesRequest::default()
    };
    what_if(client, Write::Set(set)).await
}

pub(crate) async fn what_if(
    client: &mut Client,
    write: Write,
) -> Result<v1::PlanResponse, tonic::Status> {
    let request = v1::PlanRequest {
        nodes: String::new(),
        write: Some(write),
    };
    client.plan(request).await.map(tonic::Response::into_inner)
}

pub(crate) fn steps(steps: &[v1::ReportStep]) -> Vec<&str> {
    steps.iter().map(|step| step.mutation.as_str()).collect()
}

#[tokio::test]
async fn a_plan_writes_nothing_and_comes_true() {
    let rig = Rig::new(POWER);
    let (_head, mut client) = rig.start().await;
    let freeze = v1::FreezeRequest {
        freeze: true,
        ..v1::FreezeRequest::default()
    };
    client.freeze(freeze).await.unwrap();
    let driver = [("/power/driver", "COMMAND"), ("/power/password", "old")];
    let nodes = (1..=4).map(|i| node(&format!("n{i}"), if i < 4 { &driver } else { &[] }));
    add(&mut client, nodes.collect()).await.unwrap();
    let before = list(&mut client, "@*").await.unwrap();

    let wanted = || vec![set("/RunState", "SYNC"), set("/power/password", "hunter2")];
    let told = plan(&mut client, "n[1-4]", wanted()).await.unwrap();
    assert_eq!(told.revision, 3);
    let lines: Vec<_> = told
        .changes
        .iter()
        .map(|line| (line.nodes.as_str(), line.count, line.what.as_str()))
        .collect();
    let expect = [
        ("n[1-4]", 4, "/RunState"),
        ("n4", 1, "/power/password"),
        ("n[1-3]", 3, "/power/password"),
    ];
    assert_eq!(lines, expect);
    assert!(!format!("{told:?}").contains("hunter2"), "{told:?}");
    let groups: Vec<_> = told
        .groups
        .iter()
        .map(|group| (group.nodes.as_str(), group.outcome()))
        .collect();
    assert_eq!(
        groups,
        [("n[1-3]", v1::Outcome::Held), ("n4", v1::Outcome::NoPath)]
    );
    assert_eq!(told.groups[0].steps.len(), 5, "{told:?}");
    let estimate = told.groups[0].estimate.as_ref().unwrap();
    let each = estimate.each.as_ref().unwrap();
    assert_eq!(
        (estimate.reboots, each.power_ons, each.power_offs),
        (0, 1, 0)
    );
    let time = each.time.as_ref().unwrap();
    assert_eq!((time.measured_steps, time.steps), (0, 5));
    assert!(each.text.contains("never measured"), "{}", each.text);
    let hold = told.groups[0].holds[0].hold.as_ref().unwrap();
    assert_eq!(
        (hold.kind.as_str(), hold.lifted_by.as_str()),
        ("frozen", "krakenctl thaw")
    );
    assert!(
        told.groups[1].reason.contains("/power/driver"),
        "{}",
        told.groups[1].reason
    );

    assert_eq!(list(&mut client, "@*").await.unwrap(), before);
    let version = version(&mut client).await;
    assert_eq!(version.revision, 3);

    change(&mut client, "n[1-4]", wanted()).await.unwrap();
    let request = v1::ExplainRequest {
        nodes: "n[1-4]".into(),
    };
    let reports = client.explain(request).await.unwrap().into_inner().reports;
    for report in &reports[..3] {
        assert_eq!(steps(&report.steps), steps(&told.groups[0].steps));
    }
    assert_eq!(reports[3].reason, told.groups[1].reason);
    // Without a write: the same, now at hand.
    let request = v1::PlanRequest {
        nodes: "n[1-4]".into(),
        write: None,
    };
    let now = client.plan(request).await.unwrap().into_inner();
    assert_eq!((now.groups.len(), now.changes.len()), (2, 0));
    assert_eq!(steps(&now.groups[0].steps), steps(&told.groups[0].steps));
    // Nothing new is wanted, and nothing is told to change.
    let again = plan(&mut client, "n[1-4]", vec![set("/RunState", "SYNC")])
        .await
        .unwrap();
    assert_eq!(again.changes, []);
}

#[tokio::test]
async fn a_plan_is_refused_as_its_write_would_be() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    let mac = [("/ipv4/boot/mac", "52:54:00:00:00:01")];
    add(&mut client, vec![node("n1", &mac), node("n2", &[])])
        .await
        .unwrap();
    let taken = plan(
        &mut client,
        "n2",
        vec![set("/ipv4/boot/mac", "52:54:00:00:00:01")],
    )
    .await
    .unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    let typo = plan(&mut client, "n2", vec![set("/runstate", "SYNC")])
        .await
        .unwrap_err();
    assert!(typo.message().contains("did you mean /RunState?"), "{typo}");
    let nobody = plan(&mut client, "n7", vec![set("/RunState", "SYNC")])
        .await
        .unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
    let delete = v1::DeleteNodesRequest {
        nodes: "n1".into(),
        options: None,
    };
    let told = what_if(&mut client, Write::Delete(delete)).await.unwrap();
    let lines: Vec<_> = told
        .changes
        .iter()
        .map(|line| (line.nodes.as_str(), line.what.as_str(), line.new.is_some()))
        .collect();
    assert_eq!(
        lines,
        [("n1", "node", false), ("n1", "/ipv4/boot/mac", false)]
    );
    assert_eq!(list(&mut client, "n*").await.unwrap().len(), 2);
    for write in [
        Write::Delete(v1::DeleteNodesRequest {
            nodes: "n7".into(),
            options: None,
        }),
        Write::Retry(v1::RetryRequest { nodes: "n7".into() }),
        Write::Release(v1::ReleaseRequest { nodes: "n7".into() }),
    ] {
        let nobody = what_if(&mut client, write).await.unwrap_err();
        assert_eq!(nobody.code(), Code::NotFound);
    }
    let all = v1::ReleaseRequest::default();
    let unnamed = what_if(&mut client, Write::Release(all)).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
    let again = v1::AddNodesRequest {
        nodes: vec![node("n3", &mac)],
        options: None,
    };
    let taken = what_if(&mut client, Write::Add(again)).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    let machine = v1::EnrolRequest {
        mac: "52:54:00:00:00:03".into(),
        node: Some(node("n3", &[("/RunState", "SYNC")])),
        options: None,
    };
    let told = what_if(&mut client, Write::Enrol(machine)).await.unwrap();
    assert_eq!(told.changes.len(), 3, "{told:?}");
    assert_eq!(told.groups[0].nodes, "n3");
    let told = what_if(
        &mut client,
        Write::Release(v1::ReleaseRequest {
            nodes: "n[1-2]".into(),
        }),
    );
    let told = told.await.unwrap();
    assert_eq!((told.changes.len(), told.groups[0].count), (0, 2));
    assert_eq!(list(&mut client, "n*").await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lifting_a_breaker_would_do_is_told_and_then_done() {
    let rig = memory::rig();
    let (_head, mut client) = rig.start().await;
    let lift = |id: &str| v1::LiftRequest {
        what: Some(What::Mutation(id.into())),
    };
    let nothing = what_if(&mut client, Write::Lift(lift("relay/OFFtoON"))).await;
    assert_eq!(nothing.unwrap().lifts, []);
    memory::switch_on(&mut client).await;
    memory::held(&client).await;
    assert_eq!(memory::switched(&rig), 1);

    let told = what_if(&mut client, Write::Lift(lift("relay/OFFtoON"))).await;
    let told = told.unwrap();
    let [lifts] = &told.lifts[..] else {
        panic!("{told:?}")
    };
    let hold = lifts.hold.clone().unwrap();
    assert_eq!(
        (&lifts.nodes[..], lifts.count, &lifts.mutation[..]),
        ("p0", 1, "relay/OFFtoON")
    );
    assert_eq!(
        (&hold.kind[..], &hold.text[..]),
        (
            "breaker",
            "relay/OFFtoON failed on 1 node and is frozen for all"
        )
    );
    assert_eq!(told.groups.len(), 1);
    let group = &told.groups[0];
    assert_eq!(
        (&group.nodes[..], &steps(&group.steps)[..]),
        ("p0", &["relay/OFFtoON"][..])
    );
    assert!(group.holds.iter().all(|held| {
        let hold = held.hold.as_ref();
        hold.is_some_and(|hold| hold.kind == "backoff")
    }));
    let unknown = what_if(&mut client, Write::Lift(lift("relay/ON"))).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    let bad = what_if(&mut client, Write::Lift(v1::LiftRequest::default())).await;
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
    let nobody = What::MassFailure(true);
    let nobody = v1::LiftRequest { what: Some(nobody) };
    let nobody = what_if(&mut client, Write::Lift(nobody)).await.unwrap();
    assert!(nobody.lifts.is_empty() && nobody.groups.is_empty());

    // It holds still, until it is lifted.
    memory::held(&client).await;
    assert_eq!(memory::switched(&rig), 1);
    let lifted = client.lift(lift("relay/OFFtoON")).await.unwrap();
    assert!(lifted.into_inner().lifted);
    eventually("the second try", || async {
        (memory::switched(&rig) > 1).then_some(())
    })
    .await;
}
