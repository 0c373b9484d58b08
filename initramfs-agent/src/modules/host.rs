//! The inventory of this machine (`/host/*`), from `/proc` and `/sys`.
//!
//! [`inventory`] reads a tree of files and knows no machine; [`run`] reports what differs from what the engine believes, at the start
//! of each session and then every minute, for cables are pulled and disks added.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use engine::state::{Value, Values};
use tokio::time::sleep;

use super::{Attached, Reporter, change};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(60);
/// Most interfaces and disks that are reported; together with the rest well within a node's values.
const MAX_NICS: usize = 64;
const MAX_DISKS: usize = 256;
/// Longest text: firmware fills its fields with anything.
const MAX_TEXT: usize = 128;

/// What the machine's files do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Which boot this is.
    pub(crate) boot: String,
    /// Starts of the agent since then.
    pub(crate) starts: u32,
}

/// Reports for ever.
pub(crate) async fn run(facts: Facts, reporter: Reporter, mut attached: Attached) {
    loop {
        let found = inventory(Path::new("/"), &facts);
        let believed = reporter.believed().await;
        let ours = believed
            .iter()
            .filter(|(url, _)| url.as_str().starts_with("/host/"))
            .map(|(url, value)| (url.clone(), value.clone()));
        let believed: Values = ours.collect();
        reporter.report("host", believed.diff(&found)).await;
        tokio::select! {
            () = sleep(LOOK) => {}
            () = attached.again() => {}
        }
    }
}

/// Everything that can be found under `root`. What is missing or makes no sense is left out.
pub(crate) fn inventory(root: &Path, facts: &Facts) -> Values {
    let mut found = Found(Values::default());
    cpu(root, &mut found);
    if let Some(kib) = meminfo_kib(root) {
        found.number("/host/memory", kib.saturating_mul(1024));
    }
    for (url, file) in [
        ("/host/serial", "product_serial"),
        ("/host/uuid", "product_uuid"),
        ("/host/vendor", "sys_vendor"),
        ("/host/product", "product_name"),
    ] {
        found.text(url, &read(&root.join("sys/class/dmi/id").join(file)));
    }
    nics(root, &mut found);
    disks(root, &mut found);
    found.text(
        "/host/kernel",
        &read(&root.join("proc/sys/kernel/osrelease")),
    );
    found.text("/host/agent_version", env!("CARGO_PKG_VERSION"));
    found.text("/host/boot_id", &facts.boot);
    found.number("/host/agent_starts", u64::from(facts.starts));
    found.0
}

struct Found(Values);

impl Found {
    fn set(&mut self, url: &str, value: Value) {
        if let Some(change) = change(url, Some(value)) {
            self.0.set(change.url, change.value);
        }
    }

    fn text(&mut self, url: &str, text: &str) {
        let clean: String = text
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_TEXT)
            .collect();
        self.set(url, Value::text(clean));
    }

    fn number(&mut self, url: &str, number: u64) {
        if let Ok(number) = i64::try_from(number) {
            self.set(url, Value::Int(number));
        }
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn read_number(path: &Path) -> Option<u64> {
    read(path).parse().ok()
}

fn cpu(root: &Path, found: &mut Found) {
    let text = read(&root.join("proc/cpuinfo"));
    let mut sockets = BTreeSet::new();
    let mut cpus = 0;
    let mut model = "";
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        match key.trim() {
            "processor" => cpus += 1,
            "model name" => model = value,
            "physical id" => drop(sockets.insert(value.trim())),
            _ => {}
        }
    }
    found.text("/host/cpu_model", model);
    found.number("/host/cpus", cpus);
    if cpus > 0 {
        found.number("/host/sockets", sockets.len().max(1) as u64);
    }
}

fn meminfo_kib(root: &Path) -> Option<u64> {
    let text = read(&root.join("proc/meminfo"));
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Real interfaces only: those with a device behind them.
fn nics(root: &Path, found: &mut Found) {
    for name in names(&root.join("sys/class/net"))
        .into_iter()
        .take(MAX_NICS)
    {
        let dir = root.join("sys/class/net").join(&name);
        if !dir.join("device").exists() {
            continue;
        }
        let url = |field: &str| format!("/host/nics/{name}/{field}");
        found.text(
            &url("mac"),
            &read(&dir.join("address")).to_ascii_lowercase(),
        );
        if let Some(driver) = fs::read_link(dir.join("device/driver"))
            .ok()
            .as_deref()
            .and_then(Path::file_name)
        {
            found.text(&url("driver"), &driver.to_string_lossy());
        }
        // Unknown speeds read as -1.
        if let Some(speed) =
            read_number(&dir.join("speed")).filter(|speed| *speed < u64::from(u32::MAX))
        {
            found.number(&url("speed"), speed);
        }
        found.set(&url("link"), Value::Bool(read(&dir.join("carrier")) == "1"));
    }
}

/// Disks with a device behind them: no loop devices, no memory.
fn disks(root: &Path, found: &mut Found) {
    for name in names(&root.join("sys/block")).into_iter().take(MAX_DISKS) {
        let dir = root.join("sys/block").join(&name);
        let sectors = read_number(&dir.join("size")).unwrap_or_default();
        if !dir.join("device").exists() || sectors == 0 {
            continue;
        }
        let url = |field: &str| format!("/host/disks/{name}/{field}");
        // Sectors of sysfs have 512 bytes whatever the disk's have.
        found.number(&url("size"), sectors.saturating_mul(512));
        found.text(&url("model"), &read(&dir.join("device/model")));
        found.set(
            &url("rotational"),
            Value::Bool(read(&dir.join("queue/rotational")) == "1"),
        );
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
