//! Which kernel modules go into an initramfs: the wanted ones and everything they need, from depmod's text files.
//!
//! Source: modules.dep(5), modprobe.d(5) for `softdep`. Names compare with `-` as `_`. Soft dependencies (before and after)
//! count as needed when the kernel has them, by module name or by alias, since the agent has no modprobe that could load
//! them later. Compressed modules (`.ko.xz`) are listed in the result under their uncompressed name.
//! Left out: `weakdep`, firmware, and the binary indexes.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// Modules that an initramfs gets unless told otherwise; those that a kernel lacks are listed and skipped.
///
/// One row per purpose: what virtual machines need, network cards of virtual machines and of clusters, disks, file systems
/// of images and boot media, random numbers, watchdogs.
pub(crate) const DEFAULT_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_rng",
    "virtio_console",
    "virtio_balloon",
    "qemu_fw_cfg",
    "e1000",
    "e1000e",
    "vmxnet3",
    "hv_netvsc",
    "ena",
    "gve",
    "igb",
    "igc",
    "igbvf",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "iavf",
    "ice",
    "tg3",
    "bnx2x",
    "bnxt_en",
    "mlx4_en",
    "mlx5_core",
    "mlx5_ib",
    "ib_ipoib",
    "be2net",
    "cxgb4",
    "sfc",
    "qede",
    "r8169",
    "8139cp",
    "atlantic",
    "usbnet",
    "nvme",
    "ahci",
    "sd_mod",
    "sr_mod",
    "loop",
    "squashfs",
    "erofs",
    "overlay",
    "isofs",
    "ext4",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "i6300esb",
    "iTCO_wdt",
    "softdog",
    "ipmi_si",
    "ipmi_devintf",
    "af_packet",
];

/// How many similar names an error offers.
const SUGGESTIONS: usize = 3;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ModulesError {
    #[error("line {line} of modules.dep is not `path: path...`: {text:?}")]
    Dep { line: usize, text: String },
    #[error("modules.dep says that {module} needs {path}, but does not list that file")]
    Dangling { module: String, path: String },
    #[error("the kernel has no module {name}{}", suggest(.similar))]
    Missing { name: String, similar: Vec<String> },
}

fn suggest(similar: &[String]) -> String {
    if similar.is_empty() {
        String::new()
    } else {
        format!("; similar names: {}", similar.join(", "))
    }
}

/// A module's name as the kernel spells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ModuleName(String);

impl ModuleName {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.replace('-', "_"))
    }

    /// The name of the module in a file such as `kernel/fs/nls/nls_utf8.ko.xz`.
    fn of_path(path: &str) -> Self {
        let file = path.rsplit('/').next().unwrap_or(path);
        Self::new(file.split_once(".ko").map_or(file, |(stem, _)| stem))
    }
}

impl std::fmt::Display for ModuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything depmod knows about one kernel's modules.
#[derive(Debug)]
pub(crate) struct ModuleTable {
    modules: BTreeMap<ModuleName, Module>,
    /// Exact alias to modules; patterns are kept as they are, for the filtered copy only.
    aliases: BTreeMap<String, BTreeSet<ModuleName>>,
    soft: Vec<(ModuleName, String)>,
    builtin: BTreeSet<ModuleName>,
}

#[derive(Debug)]
struct Module {
    path: String,
    needs: Vec<ModuleName>,
}

/// The texts of `modules.dep`, `modules.alias`, `modules.softdep`, `modules.builtin`; empty if a kernel has no such file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DepmodFiles<'a> {
    pub(crate) dep: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) softdep: &'a str,
    pub(crate) builtin: &'a str,
}

/// The modules to pack, with the index files that describe just them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Paths below `/lib/modules/<version>`, as the kernel's folder has them (possibly compressed), sorted.
    pub(crate) paths: Vec<String>,
    /// Optional modules that the kernel neither has nor contains.
    pub(crate) missing: Vec<ModuleName>,
    pub(crate) dep: String,
    pub(crate) alias: String,
    pub(crate) softdep: String,
}

impl ModuleTable {
    pub(crate) fn parse(files: DepmodFiles<'_>) -> Result<Self, ModulesError> {
        let mut modules = BTreeMap::new();
        for (number, line) in lines(files.dep) {
            let bad = || ModulesError::Dep {
                line: number,
                text: line.to_owned(),
            };
            let (path, needs) = line.split_once(':').ok_or_else(bad)?;
            if !path.contains(".ko")
                || path.starts_with('/')
                || path.split('/').any(|part| part == "..")
            {
                return Err(bad());
            }
            let needs = needs.split_whitespace().map(ModuleName::of_path).collect();
            modules.insert(
                ModuleName::of_path(path),
                Module {
                    path: path.to_owned(),
                    needs,
                },
            );
        }
        let mut aliases = BTreeMap::<_, BTreeSet<_>>::new();
        for (_, line) in lines(files.alias) {
            if let Some((pattern, module)) = line
                .strip_prefix("alias ")
                .and_then(|rest| rest.rsplit_once(' '))
            {
                aliases
                    .entry(pattern.to_owned())
                    .or_default()
                    .insert(ModuleName::new(module));
            }
        }
        let soft = lines(files.softdep)
            .filter_map(|(_, line)| line.strip_prefix("softdep ")?.split_once(' '))
            .map(|(module, rest)| (ModuleName::new(module), rest.to_owned()))
            .collect();
        let builtin = lines(files.builtin)
            .map(|(_, path)| ModuleName::of_path(path))
            .collect();
        Ok(Self {
            modules,
            aliases,
            soft,
            builtin,
        })
    }

