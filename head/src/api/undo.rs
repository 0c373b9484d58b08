//! Taking writes back (DESIGN 2): what history kept as the inverse is written, as a new revision. It is refused where later writes changed the
//! same values, for somebody meant those.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Engine;
use engine::event::{SchemaEdit, WriteError, WriteOp};
use engine::extension::{REDACTED, Schema, stranded_words};
use engine::history::{Cell, Cells, cells, node_of};
use engine::state::Value;
use proto::v1;
use proto::v1::WriteResponse;
use tonic::Status;

use super::admin::{Admin, Answer, stopped};
use super::differences::{called, parent};
use super::extension;
use super::history::inverse_of;
use super::write::By;
use crate::extensions::Prepared;
use crate::store::{Entry, Span};

/// Conflicts named in an error.
const MAX_NAMED: usize = 3;

/// Most operations of one undo: all values of a cluster of 10,000 nodes.
const MAX_UNDO_OPS: usize = 200_000;

/// Times that an undo is worked out anew because somebody wrote in between.
const MAX_RACES: usize = 5;

/// Something that was changed again.
struct Conflict {
    cell: Cell,
    set: Option<Value>,
    is: Option<Value>,
}

/// What an undo would do, and from which revision on.
pub(super) struct Undo {
    pub(super) ops: Vec<WriteOp>,
    pub(super) at: u64,
    pub(super) reason: String,
    /// The extension that goes back with it.
    pub(super) schema: Option<Prepared>,
}

impl Admin {
    pub(super) async fn undo(
        &self,
        author: String,
        request: v1::UndoRequest,
    ) -> Answer<WriteResponse> {
        let by = By::new(author, &request, &request.options)?.not_on_trial()?;
        if let Some(answer) = self.made_before(&by).await? {
            return Ok(answer);
        }
        let _changing = self.0.extensions.changing.lock().await;
        for _ in 0..MAX_RACES {
            let (given, request) = (by.if_revision, request.clone());
            let mut by = by.clone();
            let undo = self.undo_ops(&request).await?;
            by.reason = match by.reason.as_str() {
                "" => undo.reason,
                reason => format!("{}: {reason}", undo.reason),
            };
            // What was looked at is what is written to.
            if given == 0 {
                by.if_revision = undo.at;
            }
            let written = match &undo.schema {
                Some(change) => extension::make(self, by, change, undo.ops).await,
                None => self.write(by, undo.ops).await,
            };
            match written {
                Err(status) if given == 0 && status.code() == tonic::Code::Aborted => {}
                answer => return answer,
            }
        }
        Err(Status::aborted("others write all the time: try again"))
    }

    /// What an undo has to do now.
    pub(super) async fn undo_ops(&self, request: &v1::UndoRequest) -> Result<Undo, Status> {
        match (request.revision, request.to_revision) {
            (revision, 0) if revision != 0 => self.undo_one(revision, request.force).await,
            (0, to) if to != 0 => self.undo_to(to).await,
            _ => Err(Status::invalid_argument(
                "either a revision to undo or one to return to is wanted",
            )),
        }
    }

    async fn undo_one(&self, revision: u64, force: bool) -> Result<Undo, Status> {
        let entry = self.entry(revision).await?;
        let inverse = inverse_of(&entry)?.to_vec();
        let changed = cells(&entry.ops, &inverse);
        let schema = match entry.edits.first() {
            Some(edit) => Some(self.undo_edit(revision, edit, force).await?),
            None => None,
        };
        if changed.is_empty() && schema.is_none() {
            return Err(Status::invalid_argument(match entry.notes.first() {
                Some(note) => format!(
                    "revision {revision} ({note}) was written by an earlier release, which kept no text of the extension: use krakenctl extension add or remove"
                ),
                None => format!("revision {revision} changed nothing that could be undone"),
            }));
        }
        let asked = self.0.handle.query(move |engine, _| {
            let conflicts = conflicts(engine, revision, &changed, &inverse);
            let mut ops = inverse;
            if force {
                ops.retain(|op| can_be_done(engine, op));
            }
            if engine.trials().contains_key(&revision) {
                ops.push(WriteOp::Settle(revision));
            }
            (conflicts, ops, engine.revision())
        });
        let (conflicts, ops, at) = asked.await.map_err(stopped)?;
        if !force && !conflicts.is_empty() {
            return Err(self.refused(&entry, conflicts, at).await?);
        }
        // Values come back after the extension that gives them their place.
        let ops = schema.iter().map(extension::op).chain(ops).collect();
        Ok(Undo {
            ops,
            at,
            reason: format!("undo of revision {revision}"),
            schema,
        })
    }

