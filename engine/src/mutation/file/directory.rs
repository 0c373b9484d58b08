//! All files of a directory into one set.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{FileError, MAX_FILE_BYTES, MAX_PROBLEMS, MutationFile, Problem, Program, read};
use crate::extension::Schema;
use crate::mutation::{MutationId, MutationSet};
use crate::state::StateUrl;

/// Most files read from one directory; a site has a dozen modules.
pub const MAX_FILES: usize = 1024;

/// What the files of a directory say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What they declare; its generation is 0.
    pub set: MutationSet,
    /// What they have run, in the order of the files; those that have nothing run are left out.
    pub programs: Vec<Program>,
    /// Where each mutation is declared, as `file:line`.
    pub places: BTreeMap<MutationId, String>,
}

/// The declarations of [`load`].
///
/// # Errors
/// As for [`load`].
pub fn load_dir(directory: &Path, schema: &Schema) -> Result<MutationSet, FileError> {
    load(directory, schema).map(|loaded| loaded.set)
}

/// Reads every `*.toml` of `directory`, in the order of their names.
///
/// # Errors
/// What is wrong with any file; a directory that cannot be read or holds no such file; something declared twice, with both places.
pub fn load(directory: &Path, schema: &Schema) -> Result<Loaded, FileError> {
    load_paths(&[directory.to_owned()], schema)
}

/// Reads these files, and for a directory among them every `*.toml` in it.
///
/// # Errors
/// As for [`load`].
pub fn load_paths(paths: &[PathBuf], schema: &Schema) -> Result<Loaded, FileError> {
    let mut all = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => all.extend(files(path)?),
            false => all.push(path.clone()),
        }
    }
    let mut set = Merged::default();
    for path in all {
        let name = path.display().to_string();
        match open(&path, &name).and_then(|text| read(&name, &text, schema)) {
            Ok(file) => set.add(&name, file),
            Err(error) => set.problems.extend(error.problems),
        }
        if set.problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    set.finish()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let shown = directory.display().to_string();
    let entries = fs::read_dir(directory)
        .map_err(|error| FileError::whole(&shown, format!("cannot be read: {error}")))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|error| FileError::whole(&shown, format!("cannot be read: {error}")))?;
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(FileError::whole(
                &shown,
                format!("holds more than {MAX_FILES} mutation files"),
            ));
        }
    }
    if files.is_empty() {
        return Err(FileError::whole(&shown, "holds no mutation file (*.toml)"));
    }
    files.sort();
    Ok(files)
}

/// Reads a regular file of limited size; anything else in its place could block or never end.
fn open(path: &Path, name: &str) -> Result<String, FileError> {
    let unreadable =
        |error: std::io::Error| FileError::whole(name, format!("cannot be read: {error}"));
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(FileError::whole(name, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(FileError::whole(
            name,
            format!("is larger than {MAX_FILE_BYTES} bytes"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        let problems = vec![Problem::at(name, line, "is not UTF-8 text")];
        FileError { problems }
    })
}

/// What the files declare together, and where.
#[derive(Default)]
struct Merged {
    set: MutationSet,
    programs: Vec<Program>,
    mutations: BTreeMap<MutationId, String>,
    dependencies: BTreeMap<StateUrl, String>,
    problems: Vec<Problem>,
}

impl Merged {
    fn add(&mut self, name: &str, file: MutationFile) {
        for (line, mutation) in file.mutations {
            match self.mutations.get(&mutation.id) {
                Some(first) => {
                    let text = format!("mutation {} is declared already, at {first}", mutation.id);
                    self.problems.push(Problem::at(name, line, text));
                }
                None => {
                    self.mutations
                        .insert(mutation.id.clone(), format!("{name}:{line}"));
                    self.set.mutations.push(mutation);
                }
            }
        }
        for (line, dependency) in file.dependencies {
            match self.dependencies.get(&dependency.url) {
                Some(first) => {
                    let text = format!(
                        "what {} depends on is declared already, at {first}",
                        dependency.url
                    );
                    self.problems.push(Problem::at(name, line, text));
                }
                None => {
                    self.dependencies
                        .insert(dependency.url.clone(), format!("{name}:{line}"));
                    self.set.dependencies.push(dependency);
                }
            }
        }
        self.set.discoverables.extend(file.discoverables);
        if !file.program.runs.is_empty() || !file.program.polls.is_empty() {
            self.programs.push(file.program);
        }
    }

    fn finish(mut self) -> Result<Loaded, FileError> {
        if !self.problems.is_empty() {
            self.problems.truncate(MAX_PROBLEMS);
            return Err(FileError {
                problems: self.problems,
            });
        }
        self.set.mutations.sort_by(|a, b| a.id.cmp(&b.id));
        self.set.dependencies.sort();
        self.set.discoverables.sort();
        self.set.discoverables.dedup();
        Ok(Loaded {
            set: self.set,
            programs: self.programs,
            places: self.mutations,
        })
    }
}
