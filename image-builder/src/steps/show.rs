//! `kraken-image show`: what is in an initramfs, an image, a kernel folder or an agent, and whether it is sound.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Report, files, image, initramfs, keys};
use crate::manifest::{self, MANIFEST_MAX_BYTES};
use crate::squashfs::{SUPERBLOCK_BYTES, Superblock};
use crate::{cpio, digest, elf};

/// An initramfs unpacks into memory; one larger than this is not looked at, so that a small file can't fill the machine.
const UNPACKED_MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Show what is in an initramfs, an image folder, a kernel folder or an agent, and check it
///
/// An image's layers are always checked against its manifest, the manifest's signature if a key is given. The exit code is 1
/// if anything does not check.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kraken-image show initramfs
  kraken-image show images/demo --keys keys")]
pub(crate) struct ShowArgs {
    /// Initramfs, image folder or its manifest.json, kernel folder, squashfs file, or agent
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// Folder made by `kraken-image keys`, to check an image's signature
    #[arg(long, value_name = "DIR", conflicts_with = "public")]
    keys: Option<PathBuf>,
    /// Public cluster key, as 64 hex digits or a file of them
    #[arg(long = "pub", value_name = "HEX|FILE")]
    public: Option<String>,
}

pub(crate) fn run(args: &ShowArgs) -> Result<Report> {
    let path = &args.path;
    let public = match (&args.public, &args.keys) {
        (Some(text), _) => Some(keys::read_cluster_pub(text)?),
        (None, Some(folder)) => Some(keys::read_cluster_pub(
            &folder.join(keys::CLUSTER_PUB).to_string_lossy(),
        )?),
        (None, None) => None,
    };
    if path.is_dir() {
        if path.join(image::MANIFEST).exists() {
            return image_folder(path, public.as_deref());
        }
        if path.join("version").is_file() {
            return kernel_folder(path);
        }
        bail!(
            "{} holds neither an image ({}) nor a kernel (version)",
            path.display(),
            image::MANIFEST
        );
    }
    if path.file_name().is_some_and(|name| name == image::MANIFEST) {
        return image_folder(path.parent().unwrap_or(Path::new(".")), public.as_deref());
    }
    let mut start = Vec::new();
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    file.take(8)
        .read_to_end(&mut start)
        .with_context(|| format!("can't read {}", path.display()))?;
    match start.as_slice() {
        [0x7f, b'E', b'L', b'F', ..] => program(path),
        [b'h', b's', b'q', b's', ..] => squashfs(path),
        _ => archive(path),
    }
}

fn program(path: &Path) -> Result<Report> {
    let bytes = files::read(path)?;
    let program = elf::check_static(&bytes).with_context(|| path.display().to_string())?;
    let text = format!(
        "{}: {} program, {}, {}",
        path.display(),
        program.machine,
        program.linkage,
        files::size_text(bytes.len() as u64)
    );
    Ok(Report {
        text,
        json: json!({ "kind": "program", "machine": program.machine, "bytes": bytes.len() }),
    })
}

fn squashfs(path: &Path) -> Result<Report> {
    let block = read_superblock(path)?;
    let text = format!("{}: squashfs, {}", path.display(), describe(&block));
    Ok(Report {
        text,
        json: json!({ "kind": "squashfs", "compression": block.compression, "bytes": block.bytes_used, "inodes": block.inodes }),
    })
}

fn describe(block: &Superblock) -> String {
    let size = files::size_text(block.bytes_used);
    format!(
        "{} inodes, {size}, {}, {} KiB blocks, made at {}",
        block.inodes,
        block.compression,
        block.block_bytes / 1024,
        block.made_at
    )
}

