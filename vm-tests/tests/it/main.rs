//! Whole-system claims, one file each.
