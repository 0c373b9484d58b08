//! The HTTP side of the boot plane: scripts, kernels, initramfs, grants, images (DESIGN.md 5).
//!
//! `urls`, `route`, `range`, `boot_script` and `grant` are pure; `files` opens and streams, `server` accepts and answers.
//! HTTP/1.1 only, no redirects, no TLS (firmware has none); what must not be read on the wire does not go this way, except
//! the grant, which is the documented limit of trust level L1 without a loader that speaks HTTPS.

mod answer;
pub(crate) mod boot_script;
mod files;
pub(crate) mod grant;
mod range;
mod route;
pub(crate) mod server;
pub(crate) mod urls;

pub(crate) use answer::Answers;
