use super::*;

fn superblock() -> Vec<u8> {
    let mut block = vec![0; SUPERBLOCK_BYTES];
    block[..4].copy_from_slice(b"hsqs");
    block[4] = 3;
    block[12..16].copy_from_slice(&131_072u32.to_le_bytes());
    block[20] = 6;
    block[28] = 4;
    block[40..48].copy_from_slice(&1000u64.to_le_bytes());
    block
}

#[test]
fn superblock_fields_are_read() {
    let expect = Superblock {
        inodes: 3,
        made_at: 0,
        block_bytes: 131_072,
        compression: "zstd",
        bytes_used: 1000,
    };
    assert_eq!(Superblock::read(&superblock(), 4096), Ok(expect));
}

#[test]
fn other_and_damaged_files_are_refused() {
    assert_eq!(Superblock::read(b"hsqs", 4), Err(SquashfsError::Magic));
    assert_eq!(Superblock::read(&[0; 96], 96), Err(SquashfsError::Magic));
    assert_eq!(
        Superblock::read(&superblock(), 999),
        Err(SquashfsError::Truncated {
            have: 999,
            used: 1000
        })
    );
    let mut old = superblock();
    old[28] = 3;
    assert_eq!(
        Superblock::read(&old, 4096),
        Err(SquashfsError::Version(3, 0))
    );
    let mut tiny = superblock();
    tiny[40..48].copy_from_slice(&5u64.to_le_bytes());
    assert!(Superblock::read(&tiny, 4096).is_err());
}

#[test]
fn programs_are_found_through_links() {
    let listing = Listing::parse(
        "drwxr-xr-x 0/0                35 1970-01-01 00:00 squashfs-root
lrwxrwxrwx 0/0                 8 1970-01-01 00:00 squashfs-root/sbin -> usr/sbin
drwxr-xr-x 0/0                35 1970-01-01 00:00 squashfs-root/usr
drwxr-xr-x 0/0                35 1970-01-01 00:00 squashfs-root/usr/sbin
lrwxrwxrwx 0/0                 8 1970-01-01 00:00 squashfs-root/usr/sbin/init -> /usr/sbin/../lib/real init
lrwxrwxrwx 0/0                 8 1970-01-01 00:00 squashfs-root/usr/sbin/circle -> circle
lrwxrwxrwx 0/0                 8 1970-01-01 00:00 squashfs-root/usr/sbin/out -> ../../../../usr/lib/real init
drwxr-xr-x 0/0                35 1970-01-01 00:00 squashfs-root/usr/lib
-rwxr-xr-x 0/0                35 1970-01-01 00:00 squashfs-root/usr/lib/real init
-rw-r--r-- 0/0                35 1970-01-01 00:00 squashfs-root/usr/lib/text
",
    );
    for (path, expect) in [
        ("/sbin/init", true),
        ("/usr/lib/real init", true),
        ("/sbin/out", true),
        ("/sbin/circle", false),
        ("/usr/lib", false),
        ("/usr/lib/text", false),
        ("/bin/none", false),
        ("/", false),
    ] {
        assert_eq!(listing.is_program(path), expect, "{path}");
    }
}
