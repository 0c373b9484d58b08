//! `kraken-image image`: a folder or tar archive into a squashfs file with a signed manifest, checked after it is made.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use ring::signature::KeyPair;
use serde_json::json;

use super::progress::Progress;
use super::{Report, files, keys, show, tool};
use crate::digest;
use crate::manifest::{self, FORMAT, Layer, LayerKind, Payload};
use crate::squashfs::Listing;

/// Name of the manifest in an image's folder; layers lie beside it under their digests.
pub(crate) const MANIFEST: &str = "manifest.json";

/// Make a system image: squashfs and signed manifest, from a folder or a tar archive
///
/// Writes DIR/manifest.json and DIR/SHA256, ready for `krakenctl image add`. Owners, modes, device nodes and extended attributes
/// are kept. The same input gives the same digest. A tar archive may be compressed with gzip, zstd or xz, and needs no root to
/// keep its owners.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kraken-image image --name rocky9 --from rocky9.tar.zst --keys keys --out images/rocky9
  kraken-image image --name demo --from rootfs --all-root --init /init --keys keys --out images/demo")]
pub(crate) struct ImageArgs {
    /// Name of the image: letters a-z, digits, `-`, `_`, `.`
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Root folder, or tar archive of one
    #[arg(long, value_name = "DIR|TAR")]
    from: PathBuf,
    /// Program in the image that is started, and its arguments (repeat)
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/sbin/init",
        allow_hyphen_values = true
    )]
    init: Vec<String>,
    /// Rises when an image mends a hole: nodes can be told to refuse lower ones
    #[arg(long, value_name = "N", default_value_t = 1)]
    security_version: u64,
    /// Processor the image is for, as `uname -m` says it
    #[arg(long, value_name = "ARCH", default_value = "x86_64")]
    arch: String,
    /// Folder made by `kraken-image keys`; its cluster.key signs
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    #[arg(long, value_enum, value_name = "HOW", default_value = "zstd")]
    compress: Compress,
    /// Make root the owner of every file, as when an ordinary user has put the folder together
    #[arg(long)]
    all_root: bool,
    /// File times: those of the files, or 1970 for all; default: zero for a folder, keep for a tar archive
    #[arg(long, value_enum, value_name = "WHICH")]
    times: Option<Times>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// How squashfs blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compress {
    /// Quick to read
    Zstd,
    /// Smallest
    Xz,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Times {
    /// As the files have them
    Keep,
    /// 1970-01-01 for all
    Zero,
}

pub(crate) fn run(args: &ImageArgs) -> Result<Report> {
    manifest::check_name(&args.name)?;
    let key = keys::read_cluster_key(&args.keys)?;
    files::parent_folder(&args.out.join(MANIFEST))?;
    let scratch = tempfile::Builder::new()
        .prefix(".image-")
        .tempdir_in(&args.out)
        .with_context(|| format!("can't make a folder in {}", args.out.display()))?;
    let made = scratch.path().join("layer");
    let progress = Progress::start(format!("packing {}", args.from.display()));
    pack(args, &made)?;
    progress.say("checking the image");
    let (sha256, size) = check_layer(&made, &args.init)?;
    let layer = Layer {
        kind: LayerKind::Squashfs,
        sha256: sha256.clone(),
        size,
    };
    let payload = Payload {
        format: FORMAT.to_owned(),
        name: args.name.clone(),
        arch: args.arch.clone(),
        security_version: args.security_version,
        init: args.init.clone(),
        layers: vec![layer],
    };
    let text = payload.sign(&key)?;
    files::place(&made, &args.out.join(&sha256), 0o644)?;
    files::write(&args.out.join(MANIFEST), text.as_bytes(), 0o644)?;
    drop((progress, scratch));

    let report = show::image_folder(&args.out, Some(key.public_key().as_ref()))
        .context("the finished image does not check")?;
    let manifest = manifest::read(text.as_bytes(), Some(key.public_key().as_ref()))?;
    let json = json!({ "out": args.out, "name": args.name, "digest": manifest.digest, "layer": sha256, "bytes": size });
    Ok(Report {
        text: report.text,
        json,
    })
}

