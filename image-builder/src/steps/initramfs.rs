//! `kraken-image initramfs`: packs layer 0, the agent with keys and kernel modules, so that equal input gives equal bytes.

use std::env;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use flate2::{Compression, GzBuilder};
use serde_json::json;

use super::agent::{self, BuildArgs};
use super::progress::Progress;
use super::{Report, files, keys, tool};
use crate::modules::{
    DEFAULT_MODULES, DepmodFiles, ModuleName, ModuleTable, Selection, unpacked_name,
};
use crate::plan::{self, Build, Contents};
use crate::{digest, elf};

/// Highest level below zstd's "ultra" ones: an 8 MiB window, so the kernel needs little memory to unpack.
const ZSTD_LEVEL: i32 = 19;

/// Pack an initramfs: the agent, the cluster's public keys, and kernel modules with all they need
///
/// Without --agent the agent is built first. The usual drivers of virtual machines, network cards, disks and file systems are
/// packed as far as the kernel has them; --module adds others, which must exist. The same input gives the same sha256.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kraken-image initramfs --kernel kernel --keys keys --out initramfs
  kraken-image initramfs --agent agent --kernel kernel --keys keys --no-default-modules --module virtio_net --module virtio_pci \\
      --module squashfs --module overlay --module loop --out initramfs

The build time inside is SOURCE_DATE_EPOCH if set, else the time of the keys.")]
pub(crate) struct InitramfsArgs {
    /// Static agent to use instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    #[command(flatten)]
    build: BuildArgs,
    /// Folder made by `kraken-image kernel`
    #[arg(long, value_name = "DIR")]
    kernel: PathBuf,
    /// Folder made by `kraken-image keys`; only its public halves are packed
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Kernel module to pack as well; repeat for more
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Pack only the modules named by --module
    #[arg(long)]
    no_default_modules: bool,
    /// How the archive is compressed
    #[arg(long, value_enum, value_name = "HOW", default_value = "zstd")]
    compress: Compress,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// How the archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compress {
    /// Small and quick to unpack; kernels since 5.9
    Zstd,
    /// For kernels that can't unpack zstd
    Gzip,
}

impl Compress {
    /// The kernel option that unpacks it.
    fn kernel_option(self) -> &'static str {
        match self {
            Self::Zstd => "CONFIG_RD_ZSTD=y",
            Self::Gzip => "CONFIG_RD_GZIP=y",
        }
    }
}

pub(crate) fn run(args: &InitramfsArgs) -> Result<Report> {
    let kernel_version = read_kernel_version(&args.kernel)?;
    check_kernel_unpacks(&args.kernel, args.compress)?;
    let (ca_pem, cluster_pub) = read_public_keys(&args.keys)?;
    let time = build_time(&args.keys)?;
    let module_folder = args.kernel.join("lib/modules").join(&kernel_version);
    let selection = select_modules(&module_folder, args)?;
    let agent = match &args.agent {
        Some(path) => read_agent(path)?,
        None => agent::build(&args.build)?.bytes,
    };
    let progress = Progress::start("reading modules");
    let modules = read_modules(&module_folder, &selection)?;
    let agent_bytes = agent.len();
    let module_count = modules.len();
    let module_bytes: usize = modules.iter().map(|(_, module)| module.len()).sum();
    let archive = plan::layout(Contents {
        agent,
        ca_pem,
        cluster_pub,
        build: Build {
            time,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
        },
        kernel_version: kernel_version.clone(),
        modules,
        modules_dep: selection.dep,
        modules_alias: selection.alias,
        modules_softdep: selection.softdep,
    })?;
    let mut unpacked = Vec::new();
    archive
        .write_to(&mut unpacked)
        .context("can't put the archive together")?;
    progress.say(format!(
        "compressing {}",
        files::size_text(unpacked.len() as u64)
    ));
    let packed = compress(&unpacked, args.compress).context("can't compress the archive")?;
    files::write(&args.out, &packed, 0o644)?;
    drop(progress);

    let sha256 = digest::sha256_hex(&packed);
    let missing: Vec<_> = selection.missing.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "{}\n  agent    {}\n  modules  {} in {module_count} files, kernel {kernel_version}\n  total    {}, {} unpacked\n  sha256   {sha256}",
        args.out.display(),
        files::size_text(agent_bytes as u64),
        files::size_text(module_bytes as u64),
        files::size_text(packed.len() as u64),
        files::size_text(unpacked.len() as u64),
    );
    if !missing.is_empty() {
        text.push_str(&format!(
            "\n  the kernel does not have these of the usual modules: {}",
            missing.join(" ")
        ));
    }
    let json = json!({
        "out": args.out, "sha256": sha256, "bytes": packed.len(), "unpacked_bytes": unpacked.len(), "agent_bytes": agent_bytes,
        "modules": module_count, "module_bytes": module_bytes, "missing": missing, "kernel": kernel_version,
    });
    Ok(Report { text, json })
}

/// The version of the kernel in a folder made by `kraken-image kernel`.
pub(crate) fn read_kernel_version(folder: &Path) -> Result<String> {
    let path = folder.join("version");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "no kernel in {} (can't read {}); `kraken-image kernel` puts one there",
            folder.display(),
            path.display()
        )
    })?;
    let version = text.trim();
    if version.is_empty() || version.contains(|c: char| c == '/' || c.is_whitespace()) {
        bail!("{} does not hold a kernel version", path.display());
    }
    Ok(version.to_owned())
}

