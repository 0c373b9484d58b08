//! The steps from a name to a running init.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use engine::event::Fire;
use nix::sys::statvfs::statvfs;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Setup;
use crate::drivers::{self, Index};
use crate::image::fetch::{fetch_blob, fetch_small};
use crate::image::manifest::{MAX_BYTES, Manifest, is_name};
use crate::image::plan::Launch;
use crate::image::process::{Record, write_whole};
use crate::pid1::own_program;

/// Time that the helpers have, mounts included.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30);
/// Longest answer of the helpers.
const MAX_ANSWER: u64 = 8192;
/// What an image needs of the kernel.
const DRIVERS: &[&str] = &["loop", "squashfs", "overlay"];

/// An image that is here, verified.
#[derive(Debug)]
pub(super) struct Prepared {
    manifest: Manifest,
    layers: Vec<PathBuf>,
}

/// Fetches and verifies the image that Cfg names.
pub(super) async fn prepare(setup: &Setup, fire: &Fire) -> Result<Prepared> {
    let name = fire
        .cfg
        .text("/image/name")
        .context("no image is named: set /image/name")?;
    if !is_name(name) {
        bail!("{name:?} is no name of an image");
    }
    let server = setup
        .http
        .context("the kernel command line has no kraken.http: nobody to fetch images from")?;
    let bytes = fetch_small(server, &format!("/images/{name}/manifest"), MAX_BYTES).await?;
    let manifest = Manifest::read(&bytes, &setup.cluster_key, name)?;
    info!(
        image = name,
        digest = manifest.digest,
        security_version = manifest.security_version,
        bytes = manifest.size(),
        "manifest verified"
    );
    let store = setup.run_dir.join("images");
    fs::create_dir_all(&store)?;
    prune(&store, &manifest)?;
    make_sure_of_room(&store, &manifest)?;
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        let file = store.join(&layer.sha256);
        fetch_blob(
            server,
            &format!("/blobs/{}", layer.sha256),
            &file,
            &layer.sha256,
            layer.size,
        )
        .await?;
        layers.push(file);
    }
    info!(
        image = name,
        layers = layers.len(),
        "all files are here and verified"
    );
    Ok(Prepared { manifest, layers })
}

/// Frees the memory of files that this image does not need.
fn prune(store: &Path, manifest: &Manifest) -> io::Result<()> {
    for entry in fs::read_dir(store)?.flatten() {
        let name = entry.file_name();
        let stem = Path::new(&name)
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        if !manifest
            .layers
            .iter()
            .any(|layer| Some(&layer.sha256) == stem.as_ref())
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A node that fills its memory with half an image helps nobody.
fn make_sure_of_room(store: &Path, manifest: &Manifest) -> Result<()> {
    let here: u64 = fs::read_dir(store)?
        .flatten()
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum();
    let stat = statvfs(store).context("cannot see how much room there is")?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let wanted = manifest.size().saturating_sub(here);
    if wanted > free {
        bail!(
            "the image needs {} MiB more, {} has {} MiB: this node needs more memory, or a smaller image",
            wanted >> 20,
            store.display(),
            free >> 20
        );
    }
    Ok(())
}

/// Starts the image's init.
pub(super) async fn launch(
    setup: &Setup,
    prepared: Prepared,
    fire: &Fire,
    deaths: u32,
) -> Result<Record> {
    load_drivers().await;
    let launch = Launch {
        name: prepared.manifest.name,
        digest: prepared.manifest.digest,
        layers: prepared.layers,
        init: prepared.manifest.init,
        hostname: fire.name.as_str().to_owned(),
        run_dir: setup.run_dir.clone(),
        deaths,
    };
    let file = setup.run_dir.join("launch.json");
    write_whole(&file, &serde_json::to_vec(&launch)?).context("cannot write the launch file")?;
    let mut child = tokio::process::Command::new(own_program())
        .arg("--stage2")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the helper")?;
    let answers = child.stdout.take().context("no pipe to the helper")?;
    let mut answer = String::new();
    let wait = async {
        answers.take(MAX_ANSWER).read_to_string(&mut answer).await?;
        child.wait().await
    };
    let status = match timeout(LAUNCH_LIMIT, wait).await {
        Ok(status) => status.context("lost the helper")?,
        Err(_) => {
            let _ = child.kill().await;
            return Err(anyhow!(
                "the image's mounts took longer than {LAUNCH_LIMIT:?}"
            ));
        }
    };
    if !status.success() {
        bail!("the image does not start: {}", answer.trim());
    }
    Record::load(&setup.run_dir).context("the helper left no record")
}

/// Loads what an image needs, as far as it is a module of this kernel.
async fn load_drivers() {
    let load = || {
        let dir = drivers::kernel_dir()?;
        let index = Index::read(&dir)?;
        io::Result::Ok(drivers::load_by_name(&index, &dir, DRIVERS))
    };
    match tokio::task::spawn_blocking(load).await {
        Ok(Ok(loaded)) => loaded.failed.iter().for_each(|why| warn!("{why}")),
        // Built in, or on a machine that has its own ways.
        Ok(Err(_)) => {}
        Err(error) => warn!(%error, "loading modules failed"),
    }
}
