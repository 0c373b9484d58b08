//! What the files of a folder amount to: which of them are in force, which are refused, and why.
//!
//! Decides only: `folder` reads and keeps files, and [`Extensions`](super::Extensions) puts the outcome in force.

use std::collections::{BTreeMap, BTreeSet};

use engine::extension::{Extension, Schema, stranded_words};
use engine::state::Node;

use super::folder::Entry;
use super::{FileError, Loaded, compile};

/// What the files of a folder amount to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) loaded: BTreeMap<String, Loaded>,
    pub(super) problems: Vec<FileError>,
    /// Files whose form is new and good.
    pub(super) taken: Vec<(String, String)>,
    /// Last good forms of files that are gone with all values.
    pub(super) gone: Vec<String>,
    /// See [`State::once_secret`](super::State::once_secret).
    pub(super) once_secret: BTreeSet<String>,
}

/// Decides what is in force: each file's present form, or its last good one where the present one does not do.
pub(super) fn read(
    built_in: &[Extension],
    files: Vec<Entry>,
    last_good: Vec<Entry>,
    once_secret: &BTreeSet<String>,
    nodes: &[Node],
) -> Reading {
    let mut reading = Reading {
        once_secret: once_secret.clone(),
        ..Reading::default()
    };
    let mut good: BTreeMap<String, (String, Extension)> = last_good
        .into_iter()
        .filter_map(|(file, text)| {
            let text = text.ok()?;
            let extension = compile(&file, &text).ok()?;
            Some((file, (text, extension)))
        })
        .collect();
    for (_, extension) in good.values() {
        reading.once_secret.extend(secrets(extension));
    }
    for (file, text) in files {
        let old = good.remove(&file);
        let candidate = text.and_then(|source| {
            let extension = compile(&file, &source)?;
            refuse_built_in(built_in, &file, &extension)?;
            refuse_readable(&reading.once_secret, &file, &extension)?;
            if let Some(other) = reading.loaded.get(&extension.name) {
                return Err(FileError::whole(
                    &file,
                    format!(
                        "extension {} is declared by {} already: rename or remove one of them",
                        extension.name, other.file
                    ),
                ));
            }
            if let Some((_, old)) = &old {
                refuse_stranded(&file, old, Some(&extension), nodes)?;
            }
            Ok((source, extension))
        });
        match (candidate, old) {
            (Ok((source, extension)), old) => {
                if old.is_none_or(|(text, _)| text != source) {
                    reading.taken.push((file.clone(), source.clone()));
                }
                reading.take(file, source, extension);
            }
            (Err(mut problem), old) => {
                if let Some((source, extension)) = old
                    && refuse_built_in(built_in, &file, &extension).is_ok()
                    && !reading.loaded.contains_key(&extension.name)
                {
                    problem
                        .text
                        .push_str(" (the last form of it that was good stays in force)");
                    reading.take(file, source, extension);
                }
                reading.problems.push(problem);
            }
        }
    }
    for (file, (source, extension)) in good {
        match refuse_stranded(&file, &extension, None, nodes) {
            Err(mut problem) if !reading.loaded.contains_key(&extension.name) => {
                problem.text = format!(
                    "is gone, but {} (the last form of it stays in force; put the file back, or use krakenctl extension remove --force)",
                    problem.text
                );
                reading.problems.push(problem);
                reading.take(file, source, extension);
            }
            _ => reading.gone.push(file),
        }
    }
    reading
}

impl Reading {
    fn take(&mut self, file: String, source: String, extension: Extension) {
        self.once_secret.extend(secrets(&extension));
        let name = extension.name.clone();
        let loaded = Loaded {
            file,
            source,
            extension,
        };
        self.loaded.insert(name, loaded);
    }
}

pub(super) fn refuse_built_in(
    built_in: &[Extension],
    file: &str,
    extension: &Extension,
) -> Result<(), FileError> {
    // The core has urls of its own with several parts, too: `/services/NAME/state`.
    let is_root = |pattern: &String| pattern.split('/').nth(1) == Some(&extension.name);
    let takes = |one: &&Extension| {
        one.name == extension.name || (one.name.is_empty() && one.fields.keys().any(is_root))
    };
    match built_in.iter().find(takes) {
        Some(one) => Err(FileError::whole(
            file,
            format!(
                "extension {0} has the name of the built-in {1}: choose another one, such as site_{0}",
                extension.name,
                match one.name.as_str() {
                    "" => "core value",
                    _ => "extension",
                }
            ),
        )),
        None => Ok(()),
    }
}

/// Patterns of an extension's secrets.
pub(super) fn secrets(extension: &Extension) -> impl Iterator<Item = String> {
    let fields = extension.fields.iter();
    fields
        .filter(|(_, declared)| declared.field.secret)
        .map(|(pattern, _)| pattern.clone())
}

/// Refuses what would make readable what was a secret once: history has its values, and undo would write them back.
pub(super) fn refuse_readable(
    once_secret: &BTreeSet<String>,
    file: &str,
    extension: &Extension,
) -> Result<(), FileError> {
    let readable = extension
        .fields
        .iter()
        .filter(|(_, declared)| !declared.field.secret)
        .find(|(pattern, _)| once_secret.iter().any(|once| overlap(once, pattern)));
    match readable {
        Some((pattern, _)) => Err(FileError::whole(
            file,
            format!(
                "{pattern} is or was a secret, and history has its values: keep (kraken.v1.secret) = true, or give what everybody may read another name"
            ),
        )),
        None => Ok(()),
    }
}

/// Whether one url can fit both patterns.
fn overlap(one: &str, other: &str) -> bool {
    let same = |(one, other): (&str, &str)| one == other || one == "*" || other == "*";
    let parts = |pattern: &str| pattern.split('/').count();
    parts(one) == parts(other) && one.split('/').zip(other.split('/')).all(same)
}

/// Refuses what would leave values of `nodes` without a place, or numbers with another meaning.
fn refuse_stranded(
    file: &str,
    old: &Extension,
    new: Option<&Extension>,
    nodes: &[Node],
) -> Result<(), FileError> {
    let only = |extension: Option<&Extension>| {
        let mut schema = Schema::default();
        // One extension does not clash with itself.
        let _ = extension.map(|extension| schema.extend(extension));
        schema
    };
    let stranded = only(Some(old)).stranded(&only(new), nodes.iter());
    if !stranded.is_empty() {
        return Err(FileError::whole(file, stranded_words(&stranded)));
    }
    let renumbered = new.map(|new| old.renumbered(new)).unwrap_or_default();
    match renumbered.first() {
        Some(first) => Err(FileError::whole(file, first.to_string())),
        None => Ok(()),
    }
}
