//! System images: what the image module declares, and the head's shelf of them.
//!
//! An image is a signed manifest and the files it names by digest (made by `kraken-image image`). The head serves nothing that the cluster's key
//! has not signed, and checks every byte when an image is added; nodes check again. Nothing is unpacked here.
//!
//! ```text
//! <state_dir>/images/demo/manifest.json     one folder an image
//! <state_dir>/images/blobs/<sha256>         files by content, shared by images
//! ```

mod manifest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use engine::event::Fire;
use engine::mutation::{Dependency, Mutation, MutationContext, MutationId};
use engine::state::NodeId;
use ring::digest::{Context, SHA256};
use tracing::{info, warn};

use self::manifest::{Layer, MAX_MANIFEST_BYTES, Manifest, ManifestError};
use super::declare::mutation;
use super::{Declaration, Module};
use crate::boot::{BootImage, BootTable, Sha256};

/// Fetch, check, mount and start: a gigabyte over a shared 1 Gbit/s link with room to spare.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// An image's services get 90 s to stop, as systemd's do.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

/// Saying what is there.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Most images on one head.
const MAX_IMAGES: usize = 1024;

/// Bytes read, hashed and written at once.
const COPY_BYTES: usize = 1 << 20;

/// The image module: carried out by the nodes themselves.
pub(crate) struct Images;

impl Module for Images {
    fn name(&self) -> &str {
        "image"
    }

    fn declaration(&self) -> Declaration {
        let declare = |name, from: &'static str, to, timeout| {
            let declared = mutation("image", name, MutationContext::SelfNode)
                .change("/image/state", &[from], to)
                .requires("/RunState", &["SYNC"])
                .requires("/PhysState", &["POWER_ON"])
                .within(timeout, "/image/state", "ERROR");
            if from.is_empty() {
                declared.done()
            } else {
                declared.excludes("/Busy", "BUSY").done()
            }
        };
        let mutations: Vec<Mutation> = vec![
            declare("UKtoIDLE", "", "IDLE", LOOK_TIMEOUT),
            declare("IDLEtoACTIVE", "IDLE", "ACTIVE", START_TIMEOUT),
            declare("ACTIVEtoIDLE", "ACTIVE", "IDLE", STOP_TIMEOUT),
            declare("ERRORtoIDLE", "ERROR", "IDLE", STOP_TIMEOUT),
            declare("ERRORtoACTIVE", "ERROR", "ACTIVE", START_TIMEOUT),
        ];
        let dependencies: Vec<Dependency> = Vec::new();
        Declaration {
            mutations,
            dependencies,
            discoverables: Vec::new(),
        }
    }

    fn fire(&self, fire: Fire) {
        warn!(node = %fire.name, mutation = %fire.mutation, "the head's own node runs no image");
    }

    fn interrupt(&self, _: NodeId, _: &MutationId, _: u64) {}
}

/// An image on the shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SystemImage {
    /// Its name.
    pub(crate) name: String,
    /// SHA-256 of the manifest's payload, hex.
    pub(crate) digest: String,
    /// All files together.
    pub(crate) size_bytes: u64,
    /// Rises with each rebuild that matters for security.
    pub(crate) security_version: u64,
    /// When it was added, milliseconds since the Unix epoch.
    pub(crate) added_ms: u64,
}

/// What adding an image does, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    /// The image as it is on the shelf; of one that is only looked at, `added_ms` is 0.
    pub(crate) image: SystemImage,
    /// The one that had its name.
    pub(crate) replaces: Option<SystemImage>,
    /// Files that were not here yet, and their bytes.
    pub(crate) new_files: u32,
    /// See `new_files`.
    pub(crate) new_bytes: u64,
}

/// An image in a folder, signed and no step back.
struct Offer {
    bytes: Vec<u8>,
    manifest: Manifest,
    replaces: Option<SystemImage>,
    /// Files that are not here yet.
    new: Vec<Layer>,
}

impl Offer {
    fn added(self, image: SystemImage) -> Added {
        Added {
            image,
            replaces: self.replaces,
            new_files: u32::try_from(self.new.len()).unwrap_or(u32::MAX),
            new_bytes: self.new.iter().map(|layer| layer.size).sum(),
        }
    }
}

impl Manifest {
    /// What the shelf says of it.
    fn image(&self, added_ms: u64) -> SystemImage {
        SystemImage {
            name: self.name.clone(),
            digest: self.digest.clone(),
            size_bytes: self.layers.iter().map(|layer| layer.size).sum(),
            security_version: self.security_version,
            added_ms,
        }
    }
}

