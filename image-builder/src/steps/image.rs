//! `kraken-image image`: a folder or tar archive into a squashfs file with a signed manifest, checked after it is made.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use ring::signature::KeyPair;
use serde_json::json;

use super::progress::Progress;
use super::{Report, files, keys, show, tar, tool};
use crate::digest;
use crate::manifest::{self, FORMAT, Layer, LayerKind, Payload};
use crate::squashfs::Listing;

/// Name of the manifest in an image's folder; layers lie beside it under their digests.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Debian package of the squashfs programs; `sqfstar` came with 4.5.
const SQUASHFS_TOOLS: &str = "squashfs-tools (4.5 or newer)";

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
    /// How the files in the image are compressed
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
    if let (Ok(from), Ok(out)) = (args.from.canonicalize(), args.out.canonicalize())
        && out.starts_with(&from)
    {
        bail!(
            "{} is inside {}, so the image would hold itself; give another --out",
            args.out.display(),
            args.from.display()
        );
    }
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
    let context = || format!("can't pack {}", args.from.display());
    if !args.from.is_dir() {
        return pack_tar(args, made).with_context(context);
    }
    let mut squash = tool::command("mksquashfs", SQUASHFS_TOOLS)?;
    squash
        .arg(&args.from)
        .arg(made)
        .args(["-noappend", "-mkfs-time", "0"]);
    if args.times.unwrap_or(Times::Zero) == Times::Zero {
        squash.args(["-all-time", "0"]);
    }
    tool::run(squash.args(common_options(args)))
        .map(drop)
        .with_context(context)
}

fn pack_tar(args: &ImageArgs, made: &Path) -> Result<()> {
    let mut archive = tar::open(&args.from)?;
    let facts = tar::look_through(&mut archive.reader)?;
    archive.finish()?;
    let mut squash = tool::command("sqfstar", SQUASHFS_TOOLS)?;
    // The archive's own entry for the root is skipped by sqfstar, which makes one that anybody may write to.
    squash
        .arg("-root-mode")
        .arg(format!("{:o}", facts.root_mode));
    squash.arg("-root-uid").arg(facts.root_uid.to_string());
    squash.arg("-root-gid").arg(facts.root_gid.to_string());
    if args.times.unwrap_or(Times::Keep) == Times::Zero {
        squash.args(["-mkfs-time", "0", "-all-time", "0"]);
    } else {
        // Folders without an entry would be as old as this run; nothing gets younger than the archive's newest file.
        squash.env("SOURCE_DATE_EPOCH", facts.newest.to_string());
    }
    squash.args(common_options(args)).arg(made);
    let mut archive = tar::open(&args.from)?;
    tool::run_with_input(&mut squash, &mut archive.reader)?;
    archive.finish()
}

fn common_options(args: &ImageArgs) -> Vec<&'static str> {
    // Without -exit-on-error a file that can't be read becomes an empty one, and all seems well.
    let mut options = vec!["-exit-on-error", "-no-progress", "-quiet", "-comp"];
    options.push(match args.compress {
        Compress::Zstd => "zstd",
        Compress::Xz => "xz",
    });
    if args.all_root {
        options.push("-all-root");
    }
    options
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
