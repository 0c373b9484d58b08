//! Which of this machine's compilers can build a static agent, and how it must be called (DESIGN.md section 9).
//!
//! Three ways, in this order: a compiler that has the standard library for musl (rustup); one that has the library's source
//! (Debian's `rustc-web` with `rust-web-src`), which builds it along with the agent; and static glibc, which works but is larger
//! and can't look names up. [`crate::steps::agent`] gathers the [`Facts`] and runs the [`Recipe`].

use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// What musl builds are called.
pub(crate) const MUSL_TARGET: &str = "x86_64-unknown-linux-musl";
/// What the glibc build is called; it must be named, or proc-macros would be linked statically too and fail.
pub(crate) const GLIBC_TARGET: &str = "x86_64-unknown-linux-gnu";
/// Debian packages of the second way.
const DEBIAN_PACKAGES: &str = "musl-tools rustc-web cargo-web rust-web-src libunwind-14-dev";

/// A way to build the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// The toolchain has the standard library for musl
    Musl,
    /// Build the standard library for musl from its source
    BuildStd,
    /// Static glibc: larger, and no name lookup
    Glibc,
}

/// A compiler that was found, and what comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    /// The cargo beside it.
    pub(crate) cargo: PathBuf,
    /// Major and minor.
    pub(crate) version: (u32, u32),
    pub(crate) has_musl_std: bool,
    pub(crate) has_glibc_std: bool,
    pub(crate) has_std_source: bool,
}

/// What this machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// In order of preference.
    pub(crate) compilers: Vec<Compiler>,
    pub(crate) musl_gcc: Option<PathBuf>,
    /// Folder of LLVM's `libunwind.a`; gcc's own unwinder does not link with musl.
    pub(crate) unwind_dir: Option<PathBuf>,
    /// Whether glibc's `libc.a` is there.
    pub(crate) glibc_static: bool,
}

/// One cargo call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) way: Way,
    pub(crate) compiler: Compiler,
    pub(crate) target: &'static str,
    /// Arguments beyond the ones every way has.
    pub(crate) cargo_args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Flags for code of the target only.
    pub(crate) rustflags: Vec<String>,
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.way {
            Way::Musl => "the toolchain's own musl library",
            Way::BuildStd => "the standard library built from source for musl",
            Way::Glibc => "static glibc, which is larger and can't look names up",
        };
        let (major, minor) = self.compiler.version;
        write!(
            f,
            "{} {major}.{minor} with {how}",
            self.compiler.rustc.display()
        )
    }
}

/// Chooses a recipe, or says for each way what it lacks and what to type. `minimum` is the lowest compiler version.
pub(crate) fn choose(
    facts: &Facts,
    wanted: Option<Way>,
    minimum: (u32, u32),
) -> Result<Recipe, String> {
    let mut reasons = Vec::new();
    for way in [Way::Musl, Way::BuildStd, Way::Glibc] {
        if wanted.is_some_and(|wanted| wanted != way) {
            continue;
        }
        match recipe(facts, way, minimum) {
            Ok(recipe) => return Ok(recipe),
            Err(lacks) => reasons.push(format!("\n  {}", lacks)),
        }
    }
    Err(format!(
        "this machine has no way to build a static agent:{}",
        reasons.concat()
    ))
}

