//! Maps for looking up, at a cost that does not grow with what is in them.
//!
//! Keys come from operators, modules and this program, never from a stranger, so the hash needs no secret. It is the same in every run, and what is
//! iterated over is the order of insertion and removal: nothing depends on hashes.

/// A map for looking up. Where order shows, iterate over something that is sorted.
pub(crate) type Index<K, V> = indexmap::IndexMap<K, V, foldhash::fast::FixedState>;
