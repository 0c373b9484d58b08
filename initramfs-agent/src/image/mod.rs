//! System images (layer 1): from a name in Cfg to a running init.
//!
//! - [`manifest`]: what the cluster's key vouches for; pure.
//! - [`fetch`]: files over HTTP, resumed, verified while they stream.
//! - [`plan`]: the mounts of an image, in order; pure.
//! - [`apply`]: the helper processes that carry the plan out and become the image's init.
//! - [`process`]: an image that runs: adopt, watch, stop.
//!
//! ```text
//!   agent ──▶ --stage2 ──▶ --stage3 ──exec──▶ the image's init
//!              pid ns       mount, uts, ipc, cgroup ns; mounts; new root
//!              writes image.json, leaves ──▶ its child falls to PID 1
//! ```
//!
//! The mounts live in the image's own mount namespace only, so they go with its last process, and the loop devices with them:
//! there is nothing to unmount, whoever died first.

pub(crate) mod apply;
pub(crate) mod fetch;
pub(crate) mod manifest;
pub(crate) mod plan;
pub(crate) mod process;

use std::fmt::Write;

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The bytes behind an even number of hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
