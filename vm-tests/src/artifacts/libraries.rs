//! Programs of this machine in an image's root: themselves, and every shared library that they name, at the same places.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Copies one of our own programs to `bin` of `root`, without its symbols, which are nine tenths of a debug build, and what it needs.
pub fn install(program: &Path, root: &Path) -> Result<()> {
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;
    let to = bin.join(program.file_name().context("a program's name")?);
    let strip = Command::new("strip")
        .arg("-o")
        .args([&to, program])
        .output();
    let output = strip.context("cannot run strip (package binutils)")?;
    ensure!(
        output.status.success(),
        "strip: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    copy(&[program.to_owned()], root)
}

/// Copies the shared libraries that `files` need into `root`.
pub(super) fn copy(files: &[PathBuf], root: &Path) -> Result<()> {
    for library in shared_libraries(files)? {
        let to = inside(root, &library);
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::copy(&library, &to)?;
    }
    Ok(())
}

/// The place of a path of this machine in `root`.
pub(super) fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Paths of all shared libraries that these files need.
fn shared_libraries(files: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let said = Command::new("ldd")
        .args(files)
        .output()
        .context("cannot run ldd")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let path = |line: &str| {
        let path = line.split("=>").last()?.split_whitespace().next()?;
        path.starts_with('/')
            .then(|| PathBuf::from(path))
            .filter(|path| path.is_file())
    };
    let found: BTreeSet<PathBuf> = said
        .lines()
        .filter(|line| line.starts_with(['\t', ' ']))
        .filter_map(path)
        .collect();
    ensure!(!found.is_empty(), "ldd names no libraries");
    Ok(found)
}
