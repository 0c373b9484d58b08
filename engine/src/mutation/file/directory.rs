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
            true => {
                let files = files(path)?;
                if files.is_empty() {
                    let shown = path.display().to_string();
                    return Err(FileError::whole(&shown, "holds no mutation file (*.toml)"));
                }
                all.extend(files);
            }
            false => all.push(path.clone()),
        }
    }
    let mut together = Together::default();
    let mut problems = Vec::new();
    for FileRead { name, said } in all.iter().map(|path| FileRead::new(path, schema)) {
        let added = said.and_then(|file| together.add(&name, &file));
        problems.extend(added.err().into_iter().flat_map(|error| error.problems));
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    if !problems.is_empty() {
        problems.truncate(MAX_PROBLEMS);
        return Err(FileError { problems });
    }
    Ok(together.finish())
}

/// One file, and what it says or what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRead {
    /// The file, as it is named in problems.
    pub name: String,
    /// What it declares.
    pub said: Result<MutationFile, FileError>,
}

impl FileRead {
    fn new(path: &Path, schema: &Schema) -> Self {
        let name = path.display().to_string();
        let said = open(path, &name).and_then(|text| read(&name, &text, schema));
        Self { name, said }
    }
}

/// Reads every `*.toml` of `directory` by itself, in the order of their names, for those who can do without a bad one. A directory that is not there
/// holds none.
///
/// # Errors
/// The directory cannot be read or holds too many.
pub fn read_each(directory: &Path, schema: &Schema) -> Result<Vec<FileRead>, FileError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let files = files(directory)?;
    Ok(files
        .iter()
        .map(|path| FileRead::new(path, schema))
        .collect())
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

/// Files put together one by one: what they declare, and where.
#[derive(Clone, Debug, Default)]
pub struct Together {
    loaded: Loaded,
    dependencies: BTreeMap<StateUrl, String>,
}

impl Together {
    /// Adds a file.
    ///
    /// # Errors
    /// It declares what is declared already, by itself or by a file before it, with both places. Nothing is added then.
    pub fn add(&mut self, name: &str, file: &MutationFile) -> Result<(), FileError> {
        let mut problems = Vec::new();
        let (mut mutations, mut dependencies) = (BTreeMap::new(), BTreeMap::new());
        for (line, mutation) in &file.mutations {
            let known = self.loaded.places.get(&mutation.id);
            match known.or_else(|| mutations.get(&mutation.id)) {
                Some(first) => {
                    let text = format!(
                        "mutation {} is declared already, at {first}: give one of them another name, or take it out",
                        mutation.id
                    );
                    problems.push(Problem::at(name, *line, text));
                }
                None => {
                    mutations.insert(mutation.id.clone(), format!("{name}:{line}"));
                }
            }
        }
        for (line, dependency) in &file.dependencies {
            let known = self.dependencies.get(&dependency.url);
            match known.or_else(|| dependencies.get(&dependency.url)) {
                Some(first) => {
                    let text = format!(
                        "what {} depends on is declared already, at {first}: take one of them out",
                        dependency.url
                    );
                    problems.push(Problem::at(name, *line, text));
                }
                None => {
                    dependencies.insert(dependency.url.clone(), format!("{name}:{line}"));
                }
            }
        }
        if !problems.is_empty() {
            problems.truncate(MAX_PROBLEMS);
            return Err(FileError { problems });
        }
        self.loaded.places.append(&mut mutations);
        self.dependencies.append(&mut dependencies);
        let set = &mut self.loaded.set;
        set.mutations
            .extend(file.mutations.iter().map(|(_, one)| one.clone()));
        set.dependencies
            .extend(file.dependencies.iter().map(|(_, one)| one.clone()));
        set.discoverables.extend_from_slice(&file.discoverables);
        if !file.program.runs.is_empty() || !file.program.polls.is_empty() {
            self.loaded.programs.push(file.program.clone());
        }
        Ok(())
    }

    /// What they say together.
    pub fn finish(self) -> Loaded {
        let mut loaded = self.loaded;
        loaded.set.mutations.sort_by(|a, b| a.id.cmp(&b.id));
        loaded.set.dependencies.sort();
        loaded.set.discoverables.sort();
        loaded.set.discoverables.dedup();
        loaded
    }
}
