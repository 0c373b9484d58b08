//! Virtual clusters: a head, machines in QEMU and their virtual BMCs, in a network namespace of their own.
//!
//! ```text
//!  cargo lab up / the tests        |  user + net + mount + pid namespace
//!  (Cluster, artifacts, ui)        |
//!        |  ctl.sock (JSON lines)  |   supervisor (pid 1) --+-- kraken-head      10.77.0.1 on br0
//!        +-------------------------+-->                     +-- BMC n1 (Redfish) 10.78.0.11
//!        |  head/api.sock (gRPC)   |                        +-- QEMU n1 --tap1-- br0
//!        +-- krakenctl ------------+-->  head               +-- capture of br0
//! ```
//!
//! Sockets are files, so tools outside reach in without entering the namespace. All processes are in the pid namespace: when
//! the supervisor ends, by whatever cause, the kernel ends the rest. Nothing of a machine is simulated but its hardware, and
//! power-off means that there is no QEMU process. Used by the `kraken-lab` binary and by `tests/it`, which have one file per claim.

pub mod accel;
pub mod artifacts;
pub mod bench;
pub mod bmc;
pub mod capture;
pub mod cluster;
pub mod console;
pub mod control;
pub mod doctor;
pub mod down;
pub mod failure_bundle;
pub mod namespace;
pub mod net_probe;
pub mod network;
pub mod paths;
pub mod router6;
pub mod suite;
pub mod supervisor;
pub mod timeline;
pub mod ui;
pub mod up;
pub mod vm;
