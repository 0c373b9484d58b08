//! Extensions over the API: shown, added, changed and removed while the head runs.
//!
//! In order: compiled and checked against the other extensions, against values of all nodes and against the mutation files; then the file is
//! made durable; then the engine takes the schema with a write of its own revision, in which it checks the values once more; then mutation files
//! are read by it. Who fails undoes what came before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use engine::event::WriteOp;
use engine::extension::{Field, Format, Kind, Stranded, stranded_words};
use engine::state::{Change, NodeId};
use proto::v1;
use tonic::{Response, Status};
use tracing::warn;

use super::admin::{Admin, Answer, stopped};
use super::convert::invalid;
use super::write::By;
use crate::extensions::{Extensions, Listed, Prepared, Refused};

/// Longest name of a file in a message; it is only for people.
const MAX_FILE_NAME: usize = 128;

pub(super) fn list(
    extensions: &Extensions,
    request: &v1::ListExtensionsRequest,
) -> Result<v1::ListExtensionsResponse, Status> {
    let all = extensions.list().into_iter();
    let mut all: Vec<v1::Extension> = all
        .map(|listed| to_proto(listed, request.with_source))
        .collect();
    if !request.name.is_empty() {
        // The core has no name; people need one for it.
        let name = if request.name == "core" {
            ""
        } else {
            &request.name
        };
        all.retain(|one| one.name == name);
        if all.is_empty() {
            return Err(Status::not_found(
                Refused::Unknown(request.name.clone()).to_string(),
            ));
        }
    }
    Ok(v1::ListExtensionsResponse { extensions: all })
}

/// Carries a change to its end, even when nobody waits for the answer any more: half a change is none.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Answer<T>> + Send + 'static,
) -> Answer<T> {
    tokio::spawn(work).await.map_err(stopped)?
}

pub(super) async fn add(
    admin: &Admin,
    author: String,
    request: v1::AddExtensionRequest,
) -> Answer<v1::ChangeExtensionResponse> {
    let shown = Path::new(&request.file_name).file_name();
    let shown: String = shown
        .map_or_else(|| "the file".into(), |name| name.to_string_lossy())
        .chars()
        .take(MAX_FILE_NAME)
        .collect();
    let how = How {
        author,
        force: request.force,
        dry_run: request.dry_run,
        options: request.options,
    };
    let admin = admin.clone();
    to_the_end(async move {
        let _changing = admin.0.extensions.changing.lock().await;
        let extensions = Arc::clone(&admin.0.extensions);
        let source = request.source;
        let prepared = tokio::task::spawn_blocking(move || extensions.prepare(&shown, source));
        let change = prepared.await.map_err(stopped)?.map_err(refused)?;
        if !how.force
            && let Some(first) = change.renumbered.first()
        {
            return Err(Status::failed_precondition(format!(
                "{first}; programs made from the old file would read it wrongly (--force if there are none)"
            )));
        }
        carry_out(&admin, change, how).await
    })
    .await
}

pub(super) async fn remove(
    admin: &Admin,
    author: String,
    request: v1::RemoveExtensionRequest,
) -> Answer<v1::ChangeExtensionResponse> {
    let how = How {
        author,
        force: request.force,
        dry_run: request.dry_run,
        options: request.options,
    };
    let admin = admin.clone();
    to_the_end(async move {
        let _changing = admin.0.extensions.changing.lock().await;
        let removal = admin.0.extensions.prepare_removal(&request.name);
        carry_out(&admin, removal.map_err(refused)?, how).await
    })
    .await
}

struct How {
    author: String,
    force: bool,
    dry_run: bool,
    options: Option<v1::WriteOptions>,
}

async fn carry_out(
    admin: &Admin,
    change: Prepared,
    how: How,
) -> Answer<v1::ChangeExtensionResponse> {
    let stranded = checked(admin, &change).await?;
    if !stranded.is_empty() && !how.force {
        return Err(Status::failed_precondition(format!(
            "{} (unset them first, or --force unsets them)",
            stranded_words(&stranded)
        )));
    }
    let nodes: BTreeSet<String> = stranded.iter().map(|one| one.name.to_string()).collect();
    let answer = |revision, change_text: &str, extension| v1::ChangeExtensionResponse {
        extension,
        revision,
        change: change_text.to_owned(),
        nodes: nodes.iter().cloned().collect(),
    };
    if change.is_same || how.dry_run {
        let text = if change.is_same { "" } else { &change.text };
        let shown = change.listed().map(|listed| to_proto(listed, false));
        return Ok(Response::new(answer(admin.revision().await?, text, shown)));
    }
    let options = how.options.clone().unwrap_or_default();
    let by = By::new(how.author, &options, &how.options)?.not_on_trial()?;
    let mut ops = unset(stranded);
    ops.push(op(&change));
    let written = make(admin, by, &change, ops).await?.into_inner();
    let shown = change.listed().map(|listed| to_proto(listed, false));
    Ok(Response::new(answer(written.revision, &change.text, shown)))
}

