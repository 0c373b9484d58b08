//! `kraken-image agent`: builds the static agent by whichever way the machine has, and refuses one that is not static.

use std::env;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::progress::Progress;
use super::{Report, files, tool};
use crate::elf;
use crate::toolchain::{self, Compiler, Facts, GLIBC_TARGET, MUSL_TARGET, Recipe, Way};

/// The package, its program, and the profile in the workspace's `Cargo.toml`.
const PACKAGE: &str = "initramfs-agent";
const PROGRAM: &str = "kraken-agent";
const PROFILE: &str = "agent";

/// Build the static agent, PID 1 of the initramfs
///
/// Uses the first of three ways that this machine has: a compiler with the standard library for musl (rustup target add
/// x86_64-unknown-linux-musl); Debian's rustc-web, which builds that library from rust-web-src; or static glibc. Says which it
/// used, and refuses a result that is not static. The first build takes some minutes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kraken-image agent --out agent
  kraken-image agent --way build-std --out agent")]
pub(crate) struct AgentArgs {
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// How the agent is built, wherever one is.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// Build the agent this way instead of the first that works
    #[arg(long, value_enum, value_name = "WAY")]
    way: Option<Way>,
    /// Kraken's source; default: the folder above that has it
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
}

pub(crate) fn run(args: &AgentArgs) -> Result<Report> {
    let built = build(&args.build)?;
    files::write(&args.out, &built.bytes, 0o755)?;
    let size = built.bytes.len() as u64;
    let text = format!(
        "{}\n  {}, {}, {}\n  built by {}",
        args.out.display(),
        built.program.machine,
        built.program.linkage,
        files::size_text(size),
        built.recipe
    );
    let way = format!("{:?}", built.recipe.way).to_lowercase();
    let json = json!({ "out": args.out, "bytes": size, "way": way, "compiler": built.recipe.compiler.rustc, "target": built.recipe.target });
    Ok(Report { text, json })
}

/// An agent fresh from the compiler.
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    program: elf::StaticProgram,
    recipe: Recipe,
}

/// Builds the agent.
pub(crate) fn build(args: &BuildArgs) -> Result<Built> {
    let workspace = find_workspace(args.workspace.as_deref())?;
    let recipe = toolchain::choose(&gather_facts(&workspace), args.way, minimum_version()?)
        .map_err(anyhow::Error::msg)?;
    eprintln!("building the agent by {recipe}");
    let target_dir = workspace.join("target/agent");
    cargo_build(&workspace, &target_dir, &recipe)?;
    let path = target_dir.join(recipe.target).join(PROFILE).join(PROGRAM);
    let bytes = files::read(&path)?;
    let program = elf::check_static(&bytes).with_context(|| {
        format!(
            "{} can't be PID 1 of an initramfs; built by {recipe}",
            path.display()
        )
    })?;
    Ok(Built {
        bytes,
        program,
        recipe,
    })
}

fn cargo_build(workspace: &Path, target_dir: &Path, recipe: &Recipe) -> Result<()> {
    let mut cargo = clean_command(&recipe.compiler.cargo, workspace);
    cargo.args([
        "build",
        "--locked",
        "--profile",
        PROFILE,
        "--package",
        PACKAGE,
        "--bin",
        PROGRAM,
        "--target",
        recipe.target,
    ]);
    cargo
        .arg("--target-dir")
        .arg(target_dir)
        .args(&recipe.cargo_args);
    cargo.envs(recipe.env.iter().map(|(name, value)| (name, value)));
    cargo.env("RUSTC", &recipe.compiler.rustc);
    let mut flags = recipe.rustflags.clone();
    flags.extend(toolchain::remap_flags(workspace, cargo_home().as_deref()));
    // Unlike RUSTFLAGS this form survives spaces in folder names.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    if std::io::stderr().is_terminal() {
        let status = cargo
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("can't start cargo")?;
        if !status.success() {
            bail!("building the agent failed; its compiler's messages are above");
        }
        return Ok(());
    }
    let _progress = Progress::start("building the agent");
    tool::run(&mut cargo)
        .map(drop)
        .context("building the agent failed")
}