    /// Checks that an extension can be put back as it was before a revision.
    async fn undo_edit(
        &self,
        revision: u64,
        edit: &SchemaEdit,
        force: bool,
    ) -> Result<Prepared, Status> {
        let (name, extensions) = (&edit.extension, Arc::clone(&self.0.extensions));
        if extensions.source(name) != edit.after && !force {
            return Err(Status::aborted(format!(
                "extension {name} was changed again since revision {revision}: undo that first (krakenctl history shows it), or add --force to overwrite it"
            )));
        }
        let edit = edit.clone();
        let prepared = tokio::task::spawn_blocking(move || extensions.prepare_undo(edit));
        let change = prepared.await.map_err(stopped)?;
        let change = change.map_err(extension::refused)?;
        let stranded = extension::checked(self, &change).await?;
        if stranded.is_empty() {
            return Ok(change);
        }
        Err(Status::failed_precondition(format!(
            "revision {revision} cannot be undone while values depend on it: {} (unset them first)",
            stranded_words(&stranded)
        )))
    }

    /// The error that names what was changed again, and by which write.
    async fn refused(
        &self,
        entry: &Entry,
        conflicts: Vec<Conflict>,
        now: u64,
    ) -> Result<Status, Status> {
        let revision = entry.revision;
        let span = Span {
            after: revision,
            up_to: now,
            since_ms: 0,
            limit: usize::MAX,
        };
        let later = self.entries(span).await?;
        let places = conflicts.iter().map(|conflict| {
            let (cell, is, set) = (&conflict.cell, &conflict.is, &conflict.set);
            (cell.clone(), (is.clone(), set.clone()))
        });
        let names = self
            .with_parents(entry.names.clone(), &places.collect())
            .await?;
        let schema = self.0.extensions.schema();
        let (schema, names) = (&schema, &names);
        let named = conflicts.iter().take(MAX_NAMED).map(|conflict| {
            let by = later.iter().find(|entry| {
                let inverse = entry.inverse.as_deref().unwrap_or_default();
                let touched = cells(&entry.ops, inverse);
                let node = conflict.cell.node();
                touched.contains_key(&conflict.cell)
                    || (matches!(conflict.cell, Cell::Exists(_))
                        && touched.keys().any(|cell| cell.node() == node))
            });
            let by = by.map_or_else(String::new, |by| {
                format!(" by revision {} ({})", by.revision, by.author)
            });
            let node = conflict.cell.node();
            let name = node.and_then(|node| names.get(&node));
            let whose = name.map_or_else(|| "the cluster".to_owned(), ToString::to_string);
            let word = |value: &Option<Value>| match (&conflict.cell, value) {
                (Cell::Parent(_), Some(value)) => parent(value, names).to_string(),
                _ => word(schema, &conflict.cell, value.as_ref()),
            };
            let (is, set) = (word(&conflict.is), word(&conflict.set));
            format!(
                "{} of {whose} is {is}{by}, not {set}",
                called(&conflict.cell).1
            )
        });
        let mut text = named.collect::<Vec<_>>().join("; ");
        if conflicts.len() > MAX_NAMED {
            text.push_str(&format!("; and {} more", conflicts.len() - MAX_NAMED));
        }
        Ok(Status::aborted(format!(
            "revision {revision} was followed by other changes of the same: {text}. Undo those first, or add --force to overwrite them"
        )))
    }

    async fn undo_to(&self, to: u64) -> Result<Undo, Status> {
        let asked = self.0.handle.query(move |engine, _| {
            let trials = engine.trials().keys().filter(|revision| **revision > to);
            (engine.revision(), trials.copied().collect::<Vec<u64>>())
        });
        let (now, trials) = asked.await.map_err(stopped)?;
        if to >= now {
            return Err(Status::invalid_argument(format!(
                "the cluster is at revision {now}"
            )));
        }
        let mut ops = Vec::new();
        // The text of each extension at that time, and the last write that changed it.
        let mut edits: BTreeMap<String, (String, u64)> = BTreeMap::new();
        for entry in self.all_after(to, now).await? {
            for edit in &entry.edits {
                let known = edits.entry(edit.extension.clone());
                let (before, _) = known.or_insert((String::new(), entry.revision));
                before.clone_from(&edit.before);
            }
            ops.extend_from_slice(inverse_of(&entry)?);
            if ops.len() > MAX_UNDO_OPS {
                return Err(Status::invalid_argument(format!(
                    "that would take back more than {MAX_UNDO_OPS} changes at once: return in several steps"
                )));
            }
        }
        for (name, (before, last)) in edits {
            if self.0.extensions.source(&name) != before {
                return Err(Status::failed_precondition(format!(
                    "revision {last} changed extension {name}, which is taken back on its own only: krakenctl undo {last} first"
                )));
            }
        }
        ops.extend(trials.into_iter().map(WriteOp::Settle));
        Ok(Undo {
            ops,
            at: now,
            reason: format!("return to revision {to}"),
            schema: None,
        })
    }
}

