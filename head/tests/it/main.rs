//! The real kraken-head binary, driven from outside as operators, machines and accidents do: over its sockets, signals and files.

mod api;
mod bad_disk;
mod child;
mod crash;
mod datafile;
mod extension;
mod faults;
mod full_disk;
mod history;
mod hostile;
mod ipmitool;
mod join;
mod learned;
mod memory;
mod modules;
mod parent;
mod plan;
mod plant;
mod python;
mod rig;
mod scaffold;
mod snapshot;
mod start;
mod watch;
