//! First-stage loaders: which program a machine gets before it can read a boot script.
//!
//! The kinds of firmware are those of DHCP option 93 (RFC 4578 section 2.1 and IANA's registry of processor architectures).
//! Loaders are small and read by every node of a storm, so they are held in memory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Largest file taken as a loader: iPXE builds are 0.1 to 1.2 MB, GRUB with modules about 3 MB; each one stays in memory.
pub(crate) const MAX_LOADER_BYTES: u64 = 16 * 1024 * 1024;

/// The kind of firmware that asks, as far as the choice of a loader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ClientArch {
    /// x86 firmware with a PXE option ROM.
    Bios,
    /// UEFI on x86-64.
    UefiX86_64,
    /// UEFI on 64-bit ARM.
    UefiAarch64,
}

impl ClientArch {
    /// Name in the configuration (`boot.loaders`) and in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ClientArch::Bios => "bios",
            ClientArch::UefiX86_64 => "uefi-x86_64",
            ClientArch::UefiAarch64 => "uefi-aarch64",
        }
    }

    /// The kind behind a value of option 93; EFI byte code (7) is what x86-64 firmware sent before 9 was assigned.
    pub(crate) fn from_option_93(value: u16) -> Option<Self> {
        match value {
            0 => Some(ClientArch::Bios),
            7 | 9 | 16 => Some(ClientArch::UefiX86_64),
            11 | 19 => Some(ClientArch::UefiAarch64),
            _ => None,
        }
    }
}

impl fmt::Display for ClientArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name of `boot.loaders` that stands for no kind of firmware.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of firmware {0:?}: expected bios, uefi-x86_64 or uefi-aarch64")]
pub(crate) struct UnknownArch(String);

impl FromStr for ClientArch {
    type Err = UnknownArch;

    fn from_str(text: &str) -> Result<Self, UnknownArch> {
        [
            ClientArch::Bios,
            ClientArch::UefiX86_64,
            ClientArch::UefiAarch64,
        ]
        .into_iter()
        .find(|arch| arch.name() == text)
        .ok_or_else(|| UnknownArch(text.to_owned()))
    }
}

/// One loader, in memory.
#[derive(Debug, Clone)]
pub(crate) struct Loader {
    /// Which firmware it is for.
    pub(crate) arch: ClientArch,
    /// Its name on TFTP and below `/loader/`: letters, digits, `.`, `_`, `-`.
    pub(crate) name: Arc<str>,
    /// The program.
    pub(crate) bytes: bytes::Bytes,
}

/// Why a loader cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoaderError {
    /// The file could not be read.
    #[error("cannot read the {arch} loader {}", path.display())]
    Read {
        /// Kind of firmware.
        arch: ClientArch,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any loader.
    #[error("the {arch} loader {} is {bytes} bytes, more than {MAX_LOADER_BYTES}", path.display())]
    TooLarge {
        /// Kind of firmware.
        arch: ClientArch,
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file's name would not survive a boot file field.
    #[error(
        "the name of the {arch} loader {} must be 1 to 64 letters, digits, '.', '_' or '-'", path.display()
    )]
    Name {
        /// Kind of firmware.
        arch: ClientArch,
        /// The file.
        path: PathBuf,
    },
    /// Two files of different firmware have one name.
    #[error("two loaders are called {name:?}; give one of the files another name")]
    Duplicate {
        /// The name.
        name: Arc<str>,
    },
}

/// All loaders of this head, by firmware and by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaders(Vec<Loader>);

impl Loaders {
    /// Reads the configured files.
    pub(crate) fn read<'a>(
        files: impl IntoIterator<Item = (ClientArch, &'a Path)>,
    ) -> Result<Self, LoaderError> {
        let mut loaders = Vec::new();
        for (arch, path) in files {
            let path = path.to_path_buf();
            let read = |source| LoaderError::Read {
                arch,
                path: path.clone(),
                source,
            };
            let size = std::fs::metadata(&path).map_err(read)?.len();
            if size > MAX_LOADER_BYTES {
                return Err(LoaderError::TooLarge {
                    arch,
                    path,
                    bytes: size,
                });
            }
            let bytes = std::fs::read(&path).map_err(read)?;
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if !is_loader_name(name) {
                return Err(LoaderError::Name { arch, path });
            }
            loaders.push(Loader {
                arch,
                name: name.into(),
                bytes: bytes.into(),
            });
        }
        Loaders::new(loaders)
    }

