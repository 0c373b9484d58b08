//! Kraken framework.