/// A kernel that can't unpack the archive panics with words that lead nowhere, so it is noticed here if the config tells.
fn check_kernel_unpacks(folder: &Path, compress: Compress) -> Result<()> {
    let Ok(config) = std::fs::read_to_string(folder.join("config")) else {
        return Ok(());
    };
    if config.lines().any(|line| line == compress.kernel_option()) {
        return Ok(());
    }
    bail!(
        "the kernel in {} can't unpack this (its config lacks {}); give another --compress",
        folder.display(),
        compress.kernel_option()
    );
}

fn read_public_keys(folder: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let (ca_path, pub_path) = (folder.join(keys::CA_PEM), folder.join(keys::CLUSTER_PUB));
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| {
            format!(
                "can't read {} (`kraken-image keys` makes it)",
                path.display()
            )
        })
    };
    let (ca_pem, cluster_pub) = (read(&ca_path)?, read(&pub_path)?);
    if !ca_pem.contains("-----BEGIN CERTIFICATE-----") || ca_pem.contains("PRIVATE KEY") {
        bail!(
            "{} must hold a PEM certificate and no private key",
            ca_path.display()
        );
    }
    if keys::parse_pub(&cluster_pub).is_none() {
        bail!("{} must hold 64 lower-case hex digits", pub_path.display());
    }
    Ok((ca_pem.into_bytes(), cluster_pub.into_bytes()))
}

/// Seconds since 1970: SOURCE_DATE_EPOCH, else when the keys were made, so that building again changes nothing.
fn build_time(keys: &Path) -> Result<u64> {
    if let Some(text) = env::var_os("SOURCE_DATE_EPOCH") {
        let seconds = text.to_str().and_then(|text| text.parse().ok());
        return seconds.with_context(|| {
            format!("SOURCE_DATE_EPOCH must be seconds since 1970, not {text:?}")
        });
    }
    let path = keys.join(keys::CA_PEM);
    let modified = std::fs::metadata(&path)
        .and_then(|data| data.modified())
        .with_context(|| format!("can't tell the time of {}", path.display()))?;
    Ok(modified
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs()))
}

fn select_modules(folder: &Path, args: &InitramfsArgs) -> Result<Selection> {
    let dep = files::read_text(&folder.join("modules.dep"))
        .context("the kernel has no module index; make its folder with `kraken-image kernel`")?;
    let optional_file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (alias, softdep, builtin) = (
        optional_file("modules.alias"),
        optional_file("modules.softdep"),
        optional_file("modules.builtin"),
    );
    let table = ModuleTable::parse(DepmodFiles {
        dep: &dep,
        alias: &alias,
        softdep: &softdep,
        builtin: &builtin,
    })
    .with_context(|| format!("the module index in {} is damaged", folder.display()))?;
    let required: Vec<_> = args
        .modules
        .iter()
        .map(|name| ModuleName::new(name))
        .collect();
    let defaults: &[&str] = if args.no_default_modules {
        &[]
    } else {
        DEFAULT_MODULES
    };
    let optional: Vec<_> = defaults.iter().map(|name| ModuleName::new(name)).collect();
    Ok(table.select(&required, &optional)?)
}

fn read_agent(path: &Path) -> Result<Vec<u8>> {
    let bytes = files::read(path)?;
    elf::check_static(&bytes).with_context(|| {
        format!(
            "{} can't be PID 1 of an initramfs; `kraken-image agent` builds one that can",
            path.display()
        )
    })?;
    Ok(bytes)
}

fn read_modules(folder: &Path, selection: &Selection) -> Result<Vec<(String, Vec<u8>)>> {
    let read = |path: &String| {
        let file = folder.join(path);
        let bytes = files::read(&file)?;
        let bytes = unpack_module(path, bytes)
            .with_context(|| format!("can't uncompress {}", file.display()))?;
        Ok((unpacked_name(path).to_owned(), bytes))
    };
    selection.paths.iter().map(read).collect()
}

/// The agent loads plain modules only: the archive is compressed as a whole, which is smaller.
fn unpack_module(path: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    match &path[unpacked_name(path).len()..] {
        "" => return Ok(bytes),
        ".gz" => drop(flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain)?),
        ".zst" => drop(zstd::Decoder::new(&bytes[..])?.read_to_end(&mut plain)?),
        ".xz" => {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(&bytes)?;
            let mut xz = tool::command("xz", "xz-utils")?;
            let output = xz.args(["-dc", "--"]).stdin(file.reopen()?).output()?;
            if !output.status.success() {
                bail!("xz failed:\n{}", tool::excerpt(&output.stderr));
            }
            plain = output.stdout;
        }
        other => bail!("unknown compression {other}"),
    }
    Ok(plain)
}

/// One zstd frame, as the kernel reads no more of them; gzip without name and time.
fn compress(bytes: &[u8], how: Compress) -> std::io::Result<Vec<u8>> {
    match how {
        Compress::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
            encoder.include_checksum(true)?;
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Compress::Gzip => {
            let mut encoder = GzBuilder::new()
                .mtime(0)
                .write(Vec::new(), Compression::best());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
    }
}