fn pack(args: &ImageArgs, made: &Path) -> Result<()> {
    let is_folder = args.from.is_dir();
    let program = if is_folder { "mksquashfs" } else { "sqfstar" };
    let mut squash = tool::command(program, "squashfs-tools (4.5 or newer)")?;
    if is_folder {
        squash.arg(&args.from).arg(made).arg("-noappend");
    }
    squash.args(match args.compress {
        Compress::Zstd => ["-comp", "zstd"],
        Compress::Xz => ["-comp", "xz"],
    });
    // Without -exit-on-error a file that can't be read becomes an empty one, and all seems well.
    squash.args([
        "-exit-on-error",
        "-no-progress",
        "-quiet",
        "-mkfs-time",
        "0",
    ]);
    let times = args
        .times
        .unwrap_or(if is_folder { Times::Zero } else { Times::Keep });
    if times == Times::Zero {
        squash.args(["-all-time", "0"]);
    }
    if args.all_root {
        squash.arg("-all-root");
    }
    let context = || format!("can't pack {}", args.from.display());
    if is_folder {
        return tool::run(&mut squash).map(drop).with_context(context);
    }
    squash.arg(made);
    let mut uncompressed = open_tar(&args.from)?;
    tool::run_with_input(&mut squash, &mut uncompressed.reader).with_context(context)?;
    uncompressed.finish().with_context(context)
}

/// A tar archive being read, by way of another program if it is xz.
struct Tar {
    reader: Box<dyn Read>,
    unpacker: Option<std::process::Child>,
}

impl Tar {
    fn finish(mut self) -> Result<()> {
        drop(self.reader);
        match self
            .unpacker
            .as_mut()
            .map(std::process::Child::wait)
            .transpose()
            .context("can't wait for xz")?
        {
            Some(status) if !status.success() => {
                bail!("xz failed ({status}): the archive is damaged")
            }
            _ => Ok(()),
        }
    }
}

fn open_tar(path: &Path) -> Result<Tar> {
    let context = || format!("can't read {}", path.display());
    let mut start = [0; 262];
    let length =
        read_up_to(File::open(path).with_context(context)?, &mut start).with_context(context)?;
    let file = File::open(path).with_context(context)?;
    let plain = |reader| {
        Ok(Tar {
            reader,
            unpacker: None,
        })
    };
    match &start[..length] {
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
                .stdout(std::process::Stdio::piped())
                .spawn()
                .context("can't start xz")?;
            let reader = child.stdout.take().context("can't read from xz")?;
            Ok(Tar {
                reader: Box::new(reader),
                unpacker: Some(child),
            })
        }
        // POSIX and GNU tar both have this mark in their first header.
        [.., b'u', b's', b't', b'a', b'r'] if length == start.len() => plain(Box::new(file)),
        _ => bail!(
            "{} is neither a folder nor a tar archive (plain, gzip, zstd or xz)",
            path.display()
        ),
    }
}

fn read_up_to(reader: impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut bytes = Vec::new();
    reader.take(buffer.len() as u64).read_to_end(&mut bytes)?;
    buffer[..bytes.len()].copy_from_slice(&bytes);
    Ok(bytes.len())
}

/// Reads back what was made: a whole squashfs that holds the program to start.
fn check_layer(path: &Path, init: &[String]) -> Result<(String, u64)> {
    let (sha256, size) =
        digest::sha256_reader(File::open(path).context("the squashfs file was not made")?)
            .context("can't read the new image")?;
    show::read_superblock(path)?;
    let listing = tool::run(
        tool::command("unsquashfs", "squashfs-tools")?
            .arg("-lln")
            .arg(path),
    )
    .context("the new image can't be listed")?;
    let program = init.first().map(String::as_str).unwrap_or_default();
    if !Listing::parse(&listing).is_program(program) {
        bail!(
            "the image has no program {program:?} to start; give its path in the image with --init"
        );
    }
    Ok((sha256, size))
}
