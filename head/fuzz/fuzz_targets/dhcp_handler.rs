//! Any sequence of datagrams against the DHCP responder.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the head uses what this program does not"
)]

#[path = "../../src/boot/mod.rs"]
mod boot;
#[path = "../../src/dhcp/mod.rs"]
mod dhcp;
#[path = "../../src/http/mod.rs"]
mod http;
#[path = "../replay.rs"]
mod replay;
#[path = "../../src/tftp/mod.rs"]
mod tftp;

libfuzzer_sys::fuzz_target!(|input: &[u8]| replay::dhcp_handler(input));
