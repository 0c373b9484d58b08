//! `Plan`: what a write would lead to (DESIGN 3, "Explain"). The engine answers; here requests and answers are translated.

use engine::engine::{Again, GroupHold, NODE_MARK, PlanGroup, WhatIf};
use engine::extension::Schema;
use engine::state::{NodeId, NodeName, Value};
use engine::wire::convert as wire;
use engine::wire::convert::{estimate_to_proto, time_estimate_to_proto};
use proto::v1;
use proto::v1::plan_request::Write;
use tonic::Response;

use super::admin::{Admin, Answer, stopped};
use super::convert;
use super::differences::{Folded, differences};
use crate::extensions::Prepared;

/// Answers a request.
pub(super) async fn plan(
    admin: &Admin,
    author: &str,
    request: v1::PlanRequest,
) -> Answer<v1::PlanResponse> {
    let mut extension = None;
    let (ops, nodes) = match &request.write {
        Some(Write::Set(set)) => (admin.set_ops(set).await?, None),
        Some(Write::Delete(delete)) => (admin.delete_ops(delete).await?, None),
        Some(Write::Freeze(freeze)) => {
            // The nodes of a group or of the cluster are not written to, but frozen.
            let nodes = Some(freeze.nodes.as_str());
            (admin.freeze_ops(author, freeze).await?, nodes)
        }
        Some(Write::Undo(asked)) => {
            let undo = admin.undo_ops(asked).await?;
            let change = undo.schema.as_ref();
            extension = change.map(|change| of_extension(change, asked.revision));
            (undo.ops, None)
        }
        Some(Write::Add(add)) => (admin.add_ops(add)?, None),
        Some(Write::Enrol(enrol)) => (admin.enrol_ops(enrol)?.1, None),
        Some(Write::Confirm(confirm)) => return admin.would_stay(confirm.revision).await,
        Some(Write::Lift(lift)) => return lifted(admin, lift.clone()).await,
        Some(Write::Retry(retry)) => return again(admin, Again::Retry, &retry.nodes).await,
        Some(Write::Release(release)) => return again(admin, Again::Release, &release.nodes).await,
        None => (Vec::new(), Some(request.nodes.as_str())),
    };
    let nodes = match nodes {
        Some(nodes) => ids(admin.select(nodes).await?),
        None => Vec::new(),
    };
    let asked = admin
        .0
        .handle
        .query(move |engine, now| engine.what_if(&ops, &nodes, now));
    let what = asked
        .await
        .map_err(stopped)?
        .map_err(|error| convert::not_written(&error))?;
    let mut response = response(&admin.0.extensions.schema(), &what);
    response.changes.splice(0..0, extension);
    Ok(Response::new(response))
}

/// An extension that goes back to how it was before a revision.
fn of_extension(change: &Prepared, revision: u64) -> v1::Difference {
    let said = |source: &str, text: String| {
        let text = Value::text(text);
        (!source.is_empty()).then(|| wire::value_to_proto(&text))
    };
    v1::Difference {
        what: format!("extension {}", change.name),
        old: said(&change.edit.before, "as it is".to_owned()),
        new: said(&change.edit.after, format!("as before revision {revision}")),
        ..v1::Difference::default()
    }
}

/// What nodes would do if they were told to go on.
async fn again(admin: &Admin, how: Again, nodes: &str) -> Answer<v1::PlanResponse> {
    let nodes = ids(admin.select_named(nodes).await?);
    let asked = admin
        .0
        .handle
        .query(move |engine, now| engine.what_if_again(how, &nodes, now));
    let what = asked.await.map_err(stopped)?;
    Ok(Response::new(response(&admin.0.extensions.schema(), &what)))
}

/// What nodes would do if a guard rail of the whole cluster were lifted.
async fn lifted(admin: &Admin, request: v1::LiftRequest) -> Answer<v1::PlanResponse> {
    let lift = admin.lift_of(request).await?;
    let asked = admin
        .0
        .handle
        .query(move |engine, now| engine.what_if_lifted(&lift, now));
    let what = asked.await.map_err(stopped)?;
    Ok(Response::new(response(&admin.0.extensions.schema(), &what)))
}

fn ids(nodes: Vec<(NodeName, NodeId)>) -> Vec<NodeId> {
    nodes.into_iter().map(|(_, id)| id).collect()
}

fn response(schema: &Schema, what: &WhatIf) -> v1::PlanResponse {
    v1::PlanResponse {
        revision: what.revision,
        changes: differences(schema, &what.changes, &what.names),
        groups: what
            .groups
            .iter()
            .map(|group| of_group(schema, group))
            .collect(),
        lifts: what.lifts.iter().map(of_hold).collect(),
        ..v1::PlanResponse::default()
    }
}

fn of_group(schema: &Schema, group: &PlanGroup) -> v1::PlanGroup {
    let report = convert::report(schema, &group.report);
    let each = estimate_to_proto(&group.estimate);
    let (nodes, busy) = (Folded::of(&group.nodes), Folded::of(&group.busy));
    v1::PlanGroup {
        nodes: nodes.text,
        count: nodes.count,
        outcome: report.outcome,
        steps: report.steps,
        back: report.back,
        holds: group.holds.iter().map(of_hold).collect(),
        interrupts: group.interrupts.iter().map(ToString::to_string).collect(),
        reason: report.reason,
        estimate: Some(v1::PlanEstimate {
            reboots: u32::try_from(group.estimate.reboots()).unwrap_or(u32::MAX),
            busy: busy.text,
            busy_count: busy.count,
            each: Some(each),
            all: group.all.as_ref().map(time_estimate_to_proto),
        }),
    }
}

fn of_hold(held: &GroupHold) -> v1::GroupHold {
    let nodes = Folded::of(&held.nodes);
    let named = |text: &str| text.replace(NODE_MARK, &nodes.text);
    v1::GroupHold {
        hold: Some(v1::Hold {
            kind: held.hold.kind.to_owned(),
            text: named(&held.hold.text),
            lifted_by: named(&held.hold.lifted_by),
        }),
        mutation: held
            .mutation
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        count: nodes.count,
        nodes: nodes.text,
    }
}
