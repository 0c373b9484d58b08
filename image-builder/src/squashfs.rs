//! Reads the superblock of a squashfs file: enough to tell that one was made, whole, and as asked.
//!
//! Source: `Documentation/filesystems/squashfs.rst` of Linux and `squashfs_super_block` in `fs/squashfs/squashfs_fs.h`.
//! Contents are read by `unsquashfs`; [`Listing`] understands what that prints.

use std::collections::BTreeMap;

use thiserror::Error;

const MAGIC: u32 = 0x7371_7368;
/// Length of the superblock, all little-endian.
pub(crate) const SUPERBLOCK_BYTES: usize = 96;
/// Symbolic links followed while looking a path up, as in Linux (MAXSYMLINKS).
const LINKS_MAX: usize = 40;

/// The superblock fields that people and checks look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) inodes: u32,
    pub(crate) made_at: u32,
    pub(crate) block_bytes: u32,
    pub(crate) compression: &'static str,
    /// Length of the file system; the file is padded to a multiple of 4 KiB.
    pub(crate) bytes_used: u64,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SquashfsError {
    #[error("not a squashfs file (no \"hsqs\" at its start)")]
    Magic,
    #[error("squashfs version {0}.{1}; Linux mounts 4.0")]
    Version(u16, u16),
    #[error("the squashfs file is cut short: {have} bytes of {used}")]
    Truncated { have: u64, used: u64 },
}

impl Superblock {
    /// Reads the superblock at the start of a file that is `file_bytes` long.
    pub(crate) fn read(start: &[u8], file_bytes: u64) -> Result<Self, SquashfsError> {
        let block = start
            .first_chunk::<SUPERBLOCK_BYTES>()
            .ok_or(SquashfsError::Magic)?;
        let u16_at = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        if u32_at(0) != MAGIC {
            return Err(SquashfsError::Magic);
        }
        let version = (u16_at(28), u16_at(30));
        if version != (4, 0) {
            return Err(SquashfsError::Version(version.0, version.1));
        }
        let used = u64::from(u32_at(40)) | u64::from(u32_at(44)) << 32;
        if used > file_bytes || (used as usize) < SUPERBLOCK_BYTES {
            return Err(SquashfsError::Truncated {
                have: file_bytes,
                used,
            });
        }
        let compression = match u16_at(20) {
            1 => "gzip",
            2 => "lzma",
            3 => "lzo",
            4 => "xz",
            5 => "lz4",
            6 => "zstd",
            _ => "unknown",
        };
        Ok(Self {
            inodes: u32_at(4),
            made_at: u32_at(8),
            block_bytes: u32_at(12),
            compression,
            bytes_used: used,
        })
    }
}

/// The files of an image, from `unsquashfs -lln`: path to kind letter and, for links, target.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    files: BTreeMap<String, (char, bool, Option<String>)>,
}

impl Listing {
    /// Parses lines such as `-rwxr-xr-x 0/0  6 2026-01-01 00:00 squashfs-root/bin/x`; what does not look so is skipped.
    pub(crate) fn parse(text: &str) -> Self {
        let files = text.lines().filter_map(|line| {
            let (head, path) = line.split_once(" squashfs-root")?;
            let (path, target) = match head
                .starts_with('l')
                .then(|| path.split_once(" -> "))
                .flatten()
            {
                Some((path, target)) => (path, Some(target.to_owned())),
                None => (path, None),
            };
            let mode = head.get(..10)?;
            Some((
                path.to_owned(),
                (mode.chars().next()?, mode.contains(['x', 's']), target),
            ))
        });
        Self {
            files: files.collect(),
        }
    }

    /// Whether `path` is an executable file, looked up inside the image as a chroot would.
    pub(crate) fn is_program(&self, path: &str) -> bool {
        let mut left = LINKS_MAX;
        let mut done = String::new();
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => done.truncate(done.rfind('/').unwrap_or(0)),
                _ => {
                    let here = format!("{done}/{part}");
                    match self.files.get(&here) {
                        None => return false,
                        Some(('l', _, Some(target))) => {
                            left -= 1;
                            if left == 0 {
                                return false;
                            }
                            if target.starts_with('/') {
                                done.clear();
                            }
                            todo.extend(target.split('/').rev().map(str::to_owned));
                        }
                        Some(_) => done = here,
                    }
                }
            }
        }
        matches!(self.files.get(&done), Some(('-', true, _)))
    }
}

#[cfg(test)]
mod tests;
