//! `kraken-image keys`: the two secrets a cluster is built on.
//!
//! The certificate authority (EC P-256) vouches for the head and, for a short time each, for nodes that joined; the cluster key
//! (Ed25519) signs image manifests. Their public halves are baked into the initramfs, so a new pair means new initramfs.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, date_time_ymd,
};
use ring::signature::Ed25519KeyPair;
use serde_json::json;

use super::{Report, files};
use crate::digest;

/// Certificate of the cluster's certificate authority.
pub(crate) const CA_PEM: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CLUSTER_KEY: &str = "cluster.key";
/// Public half of the cluster key, 64 hex digits and a newline.
pub(crate) const CLUSTER_PUB: &str = "cluster.pub";

/// The authority outlives the cluster: an expired one is an outage of everything, and it is pinned, never looked up.
const CA_YEARS: i32 = 30;

/// Make a cluster's keys: its certificate authority and the key that signs images
///
/// Writes four files: ca.pem and cluster.pub go into every initramfs; ca.key and cluster.key are secrets (mode 0600) that the
/// head and this program read. Existing files are never overwritten: nodes whose initramfs has other keys could not join.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kraken-image keys /var/lib/kraken/keys")]
pub(crate) struct KeysArgs {
    /// Folder for the keys; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn run(args: &KeysArgs) -> Result<Report> {
    let folder = &args.folder;
    for name in [CA_PEM, CA_KEY, CLUSTER_KEY, CLUSTER_PUB] {
        let path = folder.join(name);
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} is there already, and keys are never overwritten; choose another folder, or remove the old keys if no node uses them",
                path.display()
            );
        }
    }
    files::parent_folder(folder)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("can't make the folder {}", folder.display()))?;
    let (ca_pem, ca_key) = make_ca().context("can't make the certificate authority")?;
    let (cluster_key, public_hex) = make_cluster_key()?;
    let public_line = format!("{public_hex}\n");
    write_set(
        folder,
        &[
            (CA_KEY, &ca_key, 0o600),
            (CA_PEM, &ca_pem, 0o644),
            (CLUSTER_KEY, &cluster_key, 0o600),
            (CLUSTER_PUB, &public_line, 0o644),
        ],
    )?;
    let text = format!(
        "made the keys of a cluster in {0}\n  {CA_PEM}, {CLUSTER_PUB}   public, go into every initramfs\n  {CA_KEY}, {CLUSTER_KEY}   secret: back them up, keep them on the head",
        folder.display()
    );
    Ok(Report {
        text,
        json: json!({ "folder": folder, "cluster_pub": public_hex }),
    })
}

/// Writes all files or none: half a set would stand in the way of the next try, and nothing has used it yet.
fn write_set(folder: &Path, keys: &[(&str, &str, u32)]) -> Result<()> {
    for (done, (name, text, mode)) in keys.iter().enumerate() {
        if let Err(error) = files::write_new(&folder.join(name), text.as_bytes(), *mode) {
            for (name, _, _) in &keys[..done] {
                let _ = fs::remove_file(folder.join(name));
            }
            return Err(error);
        }
    }
    Ok(())
}

fn make_ca() -> Result<(String, String)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Kraken cluster CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    // Early enough for any clock that is set at all; nodes raise theirs to the initramfs's build time first.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(this_year()? + CA_YEARS, 1, 1);
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn this_year() -> Result<i32> {
    const YEAR_SECONDS: u64 = 31_556_952;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("this machine's clock is set before 1970")?;
    Ok(1970
        + i32::try_from(now.as_secs() / YEAR_SECONDS).context("this machine's clock is wrong")?)
}

fn make_cluster_key() -> Result<(String, String)> {
    let key = KeyPair::generate_for(&PKCS_ED25519).context("can't make the cluster key")?;
    Ok((key.serialize_pem(), digest::encode(key.public_key_raw())))
}

/// The key that signs manifests, from a keys folder.
pub(crate) fn read_cluster_key(folder: &Path) -> Result<Ed25519KeyPair> {
    let path = folder.join(CLUSTER_KEY);
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "can't read the cluster key {} (`kraken-image keys` makes one)",
            path.display()
        )
    })?;
    let bad = || format!("{} is not an Ed25519 key in PKCS#8 PEM", path.display());
    let key = KeyPair::from_pem(&text).with_context(bad)?;
    // Other programs write PKCS#8 version 1, which has no public key to compare with.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.serialized_der())
        .map_err(|error| anyhow!("{error}"))
        .with_context(bad)
}

/// The public key that manifests are checked with: 64 hex digits, or a file of them.
pub(crate) fn read_cluster_pub(text_or_path: &str) -> Result<Vec<u8>> {
    if let Some(key) = parse_pub(text_or_path) {
        return Ok(key);
    }
    let text = files::read_text(Path::new(text_or_path))?;
    parse_pub(&text).with_context(|| {
        format!("{text_or_path} is not a public cluster key: 64 lower-case hex digits")
    })
}

/// The 32 bytes that 64 hex digits stand for.
pub(crate) fn parse_pub(text: &str) -> Option<Vec<u8>> {
    digest::decode(text.trim_end()).filter(|key| key.len() == 32)
}

#[cfg(test)]
mod tests;