/// What of a write is no longer as the write left it.
fn conflicts(
    engine: &Engine,
    revision: u64,
    changed: &Cells,
    inverse: &[WriteOp],
) -> Vec<Conflict> {
    let (tree, frozen) = (engine.tree(), engine.freezes());
    let mut found: Vec<Conflict> = changed
        .iter()
        .map(|(cell, (_, set))| Conflict {
            cell: cell.clone(),
            set: set.clone(),
            is: cell.get(tree, frozen),
        })
        .filter(|conflict| conflict.set != conflict.is)
        .collect();
    // A node that would be deleted goes with everything that was written to it since.
    for op in inverse {
        if let WriteOp::Delete(id) = op
            && tree
                .get(*id)
                .is_some_and(|node| node.cfg_revision > revision)
            && !found
                .iter()
                .any(|conflict| conflict.cell.node() == Some(*id))
        {
            found.push(Conflict {
                cell: Cell::Exists(*id),
                set: Some(Value::from("as it was added")),
                is: Some(Value::from("changed")),
            });
        }
    }
    found
}

/// What can be forced: nodes that are gone, or back, are left as they are.
fn can_be_done(engine: &Engine, op: &WriteOp) -> bool {
    if let WriteOp::Move { node, parent } = op {
        // The old parent may be gone, or below its child by now.
        let tree = engine.tree();
        let is_gone = [node, parent].iter().any(|id| tree.get(**id).is_none());
        return !is_gone && tree.above(*parent).all(|above| above != *node);
    }
    let is_there = node_of(op).is_none_or(|node| engine.tree().get(node).is_some());
    is_there != matches!(op, WriteOp::Add(_))
}

fn word(schema: &Schema, cell: &Cell, value: Option<&Value>) -> String {
    match (cell, value) {
        (Cell::Value(_, url), Some(_)) if schema.hides(url) => REDACTED.to_owned(),
        (_, Some(Value::Bool(true))) => "yes".to_owned(),
        (Cell::Value(..) | Cell::Label(..), None) => "unset".to_owned(),
        (_, None) => "no".to_owned(),
        (_, Some(value)) => value.to_string(),
    }
}

/// Of an inverse what is still as the write left it: somebody else has decided about the rest.
pub(super) fn what_still_stands(engine: &Engine, entry: &Entry) -> Vec<WriteOp> {
    let inverse = entry.inverse.clone().unwrap_or_default();
    let changed = cells(&entry.ops, &inverse);
    let (tree, frozen) = (engine.tree(), engine.freezes());
    let stands = |cell: Cell| {
        changed
            .get(&cell)
            .is_some_and(|(_, set)| *set == cell.get(tree, frozen))
    };
    let mut ops = Vec::new();
    for op in inverse {
        match op {
            WriteOp::Set { node, mut changes } => {
                changes.retain(|change| stands(Cell::Value(node, change.url.clone())));
                if !changes.is_empty() {
                    ops.push(WriteOp::Set { node, changes });
                }
            }
            WriteOp::Groups {
                node,
                mut add,
                mut remove,
            } => {
                add.retain(|group| stands(Cell::Group(node, group.clone())));
                remove.retain(|group| stands(Cell::Group(node, group.clone())));
                if !add.is_empty() || !remove.is_empty() {
                    ops.push(WriteOp::Groups { node, add, remove });
                }
            }
            WriteOp::Freeze { node, .. } if stands(Cell::Frozen(node)) => ops.push(op),
            WriteOp::Move { node, .. }
                if stands(Cell::Parent(node)) && can_be_done(engine, &op) =>
            {
                ops.push(op);
            }
            WriteOp::FreezeCluster(_) if stands(Cell::ClusterFrozen) => ops.push(op),
            WriteOp::FreezeGroup { ref group, .. } if stands(Cell::GroupFrozen(group.clone())) => {
                ops.push(op)
            }
            // Nodes are neither added nor deleted on trial.
            _ => {}
        }
    }
    ops
}

/// Kept apart for trials, whose writes may meet one that came first.
pub(super) fn is_race(error: &WriteError) -> bool {
    matches!(error, WriteError::Conflict { .. })
}
