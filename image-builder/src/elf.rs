//! Tells from the bytes of a program whether it runs with nothing beside it, as PID 1 of an initramfs must.
//!
//! Source: the System V ABI's ELF chapters (file header, program headers, dynamic section), 64-bit little-endian only.
//! A program that asks for an interpreter ends in "Failed to execute /init (error -2)" and a kernel panic, and a link meant
//! to be static comes out that way without a word (musl-gcc with a position-independent executable), hence this check.
//! Symbols and relocations are not looked at.

use thiserror::Error;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;

/// How a static program is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linkage {
    /// Fixed addresses, no dynamic section needed.
    Static,
    /// Position-independent; relocates itself at start.
    StaticPie,
}

impl std::fmt::Display for Linkage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Static => "statically linked",
            Self::StaticPie => "statically linked, position-independent",
        })
    }
}

/// A program that needs nothing but a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StaticProgram {
    /// How it is linked.
    pub(crate) linkage: Linkage,
    /// The processor it is for, in the words of `uname -m`.
    pub(crate) machine: &'static str,
}

/// Why a file can't be the agent.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ElfError {
    #[error("not an ELF program")]
    NotElf,
    #[error("not a 64-bit little-endian ELF file")]
    UnsupportedClass,
    #[error("built for ELF machine {0}, which Kraken does not boot (x86_64 and aarch64 are known)")]
    UnknownMachine(u16),
    #[error("cut short or malformed: {0} lies outside the file")]
    Truncated(&'static str),
    #[error("ELF type {0} is not a program")]
    NotExecutable(u16),
    #[error("a shared library, not a program")]
    SharedLibrary,
    #[error("dynamically linked: it asks for the interpreter {0}")]
    Interpreter(String),
    #[error("dynamically linked: it needs {}", .0.join(", "))]
    NeedsLibraries(Vec<String>),
}

/// Checks that the program in `file` is static: no `PT_INTERP`, no `DT_NEEDED`.
pub(crate) fn check_static(file: &[u8]) -> Result<StaticProgram, ElfError> {
    if !file.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    if file.get(4..6) != Some(&[2, 1]) {
        return Err(ElfError::UnsupportedClass);
    }
    if file.len() < HEADER_BYTES {
        return Err(ElfError::Truncated("the file header"));
    }
    let machine = match u16_at(file, 18)? {
        62 => "x86_64",
        183 => "aarch64",
        other => return Err(ElfError::UnknownMachine(other)),
    };
    let elf_type = u16_at(file, 16)?;
    if elf_type != ET_EXEC && elf_type != ET_DYN {
        return Err(ElfError::NotExecutable(elf_type));
    }
    let segments = segments(file)?;
    if let Some(interp) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
        return Err(ElfError::Interpreter(text(
            interp
                .bytes(file)
                .ok_or(ElfError::Truncated("the interpreter"))?,
        )));
    }
    let dynamic = Dynamic::read(file, &segments)?;
    if !dynamic.needed.is_empty() {
        return Err(ElfError::NeedsLibraries(
            dynamic.needed_names(file, &segments),
        ));
    }
    let linkage = match elf_type {
        ET_EXEC => Linkage::Static,
        _ if dynamic.flags_1 & DF_1_PIE != 0 => Linkage::StaticPie,
        _ => return Err(ElfError::SharedLibrary),
    };
    Ok(StaticProgram { linkage, machine })
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

impl Segment {
    fn bytes<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        slice(file, self.offset, self.file_bytes)
    }
}

fn segments(file: &[u8]) -> Result<Vec<Segment>, ElfError> {
    let outside = ElfError::Truncated("the program header table");
    let (start, size, count) = (
        u64_at(file, 32)?,
        usize::from(u16_at(file, 54)?),
        usize::from(u16_at(file, 56)?),
    );
    if count > 0 && size < PROGRAM_HEADER_BYTES {
        return Err(outside);
    }
    let Some(table) = slice(file, start, (size * count) as u64) else {
        return Err(outside);
    };
    if count == 0 {
        return Ok(Vec::new());
    }
    table
        .chunks_exact(size)
        .map(|header| {
            Ok(Segment {
                kind: u32_at(header, 0)?,
                offset: u64_at(header, 8)?,
                address: u64_at(header, 16)?,
                file_bytes: u64_at(header, 32)?,
            })
        })
        .collect()
}

#[derive(Default)]
struct Dynamic {
    /// Offsets of library names in the string table.
    needed: Vec<u64>,
    string_table: Option<u64>,
    flags_1: u64,
}

impl Dynamic {
    fn read(file: &[u8], segments: &[Segment]) -> Result<Self, ElfError> {
        let mut dynamic = Self::default();
        for segment in segments.iter().filter(|segment| segment.kind == PT_DYNAMIC) {
            let table = segment
                .bytes(file)
                .ok_or(ElfError::Truncated("the dynamic section"))?;
            for entry in table.chunks_exact(16) {
                match (u64_at(entry, 0)?, u64_at(entry, 8)?) {
                    (DT_NULL, _) => break,
                    (DT_NEEDED, name) => dynamic.needed.push(name),
                    (DT_STRTAB, address) => dynamic.string_table = Some(address),
                    (DT_FLAGS_1, flags) => dynamic.flags_1 = flags,
                    _ => {}
                }
            }
        }
        Ok(dynamic)
    }

    /// Names for the error text; a name that can't be found is still a library that is needed.
    fn needed_names(&self, file: &[u8], segments: &[Segment]) -> Vec<String> {
        let name = |offset: &u64| {
            let address = self.string_table?.checked_add(*offset)?;
            let load = segments.iter().find(|segment| {
                segment.kind == PT_LOAD
                    && address
                        .checked_sub(segment.address)
                        .is_some_and(|at| at < segment.file_bytes)
            })?;
            let rest = load
                .bytes(file)?
                .get(usize::try_from(address - load.address).ok()?..)?;
            Some(text(rest))
        };
        self.needed
            .iter()
            .map(|offset| name(offset).unwrap_or_else(|| "a library without a name".to_owned()))
            .collect()
    }
}

/// Text up to the first NUL, cut to what fits an error message.
fn text(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 256;
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len())
        .min(SHOWN_BYTES);
    String::from_utf8_lossy(&bytes[..end])
        .escape_debug()
        .to_string()
}

fn slice(file: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    file.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ElfError> {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .ok_or(ElfError::Truncated("a header field"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, ElfError> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ElfError> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, ElfError> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
