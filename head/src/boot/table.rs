//! What the boot plane serves, in memory: nodes by MAC, address, grant and name, and the images.
//!
//! The head's engine loop writes it, the DHCP, TFTP and HTTP servers read it; a lookup is a short read lock and one `Arc` clone.
//! Text that ends up in a boot script or on a kernel command line has a checked type here, so that nothing needs escaping later
//! (threat S21: reject, never escape and hope). Nothing in the table is secret: a grant is only its id.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ipnet::Ipv4Net;
use tracing::warn;
use uuid::Uuid;

use super::{ClientArch, MacAddr};

/// Longest host name of RFC 1123 section 2.1 that DNS takes as one label.
pub(crate) const MAX_NAME_BYTES: usize = 63;

/// Room for operators on the kernel command line: x86 kernels take 2,048 bytes and ours need about 350.
pub(crate) const MAX_APPEND_BYTES: usize = 1024;

/// The one word of ours that an operator may set: the agent then takes commands from its console, for tests of whole machines.
const DEBUG: &str = "kraken.debug=1";

/// Text that is not fit for a boot script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextError {
    /// Too long or empty.
    #[error("{what} must have 1 to {max} bytes, not {len}")]
    Length {
        /// Which field.
        what: &'static str,
        /// Its limit.
        max: usize,
        /// What came.
        len: usize,
    },
    /// A character that a script or a host name cannot hold.
    #[error("{what} must not contain {bad:?}")]
    Character {
        /// Which field.
        what: &'static str,
        /// The first offender.
        bad: char,
    },
    /// A word of the kernel command line that is ours to set.
    #[error("the kernel arguments must not set {0:?}: the head does")]
    Reserved(String),
}

/// A node's or an image's name, fit for host names, URLs and boot scripts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BootName(Arc<str>);

impl BootName {
    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BootName {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        const WHAT: &str = "a name";
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
            return Err(TextError::Length {
                what: WHAT,
                max: MAX_NAME_BYTES,
                len: text.len(),
            });
        }
        let bad_start = text.chars().take(1).find(|c| !c.is_ascii_alphanumeric());
        let bad = text
            .chars()
            .find(|&c| !c.is_ascii_alphanumeric() && !"._-".contains(c));
        match bad_start.or(bad) {
            Some(bad) => Err(TextError::Character { what: WHAT, bad }),
            None => Ok(BootName(text.into())),
        }
    }
}

impl fmt::Display for BootName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BootName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Kernel arguments of the operator's, fit for an iPXE script.
///
/// iPXE expands `${}`, splits at `||`, `&&` and `;`, and knows quotes, backslashes and `#`; none of them can be in here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Append(String);

impl Append {
    /// The arguments, one space between two.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Append {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        const WHAT: &str = "the kernel arguments";
        if text.len() > MAX_APPEND_BYTES {
            return Err(TextError::Length {
                what: WHAT,
                max: MAX_APPEND_BYTES,
                len: text.len(),
            });
        }
        if let Some(bad) = text
            .chars()
            .find(|&c| !c.is_ascii_alphanumeric() && !" ,._:/=@%+~^*()[]!?-".contains(c))
        {
            return Err(TextError::Character { what: WHAT, bad });
        }
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let is_ours = |word: &str| {
            word.starts_with("kraken.") && word != DEBUG || word.starts_with("initrd=")
        };
        match words.iter().find(|word| is_ours(word)) {
            Some(word) => Err(TextError::Reserved((*word).to_owned())),
            None => Ok(Append(words.join(" "))),
        }
    }
}

/// The name of a file by its content: a SHA-256 as 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sha256([u8; 32]);

/// The text is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256: expected 64 lower-case hex digits")]
pub(crate) struct Sha256Error;

impl FromStr for Sha256 {
    type Err = Sha256Error;

    fn from_str(text: &str) -> Result<Self, Sha256Error> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(Sha256Error),
        };
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| Sha256Error)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Sha256(hash))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A boot that the engine has started and the node may finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArmedBoot {
    /// The boot, for logs and the timeline.
    pub(crate) boot_id: Uuid,
    /// The grant that the node fetches; whether it still gets it is the engine's decision.
    pub(crate) grant_id: Uuid,
}

/// A node as the boot plane sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootNode {
    /// Its name, also its host name.
    pub(crate) name: BootName,
    /// Its identity.
    pub(crate) id: Uuid,
    /// The port it boots from.
    pub(crate) mac: MacAddr,
    /// Its reserved address, with the length of the subnet's prefix.
    pub(crate) address: Ipv4Net,
    /// Default router.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub(crate) dns: Vec<Ipv4Addr>,
    /// Loader to give whatever option 93 says, for ROMs that lie about themselves.
    pub(crate) loader: Option<ClientArch>,
    /// Set while the engine waits for this node to boot.
    pub(crate) armed: Option<ArmedBoot>,
    /// Kernel image on the head.
    pub(crate) kernel: PathBuf,
    /// Initramfs on the head.
    pub(crate) initramfs: PathBuf,
    /// The operator's kernel arguments.
    pub(crate) append: Append,
}

