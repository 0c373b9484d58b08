//! `Explain`: why nodes are where they are, all of them as one revision left them.
//!
//! Of many, the engine only takes a picture; what it says of each is worked out outside of it, on a thread that may take its time.

use std::collections::BTreeSet;

use engine::engine::Picture;
use engine::mutation::report::Report;
use engine::state::NodeId;
use proto::v1;
use tonic::Response;

use super::admin::{Admin, Answer, stopped};
use super::convert;
use super::select::TreeInventory;
use super::snapshot::trials;
use crate::modules::External;
use crate::nodeset::NodeSet;

/// So few nodes are explained by the engine itself, in a millisecond or two: a picture of a large cluster takes longer.
const FEW: usize = 64;

/// What the engine says, or what to find it out from.
enum Told {
    Reports(Vec<Report>),
    Picture(Box<Picture>),
}

impl Told {
    fn reports(self) -> Vec<Report> {
        match self {
            Self::Reports(reports) => reports,
            Self::Picture(picture) => picture.reports().collect(),
        }
    }
}

/// Answers a request.
pub(super) async fn explain(
    admin: &Admin,
    request: v1::ExplainRequest,
) -> Answer<v1::ExplainResponse> {
    let set = NodeSet::parse(&request.nodes).map_err(convert::no_nodes)?;
    let taken = admin.0.handle.query(move |engine, now| {
        let ids = TreeInventory(engine).select(&set)?.into_values();
        let ids: Vec<NodeId> = ids.collect();
        let told = match ids.len() <= FEW {
            true => {
                let reports = ids.iter().filter_map(|id| engine.report(*id, now));
                Told::Reports(reports.collect())
            }
            false => Told::Picture(Box::new(engine.picture(ids, now))),
        };
        let revision = engine.revision();
        let (trials, schema) = (trials(engine), engine.shared_schema());
        Ok((told, revision, trials, schema, engine.me()))
    });
    let taken = taken.await.map_err(stopped)?.map_err(convert::no_nodes)?;
    let (told, revision, trials, schema, me) = taken;
    let external = admin.0.external.clone();
    let told = tokio::task::spawn_blocking(move || v1::ExplainResponse {
        revision,
        reports: told
            .reports()
            .into_iter()
            .map(|mut found| {
                say_of_modules(&mut found, me, &external);
                v1::Report {
                    trials: trials.get(&found.node).cloned().unwrap_or_default(),
                    ..convert::report(&schema, &found)
                }
            })
            .collect(),
    });
    told.await.map(Response::new).map_err(stopped)
}

/// What modules have to do with a node that is not what it should be; of the head's own node, which of them do not run.
fn say_of_modules(report: &mut Report, me: NodeId, external: &External) {
    let extensions = report.out_of_reach.iter().filter_map(|url| {
        let extension = url.parts().next()?;
        (url.parts().count() > 1 && extension != "services").then(|| extension.to_owned())
    });
    let extensions: BTreeSet<String> = extensions.collect();
    for name in extensions {
        if let Some(why) = external.why_not(&name) {
            report.say(&why);
        }
    }
    if report.node == me {
        report.holds.extend(external.troubles());
    }
}
