//! `cargo lab up`.
use anyhow::Result;
/// up
pub fn up(_name: &str, _nodes: u8, _keep: bool) -> Result<()> {
    Ok(())
}
/// status
pub fn status(_name: &str) -> Result<()> {
    Ok(())
}
