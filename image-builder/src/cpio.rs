//! The "newc" cpio archive that Linux unpacks as its initramfs: a writer whose output repeats, and a reader.
//!
//! Source: `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux. Members come out sorted by name, with
//! owner 0, time 0 and running inode numbers, so equal contents give equal bytes. Compression is the caller's.
//! Left out: hard links, checksummed ("070702") archives, and files of 4 GiB, which the format has no room for.
//!
//! ```text
//! "070701" | ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check, 8 hex digits each
//! name NUL, padded to 4 | data, padded to 4 | ... | member "TRAILER!!!"
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};

use thiserror::Error;

const MAGIC: &[u8; 6] = b"070701";
const HEADER_BYTES: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Names longer than Linux's PATH_MAX (NUL included) are skipped by the kernel, so they are errors here.
const NAME_MAX_BYTES: usize = 4095;
const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFLNK: u32 = 0o120_000;

/// What was wrong with an archive that is being put together.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum BuildError {
    #[error(
        "{0:?} can't be the name of an archive member (relative, no empty, `.` or `..` parts, at most {NAME_MAX_BYTES} bytes)"
    )]
    Name(String),
    #[error("{0} is in the archive twice")]
    Duplicate(String),
    #[error("{0} is 4 GiB or larger, which a cpio archive can't hold")]
    TooLarge(String),
    #[error("{0} is used as a directory but is something else")]
    NotADirectory(String),
}

/// The contents of a member to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Directory,
    File(Vec<u8>),
    CharDevice { major: u32, minor: u32 },
}

/// An archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    members: BTreeMap<String, (u32, Content)>,
}

impl Archive {
    /// Adds a member with permission bits `mode`, and the directories above it (0755) that are not there yet.
    pub(crate) fn add(
        &mut self,
        name: &str,
        mode: u32,
        content: Content,
    ) -> Result<(), BuildError> {
        let bad_part = |part: &str| part.is_empty() || part == "." || part == "..";
        if name.len() > NAME_MAX_BYTES
            || name == TRAILER
            || name.contains('\0')
            || name.split('/').any(bad_part)
        {
            return Err(BuildError::Name(name.to_owned()));
        }
        if matches!(&content, Content::File(data) if u32::try_from(data.len()).is_err()) {
            return Err(BuildError::TooLarge(name.to_owned()));
        }
        for (end, _) in name.match_indices('/') {
            let parent = &name[..end];
            match self.members.get(parent) {
                None => drop(
                    self.members
                        .insert(parent.to_owned(), (0o755, Content::Directory)),
                ),
                Some((_, Content::Directory)) => {}
                Some(_) => return Err(BuildError::NotADirectory(parent.to_owned())),
            }
        }
        match (self.members.get_mut(name), &content) {
            (None, _) => drop(self.members.insert(name.to_owned(), (mode, content))),
            (Some((present, Content::Directory)), Content::Directory) => *present = mode,
            (Some(_), _) => return Err(BuildError::Duplicate(name.to_owned())),
        }
        Ok(())
    }

    /// Writes the archive with its trailer.
    pub(crate) fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        for (ino, (name, (mode, content))) in (1u32..).zip(&self.members) {
            let (kind, nlink, data, (major, minor)): (_, _, &[u8], _) = match content {
                Content::Directory => (S_IFDIR, 2, &[], (0, 0)),
                Content::File(data) => (S_IFREG, 1, data, (0, 0)),
                Content::CharDevice { major, minor } => (S_IFCHR, 1, &[], (*major, *minor)),
            };
            write_member(
                &mut out,
                name,
                [ino, kind | mode, nlink, major, minor],
                data,
            )?;
        }
        write_member(&mut out, TRAILER, [0, 0, 1, 0, 0], &[])
    }
}

fn write_member(
    out: &mut impl Write,
    name: &str,
    [ino, mode, nlink, major, minor]: [u32; 5],
    data: &[u8],
) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let size = u32::try_from(data.len()).map_err(too_long)?;
    let name_size = u32::try_from(name.len() + 1).map_err(too_long)?;
    out.write_all(MAGIC)?;
    for field in [
        ino, mode, 0, 0, nlink, 0, size, 0, 0, major, minor, name_size, 0,
    ] {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    out.write_all(padding(HEADER_BYTES + name.len() + 1))?;
    out.write_all(data)?;
    out.write_all(padding(data.len()))
}