/// A command without what an outer cargo has set for its own compiler.
fn clean_command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear();
    command.envs(
        env::vars_os().filter(|(name, _)| name.to_str().is_none_or(toolchain::keeps_variable)),
    );
    command
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// The lowest compiler that the workspace builds with.
fn minimum_version() -> Result<(u32, u32)> {
    let text = concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), ".");
    toolchain::parse_version(text)
        .with_context(|| format!("can't read the workspace's compiler version {text:?}"))
}

/// The folder whose `Cargo.toml` is Kraken's: as told, else upwards from here, else where this program was built.
fn find_workspace(told: Option<&Path>) -> Result<PathBuf> {
    let is_ours = |folder: &Path| {
        folder.join(PACKAGE).join("Cargo.toml").is_file() && folder.join("Cargo.toml").is_file()
    };
    if let Some(folder) = told {
        if is_ours(folder) {
            return folder
                .canonicalize()
                .with_context(|| format!("can't find {}", folder.display()));
        }
        bail!(
            "{} is not Kraken's source: it has no {PACKAGE}/Cargo.toml",
            folder.display()
        );
    }
    let here = env::current_dir().context("can't tell the current folder")?;
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"));
    let found = here
        .ancestors()
        .chain([built_in])
        .find(|folder| is_ours(folder));
    found.map(Path::to_owned).context("can't find Kraken's source, which has the agent; run this in it, or give --workspace DIR, or --agent FILE")
}

fn gather_facts(workspace: &Path) -> Facts {
    let mut folders: Vec<PathBuf> = tool::find("rustc")
        .and_then(|rustc| Some(rustc.parent()?.to_owned()))
        .into_iter()
        .collect();
    folders.extend(cargo_home().map(|home| home.join("bin")));
    // Debian's compiler, which a rustup in PATH hides.
    folders.push("/usr/bin".into());
    let mut compilers = Vec::new();
    for folder in folders {
        if let Some(compiler) = look_at_compiler(&folder, workspace)
            && !compilers.contains(&compiler)
        {
            compilers.push(compiler);
        }
    }
    Facts {
        compilers,
        musl_gcc: tool::find("musl-gcc"),
        unwind_dir: find_unwind(),
        glibc_static: has_glibc_static(),
    }
}

fn look_at_compiler(folder: &Path, workspace: &Path) -> Option<Compiler> {
    let (rustc, cargo) = (folder.join("rustc"), folder.join("cargo"));
    if !cargo.is_file() {
        return None;
    }
    // Asked in the workspace, so that a toolchain file there has its say.
    let ask = |argument: &[&str]| tool::run(clean_command(&rustc, workspace).args(argument)).ok();
    let version = toolchain::parse_version(&ask(&["--version"])?)?;
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim()).join("lib/rustlib");
    let has_std = |target: &str| {
        let entries = sysroot.join(target).join("lib").read_dir();
        entries.is_ok_and(|mut entries| {
            entries
                .any(|entry| entry.is_ok_and(|entry| is_std(&entry.file_name().to_string_lossy())))
        })
    };
    Some(Compiler {
        version,
        has_musl_std: has_std(MUSL_TARGET),
        has_glibc_std: has_std(GLIBC_TARGET),
        has_std_source: sysroot.join("src/rust/library/std/Cargo.toml").is_file(),
        rustc,
        cargo,
    })
}

fn is_std(file: &str) -> bool {
    file.starts_with("libstd-") && file.ends_with(".rlib")
}

/// The newest `/usr/lib/llvm-N/lib` that has `libunwind.a`.
fn find_unwind() -> Option<PathBuf> {
    let number = |name: &str| name.strip_prefix("llvm-")?.parse::<u32>().ok();
    let entries = Path::new("/usr/lib")
        .read_dir()
        .ok()?
        .filter_map(|entry| Some((number(entry.ok()?.file_name().to_str()?)?, ())));
    let folders = entries.map(|(version, ())| {
        (
            version,
            PathBuf::from(format!("/usr/lib/llvm-{version}/lib")),
        )
    });
    folders
        .filter(|(_, folder)| folder.join("libunwind.a").is_file())
        .max()
        .map(|(_, folder)| folder)
}

fn has_glibc_static() -> bool {
    [
        "/usr/lib/x86_64-linux-gnu/libc.a",
        "/usr/lib64/libc.a",
        "/usr/lib/libc.a",
    ]
    .iter()
    .any(|path| Path::new(path).is_file())
}
