//! The subcommands: each reads its input, runs what tools it needs and puts finished files in place.
//!
//! What is decided without touching the machine lives in the pure modules beside this folder.

pub(crate) mod agent;
pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod initramfs;
pub(crate) mod kernel;
pub(crate) mod keys;
pub(crate) mod progress;
pub(crate) mod show;
pub(crate) mod tar;
pub(crate) mod tool;

/// What a subcommand has to say when it is done: lines for people, an object for programs.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) json: serde_json::Value,
}
