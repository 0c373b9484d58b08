//! What was written, what differs between revisions, and letting a trial stay (DESIGN 2). Taking back is `undo`'s.

use std::collections::{BTreeMap, BTreeSet};

use engine::event::WriteOp;
use engine::history::{Cells, add_up, cells, parents};
use engine::state::{NodeId, NodeName, StateUrl};
use proto::v1;
use proto::v1::WriteResponse;
use tonic::{Response, Status};

use super::admin::{Admin, Answer, stopped};
use super::convert;
use super::differences::differences;
use super::select::TreeInventory;
use super::write::By;
use crate::nodeset::{Inventory, NodeSet, NodeSetError};
use crate::store::{Entry, Span};

/// Entries told when nobody says how many, and most of them.
const LIMIT: usize = 20;
const MAX_LIMIT: usize = 1_000;

/// Entries read at once: writes to 10,000 nodes take a MiB each.
const CHUNK: usize = 32;

/// Nodes there are and, for those in history, were.
struct PastInventory<'a> {
    tree: TreeInventory<'a>,
    gone: BTreeSet<NodeName>,
}

impl Inventory for PastInventory<'_> {
    fn all(&self) -> BTreeSet<NodeName> {
        &self.tree.all() | &self.gone
    }

    /// A name that nobody has, or had here, selects nothing.
    fn has(&self, _: &NodeName) -> bool {
        true
    }

    fn group(&self, group: &str) -> Option<BTreeSet<NodeName>> {
        self.tree.group(group)
    }

    fn having(&self, url: &StateUrl, value: &str) -> Result<BTreeSet<NodeName>, String> {
        self.tree.having(url, value)
    }
}

impl Admin {
    /// Reads history.
    pub(super) async fn entries(&self, span: Span) -> Result<Vec<Entry>, Status> {
        let history = self.0.history.clone();
        let read = tokio::task::spawn_blocking(move || history.entries(span));
        let entries = read.await.map_err(stopped)?;
        entries.map_err(|error| Status::unavailable(error.to_string()))
    }

    pub(super) async fn entry(&self, revision: u64) -> Result<Entry, Status> {
        let span = Span {
            after: revision.saturating_sub(1),
            up_to: revision,
            since_ms: 0,
            limit: 1,
        };
        let found = self.entries(span).await?.pop();
        let found = found.filter(|entry| entry.revision == revision);
        found.ok_or_else(|| {
            Status::not_found(format!(
                "history has no revision {revision}: krakenctl history shows which there are"
            ))
        })
    }

    /// The ids among `names` that a node set selects; `None`: all.
    async fn chosen(
        &self,
        nodes: &str,
        names: BTreeMap<NodeId, NodeName>,
    ) -> Result<Option<BTreeSet<NodeId>>, Status> {
        if nodes.trim().is_empty() {
            return Ok(None);
        }
        let set = NodeSet::parse(nodes).map_err(convert::no_nodes)?;
        let asked = self.0.handle.query(move |engine, _| {
            let past = PastInventory {
                tree: TreeInventory(engine),
                gone: names.values().cloned().collect(),
            };
            let selected = set.resolve(&past)?;
            let of = names
                .into_iter()
                .filter(|(_, name)| selected.contains(name));
            Ok::<_, NodeSetError>(of.map(|(id, _)| id).collect())
        });
        asked
            .await
            .map_err(stopped)?
            .map(Some)
            .map_err(convert::no_nodes)
    }

    /// These names, and those of the parents that the cells speak of, as far as they are still there.
    pub(super) async fn with_parents(
        &self,
        mut names: BTreeMap<NodeId, NodeName>,
        cells: &Cells,
    ) -> Result<BTreeMap<NodeId, NodeName>, Status> {
        let parents = parents(cells);
        if !parents.is_empty() {
            let asked = self.0.handle.query(move |engine, _| {
                let found = parents.into_iter().filter_map(|id| engine.tree().get(id));
                found
                    .map(|node| (node.id, node.name.clone()))
                    .collect::<Vec<_>>()
            });
            names.extend(asked.await.map_err(stopped)?);
        }
        Ok(names)
    }

    pub(super) async fn list_history(
        &self,
        request: v1::ListHistoryRequest,
    ) -> Answer<v1::ListHistoryResponse> {
        let limit = match request.limit as usize {
            0 => LIMIT,
            limit => limit.min(MAX_LIMIT),
        };
        let read = self.0.handle.query(|engine, _| {
            let trials = engine.trials().iter();
            let trials: BTreeMap<u64, u64> =
                trials.map(|(at, trial)| (*at, trial.until_ms)).collect();
            (engine.revision(), trials)
        });
        let (revision, trials) = read.await.map_err(stopped)?;
        let mut revisions = Vec::new();
        let mut up_to = revision;
        while revisions.len() < limit {
            let span = Span {
                after: request.since_revision.saturating_sub(1),
                up_to,
                since_ms: request.since_ms,
                limit: CHUNK,
            };
            let chunk = self.entries(span).await?;
            let Some(last) = chunk.last() else { break };
            up_to = last.revision - 1;
            let names = chunk.iter().flat_map(|entry| entry.names.clone()).collect();
            let chosen = self.chosen(&request.nodes, names).await?;
            for entry in chunk {
                let until = trials.get(&entry.revision).copied().unwrap_or(0);
                revisions.extend(self.shown(entry, chosen.as_ref(), until).await?);
            }
        }
        revisions.truncate(limit);
        Ok(Response::new(v1::ListHistoryResponse {
            revisions,
            revision,
        }))
    }