    /// The closure of `required` (an error if the kernel lacks one) and `optional` (listed if it does).
    pub(crate) fn select(
        &self,
        required: &[ModuleName],
        optional: &[ModuleName],
    ) -> Result<Selection, ModulesError> {
        let mut missing = Vec::new();
        let mut todo = Vec::new();
        for name in required {
            if self.modules.contains_key(name) {
                todo.push(name);
            } else if !self.builtin.contains(name) {
                return Err(ModulesError::Missing {
                    name: name.to_string(),
                    similar: self.similar(name),
                });
            }
        }
        for name in optional {
            if self.modules.contains_key(name) {
                todo.push(name);
            } else if !self.builtin.contains(name) && !missing.contains(name) {
                missing.push(name.clone());
            }
        }
        let mut chosen = BTreeSet::new();
        while let Some(name) = todo.pop() {
            let Some(module) = self.modules.get(name) else {
                continue;
            };
            if !chosen.insert(name) {
                continue;
            }
            for need in &module.needs {
                let Some((need, _)) = self.modules.get_key_value(need) else {
                    return Err(ModulesError::Dangling {
                        module: name.to_string(),
                        path: need.to_string(),
                    });
                };
                todo.push(need);
            }
            todo.extend(self.soft_needs(name));
        }
        missing.sort();
        Ok(self.describe(&chosen, missing))
    }

    /// Modules that the soft dependencies of `name` stand for in this kernel.
    fn soft_needs(&self, name: &ModuleName) -> impl Iterator<Item = &ModuleName> {
        let words = self
            .soft
            .iter()
            .filter(move |(module, _)| module == name)
            .flat_map(|(_, rest)| rest.split_whitespace());
        words
            .filter(|word| !matches!(*word, "pre:" | "post:"))
            .flat_map(|word| {
                let by_name = self
                    .modules
                    .get_key_value(&ModuleName::new(word))
                    .map(|(name, _)| name);
                by_name
                    .into_iter()
                    .chain(self.aliases.get(word).into_iter().flatten())
            })
    }

    fn describe(&self, chosen: &BTreeSet<&ModuleName>, missing: Vec<ModuleName>) -> Selection {
        let path_of = |name: &ModuleName| self.modules.get(name).map(|module| module.path.as_str());
        let mut paths: Vec<_> = chosen
            .iter()
            .filter_map(|name| path_of(name))
            .map(str::to_owned)
            .collect();
        paths.sort();
        let mut dep: Vec<_> = chosen
            .iter()
            .filter_map(|name| self.modules.get(name))
            .map(|module| {
                let needs = module
                    .needs
                    .iter()
                    .filter_map(path_of)
                    .map(|path| format!(" {}", unpacked_name(path)));
                format!(
                    "{}:{}\n",
                    unpacked_name(&module.path),
                    needs.collect::<String>()
                )
            })
            .collect();
        dep.sort();
        let alias = self.aliases.iter().flat_map(|(pattern, modules)| {
            modules
                .iter()
                .filter(|module| chosen.contains(module))
                .map(move |module| format!("alias {pattern} {module}\n"))
        });
        let softdep = self
            .soft
            .iter()
            .filter(|(module, _)| chosen.contains(module))
            .map(|(module, rest)| format!("softdep {module} {rest}\n"));
        Selection {
            paths,
            missing,
            dep: dep.concat(),
            alias: alias.collect(),
            softdep: softdep.collect(),
        }
    }

    /// Names that someone who typed `wanted` may have meant: those that contain it, are contained in it, or start alike.
    fn similar(&self, wanted: &ModuleName) -> Vec<String> {
        const SAME_START: usize = 4;
        let start = wanted.0.get(..SAME_START).unwrap_or(&wanted.0);
        let likeness = |name: &str| {
            let inside =
                name.contains(&wanted.0) || (name.len() > SAME_START && wanted.0.contains(name));
            (inside || name.starts_with(start))
                .then_some((!inside, name.len().abs_diff(wanted.0.len())))
        };
        let mut found: Vec<_> = self
            .modules
            .keys()
            .filter_map(|name| Some((likeness(&name.0)?, name.to_string())))
            .collect();
        found.sort();
        found
            .into_iter()
            .take(SUGGESTIONS)
            .map(|(_, name)| name)
            .collect()
    }
}

/// The path of a module once it is uncompressed: `a/b.ko.xz` is `a/b.ko`.
pub(crate) fn unpacked_name(path: &str) -> &str {
    path.find(".ko.")
        .map_or(path, |at| &path[..at + ".ko".len()])
}

/// Lines that say something, with their numbers from one.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .map(|(number, line)| (number, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests;
