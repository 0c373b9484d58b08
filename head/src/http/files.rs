//! Files on disk as HTTP bodies: opened by names we made ourselves, read in large pieces, never as a whole.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use nix::fcntl::OFlag;

/// Bytes read from disk with one call and held in memory for each download; 500 downloads at once then hold 128 MiB at most.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// Whether a link in place of the file is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Yes: a file that the operator named in the configuration.
    Follow,
    /// No: a file of a store that only we write.
    Refuse,
}

/// An open file and what HTTP says about it.
#[derive(Debug)]
pub(crate) struct ServedFile {
    file: Arc<File>,
    /// Its size when it was opened.
    pub(crate) size: u64,
    /// Its tag: another size or time of change makes another one.
    pub(crate) etag: String,
}

/// Opens a regular file for reading; anything else, such as a device or a folder, is refused.
pub(crate) async fn open(path: Arc<Path>, links: Links) -> io::Result<ServedFile> {
    tokio::task::spawn_blocking(move || open_now(&path, links))
        .await
        .map_err(io::Error::other)?
}

fn open_now(path: &Path, links: Links) -> io::Result<ServedFile> {
    // Without O_NONBLOCK, opening a named pipe would wait for its writer.
    let mut flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    if links == Links::Refuse {
        flags |= OFlag::O_NOFOLLOW;
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    let etag = format!("\"{:x}-{seconds:x}-{nanoseconds:x}\"", metadata.size());
    Ok(ServedFile {
        file: Arc::new(file),
        size: metadata.size(),
        etag,
    })
}

impl ServedFile {
    /// The bytes from `start`, `length` of them; an error if the file turns out shorter.
    pub(crate) fn stream(
        &self,
        start: u64,
        length: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let file = Arc::clone(&self.file);
        futures::stream::try_unfold((start, length), move |(at, left)| {
            let file = Arc::clone(&file);
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let piece = read_piece(file, at, left).await?;
                let read = piece.len() as u64;
                Ok(Some((piece, (at + read, left - read))))
            }
        })
    }
}

async fn read_piece(file: Arc<File>, at: u64, left: u64) -> io::Result<Bytes> {
    let wanted = usize::try_from(left)
        .unwrap_or(PIECE_BYTES)
        .min(PIECE_BYTES);
    let read = move || {
        let mut piece = BytesMut::zeroed(wanted);
        let read = file.read_at(&mut piece, at)?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter",
            ));
        }
        piece.truncate(read);
        Ok(piece.freeze())
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    async fn read(file: &ServedFile, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let pieces: Vec<Bytes> = file.stream(start, length).try_collect().await?;
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        Ok(pieces.concat())
    }

    fn path(path: &Path) -> Arc<Path> {
        path.into()
    }

    #[tokio::test]
    async fn any_part_of_a_file_is_read() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let name = dir.path().join("file");
        let content: Vec<u8> = (0..PIECE_BYTES * 2 + 17).map(|i| (i % 251) as u8).collect();
        std::fs::write(&name, &content).expect("write");
        let file = open(path(&name), Links::Refuse).await.expect("a file");
        assert_eq!(file.size, content.len() as u64);
        assert_eq!(read(&file, 0, file.size).await.expect("all"), content);
        assert_eq!(read(&file, 10, 0).await.expect("nothing"), b"");
        let middle = PIECE_BYTES - 3..PIECE_BYTES + 3;
        let part = read(&file, middle.start as u64, middle.len() as u64)
            .await
            .expect("a part");
        assert_eq!(part, content[middle]);
        assert!(
            read(&file, file.size - 1, 2).await.is_err(),
            "beyond the end"
        );
    }

    #[tokio::test]
    async fn only_regular_files_are_opened_and_links_only_where_allowed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (name, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&name, b"x").expect("write");
        std::os::unix::fs::symlink(&name, &link).expect("link");
        assert!(open(path(&link), Links::Follow).await.is_ok());
        assert!(open(path(&link), Links::Refuse).await.is_err());
        assert!(open(path(dir.path()), Links::Follow).await.is_err());
        assert!(
            open(path(Path::new("/dev/zero")), Links::Follow)
                .await
                .is_err()
        );
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        assert!(open(path(&pipe), Links::Follow).await.is_err());
        let missing = open(path(&dir.path().join("missing")), Links::Follow).await;
        assert_eq!(
            missing.expect_err("missing").kind(),
            io::ErrorKind::NotFound
        );
    }

    #[tokio::test]
    async fn a_changed_file_has_another_tag() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let name = dir.path().join("file");
        std::fs::write(&name, b"one").expect("write");
        let first = open(path(&name), Links::Follow).await.expect("a file").etag;
        assert_eq!(
            open(path(&name), Links::Follow).await.expect("a file").etag,
            first
        );
        std::fs::write(&name, b"more").expect("write");
        assert_ne!(
            open(path(&name), Links::Follow).await.expect("a file").etag,
            first
        );
    }
}