/// A system image that nodes may fetch.
#[derive(Debug, Clone)]
pub(crate) struct BootImage {
    /// Its name.
    pub(crate) name: BootName,
    /// The signed manifest.
    pub(crate) manifest: PathBuf,
    /// The files it consists of, by content.
    pub(crate) blobs: Vec<(Sha256, PathBuf)>,
}

#[derive(Default)]
struct Inner {
    nodes: HashMap<BootName, Arc<BootNode>>,
    by_mac: HashMap<MacAddr, Arc<BootNode>>,
    by_address: HashMap<Ipv4Addr, Arc<BootNode>>,
    by_grant: HashMap<Uuid, Arc<BootNode>>,
    manifests: HashMap<BootName, Arc<Path>>,
    blobs: HashMap<Sha256, Arc<Path>>,
}

/// All that is served, shared between the engine loop and the servers.
#[derive(Default)]
pub(crate) struct BootTable(RwLock<Inner>);

impl BootTable {
    /// Puts a node in, or replaces the one of the same name.
    ///
    /// If another node holds the same MAC or address, the newcomer takes it over and the clash is logged: the store is
    /// where such a thing is refused.
    pub(crate) fn replace_node(&self, node: BootNode) {
        self.write().insert(node);
    }

    /// Takes a node out; false if there was none of that name.
    pub(crate) fn remove_node(&self, name: &BootName) -> bool {
        self.write().remove(name)
    }

    /// Puts these images in place of all there were.
    pub(crate) fn replace_images(&self, images: impl IntoIterator<Item = BootImage>) {
        let (mut manifests, mut blobs) = (HashMap::new(), HashMap::new());
        for image in images {
            manifests.insert(image.name, image.manifest.into());
            blobs.extend(
                image
                    .blobs
                    .into_iter()
                    .map(|(hash, path)| (hash, path.into())),
            );
        }
        let mut inner = self.write();
        inner.manifests = manifests;
        inner.blobs = blobs;
    }

    /// The node that boots from this port.
    pub(crate) fn by_mac(&self, mac: MacAddr) -> Option<Arc<BootNode>> {
        self.read().by_mac.get(&mac).cloned()
    }

    /// The node this address is reserved for.
    pub(crate) fn by_address(&self, address: Ipv4Addr) -> Option<Arc<BootNode>> {
        self.read().by_address.get(&address).cloned()
    }

    /// The node that is armed with this grant.
    pub(crate) fn by_grant(&self, grant: Uuid) -> Option<Arc<BootNode>> {
        self.read().by_grant.get(&grant).cloned()
    }

    /// Where the manifest of an image lies.
    pub(crate) fn manifest(&self, name: &BootName) -> Option<Arc<Path>> {
        self.read().manifests.get(name).cloned()
    }

    /// Where a file of an image lies.
    pub(crate) fn blob(&self, hash: &Sha256) -> Option<Arc<Path>> {
        self.read().blobs.get(hash).cloned()
    }

    // A panic of another holder cannot leave the maps half-written in a way that matters more than an outage of the boot plane.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, node: BootNode) {
        self.remove(&node.name);
        let node = Arc::new(node);
        if let Some(other) = self.by_mac.insert(node.mac, Arc::clone(&node)) {
            warn!(node = %node.name, mac = %node.mac, held_by = %other.name, "two nodes with one MAC");
        }
        if let Some(other) = self
            .by_address
            .insert(node.address.addr(), Arc::clone(&node))
        {
            warn!(node = %node.name, address = %node.address, held_by = %other.name, "two nodes with one address");
        }
        if let Some(armed) = node.armed {
            self.by_grant.insert(armed.grant_id, Arc::clone(&node));
        }
        self.nodes.insert(node.name.clone(), node);
    }

    fn remove(&mut self, name: &BootName) -> bool {
        let Some(node) = self.nodes.remove(name) else {
            return false;
        };
        remove_own(&mut self.by_mac, &node.mac, &node);
        remove_own(&mut self.by_address, &node.address.addr(), &node);
        if let Some(armed) = node.armed {
            remove_own(&mut self.by_grant, &armed.grant_id, &node);
        }
        true
    }
}

fn remove_own<K: Eq + std::hash::Hash>(
    map: &mut HashMap<K, Arc<BootNode>>,
    key: &K,
    node: &Arc<BootNode>,
) {
    if map.get(key).is_some_and(|held| Arc::ptr_eq(held, node)) {
        map.remove(key);
    }
}

#[cfg(test)]
pub(crate) mod tests;
