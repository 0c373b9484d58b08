//! `module new`: a module that works as it stands, in Rust, Python, or as a data file.
//!
//! The Python glue and the schema are the repository's own files; a test runs or compiles what comes out.

use std::fs;
use std::path::PathBuf;

use super::taken;
use crate::Context;
use crate::exit::{Exit, Failure};

/// Longest name of a module out of process.
const MAX_NAME: usize = 32;

/// What a module is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lang {
    /// A crate that depends on Kraken's `proto`
    Rust,
    /// A program and its glue; needs grpcio
    Python,
    /// A mutation file: declarations, and the commands that carry them out
    File,
}

/// Arguments of `module new`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  krakenctl module new fan --lang python        a folder fan/ with a program, its glue, and what to do next
  krakenctl module new fan --lang file .        fan.toml and fan.proto, here
  krakenctl module new fan --lang rust --source ~/kraken")]
pub(crate) struct NewArgs {
    /// Name of the module, the first part of its mutations' names
    name: String,
    /// Folder to write to; left out: one named after the module
    folder: Option<PathBuf>,
    /// What to write it in
    #[arg(long, value_enum, default_value_t = Lang::Python)]
    lang: Lang,
    /// Kraken's source, for a module in Rust
    #[arg(long, value_name = "DIR", default_value = "../kraken")]
    source: PathBuf,
}

/// What a scaffold consists of: file, its text.
fn files(lang: Lang) -> &'static [(&'static str, &'static str)] {
    match lang {
        Lang::Rust => &[
            ("Cargo.toml", include_str!("templates/Cargo.toml.txt")),
            ("src/main.rs", include_str!("templates/main.rs.txt")),
            ("NAME.proto", include_str!("templates/extension.proto.txt")),
        ],
        Lang::Python => &[
            ("NAME.py", include_str!("templates/module.py.txt")),
            (
                "kraken_module.py",
                include_str!("../../../proto/examples/python/kraken_module.py"),
            ),
            ("NAME.proto", include_str!("templates/extension.proto.txt")),
            (
                "proto/kraken/v1/module.proto",
                include_str!("../../../proto/kraken/v1/module.proto"),
            ),
            (
                "proto/kraken/v1/mutation.proto",
                include_str!("../../../proto/kraken/v1/mutation.proto"),
            ),
            (
                "proto/kraken/v1/state.proto",
                include_str!("../../../proto/kraken/v1/state.proto"),
            ),
        ],
        Lang::File => &[
            ("NAME.toml", include_str!("templates/mutations.toml.txt")),
            ("NAME.proto", include_str!("templates/extension.proto.txt")),
        ],
    }
}

pub(super) fn run(args: &NewArgs, context: &Context) -> Result<Exit, Failure> {
    let name = &args.name;
    check_name(name, args.lang)?;
    let folder = args.folder.clone().unwrap_or_else(|| PathBuf::from(name));
    let failed =
        |what: &str, error: std::io::Error| Failure::usage(format!("cannot write {what}: {error}"));
    let source =
        std::path::absolute(&args.source).map_err(|error| failed("the path of --source", error))?;
    if args.lang == Lang::Rust && !source.join("proto/Cargo.toml").is_file() {
        return Err(Failure::usage(format!(
            "{} does not hold Kraken's source: name the checkout with --source",
            source.display()
        )));
    }
    let files: Vec<(PathBuf, String)> = files(args.lang)
        .iter()
        .map(|(path, text)| {
            let path = folder.join(path.replace("NAME", name));
            let text = text
                .replace("@NAME@", name)
                .replace("@Name@", &camel(name))
                .replace("@SOURCE@", &source.display().to_string());
            (path, text)
        })
        .collect();
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(Failure::usage(format!(
            "{} is there already: choose another folder",
            path.display()
        )));
    }
    for (path, text) in &files {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .map_err(|error| failed(&parent.display().to_string(), error))?;
        }
        fs::write(path, text).map_err(|error| failed(&path.display().to_string(), error))?;
    }
    let mut text: String = files
        .iter()
        .map(|(path, _)| format!("{}\n", path.display()))
        .collect();
    // The head, and who follows these steps, may be in another folder.
    let there =
        std::path::absolute(&folder).map_err(|error| failed("the path of the folder", error))?;
    // `module new fan .` ends in a point.
    let there: PathBuf = there.components().collect();
    text.push_str(&next_steps(args.lang, name, &there.display().to_string()));
    context.screen.print(&text)?;
    Ok(Exit::Ok)
}

fn check_name(name: &str, lang: Lang) -> Result<(), Failure> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let starts = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if !starts || name.len() > MAX_NAME || !name.bytes().all(fits) {
        return Err(Failure::usage(format!(
            "{name:?} is no name for a module: use a lower-case letter, then at most 31 lower-case letters, digits and \"_\""
        )));
    }
    match taken::why(name, lang == Lang::Python) {
        Some(why) => Err(Failure::usage(why)),
        None => Ok(()),
    }
}

/// `fan_room` as `FanRoom`.
fn camel(name: &str) -> String {
    let upper = |part: &str| {
        let mut chars = part.chars();
        chars
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
    };
    name.split('_').filter_map(upper).collect()
}

fn next_steps(lang: Lang, name: &str, folder: &str) -> String {
    let values =
        format!("1. what it adds to nodes:  krakenctl extension add {folder}/{name}.proto\n");
    let head = |command: &str| format!("[modules.{name}]\n     command = {command}\n");
    let rest = match lang {
        Lang::File => format!(
            "2. what it can do:         install -D -m 644 {folder}/{name}.toml /var/lib/kraken/mutations/{name}.toml\n\
             3. what the head says:     krakenctl mutation lint; krakenctl mutation list\n"
        ),
        Lang::Python => format!(
            "2. its libraries:          python3 -m venv {folder}/venv && {folder}/venv/bin/pip install grpcio grpcio-tools\n\
             3. in /etc/kraken/head.toml, then krakenctl module reload:\n     {}",
            head(&format!(
                "[\"{folder}/venv/bin/python\", \"{folder}/{name}.py\"]"
            ))
        ),
        Lang::Rust => format!(
            "2. build it:               cd {folder} && cargo build --release\n\
             3. in /etc/kraken/head.toml, then krakenctl module reload:\n     {}",
            head(&format!("[\"{folder}/target/release/{name}\"]"))
        ),
    };
    format!(
        "\n{values}{rest}4. ask for something:      krakenctl module list; krakenctl node set n1 /{name}/state=ON\n"
    )
}
