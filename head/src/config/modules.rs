//! `[modules.NAME]`: modules that the head starts and keeps running; taken over while it runs, too (`reload`).
//!
//! ```toml
//! [modules.fan]
//! command = ["/usr/lib/kraken/fan", "--quiet"]     # speaks the module API on $KRAKEN_MODULE_SOCKET
//! config = { speed = 3, factor = 1.5, rooms = ["a", "b"] }       # sent to it, also when it changes
//! env = { LANG = "C" }
//! user = "kraken-fan"                              # left out: the head's own user
//! secrets = ["/power/password"]                    # secrets of others that it may see
//! limits = { memory = "256MiB", pids = 64, discoveries_per_second = 1000 }
//! ```
//!
//! Memory and processes are bounded by cgroups where the head's systemd unit says `Delegate=memory pids` and `DelegateSubgroup=kraken-head`
//! (the latter only if it runs as root), else by rlimits and a look a second. `krakenctl module list -o wide` tells which.

use std::collections::{BTreeMap, BTreeSet};

use engine::state::{StateUrl, Value};

use super::document::{Document, Raw};

/// Longest name; its socket's path has to fit into 107 bytes.
const MAX_NAME: usize = 32;

/// One module to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModuleConfig {
    /// Its name, the first part of its mutations' names.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// What it is told.
    pub(crate) config: BTreeMap<String, Value>,
    /// Beside the head's own environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Runs as this user.
    pub(crate) user: Option<String>,
    /// Secrets of others that it may see.
    pub(crate) secrets: Vec<StateUrl>,
    /// What it may use.
    pub(crate) limits: Limits,
}

/// What one module may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Resident memory of all its processes, bytes.
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) pids: u32,
    /// Values that it may report a second.
    pub(crate) discoveries_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            pids: 64,
            discoveries_per_second: 1000,
        }
    }
}

pub(super) fn read(doc: &mut Document<'_>) -> Vec<ModuleConfig> {
    let below = doc.names_below("modules");
    let names: BTreeSet<String> = below
        .iter()
        .filter_map(|path| path.split('.').next().map(str::to_owned))
        .collect();
    let mut modules = Vec::new();
    for name in names {
        let key = |last: &str| format!("modules.{name}.{last}");
        let command = doc.get(&key("command"), |raw| match raw {
            Raw::List(words) if words.first().is_some_and(|word| !word.is_empty()) => {
                Ok(words.clone())
            }
            _ => Err(
                "a program and its arguments are wanted, such as [\"/usr/lib/kraken/fan\"]".into(),
            ),
        });
        if command.is_none() && !below.contains(&format!("{name}.command")) {
            doc.missing(&key("command"), "say which program speaks for this module");
        }
        if !is_name(&name) {
            doc.refuse(
                &key("command"),
                "the module's name has to be at most 32 letters, digits, \"_\" and \"-\"",
            );
        }
        let module = ModuleConfig {
            command: command.unwrap_or_default(),
            config: table(doc, &key("config"), value),
            env: table(doc, &key("env"), |raw| raw.text().map(str::to_owned)),
            user: doc.get(&key("user"), |raw| raw.text().map(str::to_owned)),
            secrets: doc
                .get(&key("secrets"), |raw| {
                    let urls = raw.list()?;
                    let urls = urls.iter().map(|url| url.parse());
                    urls.collect::<Result<_, engine::state::UrlError>>()
                        .map_err(|error| error.to_string())
                })
                .unwrap_or_default(),
            limits: limits(doc, &key("limits")),
            name,
        };
        modules.push(module);
    }
    modules
}

/// Whether a module out of process may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}

fn limits(doc: &mut Document<'_>, key: &str) -> Limits {
    let defaults = Limits::default();
    let memory = doc.get_or(
        &format!("{key}.memory"),
        defaults.memory,
        "\"256MiB\"",
        |raw| {
            let text = raw.text()?.trim();
            size(text)
                .filter(|bytes| (16 << 20..=1 << 40).contains(bytes))
                .ok_or_else(|| "a size of at least 16MiB is wanted, such as \"256MiB\"".into())
        },
    );
    let pids = doc.get_or(
        &format!("{key}.pids"),
        defaults.pids,
        defaults.pids,
        |raw| Ok(raw.int(1, 100_000)? as u32),
    );
    let rate = defaults.discoveries_per_second;
    let discoveries_per_second = doc.get_or(
        &format!("{key}.discoveries_per_second"),
        rate,
        rate,
        |raw| Ok(raw.int(1, 1_000_000)? as u32),
    );
    Limits {
        memory,
        pids,
        discoveries_per_second,
    }
}

fn table<T>(
    doc: &mut Document<'_>,
    key: &str,
    read: impl Fn(&Raw) -> Result<T, String>,
) -> BTreeMap<String, T> {
    let names = doc.names_below(key);
    let mut table = BTreeMap::new();
    for name in names {
        if let Some(value) = doc.get(&format!("{key}.{name}"), &read) {
            table.insert(name, value);
        }
    }
    table
}

fn value(raw: &Raw) -> Result<Value, String> {
    Ok(match raw {
        Raw::Text(text) => Value::text(text.as_str()),
        Raw::Int(number) => Value::Int(*number),
        Raw::Float(number) => Value::Float(*number),
        Raw::Bool(flag) => Value::Bool(*flag),
        Raw::List(items) => Value::List(
            items
                .iter()
                .map(|item| Value::text(item.as_str()))
                .collect(),
        ),
    })
}

/// `256M`, `256MiB`, `1G`.
fn size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let shift = match &text[digits..] {
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}