fn recipe(facts: &Facts, way: Way, minimum: (u32, u32)) -> Result<Recipe, String> {
    let debian = format!("apt-get install --no-install-recommends {DEBIAN_PACKAGES}");
    let able = |has: fn(&Compiler) -> bool| {
        facts
            .compilers
            .iter()
            .find(|compiler| has(compiler) && compiler.version >= minimum)
            .cloned()
    };
    let musl_gcc = || match &facts.musl_gcc {
        Some(path) => Ok(path.display().to_string()),
        None => Err("no musl-gcc for the C parts; try: apt-get install musl-tools"),
    };
    let static_flags = |more: &[&str]| {
        ["target-feature=+crt-static"]
            .iter()
            .chain(more)
            .flat_map(|flag| ["-C".to_owned(), (*flag).to_owned()])
            .collect()
    };
    let (major, minor) = minimum;
    match way {
        Way::Musl => {
            let compiler = able(|compiler| compiler.has_musl_std).ok_or_else(|| {
                format!("musl: no compiler of at least {major}.{minor} has a library for {MUSL_TARGET}; try: rustup target add {MUSL_TARGET}")
            })?;
            let gcc = musl_gcc().map_err(|lacks| format!("musl: {lacks}"))?;
            Ok(Recipe {
                way,
                compiler,
                target: MUSL_TARGET,
                cargo_args: Vec::new(),
                env: vec![("CC_x86_64_unknown_linux_musl".to_owned(), gcc)],
                rustflags: static_flags(&["relocation-model=static"]),
            })
        }
        Way::BuildStd => {
            let compiler = able(|compiler| compiler.has_std_source).ok_or_else(|| {
                format!("build-std: no compiler of at least {major}.{minor} has the source of its standard library; try: {debian}")
            })?;
            let gcc = musl_gcc().map_err(|lacks| format!("build-std: {lacks}"))?;
            let unwind = facts
                .unwind_dir
                .as_ref()
                .ok_or_else(|| format!("build-std: no LLVM libunwind.a; try: {debian}"))?;
            // A static-pie link through musl-gcc comes out dynamic without a word, so addresses are fixed; the crt files are
            // musl-gcc's own, as this compiler brings none.
            let mut rustflags: Vec<String> =
                static_flags(&["relocation-model=static", "link-self-contained=no"]);
            rustflags.extend([format!("-Lnative={}", unwind.display())]);
            Ok(Recipe {
                way,
                compiler,
                target: MUSL_TARGET,
                // Without std's own stack traces, for which a stripped program has no names.
                cargo_args: vec![
                    "-Zbuild-std=std,panic_abort".to_owned(),
                    "-Zbuild-std-features=optimize_for_size".to_owned(),
                ],
                env: vec![
                    ("RUSTC_BOOTSTRAP".to_owned(), "1".to_owned()),
                    ("CC_x86_64_unknown_linux_musl".to_owned(), gcc.clone()),
                    (
                        "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER".to_owned(),
                        gcc,
                    ),
                ],
                rustflags,
            })
        }
        Way::Glibc => {
            let compiler = able(|compiler| compiler.has_glibc_std).ok_or_else(|| {
                format!("glibc: no compiler of at least {major}.{minor} has a library for {GLIBC_TARGET}; install Rust from https://rustup.rs")
            })?;
            if !facts.glibc_static {
                return Err("glibc: no libc.a; try: apt-get install libc6-dev".to_owned());
            }
            let rustflags = static_flags(&[]);
            Ok(Recipe {
                way,
                compiler,
                target: GLIBC_TARGET,
                cargo_args: Vec::new(),
                env: Vec::new(),
                rustflags,
            })
        }
    }
}

/// Whether an inherited environment variable may reach the inner cargo.
///
/// A cargo that started us has set variables that describe *its* compiler and package; they would mislead the other one. What
/// says where registries are and how to reach them stays. `LD_LIBRARY_PATH` points into the outer toolchain's libraries.
pub(crate) fn keeps_variable(name: &str) -> bool {
    const KEPT: &[&str] = &[
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "RUSTUP_HOME",
        "RUSTUP_DIST_SERVER",
    ];
    const DROPPED: &[&str] = &[
        "CARGO",
        "RUST",
        "LD_LIBRARY_PATH",
        "CC_",
        "CFLAGS",
        "CXX",
        "TARGET_C",
        "CROSS_COMPILE",
    ];
    let starts = |list: &[&str]| list.iter().any(|prefix| name.starts_with(prefix));
    starts(KEPT) || !(starts(DROPPED) || name == "CC" || name == "AR")
}

/// Major and minor out of `rustc --version`'s line.
pub(crate) fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.strip_prefix("rustc ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Flags that keep the paths of this machine out of the program, so that two checkouts give one agent.
pub(crate) fn remap_flags(workspace: &Path, cargo_home: Option<&Path>) -> Vec<String> {
    let mut flags = vec![format!(
        "--remap-path-prefix={}=kraken",
        workspace.display()
    )];
    flags.extend(cargo_home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    flags
}

#[cfg(test)]
mod tests;
