//! `kraken-image kernel`: a kernel and its modules out of a Debian package, a `.deb` file or an unpacked root.
//!
//! A metapackage such as `linux-image-cloud-amd64` holds nothing but a dependency; it is followed, and so is Ubuntu's split of
//! kernel and modules. Packages are unpacked, not installed, so no root is needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::progress::Progress;
use super::{Report, files, tool};

/// Packages followed from one name; Debian needs two, Ubuntu four.
const PACKAGES_MAX: usize = 8;
/// Where an unpacked root may have its modules.
const MODULE_FOLDERS: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// Get a kernel: vmlinuz and its modules, from a Debian package or a path
///
/// Writes DIR/vmlinuz, DIR/lib/modules/VERSION with depmod's indexes, and DIR/version. A package is downloaded with apt-get and
/// unpacked, not installed. An existing DIR that holds a kernel is replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kraken-image kernel --package linux-image-cloud-amd64 --out kernel    Debian's kernel for virtual machines
  kraken-image kernel --package linux-image-amd64 --out kernel          Debian's kernel with all drivers
  kraken-image kernel --path linux-image-6.1.0-56-cloud-amd64.deb --out kernel
  kraken-image kernel --path / --version 6.1.0-56-amd64 --out kernel    a kernel this machine has")]
pub(crate) struct KernelArgs {
    /// Debian package, or a metapackage that depends on the kernel
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "path",
        conflicts_with = "path"
    )]
    package: Option<String>,
    /// Folder with boot/vmlinuz-VERSION and lib/modules/VERSION, or a .deb file
    #[arg(long, value_name = "ROOT|DEB")]
    path: Option<PathBuf>,
    /// Which kernel, if there are several
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: &KernelArgs) -> Result<Report> {
    refuse_other_folder(&args.out)?;
    let scratch = tempfile::tempdir().context("can't make a temporary folder")?;
    let root = match (&args.package, &args.path) {
        (Some(package), _) => download(package, scratch.path())?,
        (None, Some(path)) if path.is_file() => {
            let root = scratch.path().join("root");
            unpack(path, &root)?;
            root
        }
        (None, Some(path)) => path.clone(),
        (None, None) => bail!("give --package NAME or --path ROOT"),
    };
    let kernel = Kernel::find(&root, args.version.as_deref())?;
    let progress = Progress::start(format!("copying kernel {}", kernel.version));
    let made = tempfile::Builder::new()
        .prefix(".kernel-")
        .tempdir_in(files::parent_folder(&args.out)?)
        .with_context(|| format!("can't make a folder beside {}", args.out.display()))?;
    let folder = made.path();
    let vmlinuz = files::read(&kernel.vmlinuz)?;
    files::write(&folder.join("vmlinuz"), &vmlinuz, 0o644)?;
    if let Some(config) = &kernel.config {
        files::write(&folder.join("config"), &files::read(config)?, 0o644)?;
    }
    files::copy_tree(
        &kernel.modules,
        &folder.join("lib/modules").join(&kernel.version),
    )?;
    progress.say("running depmod");
    tool::run(
        tool::command("depmod", "kmod")?
            .arg("-b")
            .arg(folder)
            .arg(&kernel.version),
    )
    .context("can't index the modules")?;
    let dep = files::read_text(
        &folder
            .join("lib/modules")
            .join(&kernel.version)
            .join("modules.dep"),
    )?;
    files::write(
        &folder.join("version"),
        format!("{}\n", kernel.version).as_bytes(),
        0o644,
    )?;
    files::place_folder(made, &args.out)?;
    drop(progress);
    let modules = dep.lines().count();
    let text = format!(
        "kernel {} in {}\n  vmlinuz  {}\n  modules  {modules}",
        kernel.version,
        args.out.display(),
        files::size_text(vmlinuz.len() as u64)
    );
    Ok(Report {
        text,
        json: json!({ "out": args.out, "version": kernel.version, "vmlinuz_bytes": vmlinuz.len(), "modules": modules }),
    })
}

/// A folder that holds something else than a kernel of ours is not to be replaced.
fn refuse_other_folder(out: &Path) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(out) else {
        if out.exists() {
            bail!(
                "{} is there and is not a folder; give another --out",
                out.display()
            );
        }
        return Ok(());
    };
    if entries.next().is_some() && !out.join("version").is_file() {
        bail!(
            "{} is not empty and holds no kernel made by this command; give another --out",
            out.display()
        );
    }
    Ok(())
}

struct Kernel {
    version: String,
    vmlinuz: PathBuf,
    modules: PathBuf,
    config: Option<PathBuf>,
}

impl Kernel {
    fn find(root: &Path, wanted: Option<&str>) -> Result<Self> {
        let mut versions = BTreeSet::new();
        for folder in MODULE_FOLDERS {
            let Ok(entries) = fs::read_dir(root.join(folder)) else {
                continue;
            };
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            versions.extend(names.filter(|name| Self::at(root, name).is_some()));
        }
        let version = match wanted {
            Some(version) => version.to_owned(),
            None if versions.len() == 1 => versions.first().cloned().unwrap_or_default(),
            None if versions.is_empty() => bail!(
                "{} has no kernel: wanted are boot/vmlinuz-VERSION and lib/modules/VERSION; --path takes the folder that has both",
                root.display()
            ),
            None => bail!(
                "{} has several kernels; choose with --version: {}",
                root.display(),
                join(&versions)
            ),
        };
        let none = || {
            format!(
                "{} has no kernel {version}; it has: {}",
                root.display(),
                join(&versions)
            )
        };
        Self::at(root, &version).with_context(none)
    }

