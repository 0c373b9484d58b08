//! The wall clock. Timers never look at it; certificates, logs and people do.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// Sets the machine's clock.
///
/// # Errors
/// We may not.
pub(crate) fn set(to: SystemTime) -> Result<(), nix::Error> {
    let since = to
        .duration_since(UNIX_EPOCH)
        .map_err(|_| nix::Error::EINVAL)?;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since))
}
