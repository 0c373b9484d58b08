//! The kernel, as far as the agent needs more of it than `std` and safe `nix` calls give.
//!
//! [`Sys`] is what mounts and images need, so that their order and their errors can be tested without root (`fake`). All of
//! the crate's `unsafe` lives in [`linux`].

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod linux;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use linux::Linux;

/// One mount(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// What; a word for pseudo file systems.
    pub(crate) source: PathBuf,
    /// Where; made if missing.
    pub(crate) target: PathBuf,
    /// File system type; empty for a bind or a move.
    pub(crate) kind: &'static str,
    /// Flags.
    pub(crate) flags: Flags,
    /// Options for the file system.
    pub(crate) data: String,
}

/// Flags of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    /// No device nodes, no set-uid, no execution: `nodev,nosuid,noexec`.
    pub(crate) inert: bool,
    /// No set-uid programs.
    pub(crate) nosuid: bool,
    /// No device nodes.
    pub(crate) nodev: bool,
    /// Read-only.
    pub(crate) read_only: bool,
    /// Show an existing directory at a second place.
    pub(crate) bind: bool,
}

/// What mounts and images ask of the kernel.
pub(crate) trait Sys {
    /// Mounts, making the target directory if needed. A target that has such a mount already is fine.
    fn mount(&self, mount: &Mount) -> io::Result<()>;
    /// Makes mounts of this process invisible to every other namespace.
    fn make_private(&self) -> io::Result<()>;
    /// Makes a directory and its parents.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a symbolic link; one that is there stays.
    fn symlink(&self, target: &str, link: &Path) -> io::Result<()>;
    /// Puts a read-only file behind a free loop device, which goes when its last user does.
    fn attach_loop(&self, file: &Path) -> io::Result<PathBuf>;
    /// Makes `root` the root directory, as switch_root does.
    fn enter_root(&self, root: &Path) -> io::Result<()>;
    /// Names the machine.
    fn set_hostname(&self, name: &str) -> io::Result<()>;
}
