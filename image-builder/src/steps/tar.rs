//! Reads tar archives, plain or compressed, for `kraken-image image`; `sqfstar` makes the image out of them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

use super::tool;

/// Where POSIX and GNU tar have the mark of their format, in the first header.
const MARK_AT: usize = 257;
const MARK: &[u8] = b"ustar";
/// squashfs keeps times in 32 bits.
const TIME_MAX: u64 = u32::MAX as u64;

/// A tar archive being read, by way of another program if it is xz.
pub(crate) struct Archive {
    pub(crate) reader: Box<dyn Read>,
    unpacker: Option<Child>,
}

impl Archive {
    /// Reads what is left (the padding after the end mark) and checks that the unpacker was content.
    pub(crate) fn finish(mut self) -> Result<()> {
        std::io::copy(&mut self.reader, &mut std::io::sink()).context("the archive is damaged")?;
        let status = self
            .unpacker
            .as_mut()
            .map(Child::wait)
            .transpose()
            .context("can't wait for xz")?;
        match status {
            Some(status) if !status.success() => bail!("the archive is damaged (xz: {status})"),
            _ => Ok(()),
        }
    }
}

/// Opens an archive, whatever it is compressed with.
pub(crate) fn open(path: &Path) -> Result<Archive> {
    let context = || format!("can't read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let mut start = Vec::new();
    let head = File::open(path).with_context(context)?;
    head.take((MARK_AT + MARK.len()) as u64)
        .read_to_end(&mut start)
        .with_context(context)?;
    let plain = |reader| {
        Ok(Archive {
            reader,
            unpacker: None,
        })
    };
    match start.as_slice() {
        [0x1f, 0x8b, ..] => plain(Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(
            file,
        )))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            plain(Box::new(zstd::Decoder::new(file).with_context(context)?))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let mut xz = tool::command("xz", "xz-utils")?;
            let mut child = xz
                .arg("-dc")
                .stdin(file)
                .stdout(Stdio::piped())
                .spawn()
                .context("can't start xz")?;
            let reader = child.stdout.take().context("can't read from xz")?;
            Ok(Archive {
                reader: Box::new(reader),
                unpacker: Some(child),
            })
        }
        start if start.get(MARK_AT..) == Some(MARK) => plain(Box::new(file)),
        _ => bail!(
            "{} is neither a folder nor a tar archive (plain, gzip, zstd or xz)",
            path.display()
        ),
    }
}

/// What `sqfstar` does not take from an archive by itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Time of the newest member.
    pub(crate) newest: u64,
    pub(crate) root_mode: u32,
    pub(crate) root_uid: u64,
    pub(crate) root_gid: u64,
}

/// Reads an archive to its end.
pub(crate) fn look_through(reader: impl Read) -> Result<Facts> {
    let damaged = "the archive is damaged";
    let mut facts = Facts {
        newest: 0,
        root_mode: 0o755,
        root_uid: 0,
        root_gid: 0,
    };
    let mut members = 0;
    for entry in tar::Archive::new(reader).entries().context(damaged)? {
        let entry = entry.context(damaged)?;
        let header = entry.header();
        members += 1;
        facts.newest = facts
            .newest
            .max(header.mtime().context(damaged)?.min(TIME_MAX));
        if matches!(entry.path_bytes().as_ref(), b"." | b"./" | b"/") {
            facts.root_mode = header.mode().context(damaged)? & 0o7777;
            facts.root_uid = header.uid().context(damaged)?;
            facts.root_gid = header.gid().context(damaged)?;
        }
    }
    if members == 0 {
        bail!("the archive is empty");
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(members: &[(&str, u32, u64)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, mode, mtime) in members {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(*mode);
            header.set_mtime(*mtime);
            header.set_uid(7);
            header.set_gid(8);
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, &b""[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn newest_time_and_the_roots_entry_are_found() {
        let facts =
            look_through(&archive(&[("./", 0o750, 5), ("./a", 0o644, 9), ("./b", 0o644, 3)])[..])
                .unwrap();
        assert_eq!(
            facts,
            Facts {
                newest: 9,
                root_mode: 0o750,
                root_uid: 7,
                root_gid: 8
            }
        );
        let facts = look_through(&archive(&[("a", 0o4755, u64::MAX >> 30)])[..]).unwrap();
        assert_eq!(
            facts,
            Facts {
                newest: TIME_MAX,
                root_mode: 0o755,
                root_uid: 0,
                root_gid: 0
            }
        );
    }

    #[test]
    fn damage_is_an_error() {
        let whole = archive(&[("a", 0o644, 1)]);
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        assert_eq!(
            look_through(&damaged[..]).unwrap_err().to_string(),
            "the archive is damaged"
        );
        assert_eq!(
            look_through(&whole[512..]).unwrap_err().to_string(),
            "the archive is empty"
        );
    }
}
