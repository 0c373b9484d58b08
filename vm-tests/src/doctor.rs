//! What this machine needs for the lab, what it lacks, and what to type.
//!
//! Reads `PATH`, the file system and dpkg; as root, [`ensure`] installs what is missing. Leaves Rust itself to rustup.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::{paths, ui};

/// How to see that a need is met.
enum Check {
    Program(&'static str),
    File(&'static str),
    Package,
    StaticBusybox,
    LlvmUnwind,
}

struct Need {
    package: &'static str,
    check: Check,
    why: &'static str,
}

const fn need(package: &'static str, check: Check, why: &'static str) -> Need {
    Need {
        package,
        check,
        why,
    }
}

const NEEDS: &[Need] = &[
    need(
        "gcc",
        Check::Program("cc"),
        "C code of SQLite, ring and zstd",
    ),
    need("libc6-dev", Check::File("/usr/include/stdio.h"), "the same"),
    need(
        "qemu-system-x86",
        Check::Program("qemu-system-x86_64"),
        "the machines",
    ),
    need(
        "ipxe-qemu",
        Check::File("/usr/lib/ipxe/qemu/efi-virtio.rom"),
        "their network cards' ROM",
    ),
    need(
        "ipxe",
        Check::File("/usr/lib/ipxe/undionly.kpxe"),
        "first-stage loaders that the head serves",
    ),
    need(
        "squashfs-tools",
        Check::Program("mksquashfs"),
        "system images",
    ),
    need("busybox-static", Check::StaticBusybox, "the demo image"),
    need("iproute2", Check::Program("ip"), "bridge and taps"),
    need("kmod", Check::Program("depmod"), "index of kernel modules"),
    need(
        "zstd",
        Check::Program("zstd"),
        "compressed modules and initramfs",
    ),
    need("xz-utils", Check::Program("xz"), "compressed modules"),
    need("curl", Check::Program("curl"), "trying the image's service"),
    need(
        "file",
        Check::Program("file"),
        "showing that the agent is static",
    ),
    need(
        "ipmitool",
        Check::Program("ipmitool"),
        "power control by a mutation file",
    ),
    need(
        "openipmi",
        Check::Program("ipmi_sim"),
        "a BMC that speaks IPMI",
    ),
    need(
        "python3-venv",
        Check::Package,
        "modules in Python, with grpcio from PyPI",
    ),
    need("musl-tools", Check::Program("musl-gcc"), "the static agent"),
];

/// Debian's own way to musl, where rustup has no target.
const MUSL_NEEDS: &[Need] = &[
    need(
        "rustc-web",
        Check::Package,
        "the static agent without rustup's musl target",
    ),
    need("cargo-web", Check::Package, "the same"),
    need("rust-web-src", Check::Package, "the same"),
    need("libunwind-14-dev", Check::LlvmUnwind, "the same"),
];

/// What a look at the machine found.
pub struct Findings {
    rows: Vec<Vec<String>>,
    /// Debian packages to install.
    pub missing: Vec<String>,
    /// What packages cannot mend.
    pub obstacles: Vec<String>,
}

/// Looks at everything; changes nothing.
pub fn look() -> Findings {
    let mut rows = vec![["package", "state", "for"].map(str::to_owned).to_vec()];
    let mut missing = Vec::new();
    let musl = rustup_has_musl();
    let needs = NEEDS.iter().chain(if musl { &[] } else { MUSL_NEEDS });
    for need in needs {
        let met = is_met(need);
        if !met {
            missing.push(need.package.to_owned());
        }
        rows.push(vec![
            need.package.to_owned(),
            if met { "ok" } else { "MISSING" }.to_owned(),
            need.why.to_owned(),
        ]);
    }
    if musl {
        rows.push(vec![
            "rustup".into(),
            "ok".into(),
            "has the musl target, so Debian's compiler is not needed".into(),
        ]);
    }
    Findings {
        rows,
        missing,
        obstacles: obstacles(),
    }
}

/// Prints the findings. Returns whether the lab can work.
pub fn doctor() -> bool {
    let findings = look();
    print!("{}", ui::table(&findings.rows));
    for obstacle in &findings.obstacles {
        println!("\n{obstacle}");
    }
    if findings.missing.is_empty() && findings.obstacles.is_empty() {
        println!("\nNothing is missing: cargo lab up");
        return true;
    }
    if !findings.missing.is_empty() {
        println!("\nType: {}", install_line(&findings.missing));
    }
    false
}

/// Installs what is missing if this user may, else says exactly what to type.
pub fn ensure() -> Result<()> {
    let findings = look();
    if let Some(obstacle) = findings.obstacles.first() {
        bail!("{obstacle}");
    }
    if findings.missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "this machine lacks {}; type:\n  {}",
            findings.missing.join(", "),
            install_line(&findings.missing)
        );
    }
    let stage = ui::Stage::start(format!("install {} packages", findings.missing.len()));
    let log = |name: &str| paths::lab().join("log").join(name);
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    stage.run(apt().arg("update"), &log("apt-update.log"))?;
    stage.run(
        apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&findings.missing),
        &log("apt-install.log"),
    )?;
    stage.done(&findings.missing.join(" "));
    let still = look().missing;
    if !still.is_empty() {
        bail!(
            "apt-get installed the packages, but these are still not to be found: {}",
            still.join(", ")
        );
    }
    Ok(())
}

fn install_line(packages: &[String]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

fn is_met(need: &Need) -> bool {
    match need.check {
        Check::Program(name) => find_program(name).is_some(),
        Check::File(path) => Path::new(path).exists(),
        Check::Package => is_installed(need.package),
        Check::StaticBusybox => static_busybox().is_some(),
        Check::LlvmUnwind => has_llvm_unwind(),
    }
}

/// Looks in `PATH` and where Debian keeps administrators' programs, which are not on every user's path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A busybox that runs without any library.
pub fn static_busybox() -> Option<PathBuf> {
    let file = find_program("busybox")?;
    let bytes = fs::read(&file).ok()?;
    // Every dynamic x86-64 program names its loader in its first page.
    let head = &bytes[..bytes.len().min(4096)];
    let dynamic = head.windows(9).any(|bytes| bytes == b"ld-linux-");
    (!dynamic).then_some(file)
}

fn has_llvm_unwind() -> bool {
    let Ok(entries) = fs::read_dir("/usr/lib") else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("llvm-")
            && entry.path().join("lib/libunwind.a").exists()
    })
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn rustup_has_musl() -> bool {
    Command::new("rustup")
        .args(["target", "list", "--installed"])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).contains("x86_64-unknown-linux-musl")
        })
}

fn obstacles() -> Vec<String> {
    let mut found = Vec::new();
    if find_program("apt-get").is_none() {
        found.push(
            "This is no Debian or Ubuntu: the kernel and the packages come by apt-get.".into(),
        );
    }
    let tun = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Err(error) = tun {
        // Where udev runs, everybody may open it: inside a namespace it gives no power over the machine.
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => "sudo chmod 666 /dev/net/tun",
            _ => "sudo modprobe tun",
        };
        found.push(format!(
            "/dev/net/tun cannot be opened ({error}); type: {remedy}"
        ));
    }
    let namespaces = Command::new("unshare")
        .args(["-Urnmpf", "true"])
        .stderr(Stdio::null())
        .status();
    if !namespaces.is_ok_and(|status| status.success()) {
        found.push(
            "User namespaces are not allowed here; type: sudo sysctl kernel.unprivileged_userns_clone=1 \
             (Ubuntu: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
                .into(),
        );
    }
    found
}
