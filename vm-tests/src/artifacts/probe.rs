//! The smallest initramfs that proves a boot: busybox and three lines of script.
//!
//! Also the yardstick of `bench footprint`: what a machine takes to PID 1 without any of Kraken.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::accel;

/// The archive's init.
fn init() -> String {
    format!(
        "#!/bin/busybox sh\n/bin/busybox echo {}\n/bin/busybox poweroff -f\n",
        accel::ALIVE
    )
}

/// A text that changes whenever the archive would.
pub fn recipe() -> String {
    init()
}

/// Writes the archive, uncompressed, to `out`.
pub fn make(out: &Path, busybox: &Path) -> Result<()> {
    let program =
        fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let mut archive = Vec::new();
    entry(&mut archive, "bin", 0o040_755, &[]);
    entry(&mut archive, "bin/busybox", 0o100_755, &program);
    entry(&mut archive, "dev", 0o040_755, &[]);
    entry(&mut archive, "init", 0o100_755, init().as_bytes());
    entry(&mut archive, "TRAILER!!!", 0, &[]);
    fs::write(out, archive)?;
    Ok(())
}

/// One member of a newc archive (cpio(5)).
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let inode = archive.len();
    let header = format!(
        "070701{inode:08x}{mode:08x}{uid:08x}{uid:08x}{links:08x}{uid:08x}{size:08x}{uid:08x}{uid:08x}{uid:08x}{uid:08x}{name_size:08x}{uid:08x}",
        uid = 0,
        links = 1,
        size = content.len(),
        name_size = name.len() + 1,
    );
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    while !archive.len().is_multiple_of(4) {
        archive.push(0);
    }
}