/// Values that would have no place after a change that mutation files can live with.
pub(super) async fn checked(admin: &Admin, change: &Prepared) -> Result<Vec<Stranded>, Status> {
    let parts = &admin.0;
    let schema = Arc::clone(&change.schema);
    let read = parts
        .handle
        .query(move |engine, _| engine.schema().stranded(&schema, engine.tree().iter()));
    parts
        .modules
        .check_schema(&parts.mutation_files, &change.schema)
        .map_err(|error| {
            // A problem a line; an error is one line.
            let text = format!("{error:#}");
            let problems: Vec<&str> = text.lines().map(str::trim).collect();
            Status::failed_precondition(problems.join("; "))
        })?;
    read.await.map_err(stopped)
}

/// The operation that brings a change into force.
pub(super) fn op(change: &Prepared) -> WriteOp {
    WriteOp::Schema {
        schema: Arc::clone(&change.schema),
        text: change.text.clone(),
        edit: change.edit.clone(),
    }
}

/// Makes a change that was checked, with the write that it is part of.
pub(super) async fn make(
    admin: &Admin,
    by: By,
    change: &Prepared,
    ops: Vec<WriteOp>,
) -> Answer<v1::WriteResponse> {
    let parts = &admin.0;
    let before = parts.extensions.put(change).map_err(|error| {
        let text = format!("cannot write the extension's file: {error}");
        match error.kind() {
            std::io::ErrorKind::StorageFull => Status::resource_exhausted(text),
            _ => Status::unavailable(text),
        }
    })?;
    let written = match admin.write(by, ops).await {
        Ok(written) => written,
        // The store may still carry it out; the file is there for that.
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => return Err(status),
        Err(status) => {
            parts.extensions.take_back(change, before);
            return Err(status);
        }
    };
    parts.extensions.done(change);
    let (files, schema) = (&parts.mutation_files, &change.schema);
    if let Err(error) = parts.modules.reload(files, schema).await {
        warn!("the declared mutations cannot be used together: {error}");
    }
    Ok(written)
}

/// The operations that take stranded values away.
fn unset(stranded: Vec<Stranded>) -> Vec<WriteOp> {
    let mut by_node: BTreeMap<NodeId, Vec<Change>> = BTreeMap::new();
    for one in stranded {
        by_node
            .entry(one.node)
            .or_default()
            .push(Change::unset(one.url));
    }
    by_node
        .into_iter()
        .map(|(node, changes)| WriteOp::Set { node, changes })
        .collect()
}

pub(super) fn refused(why: Refused) -> Status {
    match why {
        Refused::File(_) | Refused::BuiltIn(_) => invalid(why),
        Refused::Unknown(_) => Status::not_found(why.to_string()),
    }
}

fn to_proto(listed: Listed, with_source: bool) -> v1::Extension {
    let file_stem = listed.file.strip_suffix(".proto").unwrap_or(&listed.file);
    let (name, help, fields) = match listed.extension {
        Some(extension) => {
            let fields = extension.fields.into_iter();
            let fields = fields.map(|(url, declared)| field_to_proto(url, declared.field));
            (extension.name, extension.doc, fields.collect())
        }
        None => (file_stem.to_owned(), String::new(), Vec::new()),
    };
    v1::Extension {
        name,
        file: listed.file,
        help,
        fields,
        problem: listed
            .problem
            .map(|problem| problem.to_string())
            .unwrap_or_default(),
        source: if with_source {
            listed.source
        } else {
            String::new()
        },
    }
}

fn field_to_proto(url: String, field: Field) -> v1::ExtensionField {
    use v1::extension_field::Kind as Wire;
    let (mut names, mut bounds) = (Vec::new(), (0, 0));
    let kind = match field.kind {
        Kind::Bool => Wire::Bool,
        Kind::Int { min, max } => {
            bounds = (min, max);
            Wire::Int
        }
        Kind::Float => Wire::Float,
        Kind::Text => Wire::Text,
        Kind::Bytes => Wire::Bytes,
        Kind::Enum(all) => {
            names = all;
            Wire::Enum
        }
    };
    let format = match field.format {
        Format::Plain => v1::Format::Plain,
        Format::Ip => v1::Format::Ip,
        Format::Cidr => v1::Format::Cidr,
        Format::Mac => v1::Format::Mac,
        Format::Duration => v1::Format::Duration,
        Format::Size => v1::Format::Size,
    };
    v1::ExtensionField {
        url,
        kind: kind.into(),
        repeated: field.repeated,
        format: format.into(),
        secret: field.secret,
        discoverable: field.discoverable,
        node_reads: field.node_reads,
        unit: field.unit,
        zero: field.zero,
        help: field.doc,
        names,
        min: bounds.0,
        max: bounds.1,
    }
}