/// Why an image is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// A file cannot be read or written.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The manifest does not do.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A file is not what the manifest says.
    #[error("{} is not the file that the manifest names: {what}; build the image again", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// In what it differs.
        what: String,
    },
    /// An older image would replace a newer one.
    #[error(
        "image {name} is here with security version {has}, this one has {is}: going back needs a new name"
    )]
    Downgrade {
        /// The image.
        name: String,
        /// On the shelf.
        has: u64,
        /// Offered.
        is: u64,
    },
    /// The shelf is full.
    #[error("there are {MAX_IMAGES} images already; remove some from the state directory")]
    TooMany,
}

impl ImageError {
    /// Whether the disk of the state directory is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.to_path_buf();
    move |source| ImageError::Io { what, path, source }
}

/// The shelf; shared by the API and the start of the head.
pub(crate) struct ImageStore {
    folder: PathBuf,
    cluster_key: [u8; 32],
    table: Arc<BootTable>,
    images: Mutex<BTreeMap<String, (SystemImage, BootImage)>>,
}

impl ImageStore {
    /// Reads what lies in `folder` and publishes it. What does not do is left out and logged.
    ///
    /// # Errors
    /// The folder cannot be made or listed.
    pub(crate) fn open(
        folder: PathBuf,
        cluster_key: [u8; 32],
        table: Arc<BootTable>,
    ) -> Result<Self, ImageError> {
        let blobs = folder.join("blobs");
        fs::create_dir_all(&blobs).map_err(io("cannot create", &blobs))?;
        let store = Self {
            folder,
            cluster_key,
            table,
            images: Mutex::default(),
        };
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&store.folder).map_err(io("cannot list", &store.folder))? {
            let path = entry
                .map_err(io("cannot list", &store.folder))?
                .path()
                .join("manifest.json");
            if !path.exists() || found.len() >= MAX_IMAGES {
                continue;
            }
            match store.entry(&path) {
                Ok((image, boot)) => {
                    info!(image = image.name, digest = image.digest, "image");
                    found.insert(image.name.clone(), (image, boot));
                }
                Err(error) => warn!(%error, "image left out"),
            }
        }
        *store.lock() = found;
        store.publish();
        Ok(store)
    }

    /// All images, ordered by name.
    pub(crate) fn list(&self) -> Vec<SystemImage> {
        self.lock()
            .values()
            .map(|(image, _)| image.clone())
            .collect()
    }

    /// Copies an image from a folder, checking its signature and every file. Blocks.
    ///
    /// # Errors
    /// See [`ImageError`]; the shelf is as before then, perhaps with files that no image names yet.
    pub(crate) fn add(&self, from: &Path) -> Result<Added, ImageError> {
        let offer = self.offer(from)?;
        for layer in &offer.new {
            let name = layer.sha256.to_string();
            let to = self.blob(&layer.sha256);
            copy_checked(&from.join(&name), &to, &name, layer.size)?;
        }
        let folder = self.folder.join(&offer.manifest.name);
        fs::create_dir_all(&folder).map_err(io("cannot create", &folder))?;
        let to = folder.join("manifest.json");
        write_whole(&to, |file| {
            file.write_all(&offer.bytes)
                .map_err(io("cannot write", &to))
        })?;
        let (image, boot) = self.entry(&to)?;
        info!(
            image = image.name,
            digest = image.digest,
            size_bytes = image.size_bytes,
            "image added"
        );
        self.lock()
            .insert(image.name.clone(), (image.clone(), boot));
        self.publish();
        Ok(offer.added(image))
    }

    /// What [`add`](Self::add) would do with this folder: the same checks, and nothing is copied. Blocks.
    ///
    /// # Errors
    /// As it would be refused.
    pub(crate) fn check(&self, from: &Path) -> Result<Added, ImageError> {
        let offer = self.offer(from)?;
        for layer in &offer.new {
            let name = layer.sha256.to_string();
            read_checked(&from.join(&name), &name, layer.size, |_| Ok(()))?;
        }
        let image = offer.manifest.image(0);
        Ok(offer.added(image))
    }

    /// Reads a folder that is offered, and looks what of it is here.
    fn offer(&self, from: &Path) -> Result<Offer, ImageError> {
        let (bytes, manifest) = self.read(&from.join("manifest.json"))?;
        let replaces = {
            let images = self.lock();
            let there = images.get(&manifest.name).map(|(there, _)| there.clone());
            if there.is_none() && images.len() >= MAX_IMAGES {
                return Err(ImageError::TooMany);
            }
            there
        };
        if let Some(there) = &replaces
            && manifest.security_version < there.security_version
        {
            let (has, is) = (there.security_version, manifest.security_version);
            return Err(ImageError::Downgrade {
                name: manifest.name,
                has,
                is,
            });
        }
        let mut new: Vec<Layer> = Vec::new();
        for layer in &manifest.layers {
            let blob = self.blob(&layer.sha256);
            if blob.exists() {
                check_size(&blob, layer)?;
            } else if new.iter().all(|known| known.sha256 != layer.sha256) {
                new.push(layer.clone());
            }
        }
        Ok(Offer {
            bytes,
            manifest,
            replaces,
            new,
        })
    }

    fn read(&self, path: &Path) -> Result<(Vec<u8>, Manifest), ImageError> {
        let mut bytes = Vec::new();
        let file = open_regular(path)?;
        file.take(MAX_MANIFEST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(io("cannot read", path))?;
        let manifest =
            Manifest::read(&bytes, &self.cluster_key).map_err(|source| ImageError::Manifest {
                path: path.to_path_buf(),
                source,
            })?;
        Ok((bytes, manifest))
    }

    /// What the shelf knows of a manifest in place; its files must be there, and were checked when they came.
    fn entry(&self, path: &Path) -> Result<(SystemImage, BootImage), ImageError> {
        let (_, manifest) = self.read(path)?;
        let mut blobs = Vec::new();
        for layer in &manifest.layers {
            let blob = self.blob(&layer.sha256);
            check_size(&blob, layer)?;
            blobs.push((layer.sha256, blob));
        }
        let added = fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let added = added
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .unwrap_or_default();
        let added_ms = u64::try_from(added.as_millis()).unwrap_or(u64::MAX);
        Ok((
            manifest.image(added_ms),
            BootImage {
                name: manifest.boot_name,
                manifest: path.to_path_buf(),
                blobs,
            },
        ))
    }

    fn blob(&self, digest: &Sha256) -> PathBuf {
        self.folder.join("blobs").join(digest.to_string())
    }

    fn publish(&self) {
        let images: Vec<BootImage> = self.lock().values().map(|(_, boot)| boot.clone()).collect();
        self.table.replace_images(images);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (SystemImage, BootImage)>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a regular file that is no link: what an operator names by mistake must neither block nor end up on the network.
fn open_regular(path: &Path) -> Result<File, ImageError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(io("cannot open", path))?;
    if file.metadata().map_err(io("cannot read", path))?.is_file() {
        return Ok(file);
    }
    Err(ImageError::Content {
        path: path.to_path_buf(),
        what: "it is no regular file".into(),
    })
}

/// A file on the shelf is as long as the manifest says; its digest was checked when it came.
fn check_size(blob: &Path, layer: &Layer) -> Result<(), ImageError> {
    let size = fs::metadata(blob).map_err(io("cannot read", blob))?.len();
    if size == layer.size {
        return Ok(());
    }
    Err(ImageError::Content {
        path: blob.to_path_buf(),
        what: format!("{size} bytes instead of {}", layer.size),
    })
}

fn copy_checked(from: &Path, to: &Path, digest: &str, size: u64) -> Result<(), ImageError> {
    write_whole(to, |file| {
        read_checked(from, digest, size, |bytes| {
            file.write_all(bytes).map_err(io("cannot write", to))
        })
    })
}

/// Reads a file that is to be what the manifest says.
fn read_checked(
    from: &Path,
    digest: &str,
    size: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut source = open_regular(from)?;
    let differs = |what: String| ImageError::Content {
        path: from.to_path_buf(),
        what,
    };
    let (mut hash, mut copied) = (Context::new(&SHA256), 0_u64);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = source.read(&mut buffer).map_err(io("cannot read", from))?;
        if read == 0 {
            break;
        }
        copied += read as u64;
        if copied > size {
            return Err(differs(format!("it has more than {size} bytes")));
        }
        hash.update(&buffer[..read]);
        take(&buffer[..read])?;
    }
    if copied != size {
        return Err(differs(format!("it has {copied} bytes instead of {size}")));
    }
    let found: String = hash
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found == digest {
        Ok(())
    } else {
        Err(differs(format!("its SHA-256 is {found}")))
    }
}

/// Writes a file so that it is there in full or not at all.
fn write_whole(
    to: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let part = to.with_extension(format!("part-{}", std::process::id()));
    let done = File::create(&part)
        .map_err(io("cannot create", &part))
        .and_then(|mut file| {
            fill(&mut file)?;
            file.sync_all().map_err(io("cannot write", &part))?;
            fs::rename(&part, to).map_err(io("cannot rename to", to))?;
            let folder = to.parent().unwrap_or(Path::new("."));
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(io("cannot write", folder))
        });
    if done.is_err() {
        // What remains of it is of no use, and may fill the disk.
        let _ = fs::remove_file(&part);
    }
    done
}
