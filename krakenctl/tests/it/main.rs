//! Claim: krakenctl does what its help says, against any head that serves the Admin API: right requests, right output, right exit code.
//!
//! The head is a [`FakeHead`](fake_head::FakeHead), in this process, on a socket in a temporary folder.

mod failures;
mod fake_head;
mod history;
mod lint;
mod module;
mod nodes;
mod plan;
mod rest;
mod scenario;
mod waiting;
mod watching;
