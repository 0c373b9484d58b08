//! Kraken's framework, shared by head and agent: the state tree (Cfg and Dsc), the planner that finds and follows paths of
//! mutations, and sync between a node and its parent.
//!
//! ```text
//!   operators ──Write──▶ ┌────────────────────────────┐ ──Commit──▶ store
//!   modules ──Discover─▶ │ Engine                     │ ──Fire────▶ modules
//!   sockets ──Frame────▶ │  state  mutation  sync     │ ──Send────▶ sockets
//!   clock ────timeout──▶ └────────────────────────────┘ ──Changed─▶ watchers
//! ```
//!
//! Everything here is a state machine: no sockets, files, threads, clocks or random numbers. Time is an argument
//! ([`time::Instant`]), chance comes in as bytes, nothing depends on the order of a hash. The same inputs give the same outputs.
//! Feature `driver` adds the tokio loop that feeds an engine; `wire` the conversion from and to messages; `schema` and `files` the
//! readers of extension schemas and mutation files; `sim` a world of simulated heads and agents.

#[cfg(feature = "driver")]
pub mod driver;
pub mod engine;
pub mod event;
pub mod extension;
pub mod history;
mod index;
pub mod memory;
pub mod mutation;
#[cfg(feature = "files")]
pub mod scenario;
#[cfg(feature = "sim")]
pub mod sim;
pub mod state;
pub mod sync;
pub mod time;
#[cfg(feature = "wire")]
pub mod wire;

pub use crate::engine::Engine;