/// The zero bytes that round `length` up to a multiple of four.
fn padding(length: usize) -> &'static [u8] {
    &[0; 3][..length.next_multiple_of(4) - length]
}

/// What was wrong with an archive that is being read; offsets count from its start, uncompressed.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ReadError {
    #[error("no cpio header (\"070701\") at byte {0}")]
    Magic(usize),
    #[error("the cpio header at byte {0} has a field that is not hexadecimal")]
    Field(usize),
    #[error("the cpio archive is cut short in the member at byte {0}")]
    Truncated(usize),
    #[error(
        "the cpio header at byte {0} has a name that is empty, too long, without NUL or not UTF-8"
    )]
    Name(usize),
    #[error("the cpio archive has no trailer: it is cut short after {0} bytes")]
    NoTrailer(usize),
}

/// A member as read from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    /// Kind and permission bits, as `st_mode` has them.
    pub(crate) mode: u32,
    /// Device number, for device nodes.
    pub(crate) rdev: (u32, u32),
    pub(crate) data: &'a [u8],
}

impl Member<'_> {
    /// Kind and permissions as `ls -l` writes them.
    pub(crate) fn mode_text(&self) -> String {
        let kind = match self.mode & S_IFMT {
            S_IFDIR => 'd',
            S_IFREG => '-',
            S_IFCHR => 'c',
            S_IFLNK => 'l',
            _ => '?',
        };
        let mut text = String::from(kind);
        for shift in [6, 3, 0] {
            for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
                text.push(if self.mode >> shift & bit != 0 {
                    letter
                } else {
                    '-'
                });
            }
        }
        if self.mode & 0o1000 != 0 {
            text.pop();
            text.push('t');
        }
        text
    }

    pub(crate) fn is_device(&self) -> bool {
        self.mode & S_IFMT == S_IFCHR
    }
}

/// Reads the archive at the start of `bytes`; returns its members and how many bytes it takes, trailer included.
pub(crate) fn read(bytes: &[u8]) -> Result<(Vec<Member<'_>>, usize), ReadError> {
    let mut members = Vec::new();
    let mut at = 0;
    loop {
        let (member, end) = read_member(bytes, at)?;
        if member.name == TRAILER {
            return Ok((members, end));
        }
        members.push(member);
        at = end;
        if at >= bytes.len() {
            return Err(ReadError::NoTrailer(bytes.len()));
        }
    }
}

fn read_member(bytes: &[u8], start: usize) -> Result<(Member<'_>, usize), ReadError> {
    let header = bytes
        .get(start..)
        .and_then(<[u8]>::first_chunk::<HEADER_BYTES>)
        .ok_or(ReadError::Truncated(start))?;
    let Some(fields) = header.strip_prefix(MAGIC) else {
        return Err(ReadError::Magic(start));
    };
    let mut values = [0; 13];
    for (value, digits) in values.iter_mut().zip(fields.as_chunks::<8>().0) {
        *value = hex_u32(digits).ok_or(ReadError::Field(start))?;
    }
    let [_, mode, _, _, _, _, size, _, _, major, minor, name_size, _] = values;
    let name_size = name_size as usize;
    if name_size == 0 || name_size > NAME_MAX_BYTES + 1 {
        return Err(ReadError::Name(start));
    }
    let name_start = start + HEADER_BYTES;
    let name = bytes
        .get(name_start..name_start + name_size)
        .ok_or(ReadError::Truncated(start))?;
    let name = name
        .strip_suffix(&[0])
        .and_then(|name| str::from_utf8(name).ok())
        .ok_or(ReadError::Name(start))?;
    let data_start = start + (HEADER_BYTES + name_size).next_multiple_of(4);
    let data_end = data_start.saturating_add(size as usize);
    let data = bytes
        .get(data_start..data_end)
        .ok_or(ReadError::Truncated(start))?;
    let end = data_end + padding(data.len()).len();
    if end > bytes.len() {
        return Err(ReadError::Truncated(start));
    }
    Ok((
        Member {
            name,
            mode,
            rdev: (major, minor),
            data,
        },
        end,
    ))
}

fn hex_u32(digits: &[u8; 8]) -> Option<u32> {
    // `from_str_radix` alone would take a sign.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests;