    /// Checks that the names are distinct, unless the programs are the same too.
    pub(crate) fn new(loaders: Vec<Loader>) -> Result<Self, LoaderError> {
        for (i, loader) in loaders.iter().enumerate() {
            let clash = |other: &&Loader| other.name == loader.name && other.bytes != loader.bytes;
            if let Some(other) = loaders[..i].iter().find(clash) {
                return Err(LoaderError::Duplicate {
                    name: Arc::clone(&other.name),
                });
            }
        }
        Ok(Loaders(loaders))
    }

    /// The loader for a kind of firmware.
    pub(crate) fn for_arch(&self, arch: ClientArch) -> Option<&Loader> {
        self.0.iter().find(|loader| loader.arch == arch)
    }

    /// The loader of that name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&Loader> {
        self.0.iter().find(|loader| &*loader.name == name)
    }
}

fn is_loader_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_93_values_of_the_registry() {
        for (value, expect) in [
            (0, Some(ClientArch::Bios)),
            (6, None),
            (7, Some(ClientArch::UefiX86_64)),
            (9, Some(ClientArch::UefiX86_64)),
            (11, Some(ClientArch::UefiAarch64)),
            (16, Some(ClientArch::UefiX86_64)),
            (19, Some(ClientArch::UefiAarch64)),
            (0xffff, None),
        ] {
            assert_eq!(ClientArch::from_option_93(value), expect, "{value}");
        }
    }

    #[test]
    fn loaders_are_read_and_found_by_arch_and_name() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let bios = dir.path().join("undionly.kpxe");
        std::fs::write(&bios, b"bios").expect("write");
        let loaders = Loaders::read([(ClientArch::Bios, bios.as_path())]).expect("readable");
        assert_eq!(
            &loaders.for_arch(ClientArch::Bios).expect("there").bytes[..],
            b"bios"
        );
        assert!(loaders.by_name("undionly.kpxe").is_some());
        assert!(loaders.by_name("../undionly.kpxe").is_none());
        assert!(loaders.for_arch(ClientArch::UefiX86_64).is_none());
    }

    #[test]
    fn bad_files_are_named() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let missing = dir.path().join("missing.efi");
        let error =
            Loaders::read([(ClientArch::UefiX86_64, missing.as_path())]).expect_err("missing");
        assert!(error.to_string().contains("missing.efi"), "{error}");
        let odd = dir.path().join("my loader.efi");
        std::fs::write(&odd, b"x").expect("write");
        let error = Loaders::read([(ClientArch::UefiX86_64, odd.as_path())]).expect_err("odd name");
        assert!(matches!(error, LoaderError::Name { .. }), "{error}");
        let large = dir.path().join("large.efi");
        let file = std::fs::File::create(&large).expect("create");
        file.set_len(MAX_LOADER_BYTES + 1).expect("sparse file");
        let error =
            Loaders::read([(ClientArch::UefiX86_64, large.as_path())]).expect_err("too large");
        assert!(matches!(error, LoaderError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn one_name_for_two_programs_is_refused() {
        let loader = |arch, bytes: &'static [u8]| Loader {
            arch,
            name: "ipxe.efi".into(),
            bytes: bytes.into(),
        };
        let same = vec![
            loader(ClientArch::UefiX86_64, b"a"),
            loader(ClientArch::Bios, b"a"),
        ];
        assert!(Loaders::new(same).is_ok());
        let clash = vec![
            loader(ClientArch::UefiX86_64, b"a"),
            loader(ClientArch::UefiAarch64, b"b"),
        ];
        assert!(matches!(
            Loaders::new(clash),
            Err(LoaderError::Duplicate { .. })
        ));
    }
}
