//! `cargo lab bench`: figures that the design promises, with what they are compared to.
use anyhow::Result;

/// Placeholder of the first compile.
pub fn footprint() -> Result<()> {
    Ok(())
}
/// The planner.
pub fn plan() -> Result<()> {
    Ok(())
}
