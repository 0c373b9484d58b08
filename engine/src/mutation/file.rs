//! Mutations out of data files: TOML, one module a file (DESIGN 3).
//!
//! ```toml
//! module = "vbox"
//! discoverables = ["/vbox/uptime"]            # urls that may be reported though nothing mutates them
//!
//! [[mutation]]
//! name = "OFFtoON"
//! context = "CHILD"                           # SELF (default), CHILD or ALL
//! mutates = { "/PhysState" = { from = "POWER_OFF", to = "POWER_ON" } }   # from: a value or a list; left out: from unknown
//! requires = { "/Platform" = "vbox" }         # a value, a list of which any will do, or bounds: { at_least = 3, at_most = 9 }
//! excludes = { "/Busy" = "BUSY" }
//! timeout = "10s"                             # left out: none
//! fail_to = { "/PhysState" = "PHYS_HANG" }
//! cost = 1                                    # default
//! disruptive = false                          # default
//!
//! [[depends]]                                 # in place of what the mutations imply
//! url = "/pxe/state"
//! conditions = { "/PhysState" = "POWER_ON" }
//! ```
//!
//! A zero stands for unknown: `""`, `0`, `false`, and the zero name of an enum that the [`Schema`] knows. Unknown keys and near misses of enum names are
//! errors with the nearest spelling. What else a file may say, of commands and polls, is in `engine/docs/mutation-file.md`: [`program`] is what comes out,
//! [`template`] fills in its arguments and [`output`] reads what programs say. [`read`] is pure; [`load_paths`] and what calls it are all in this crate that touches a file system.

mod directory;
pub mod lint;
pub mod output;
pub mod program;
mod reader;
pub mod template;

use std::fmt;

pub use directory::{FileRead, Loaded, MAX_FILES, Together, load, load_dir, load_paths, read_each};
pub use program::Program;

use super::{Dependency, Mutation, MutationSet};
use crate::extension::{Kind, Schema, SchemaError, nearest};
use crate::state::{StateUrl, Value};

/// Largest file; the largest sensible set is a tenth of it.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Problems reported for one directory; after that many the rest would scroll by.
pub const MAX_PROBLEMS: usize = 20;

/// What one file declares.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MutationFile {
    /// In the order of the file, each with its line.
    pub mutations: Vec<(usize, Mutation)>,
    /// In the order of the file, each with its line.
    pub dependencies: Vec<(usize, Dependency)>,
    /// In the order of the file.
    pub discoverables: Vec<StateUrl>,
    /// What the head runs for it.
    pub program: Program,
}

impl MutationFile {
    /// What it declares, as if there were no other file.
    pub fn into_set(self) -> MutationSet {
        MutationSet {
            mutations: self.mutations.into_iter().map(|(_, one)| one).collect(),
            dependencies: self.dependencies.into_iter().map(|(_, one)| one).collect(),
            discoverables: self.discoverables,
            ..MutationSet::default()
        }
    }
}

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named to the reader.
    pub file: String,
    /// Its line, from 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub text: String,
}

/// All that is wrong, at most [`MAX_PROBLEMS`], one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// Ordered by file and line; never empty.
    pub problems: Vec<Problem>,
}

/// Reads the text of one file; `file` names it in problems.
///
/// # Errors
/// All problems found in the text.
pub fn read(file: &str, text: &str, schema: &Schema) -> Result<MutationFile, FileError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(FileError::whole(
            file,
            format!("it is larger than {MAX_FILE_BYTES} bytes"),
        ));
    }
    reader::read(file, text, schema)
}

/// Brings a value that somebody wrote to the form in which it is stored: `None` for a zero.
///
/// Urls that the schema does not know take any value. Enum names that the schema does not know are taken too, as a module may know more
/// than this head does, unless they look like a slip of the pen.
///
/// # Errors
/// What is wrong, in words.
pub fn value(schema: &Schema, url: &StateUrl, value: Value) -> Result<Option<Value>, String> {
    let Some(field) = schema.field(url).filter(|field| !field.repeated) else {
        return Ok((!value.is_zero()).then_some(value));
    };
    let words = |error: SchemaError| error.to_string();
    match (&field.kind, &value) {
        (Kind::Enum(names), Value::Text(text))
            if !names.iter().any(|name| **name == **text) && !text.is_empty() =>
        {
            match nearest(text, names.iter().map(String::as_str)) {
                Some(near) => Err(format!("{url} cannot be {text:?}; did you mean {near:?}?")),
                None => Ok(Some(value)),
            }
        }
        (Kind::Enum(_), Value::Text(text)) if text.is_empty() => Ok(None),
        (Kind::Text | Kind::Enum(_), _) => schema.check(url, value).map_err(words),
        (_, Value::Text(text)) if text.is_empty() => Ok(None),
        (_, Value::Text(text)) => schema.parse(url, text).map_err(words),
        _ => schema.check(url, value).map_err(words),
    }
}

impl Problem {
    fn at(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: Some(line),
            text: text.into(),
        }
    }
}

impl FileError {
    /// One problem of a file as a whole.
    pub fn whole(file: &str, text: impl Into<String>) -> Self {
        Self {
            problems: vec![Problem {
                file: file.to_owned(),
                line: None,
                text: text.into(),
            }],
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.text),
            None => write!(f, "{}: {}", self.file, self.text),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