/// Reads the superblock of the squashfs file at `path`.
pub(crate) fn read_superblock(path: &Path) -> Result<Superblock> {
    let context = || format!("can't read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let length = file.metadata().with_context(context)?.len();
    let mut start = Vec::new();
    file.take(SUPERBLOCK_BYTES as u64)
        .read_to_end(&mut start)
        .with_context(context)?;
    Superblock::read(&start, length).with_context(|| path.display().to_string())
}

fn kernel_folder(folder: &Path) -> Result<Report> {
    let version = initramfs::read_kernel_version(folder)?;
    let vmlinuz = files::read(&folder.join("vmlinuz"))?.len();
    let dep = files::read_text(
        &folder
            .join("lib/modules")
            .join(&version)
            .join("modules.dep"),
    )?;
    let modules = dep.lines().count();
    let text = format!(
        "{}: kernel {version}, vmlinuz {}, {modules} modules",
        folder.display(),
        files::size_text(vmlinuz as u64)
    );
    Ok(Report {
        text,
        json: json!({ "kind": "kernel", "version": version, "vmlinuz_bytes": vmlinuz, "modules": modules }),
    })
}

/// An image's manifest and layers; an error if a layer is missing or changed, or a signature that is to be checked is not right.
pub(crate) fn image_folder(folder: &Path, public: Option<&[u8]>) -> Result<Report> {
    let path = folder.join(image::MANIFEST);
    let mut text = Vec::new();
    let file = File::open(&path).with_context(|| format!("can't read {}", path.display()))?;
    file.take(MANIFEST_MAX_BYTES as u64 + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("can't read {}", path.display()))?;
    let manifest = manifest::read(&text, public)
        .with_context(|| format!("{} is not to be trusted", path.display()))?;
    let payload = &manifest.payload;
    let signature = if public.is_some() {
        "good"
    } else {
        "not checked; give --keys or --pub"
    };
    let mut shown = format!(
        "{}: image {}\n  digest            {}\n  signature         {signature}\n  arch              {}\n  security version  {}\n  init              {}",
        folder.display(),
        payload.name,
        manifest.digest,
        payload.arch,
        payload.security_version,
        payload.init.join(" ")
    );
    for layer in &payload.layers {
        let path = folder.join(&layer.sha256);
        let found = File::open(&path)
            .and_then(digest::sha256_reader)
            .with_context(|| format!("can't read the layer {}", path.display()))?;
        if found != (layer.sha256.clone(), layer.size) {
            bail!(
                "{} was changed: it is {} bytes with sha256 {}, the manifest says {} bytes",
                path.display(),
                found.1,
                found.0,
                layer.size
            );
        }
        let block = read_superblock(&path)?;
        write!(
            shown,
            "\n  layer             {}\n                    {}",
            layer.sha256,
            describe(&block)
        )?;
    }
    let json = json!({ "kind": "image", "digest": manifest.digest, "signature_checked": public.is_some(), "manifest": payload });
    Ok(Report { text: shown, json })
}

fn archive(path: &Path) -> Result<Report> {
    let file = files::read(path)?;
    let (unpacked, compression) =
        unpack(&file).with_context(|| format!("{} can't be unpacked", path.display()))?;
    let mut shown = format!("{}: initramfs, {compression}\n", path.display());
    let mut list = Vec::new();
    let mut rest = unpacked.as_slice();
    // The kernel takes archives one after the other with zeros between them.
    while let Some(at) = rest.iter().position(|byte| *byte != 0) {
        let (members, end) = cpio::read(&rest[at..])
            .with_context(|| format!("{} is not an initramfs, or a damaged one", path.display()))?;
        for member in &members {
            let (major, minor) = member.rdev;
            let size = if member.is_device() {
                format!("{major}, {minor}")
            } else {
                member.data.len().to_string()
            };
            writeln!(shown, "{} {size:>10} {}", member.mode_text(), member.name)?;
            list.push(json!({ "name": member.name, "mode": member.mode_text(), "bytes": member.data.len() }));
        }
        rest = &rest[at + end..];
    }
    if list.is_empty() {
        bail!("{} is not an initramfs: it is empty", path.display());
    }
    let sha256 = digest::sha256_hex(&file);
    let (packed, full) = (
        files::size_text(file.len() as u64),
        files::size_text(unpacked.len() as u64),
    );
    write!(
        shown,
        "{} members, {packed}, {full} unpacked\nsha256 {sha256}",
        list.len()
    )?;
    let json = json!({ "kind": "initramfs", "sha256": sha256, "bytes": file.len(), "unpacked_bytes": unpacked.len(), "members": list });
    Ok(Report { text: shown, json })
}

fn unpack(file: &[u8]) -> Result<(Vec<u8>, &'static str)> {
    let (reader, compression): (Box<dyn Read>, _) = match file {
        [0x1f, 0x8b, ..] => (Box::new(flate2::read::GzDecoder::new(file)), "gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            (Box::new(zstd::Decoder::new(file)?.single_frame()), "zstd")
        }
        _ => (Box::new(file), "not compressed"),
    };
    let mut unpacked = Vec::new();
    reader
        .take(UNPACKED_MAX_BYTES + 1)
        .read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > UNPACKED_MAX_BYTES {
        bail!(
            "it is larger than {} unpacked",
            files::size_text(UNPACKED_MAX_BYTES)
        );
    }
    Ok((unpacked, compression))
}
