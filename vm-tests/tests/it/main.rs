//! Whole-system claims, one file each, on virtual clusters; and checks of the repository itself.
//!
//! VM claims run under `cargo lab test`, which builds what they boot. A plain `cargo test` says aloud that it leaves them out.

mod lab;

mod lab_leaves_nothing_behind;
