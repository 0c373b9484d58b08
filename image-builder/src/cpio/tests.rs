use std::process::{Command, Stdio};

use super::*;

fn sample() -> Archive {
    let mut archive = Archive::default();
    archive
        .add("lib/modules/a.ko", 0o644, Content::File(b"module".to_vec()))
        .unwrap();
    archive
        .add("init", 0o755, Content::File(b"#!".to_vec()))
        .unwrap();
    archive
        .add(
            "dev/console",
            0o600,
            Content::CharDevice { major: 5, minor: 1 },
        )
        .unwrap();
    archive.add("tmp", 0o1777, Content::Directory).unwrap();
    archive
        .add("empty", 0o444, Content::File(Vec::new()))
        .unwrap();
    archive
}

fn bytes(archive: &Archive) -> Vec<u8> {
    let mut out = Vec::new();
    archive.write_to(&mut out).unwrap();
    out
}

fn listing(bytes: &[u8]) -> Vec<String> {
    let (members, end) = read(bytes).unwrap();
    assert_eq!(end, bytes.len());
    members
        .iter()
        .map(|member| {
            format!(
                "{} {} {:?} {}",
                member.mode_text(),
                member.name,
                member.rdev,
                member.data.len()
            )
        })
        .collect()
}

#[test]
fn members_are_sorted_and_parents_made() {
    assert_eq!(
        listing(&bytes(&sample())),
        [
            "drwxr-xr-x dev (0, 0) 0",
            "crw------- dev/console (5, 1) 0",
            "-r--r--r-- empty (0, 0) 0",
            "-rwxr-xr-x init (0, 0) 2",
            "drwxr-xr-x lib (0, 0) 0",
            "drwxr-xr-x lib/modules (0, 0) 0",
            "-rw-r--r-- lib/modules/a.ko (0, 0) 6",
            "drwxrwxrwt tmp (0, 0) 0",
        ]
    );
}

/// The bytes of the format, once, by hand.
#[test]
fn header_is_the_documented_one() {
    let mut archive = Archive::default();
    archive
        .add("a", 0o400, Content::File(b"xyzzy".to_vec()))
        .unwrap();
    let expect = [
        &b"070701"[..],
        b"00000001000081000000000000000000000000010000000000000005",
        b"00000000000000000000000000000000",
        b"0000000200000000",
        b"a\0xyzzy\0\0\0",
        b"070701",
        b"00000000000000000000000000000000000000010000000000000000",
        b"00000000000000000000000000000000",
        b"0000000b00000000",
        b"TRAILER!!!\0\0\0\0",
    ]
    .concat();
    assert_eq!(
        String::from_utf8(bytes(&archive)).unwrap(),
        String::from_utf8(expect).unwrap()
    );
}

#[test]
fn order_of_adding_does_not_show() {
    let mut other = Archive::default();
    other.add("tmp", 0o1777, Content::Directory).unwrap();
    other
        .add("empty", 0o444, Content::File(Vec::new()))
        .unwrap();
    other.add("dev", 0o755, Content::Directory).unwrap();
    other
        .add("init", 0o755, Content::File(b"#!".to_vec()))
        .unwrap();
    other
        .add("lib/modules/a.ko", 0o644, Content::File(b"module".to_vec()))
        .unwrap();
    other
        .add(
            "dev/console",
            0o600,
            Content::CharDevice { major: 5, minor: 1 },
        )
        .unwrap();
    assert_eq!(bytes(&sample()), bytes(&other));
}

#[test]
fn bad_members_are_refused() {
    let mut archive = sample();
    for name in [
        "",
        "/init",
        "a//b",
        "../x",
        "a/./b",
        "a/",
        "nul\0",
        TRAILER,
        &"x".repeat(NAME_MAX_BYTES + 1),
    ] {
        assert_eq!(
            archive.add(name, 0, Content::Directory),
            Err(BuildError::Name(name.to_owned()))
        );
    }
    assert_eq!(
        archive.add(&"x".repeat(NAME_MAX_BYTES), 0, Content::Directory),
        Ok(())
    );
    assert_eq!(
        archive.add("init", 0, Content::Directory),
        Err(BuildError::Duplicate("init".into()))
    );
    assert_eq!(
        archive.add("init/x", 0, Content::Directory),
        Err(BuildError::NotADirectory("init".into()))
    );
}

/// GNU cpio is the second opinion where the machine has it.
#[test]
fn gnu_cpio_reads_it() {
    let Ok(mut child) = Command::new("cpio")
        .args(["-t", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    else {
        eprintln!("SKIPPED: no cpio program on this machine");
        return;
    };
    io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes(&sample())).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let names = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        [
            "dev",
            "dev/console",
            "empty",
            "init",
            "lib",
            "lib/modules",
            "lib/modules/a.ko",
            "tmp"
        ]
    );
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let file = bytes(&sample());
    for end in 0..file.len() {
        assert!(read(&file[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(read(b"not an archive"), Err(ReadError::Truncated(0)));
    assert_eq!(read(&[b'x'; 200]), Err(ReadError::Magic(0)));
    for at in 0..file.len() {
        for value in [0, b'+', b'f', 0xff] {
            let mut damaged = file.clone();
            damaged[at] = value;
            let _ = read(&damaged);
        }
    }
}
