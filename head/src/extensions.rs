//! Extensions of this head: the built-in ones, and those of `.proto` files in `<state_dir>/extensions` (DESIGN 2).
//!
//! Files are compiled at the start and when an operator adds one; nothing is compiled on the way of a request for values. A bad file is said and left
//! out, never a reason not to start. `compile` makes an extension of one file, `folder` keeps files; the engine checks what a schema does to
//! values (`engine/docs/extensions.md`).

mod compile;
mod folder;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use engine::event::SchemaEdit;
use engine::extension::{Extension, Schema};
use engine::state::Node;
use tracing::{error, info};

pub(crate) use compile::{FileError, compile};
use folder::Folder;
use reading::{Reading, read, refuse_built_in, refuse_readable, secrets};

/// Name of the folder in the state directory.
pub(crate) const FOLDER: &str = "extensions";

/// What the file of an added extension is called.
pub(crate) fn file_of(name: &str) -> String {
    format!("{name}.proto")
}

/// The schema that is in force, for those who live as long as the head.
#[derive(Clone, Default)]
pub(crate) struct SchemaNow(Arc<RwLock<Arc<Schema>>>);

impl SchemaNow {
    /// The schema of this moment.
    pub(crate) fn get(&self) -> Arc<Schema> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, schema: Arc<Schema>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = schema;
    }
}

impl From<Arc<Schema>> for SchemaNow {
    fn from(schema: Arc<Schema>) -> Self {
        Self(Arc::new(RwLock::new(schema)))
    }
}

/// All extensions of this head.
pub(crate) struct Extensions {
    folder: Folder,
    built_in: Vec<Extension>,
    state: Mutex<State>,
    now: SchemaNow,
    /// Held by whoever changes them, from the first look to the last file.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct State {
    /// By name.
    loaded: BTreeMap<String, Loaded>,
    problems: Vec<FileError>,
    /// Patterns of the fields of files that are or were secret. History has their values, so they never become readable.
    once_secret: BTreeSet<String>,
}

/// An extension of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// The file's name in the folder.
    pub(crate) file: String,
    /// Its text.
    pub(crate) source: String,
    /// What it declares.
    pub(crate) extension: Extension,
}

/// An extension as operators see it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// What is in force; nothing for a file that cannot be used.
    pub(crate) extension: Option<Extension>,
    /// The file; empty for a built-in one.
    pub(crate) file: String,
    /// Its text.
    pub(crate) source: String,
    /// What is wrong with the file.
    pub(crate) problem: Option<FileError>,
}

/// A change that passed every check which needs no nodes.
pub(crate) struct Prepared {
    /// The extension's name.
    pub(crate) name: String,
    /// What is different, for people and for history.
    pub(crate) text: String,
    /// The schema after it.
    pub(crate) schema: Arc<Schema>,
    /// Its file before and after, for history.
    pub(crate) edit: SchemaEdit,
    /// Field numbers that mean something else after it.
    pub(crate) renumbered: Vec<String>,
    /// Nothing is different.
    pub(crate) is_same: bool,
    file: String,
    after: State,
}

/// Why an extension cannot be added or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The file does not do.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such extension.
    #[error("there is no extension {0}: krakenctl extension list shows them")]
    Unknown(String),
    /// It came with the program.
    #[error("extension {0} is built in: it cannot be removed")]
    BuiltIn(String),
}

