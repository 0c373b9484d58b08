//! The archive that carries a boot grant into a node's root file system; pure.
//!
//! A tiny initramfs of its own (cpio "newc", Linux's Documentation/driver-api/early-userspace/buffer-format.rst) that the
//! loader appends to the shared one, so the secret is neither in an image nor on the command line (reliability KJ1, step 2).

use std::fmt::Write as _;

use uuid::Uuid;

use crate::boot::GrantArchive;

/// First line of the grant file.
const MAGIC: &str = "kraken-grant-v1";

/// Where the agent looks for it, without the leading slash.
const MEMBER: &str = "etc/kraken/grant";

const DIRECTORY: u32 = 0o040_755;
const SECRET_FILE: u32 = 0o100_400;

/// What a node needs to prove that it may join.
pub(crate) struct GrantFile<'a> {
    /// The grant.
    pub(crate) grant: Uuid,
    /// The node it is for.
    pub(crate) node: Uuid,
    /// The boot it is for.
    pub(crate) boot: Uuid,
    /// The shared secret.
    pub(crate) secret: &'a [u8; 32],
}

impl GrantFile<'_> {
    /// The five lines of the file.
    fn text(&self) -> String {
        let GrantFile {
            grant,
            node,
            boot,
            secret,
        } = self;
        let mut text = format!("{MAGIC}\ngrant {grant}\nnode {node}\nboot {boot}\nsecret ");
        for byte in secret.iter() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        text
    }

    /// The archive: the parent folders, the file with mode 0400, the trailer.
    pub(crate) fn archive(&self) -> GrantArchive {
        let mut archive = Vec::with_capacity(1024);
        let mut inode = 1;
        for (i, _) in MEMBER.match_indices('/') {
            member(&mut archive, inode, &MEMBER[..i], DIRECTORY, b"");
            inode += 1;
        }
        member(
            &mut archive,
            inode,
            MEMBER,
            SECRET_FILE,
            self.text().as_bytes(),
        );
        member(&mut archive, 0, "TRAILER!!!", 0, b"");
        // Whole blocks, as cpio itself writes them; the kernel skips the zeros before a following archive.
        archive.resize(archive.len().next_multiple_of(512), 0);
        GrantArchive(archive)
    }
}

fn member(archive: &mut Vec<u8>, inode: u32, name: &str, mode: u32, data: &[u8]) {
    let links = if mode == DIRECTORY { 2 } else { 1 };
    let mut header = String::from("070701");
    // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    let fields = [
        inode,
        mode,
        0,
        0,
        links,
        0,
        data.len() as u32,
        0,
        0,
        0,
        0,
        name.len() as u32 + 1,
        0,
    ];
    for field in fields {
        // Writing to a String cannot fail.
        let _ = write!(header, "{field:08x}");
    }
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(secret: &[u8; 32]) -> GrantFile<'_> {
        GrantFile {
            grant: Uuid::from_u128(1),
            node: Uuid::from_u128(2),
            boot: Uuid::from_u128(3),
            secret,
        }
    }

    const TEXT: &str = "kraken-grant-v1\n\
        grant 00000000-0000-0000-0000-000000000001\n\
        node 00000000-0000-0000-0000-000000000002\n\
        boot 00000000-0000-0000-0000-000000000003\n\
        secret abababababababababababababababababababababababababababababababab\n";

    #[test]
    fn the_file_has_exactly_five_lines() {
        assert_eq!(file(&[0xab; 32]).text(), TEXT);
    }

    #[test]
    fn the_archive_is_newc_byte_by_byte_where_it_matters() {
        let GrantArchive(bytes) = file(&[0xab; 32]).archive();
        assert_eq!(bytes.len() % 512, 0);
        let first = "070701000000010000\
            41ed00000000000000000000000200000000000000000000000000000000000000000000000000000004\
            00000000etc\0\0\0";
        assert_eq!(std::str::from_utf8(&bytes[..116]).expect("text"), first);
        assert_eq!(&bytes[116..122], b"070701");
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(
            text.contains("000081 00".replace(' ', "").as_str()),
            "mode 0100400"
        );
        assert!(text.contains("TRAILER!!!\0"));
        let at = text.find(MAGIC).expect("the file");
        assert_eq!(at % 4, 0);
        assert_eq!(&bytes[at..at + TEXT.len()], TEXT.as_bytes());
    }

    #[test]
    fn a_real_cpio_lists_and_unpacks_it() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let archive = dir.path().join("grant.cpio");
        std::fs::write(&archive, file(&[0xab; 32]).archive().0).expect("write");
        let output = std::process::Command::new("cpio")
            .args(["-idm", "--no-absolute-filenames", "--quiet"])
            .current_dir(dir.path())
            .stdin(std::fs::File::open(&archive).expect("open"))
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                eprintln!("NOT CHECKED against a real cpio ({error}): apt-get install cpio");
                return;
            }
        };
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let grant = dir.path().join(MEMBER);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&grant).expect("unpacked").permissions(),
        );
        assert_eq!(mode & 0o7777, 0o400);
        // A test that does not run as root may not read mode 0400 of others, but it owns this file.
        assert_eq!(std::fs::read_to_string(&grant).expect("readable"), TEXT);
    }
}
