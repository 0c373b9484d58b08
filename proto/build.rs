//! Compiles the schema with protox (no `protoc`) into Rust types and one descriptor set.

use std::{env, error::Error, fs, path::Path, path::PathBuf};

use prost::Message;

const SCHEMA: &[&str] = &[
    "kraken/v1/options.proto",
    "kraken/v1/state.proto",
    "kraken/v1/node.proto",
    "kraken/v1/mutation.proto",
    "kraken/v1/report.proto",
    "kraken/v1/sync.proto",
    "kraken/v1/module.proto",
    "kraken/v1/image.proto",
    "kraken/v1/plan.proto",
    "kraken/v1/admin.proto",
    "kraken/ext/v1/core.proto",
    "kraken/ext/v1/ipv4.proto",
    "kraken/ext/v1/pxe.proto",
    "kraken/ext/v1/power.proto",
    "kraken/ext/v1/image.proto",
    "kraken/ext/v1/host.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::Compiler::new(["."])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(SCHEMA)?
        .encode_file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), &files)?;

    // Extension messages are read through descriptors at run time, so only `kraken.v1` becomes Rust code.
    let mut services = prost_types_set(&files)?;
    services
        .file
        .retain(|file| file.package() != "kraken.ext.v1");
    tonic_prost_build::configure()
        .build_transport(false)
        // Equal messages have equal bytes.
        .btree_map(".")
        .compile_fds(services)?;

    for file in SCHEMA {
        println!("cargo:rerun-if-changed={}", Path::new(file).display());
    }
    Ok(())
}

fn prost_types_set(
    bytes: &[u8],
) -> Result<tonic_prost_build::FileDescriptorSet, prost::DecodeError> {
    tonic_prost_build::FileDescriptorSet::decode(bytes)
}
