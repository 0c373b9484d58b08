//! Files appear whole or not at all: written beside their place, synced, then renamed.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::{NamedTempFile, TempDir};

/// The folder that `path` is in; made if it is not there.
pub(crate) fn parent_folder(path: &Path) -> Result<PathBuf> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => bail!("{} can't be written: it is a root folder", path.display()),
    };
    fs::create_dir_all(parent)
        .with_context(|| format!("can't make the folder {}", parent.display()))?;
    Ok(parent.to_owned())
}

/// Reads a file, naming it if that fails.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

/// Reads a text file, naming it if that fails.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

/// Puts `bytes` at `path` with permissions `mode`, in place of what is there.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let file = prepared(path, bytes, mode)?;
    file.persist(path)
        .with_context(|| format!("can't write {}", path.display()))?;
    Ok(())
}

/// As [`write()`], but an error if `path` is there.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let file = prepared(path, bytes, mode)?;
    file.persist_noclobber(path)
        .with_context(|| format!("can't create {}", path.display()))?;
    Ok(())
}

fn prepared(path: &Path, bytes: &[u8], mode: u32) -> Result<NamedTempFile> {
    let context = || format!("can't write {}", path.display());
    let mut file = NamedTempFile::new_in(parent_folder(path)?).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    finish(file.as_file(), mode).with_context(context)?;
    Ok(file)
}

fn finish(file: &fs::File, mode: u32) -> std::io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Puts a file that a tool has written (on the same file system) at `path`.
pub(crate) fn place(made: &Path, path: &Path, mode: u32) -> Result<()> {
    let context = || format!("can't write {}", path.display());
    finish(&fs::File::open(made).with_context(context)?, mode).with_context(context)?;
    fs::rename(made, path).with_context(context)
}

/// Puts the finished folder `made` at `path`; what is there goes away only after that.
pub(crate) fn place_folder(made: TempDir, path: &Path) -> Result<()> {
    let context = || format!("can't put the finished folder at {}", path.display());
    fs::set_permissions(made.path(), Permissions::from_mode(0o755)).with_context(context)?;
    let replaced = if path.exists() {
        let aside = tempfile::Builder::new()
            .prefix(".old-")
            .tempdir_in(parent_folder(path)?)
            .with_context(context)?;
        fs::rename(path, aside.path().join("old")).with_context(context)?;
        Some(aside)
    } else {
        None
    };
    if let Err(error) = fs::rename(made.path(), path) {
        if let Some(aside) = &replaced {
            fs::rename(aside.path().join("old"), path).with_context(context)?;
        }
        return Err(error).with_context(context);
    }
    // The name it would be removed by is gone.
    let _ = made.keep();
    Ok(())
}

/// Copies the regular files and folders below `from`; links (such as `build` in a module folder) and the rest are left out.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("can't make the folder {}", to.display()))?;
    for entry in
        fs::read_dir(from).with_context(|| format!("can't read the folder {}", from.display()))?
    {
        let entry = entry.with_context(|| format!("can't read the folder {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry
            .file_type()
            .with_context(|| format!("can't look at {}", source.display()))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).with_context(|| {
                format!("can't copy {} to {}", source.display(), target.display())
            })?;
        }
    }
    Ok(())
}

/// A length as people read it.
pub(crate) fn size_text(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.2} MiB", bytes as f64 / 1_048_576.0),
    }
}