impl Extensions {
    /// Reads the folder. `nodes` are those of the store: a file that would strand their values is not taken in place of one that did not.
    pub(crate) fn load(path: &Path, nodes: &[Node]) -> Self {
        let (folder, built_in) = (Folder::new(path), Extension::built_in());
        let noted = folder.once_secret();
        let reading = read(&built_in, folder.files(), folder.last_good(), &noted, nodes);
        if reading.once_secret != noted
            && let Err(error) = folder.note_secret(&reading.once_secret)
        {
            error!(folder = %path.display(), %error, "cannot note which fields are secret: do not make one readable by hand");
        }
        for problem in &reading.problems {
            metrics::counter!("kraken_extension_files_bad_total").increment(1);
            error!(
                folder = %path.display(), problem = %problem,
                "an extension's file cannot be used: correct it and use `krakenctl extension add`, or restart the head"
            );
        }
        // Without these the next start knows less; this one is complete.
        let notes = (reading.taken.iter())
            .map(|(file, source)| folder.note_good(file, source))
            .chain(reading.gone.iter().map(|file| folder.forget_good(file)));
        for error in notes.filter_map(Result::err) {
            error!(folder = %path.display(), %error, "cannot note the last good form of an extension's file");
        }
        for loaded in reading.loaded.values() {
            info!(
                file = loaded.file,
                name = loaded.extension.name,
                fields = loaded.extension.fields.len(),
                "extension"
            );
        }
        let schema = schema_of(&built_in, &reading.loaded);
        Self {
            folder,
            built_in,
            state: Mutex::new(State {
                loaded: reading.loaded,
                problems: reading.problems,
                once_secret: reading.once_secret,
            }),
            now: Arc::new(schema).into(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The schema of all of them.
    pub(crate) fn schema(&self) -> Arc<Schema> {
        self.now.get()
    }

    /// The same for those who cannot ask again.
    pub(crate) fn schema_now(&self) -> SchemaNow {
        self.now.clone()
    }

    /// All of them: built-in ones first, then those of files, then files that cannot be used.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let state = self.lock();
        let built_in = self.built_in.iter().map(|extension| Listed {
            extension: Some(extension.clone()),
            file: String::new(),
            source: String::new(),
            problem: None,
        });
        let problem_of = |file: &str| {
            let problems = state.problems.iter();
            problems
                .clone()
                .find(|problem| problem.file == file)
                .cloned()
        };
        let loaded = state.loaded.values().map(|loaded| Listed {
            extension: Some(loaded.extension.clone()),
            file: loaded.file.clone(),
            source: loaded.source.clone(),
            problem: problem_of(&loaded.file),
        });
        let has_extension =
            |problem: &&FileError| state.loaded.values().any(|one| one.file == problem.file);
        let unused = state
            .problems
            .iter()
            .filter(|problem| !has_extension(problem));
        let unused = unused.map(|problem| Listed {
            extension: None,
            file: problem.file.clone(),
            source: String::new(),
            problem: Some(problem.clone()),
        });
        built_in.chain(loaded).chain(unused).collect()
    }

    /// Checks a file that shall be added, or shall replace the one of its extension. `shown` names it in errors. Compiles: not for the engine's thread.
    ///
    /// # Errors
    /// It does not compile, or another extension has its name.
    pub(crate) fn prepare(&self, shown: &str, source: String) -> Result<Prepared, Refused> {
        let extension = compile(shown, &source)?;
        let name = extension.name.clone();
        let mut after = self.lock().clone();
        let old = after.loaded.get(&name).cloned();
        let file = old
            .as_ref()
            .map_or_else(|| file_of(&name), |old| old.file.clone());
        refuse_built_in(&self.built_in, shown, &extension)?;
        refuse_readable(&after.once_secret, shown, &extension)?;
        if old.is_none()
            && let Some(other) = after.loaded.values().find(|other| other.file == file)
        {
            return Err(FileError::whole(
                shown,
                format!(
                    "extension {name} would lie in {file}, but that declares {}: remove that one first, or rename the file in the head's folder",
                    other.extension.name
                ),
            )
            .into());
        }
        let edit = SchemaEdit {
            extension: name.clone(),
            before: old
                .as_ref()
                .map_or_else(String::new, |old| old.source.clone()),
            after: source.clone(),
        };
        let loaded = Loaded {
            file: file.clone(),
            source,
            extension,
        };
        let text = old.as_ref().map_or_else(
            || format!("extension add {name}"),
            |old| format!("extension change {name}: {}", difference(old, &loaded)),
        );
        let renumbered = old.iter().flat_map(|old| {
            let renumbered = old.extension.renumbered(&loaded.extension);
            renumbered.into_iter().map(|one| one.to_string())
        });
        let renumbered = renumbered.collect();
        let had_problem = after.problems.iter().any(|problem| problem.file == file);
        let is_same = !had_problem && old.as_ref() == Some(&loaded);
        after.problems.retain(|problem| problem.file != file);
        after.once_secret.extend(secrets(&loaded.extension));
        after.loaded.insert(name.clone(), loaded);
        let schema = Arc::new(schema_of(&self.built_in, &after.loaded));
        Ok(Prepared {
            name,
            text,
            schema,
            edit,
            renumbered,
            is_same,
            file,
            after,
        })
    }

    /// The text of an extension's file as it is in force; empty: there is none.
    pub(crate) fn source(&self, name: &str) -> String {
        let state = self.lock();
        let loaded = state.loaded.get(name);
        loaded.map_or_else(String::new, |loaded| loaded.source.clone())
    }

    /// Checks that the file of an edit can be put back as it was before.
    ///
    /// # Errors
    /// As for adding or removing it.
    pub(crate) fn prepare_undo(&self, edit: SchemaEdit) -> Result<Prepared, Refused> {
        match edit.before.is_empty() {
            true => self.prepare_removal(&edit.extension),
            false => self.prepare(&file_of(&edit.extension), edit.before),
        }
    }

    /// Checks that an extension can be removed, as far as its values allow.
    ///
    /// # Errors
    /// Unknown; built in.
    pub(crate) fn prepare_removal(&self, name: &str) -> Result<Prepared, Refused> {
        if self.built_in.iter().any(|one| one.name == name) {
            return Err(Refused::BuiltIn(name.to_owned()));
        }
        let mut after = self.lock().clone();
        // A file that cannot be used has no extension to be named by.
        let unused = file_of(name);
        let mut edit = SchemaEdit {
            extension: name.to_owned(),
            ..SchemaEdit::default()
        };
        let file = match after.loaded.remove(name) {
            Some(loaded) => {
                edit.before = loaded.source;
                loaded.file
            }
            None if after.problems.iter().any(|problem| problem.file == unused) => unused,
            None => return Err(Refused::Unknown(name.to_owned())),
        };
        after.problems.retain(|problem| problem.file != file);
        let schema = Arc::new(schema_of(&self.built_in, &after.loaded));
        Ok(Prepared {
            name: name.to_owned(),
            text: format!("extension remove {name}"),
            schema,
            edit,
            renumbered: Vec::new(),
            is_same: false,
            file,
            after,
        })
    }

    /// Makes a change durable and its schema the one by which requests are read. The engine comes next; if it refuses, [`take_back`](Self::take_back).
    ///
    /// # Errors
    /// The folder cannot be written; nothing changed.
    pub(crate) fn put(&self, change: &Prepared) -> io::Result<Before> {
        let before = Before {
            state: self.lock().clone(),
            schema: self.now.get(),
            // What lies there, good or not.
            source: self
                .folder
                .files()
                .into_iter()
                .find_map(|(file, text)| (file == change.file).then_some(text.ok()).flatten()),
        };
        if change.after.once_secret != before.state.once_secret {
            self.folder.note_secret(&change.after.once_secret)?;
        }
        match change.after.loaded.get(&change.name) {
            Some(loaded) => self.folder.write(&change.file, &loaded.source)?,
            None => self.folder.remove(&change.file)?,
        }
        *self.lock() = change.after.clone();
        self.now.set(Arc::clone(&change.schema));
        Ok(before)
    }

    /// The change is in force.
    pub(crate) fn done(&self, change: &Prepared) {
        let noted = match change.after.loaded.get(&change.name) {
            Some(loaded) => self.folder.note_good(&change.file, &loaded.source),
            None => self.folder.forget_good(&change.file),
        };
        if let Err(error) = noted {
            error!(file = change.file, %error, "cannot note the last good form of an extension's file");
        }
    }

    /// Undoes a change that the engine refused.
    pub(crate) fn take_back(&self, change: &Prepared, before: Before) {
        let undone = match &before.source {
            Some(source) => self.folder.write(&change.file, source),
            None => self.folder.remove(&change.file),
        };
        let undone = undone.and_then(|()| self.folder.note_secret(&before.state.once_secret));
        *self.lock() = before.state;
        self.now.set(before.schema);
        if let Err(error) = undone {
            error!(file = change.file, %error, "cannot put an extension's file back: correct it before the next start");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prepared {
    /// The extension as it is after the change, if it still is.
    pub(crate) fn listed(&self) -> Option<Listed> {
        let loaded = self.after.loaded.get(&self.name)?;
        Some(Listed {
            extension: Some(loaded.extension.clone()),
            file: loaded.file.clone(),
            source: loaded.source.clone(),
            problem: None,
        })
    }
}

/// What a change replaced.
pub(crate) struct Before {
    state: State,
    schema: Arc<Schema>,
    source: Option<String>,
}

/// What is wrong with the files of a folder, without starting anything, and the schema of those that are good.
pub(crate) fn check(path: &Path) -> (Vec<FileError>, Schema) {
    let folder = Folder::new(path);
    let (built_in, noted) = (Extension::built_in(), folder.once_secret());
    let Reading {
        problems, loaded, ..
    } = read(&built_in, folder.files(), Vec::new(), &noted, &[]);
    let in_folder = |mut problem: FileError| {
        problem.file = path.join(problem.file).display().to_string();
        problem
    };
    let schema = schema_of(&built_in, &loaded);
    (problems.into_iter().map(in_folder).collect(), schema)
}

fn schema_of(built_in: &[Extension], loaded: &BTreeMap<String, Loaded>) -> Schema {
    let mut schema = Schema::default();
    let files = loaded.values().map(|loaded| &loaded.extension);
    for extension in built_in.iter().chain(files) {
        if let Err(pattern) = schema.extend(extension) {
            unreachable!("names of extensions differ, so {pattern} cannot be taken");
        }
    }
    schema
}

/// What differs between two forms of one extension, in a line.
fn difference(old: &Loaded, new: &Loaded) -> String {
    let (old, new) = (&old.extension.fields, &new.extension.fields);
    let plus = new.keys().filter(|pattern| !old.contains_key(*pattern));
    let minus = old.keys().filter(|pattern| !new.contains_key(*pattern));
    let changed = new
        .iter()
        .filter(|(pattern, declared)| old.get(*pattern).is_some_and(|old| old != *declared));
    let parts: Vec<String> = plus
        .map(|pattern| format!("+{pattern}"))
        .chain(minus.map(|pattern| format!("-{pattern}")))
        .chain(changed.map(|(pattern, _)| format!("~{pattern}")))
        .collect();
    match parts.is_empty() {
        true => "the same fields".into(),
        false => parts.join(" "),
    }
}