    /// An entry as a message; `None` when it is not about the chosen nodes.
    async fn shown(
        &self,
        entry: Entry,
        chosen: Option<&BTreeSet<NodeId>>,
        trial_until_ms: u64,
    ) -> Result<Option<v1::Revision>, Status> {
        if chosen.is_some_and(|chosen| !entry.names.keys().any(|node| chosen.contains(node))) {
            return Ok(None);
        }
        let mut changed = cells(&entry.ops, entry.inverse.as_deref().unwrap_or_default());
        keep(&mut changed, chosen);
        let settles = entry.ops.iter().filter_map(|op| match op {
            WriteOp::Settle(revision) => Some(*revision),
            _ => None,
        });
        let settles = settles.collect();
        let names = self.with_parents(entry.names, &changed).await?;
        Ok(Some(v1::Revision {
            revision: entry.revision,
            at_ms: entry.at_ms,
            changes: differences(&self.0.extensions.schema(), &changed, &names),
            trial_until_ms,
            settles,
            undoable: entry.inverse.is_some() && !(changed.is_empty() && entry.edits.is_empty()),
            author: entry.author,
            reason: entry.reason,
            notes: entry.notes,
        }))
    }

    pub(super) async fn diff(&self, request: v1::DiffRequest) -> Answer<v1::DiffResponse> {
        let read = self.0.handle.query(|engine, _| engine.revision());
        let now = read.await.map_err(stopped)?;
        let to = if request.to == 0 { now } else { request.to };
        if request.from > to || to > now {
            return Err(Status::invalid_argument(format!(
                "revisions {} to {to}: the first one is the older, and the cluster is at revision {now}",
                request.from
            )));
        }
        let (mut sum, mut names) = (Cells::new(), BTreeMap::new());
        for entry in self.all_after(request.from, to).await? {
            let mut older = cells(&entry.ops, inverse_of(&entry)?);
            add_up(&mut older, sum);
            sum = older;
            names.extend(entry.names);
        }
        let chosen = self.chosen(&request.nodes, names.clone()).await?;
        keep(&mut sum, chosen.as_ref());
        let names = self.with_parents(names, &sum).await?;
        Ok(Response::new(v1::DiffResponse {
            from: request.from,
            to,
            changes: differences(&self.0.extensions.schema(), &sum, &names),
        }))
    }

    /// All revisions after `from`, newest first; an error if one is missing.
    pub(super) async fn all_after(&self, from: u64, to: u64) -> Result<Vec<Entry>, Status> {
        let span = Span {
            after: from,
            up_to: to,
            since_ms: 0,
            limit: usize::MAX,
        };
        let entries = self.entries(span).await?;
        if entries.len() as u64 == to.saturating_sub(from) {
            return Ok(entries);
        }
        let history = self.0.history.clone();
        let oldest = tokio::task::spawn_blocking(move || history.oldest());
        let oldest = oldest.await.map_err(stopped)?.ok().flatten().unwrap_or(to);
        Err(Status::not_found(format!(
            "history reaches back to revision {} only: older ones are forgotten, see [history] in the head's configuration",
            oldest.saturating_sub(1)
        )))
    }

    pub(super) async fn confirm(
        &self,
        author: String,
        request: v1::ConfirmRequest,
    ) -> Answer<WriteResponse> {
        let mut by = By::new(author, &request, &request.options)?.not_on_trial()?;
        if by.reason.is_empty() {
            by.reason = format!("revision {} is confirmed", request.revision);
        }
        let ops = vec![WriteOp::Settle(request.revision)];
        self.write_once(by, std::future::ready(Ok(ops))).await
    }
}

/// What takes a write back.
pub(super) fn inverse_of(entry: &Entry) -> Result<&[WriteOp], Status> {
    entry.inverse.as_deref().ok_or_else(|| {
        Status::failed_precondition(format!(
            "revision {} was written by an earlier release, which kept no old values",
            entry.revision
        ))
    })
}

/// Leaves the cells of the chosen nodes.
fn keep(cells: &mut Cells, chosen: Option<&BTreeSet<NodeId>>) {
    if let Some(chosen) = chosen {
        cells.retain(|cell, _| cell.node().is_some_and(|node| chosen.contains(&node)));
    }
}