    fn at(root: &Path, version: &str) -> Option<Self> {
        let modules = MODULE_FOLDERS
            .iter()
            .map(|folder| root.join(folder).join(version))
            .find(|folder| folder.join("kernel").is_dir())?;
        let boot = root.join("boot");
        let vmlinuz = [
            boot.join(format!("vmlinuz-{version}")),
            modules.join("vmlinuz"),
        ]
        .into_iter()
        .find(|path| path.is_file())?;
        let config = [
            boot.join(format!("config-{version}")),
            modules.join("config"),
        ]
        .into_iter()
        .find(|path| path.is_file());
        Some(Self {
            version: version.to_owned(),
            vmlinuz,
            modules,
            config,
        })
    }
}

fn join(versions: &BTreeSet<String>) -> String {
    if versions.is_empty() {
        "none".to_owned()
    } else {
        versions
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Downloads `package` and what it depends on until a kernel with modules is there; returns the folder they are unpacked in.
fn download(package: &str, scratch: &Path) -> Result<PathBuf> {
    let root = scratch.join("root");
    let mut todo = vec![package.to_owned()];
    let mut done = Vec::new();
    while let Some(name) = todo.pop() {
        if done.contains(&name) {
            continue;
        }
        if done.len() == PACKAGES_MAX {
            bail!(
                "no kernel in {package} and the packages it depends on: {}",
                done.join(", ")
            );
        }
        let deb = download_one(&name, &scratch.join(format!("deb{}", done.len())))?;
        unpack(&deb, &root)?;
        done.push(name);
        if Kernel::find(&root, None).is_ok() {
            return Ok(root);
        }
        let depends = tool::run(
            tool::command("dpkg-deb", "dpkg")?
                .arg("-f")
                .arg(&deb)
                .arg("Depends"),
        )?;
        todo.extend(kernel_dependencies(&depends));
    }
    bail!(
        "no kernel in {package} and the packages it depends on: {}",
        done.join(", ")
    );
}

fn download_one(name: &str, folder: &Path) -> Result<PathBuf> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.:=~_".contains(&byte);
    if !name.bytes().all(good) || !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        bail!("{name:?} is not the name of a Debian package");
    }
    let _progress = Progress::start(format!("downloading {name}"));
    fs::create_dir_all(folder)
        .with_context(|| format!("can't make the folder {}", folder.display()))?;
    let mut apt = tool::command("apt-get", "apt")?;
    // The sandbox user could not write here, and only warns about it.
    apt.args(["-q", "-o", "APT::Sandbox::User=root", "download", name])
        .current_dir(folder);
    tool::run(&mut apt).with_context(|| {
        format!(
            "can't download the package {name}; run `apt-get update` as root if this machine's package lists are old or empty, \
             or, without a network, give --path with a .deb file or an unpacked kernel"
        )
    })?;
    let mut files =
        fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let deb = files.find_map(|entry| {
        Some(entry.ok()?.path()).filter(|path| path.extension().is_some_and(|end| end == "deb"))
    });
    deb.with_context(|| format!("apt-get said it downloaded {name} but left no .deb file"))
}

fn unpack(deb: &Path, root: &Path) -> Result<()> {
    let _progress = Progress::start(format!("unpacking {}", deb.display()));
    let mut dpkg = tool::command("dpkg-deb", "dpkg")?;
    tool::run(dpkg.arg("-x").arg(deb).arg(root))
        .with_context(|| format!("can't unpack {}", deb.display()))?;
    Ok(())
}

/// The packages of a Depends field that hold a kernel or modules; the first of each list of alternatives.
fn kernel_dependencies(depends: &str) -> Vec<String> {
    let first = |group: &str| {
        group
            .split(['|', ' ', '('])
            .find(|word| !word.is_empty())
            .map(|word| word.trim().to_owned())
    };
    let wanted =
        |name: &String| name.starts_with("linux-image-") || name.starts_with("linux-modules-");
    depends
        .trim()
        .split(',')
        .filter_map(first)
        .filter(wanted)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_followed_to_kernels_only() {
        let check = |depends: &str, expect: &[&str]| {
            assert_eq!(kernel_dependencies(depends), expect, "{depends}")
        };
        check(
            "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n",
            &["linux-image-6.1.0-56-cloud-amd64"],
        );
        check(
            "kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool",
            &[],
        );
        check(
            "linux-modules-6.8.0-31-generic, linux-image-a| linux-image-b",
            &["linux-modules-6.8.0-31-generic", "linux-image-a"],
        );
        check("", &[]);
    }

    #[test]
    fn package_names_can_not_be_options() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["-o", "--help", "a b", "", "../x"] {
            let error = download_one(bad, folder.path()).unwrap_err();
            assert!(
                error
                    .to_string()
                    .ends_with("is not the name of a Debian package"),
                "{bad}: {error:#}"
            );
        }
    }
}
