//! `Explain`: why nodes are where they are, all of them as one revision left them.
//!
//! The engine only takes a picture, in some microseconds a node; what it says of each is worked out outside of it, on a thread that may take its time.

use proto::v1;
use tonic::Response;

use super::admin::{Admin, Answer, stopped};
use super::convert;
use super::select::TreeInventory;
use super::snapshot::trials;
use crate::nodeset::NodeSet;

/// Answers a request.
pub(super) async fn explain(
    admin: &Admin,
    request: v1::ExplainRequest,
) -> Answer<v1::ExplainResponse> {
    let set = NodeSet::parse(&request.nodes).map_err(convert::no_nodes)?;
    let taken = admin.0.handle.query(move |engine, now| {
        let ids = TreeInventory(engine).select(&set)?.into_values();
        let picture = engine.picture(ids.collect(), now);
        Ok((picture, trials(engine), engine.shared_schema()))
    });
    let (picture, trials, schema) = taken.await.map_err(stopped)?.map_err(convert::no_nodes)?;
    let told = tokio::task::spawn_blocking(move || v1::ExplainResponse {
        revision: picture.revision(),
        reports: picture
            .reports()
            .map(|found| v1::Report {
                trials: trials.get(&found.node).cloned().unwrap_or_default(),
                ..convert::report(&schema, &found)
            })
            .collect(),
    });
    told.await.map(Response::new).map_err(stopped)
}
