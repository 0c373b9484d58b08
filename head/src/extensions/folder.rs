//! The folder of `.proto` files: what is in it, and changes to it that survive a power cut.
//!
//! Beside each file, in `.last-good`, lies its last form that this head took. A file that somebody broke while nodes have values of it then costs
//! nothing: the head goes on with the form it knows. `.once-secret` has a line for each field that is or was secret.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::compile::{FileError, MAX_FILE_BYTES};

/// Most files in the folder; an extension each.
const MAX_FILES: usize = 256;

const LAST_GOOD: &str = ".last-good";

const ONCE_SECRET: &str = ".once-secret";

/// A folder of `.proto` files.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// A file's name, and its text or why it has none.
pub(super) type Entry = (String, Result<String, FileError>);

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    /// The files, by name. A folder that is not there has none.
    pub(super) fn files(&self) -> Vec<Entry> {
        read_all(&self.0)
    }

    /// Their last good forms, by name.
    pub(super) fn last_good(&self) -> Vec<Entry> {
        read_all(&self.0.join(LAST_GOOD))
    }

    /// Puts a file in place, whole and durable.
    pub(super) fn write(&self, file: &str, text: &str) -> io::Result<()> {
        write(&self.0, file, text)
    }

    /// Notes a file's form as good.
    pub(super) fn note_good(&self, file: &str, text: &str) -> io::Result<()> {
        write(&self.0.join(LAST_GOOD), file, text)
    }

    /// Takes a file away, durably.
    pub(super) fn remove(&self, file: &str) -> io::Result<()> {
        remove(&self.0, file)
    }

    /// Forgets a file's last good form.
    pub(super) fn forget_good(&self, file: &str) -> io::Result<()> {
        remove(&self.0.join(LAST_GOOD), file)
    }

    /// Patterns of the fields that are or were secret.
    pub(super) fn once_secret(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.0.join(ONCE_SECRET)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Notes the patterns of the fields that are or were secret.
    pub(super) fn note_secret(&self, patterns: &BTreeSet<String>) -> io::Result<()> {
        let lines: String = patterns.iter().map(|one| format!("{one}\n")).collect();
        write(&self.0, ONCE_SECRET, &lines)
    }
}

fn read_all(folder: &Path) -> Vec<Entry> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.ends_with(".proto") && !name.starts_with('.'))
        .collect();
    names.sort();
    let beyond = names.split_off(names.len().min(MAX_FILES));
    let mut files: Vec<Entry> = names
        .into_iter()
        .map(|name| {
            let text = read(&folder.join(&name))
                .map_err(|error| FileError::whole(&name, format!("cannot be read: {error}")));
            (name, text)
        })
        .collect();
    files.extend(beyond.into_iter().map(|name| {
        let why = format!("is beyond the {MAX_FILES} files that are read");
        let error = FileError::whole(&name, why);
        (name, Err(error))
    }));
    files
}

fn read(path: &Path) -> io::Result<String> {
    // A pipe would be waited for, for ever.
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn write(folder: &Path, file: &str, text: &str) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let part = folder.join(format!(".{file}.part"));
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut out| {
            out.write_all(text.as_bytes())?;
            out.sync_all()
        })
        .and_then(|()| fs::rename(&part, folder.join(file)));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn remove(folder: &Path, file: &str) -> io::Result<()> {
    match fs::remove_file(folder.join(file)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ if folder.is_dir() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
