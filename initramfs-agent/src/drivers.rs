//! Kernel modules: which the hardware asks for, and what they need first (modules.dep(5), modules.alias, modules.softdep).
//!
//! [`Index`] is pure: the text of depmod's files in, an order of files out. [`load_for_hardware`] walks `/sys/devices` and loads.
//! What udev and modprobe do beyond that (options, blacklists, install commands) has no place in an initramfs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::kmod::{ModuleInitFlags, finit_module};
use tracing::debug;

/// Rounds of looking for hardware: each driver may show a bus with more devices behind it.
const MAX_ROUNDS: usize = 6;
/// Directories of devices in which no other device with a driver lies. Half of sysfs is in them, and a boot waits for this.
const BARREN: &[&str] = &[
    "power",
    "tty",
    "net",
    "block",
    "queues",
    "statistics",
    "msi_irqs",
    "virtual",
];
/// Deepest directory of `/sys/devices` that is looked into; real ones end at about 16.
const MAX_DEPTH: usize = 24;

/// The module files of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Name to file, relative to the kernel's directory.
    files: BTreeMap<String, String>,
    /// Name to the names that must be loaded before, nearest last.
    needs: BTreeMap<String, Vec<String>>,
    /// Pattern and name.
    aliases: Vec<(String, String)>,
}

impl Index {
    /// Reads depmod's files. Lines that make no sense are skipped: they name modules that we then do not have.
    pub(crate) fn parse(dep: &str, alias: &str, softdep: &str) -> Self {
        let mut index = Self::default();
        for line in dep.lines() {
            let Some((file, needs)) = line.split_once(':') else {
                continue;
            };
            let name = name_of(file);
            let needs = needs.split_whitespace().rev().map(name_of).collect();
            index.files.insert(name.clone(), file.trim().to_owned());
            index.needs.insert(name, needs);
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(name) = words.next().map(canonical) else {
                continue;
            };
            let mut before = false;
            for word in words {
                match word {
                    "pre:" => before = true,
                    "post:" => before = false,
                    _ if before => index
                        .needs
                        .entry(name.clone())
                        .or_default()
                        .push(canonical(word)),
                    _ => {}
                }
            }
        }
        for line in alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) =
                (words.next(), words.next(), words.next())
            {
                index.aliases.push((pattern.to_owned(), canonical(name)));
            }
        }
        index
    }

    /// Reads the directory of one kernel, `/lib/modules/VERSION`.
    ///
    /// # Errors
    /// There is no `modules.dep`.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let optional = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let dep = fs::read_to_string(dir.join("modules.dep"))?;
        Ok(Self::parse(
            &dep,
            &optional("modules.alias"),
            &optional("modules.softdep"),
        ))
    }

    /// Names of the modules that a device with this alias can use.
    pub(crate) fn for_alias(&self, alias: &str) -> Vec<&str> {
        let wanted = self
            .aliases
            .iter()
            .filter(|(pattern, _)| matches(pattern, alias));
        wanted.map(|(_, name)| name.as_str()).collect()
    }

    /// The files to load, in order, so that all of `names` work. Names without a file are skipped: they are built in, or left out.
    pub(crate) fn load_order<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let mut order = Vec::new();
        for name in names {
            self.visit(&canonical(name), &mut seen, &mut order);
        }
        order
    }

    fn visit<'a>(&'a self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<&'a str>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        for need in self.needs.get(name).into_iter().flatten() {
            self.visit(need, seen, order);
        }
        if let Some(file) = self.files.get(name) {
            order.push(file);
        }
    }
}

/// `kernel/drivers/net/virtio-net.ko.xz` is `virtio_net`.
fn name_of(file: &str) -> String {
    let base = file.trim().rsplit('/').next().unwrap_or_default();
    canonical(base.split('.').next().unwrap_or_default())
}

/// Names are the same with `-` and `_`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Whether a pattern of modules.alias (`*`, `?`, `[a-z]`) fits the whole text.
///
/// Backtracks to the latest star only, so the time is at most the product of the lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(next) = step(pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((after, at)) = star {
            (p, t) = (after, at + 1);
            star = Some((after, at + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The place in the pattern behind the item at `p`, if that fits the byte.
fn step(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let end = p + pattern[p..].iter().position(|b| *b == b']')?;
            let set = &pattern[p + 1..end];
            let mut at = 0;
            let mut fits = false;
            while at < set.len() {
                if set.get(at + 1) == Some(&b'-') && at + 2 < set.len() {
                    fits |= (set[at]..=set[at + 2]).contains(&byte);
                    at += 3;
                } else {
                    fits |= set[at] == byte;
                    at += 1;
                }
            }
            fits.then_some(end + 1)
        }
        literal => (*literal == byte).then_some(p + 1),
    }
}

/// The module directory of the running kernel.
pub(crate) fn kernel_dir() -> io::Result<PathBuf> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(Path::new("/lib/modules").join(release.trim()))
}

/// What loading did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Names in the order of loading.
    pub(crate) names: Vec<String>,
    /// A sentence for each that failed.
    pub(crate) failed: Vec<String>,
}

/// Loads what the machine's devices ask for, round by round until no further device appears.
pub(crate) fn load_for_hardware(index: &Index, dir: &Path) -> Loaded {
    let mut all = Loaded::default();
    let mut tried = BTreeSet::new();
    for _ in 0..MAX_ROUNDS {
        let begun = Instant::now();
        let mut aliases = BTreeSet::new();
        collect_aliases(Path::new("/sys/devices"), 0, &mut aliases);
        let names: BTreeSet<&str> = aliases
            .iter()
            .flat_map(|alias| index.for_alias(alias))
            .collect();
        let fresh: Vec<&str> = index
            .load_order(names)
            .into_iter()
            .filter(|file| tried.insert((*file).to_owned()))
            .collect();
        debug!(
            aliases = aliases.len(),
            modules = fresh.len(),
            ms = begun.elapsed().as_millis(),
            "looked for devices"
        );
        if fresh.is_empty() {
            break;
        }
        load_files(dir, &fresh, &mut all);
    }
    all
}

/// Loads modules by name, with what they need. One that is there already is fine.
pub(crate) fn load_by_name(index: &Index, dir: &Path, names: &[&str]) -> Loaded {
    let mut all = Loaded::default();
    load_files(dir, &index.load_order(names.iter().copied()), &mut all);
    all
}

fn load_files(dir: &Path, files: &[&str], all: &mut Loaded) {
    const NO_PARAMETERS: &CStr = c"";
    for file in files {
        let name = name_of(file);
        let begun = Instant::now();
        let done = File::open(dir.join(file)).and_then(|image| {
            Ok(finit_module(
                &image,
                NO_PARAMETERS,
                ModuleInitFlags::empty(),
            )?)
        });
        debug!(ms = begun.elapsed().as_millis(), "module {name}");
        match done {
            Ok(()) => all.names.push(name),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            // A driver that finds nothing to drive says so this way.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => all.failed.push(format!("module {name}: {error}")),
        }
    }
}

fn collect_aliases(dir: &Path, depth: usize, aliases: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let barren = || BARREN.iter().any(|name| entry.file_name() == *name);
        if kind.is_dir() && depth < MAX_DEPTH && !barren() {
            collect_aliases(&entry.path(), depth + 1, aliases);
        } else if kind.is_file()
            && entry.file_name() == "modalias"
            && let Ok(alias) = fs::read_to_string(entry.path())
        {
            aliases.insert(alias.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
