//! Kraken's schema: everything that crosses a process boundary, and no logic.
//!
//! The `.proto` files under `kraken/v1` document every field and every limit. Extensions under `kraken/ext/v1` have no
//! Rust types: whoever needs them reads [`DESCRIPTORS`].

/// Messages and services of package `kraken.v1`.
#[expect(missing_docs, reason = "generated; the documentation is in the schema")]
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code follows the generator's style"
)]
pub mod v1 {
    tonic::include_proto!("kraken.v1");
}

/// The compiled schema with its imports, comments and options: a serialized `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The text of `kraken/v1/options.proto`, which files of extensions import.
pub const OPTIONS: &str = include_str!("../kraken/v1/options.proto");
