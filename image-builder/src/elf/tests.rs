use super::*;

/// Builds small ELF files: a header, program headers, then a body that starts at `BODY`.
struct Elf {
    elf_type: u16,
    machine: u16,
    segments: Vec<(u32, u64, u64)>,
    body: Vec<u8>,
}

const BODY: u64 = 0x400;
const BASE: u64 = 0x40_0000;

impl Elf {
    fn new(elf_type: u16) -> Self {
        Self {
            elf_type,
            machine: 62,
            segments: Vec::new(),
            body: Vec::new(),
        }
    }

    fn segment(mut self, kind: u32, bytes: &[u8]) -> Self {
        self.segments
            .push((kind, BODY + self.body.len() as u64, bytes.len() as u64));
        self.body.extend_from_slice(bytes);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend(self.elf_type.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.resize(32, 0);
        file.extend((HEADER_BYTES as u64).to_le_bytes());
        file.resize(54, 0);
        file.extend((PROGRAM_HEADER_BYTES as u16).to_le_bytes());
        file.extend((self.segments.len() as u16).to_le_bytes());
        file.resize(HEADER_BYTES, 0);
        for (kind, offset, size) in &self.segments {
            file.extend(kind.to_le_bytes());
            file.extend(5u32.to_le_bytes());
            for field in [*offset, BASE + offset, BASE + offset, *size, *size, 16] {
                file.extend(field.to_le_bytes());
            }
        }
        file.resize(BODY as usize, 0);
        file.extend(&self.body);
        file
    }
}

fn dynamic(entries: &[(u64, u64)]) -> Vec<u8> {
    entries
        .iter()
        .chain(&[(DT_NULL, 0)])
        .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
        .collect()
}

fn check(file: &[u8], expect: Result<Linkage, &str>) {
    let got = check_static(file)
        .map(|program| program.linkage)
        .map_err(|error| error.to_string());
    assert_eq!(got, expect.map_err(str::to_owned));
}

#[test]
fn static_programs_pass() {
    check(
        &Elf::new(ET_EXEC).segment(PT_LOAD, b"code").bytes(),
        Ok(Linkage::Static),
    );
    let pie = dynamic(&[(DT_FLAGS_1, DF_1_PIE)]);
    check(
        &Elf::new(ET_DYN)
            .segment(PT_LOAD, b"code")
            .segment(PT_DYNAMIC, &pie)
            .bytes(),
        Ok(Linkage::StaticPie),
    );
    let mut arm = Elf::new(ET_EXEC);
    arm.machine = 183;
    assert_eq!(
        check_static(&arm.bytes()),
        Ok(StaticProgram {
            linkage: Linkage::Static,
            machine: "aarch64"
        })
    );
}

#[test]
fn dynamic_programs_are_named_with_what_they_need() {
    check(
        &Elf::new(ET_DYN)
            .segment(PT_INTERP, b"/lib/ld-musl-x86_64.so.1\0")
            .bytes(),
        Err("dynamically linked: it asks for the interpreter /lib/ld-musl-x86_64.so.1"),
    );
    let strings = b"\0libc.so.6\0libgcc_s.so.1\0";
    let table = BASE + BODY;
    let needed = dynamic(&[
        (DT_NEEDED, 1),
        (DT_NEEDED, 11),
        (DT_STRTAB, table),
        (DT_FLAGS_1, DF_1_PIE),
    ]);
    check(
        &Elf::new(ET_DYN)
            .segment(PT_LOAD, strings)
            .segment(PT_DYNAMIC, &needed)
            .bytes(),
        Err("dynamically linked: it needs libc.so.6, libgcc_s.so.1"),
    );
    let nameless = dynamic(&[(DT_NEEDED, u64::MAX), (DT_STRTAB, 1)]);
    check(
        &Elf::new(ET_EXEC).segment(PT_DYNAMIC, &nameless).bytes(),
        Err("dynamically linked: it needs a library without a name"),
    );
}

#[test]
fn other_files_are_refused() {
    check(b"#!/bin/sh\n", Err("not an ELF program"));
    check(b"", Err("not an ELF program"));
    check(
        b"\x7fELF\x01\x01",
        Err("not a 64-bit little-endian ELF file"),
    );
    check(
        b"\x7fELF\x02\x01",
        Err("cut short or malformed: the file header lies outside the file"),
    );
    check(&Elf::new(1).bytes(), Err("ELF type 1 is not a program"));
    check(
        &Elf::new(ET_DYN).segment(PT_LOAD, b"x").bytes(),
        Err("a shared library, not a program"),
    );
    let mut sparc = Elf::new(ET_EXEC);
    sparc.machine = 43;
    check(
        &sparc.bytes(),
        Err("built for ELF machine 43, which Kraken does not boot (x86_64 and aarch64 are known)"),
    );
}

/// A file cut anywhere, or with any one byte changed, gives an answer rather than a panic.
#[test]
fn damage_never_panics() {
    let needed = dynamic(&[(DT_NEEDED, 1), (DT_STRTAB, BASE + BODY)]);
    let file = Elf::new(ET_DYN)
        .segment(PT_LOAD, b"\0libc\0")
        .segment(PT_DYNAMIC, &needed)
        .bytes();
    for end in 0..file.len() {
        assert!(check_static(&file[..end]).is_err(), "cut at {end}");
    }
    for at in 0..file.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = file.clone();
            damaged[at] = value;
            let _ = check_static(&damaged);
        }
    }
}
