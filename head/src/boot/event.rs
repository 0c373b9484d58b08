//! What the boot plane tells the head's engine loop.
//!
//! All of it is a hint, except the fetch of a grant, which the engine answers itself. The queue is bounded and what does not
//! fit is counted and lost: a storm of packets must not fill the head's memory, and every hint comes again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{ClientArch, MacAddr};

/// Hints that may wait for the engine loop: 10,000 nodes that reach a stage within one turn of the loop, rounded up.
pub(crate) const EVENT_QUEUE: usize = 16_384;

/// How far a boot has come, seen from the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum BootStage {
    /// Firmware or iPXE got its address.
    Dhcp,
    /// The first-stage loader was asked for.
    Loader,
    /// The boot script was asked for.
    Script,
    /// The kernel was asked for.
    Kernel,
    /// The initramfs was asked for.
    Initramfs,
    /// The grant was delivered.
    Grant,
}

impl BootStage {
    /// Name in logs and timelines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BootStage::Dhcp => "dhcp",
            BootStage::Loader => "loader",
            BootStage::Script => "script",
            BootStage::Kernel => "kernel",
            BootStage::Initramfs => "initramfs",
            BootStage::Grant => "grant",
        }
    }
}

impl fmt::Display for BootStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A machine that no node is enrolled for, with the evidence its DHCP packets gave.
///
/// Texts are printable ASCII, cut to a length; the rest of them was replaced by `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingMachine {
    /// The port it asked from.
    pub(crate) mac: MacAddr,
    /// SMBIOS UUID of option 97, bytes in the order they came (firmware disagrees about it).
    pub(crate) uuid: Option<Uuid>,
    /// Kind of firmware, of option 93 or the vendor class.
    pub(crate) arch: Option<ClientArch>,
    /// Option 60.
    pub(crate) vendor_class: Option<String>,
    /// Interface of the head that heard it.
    pub(crate) interface: Arc<str>,
    /// The relay that passed it on.
    pub(crate) giaddr: Option<Ipv4Addr>,
    /// Circuit id of option 82 (usually the switch port), printable or as hex digits.
    pub(crate) circuit: Option<String>,
    /// Option 12.
    pub(crate) hostname: Option<String>,
}

/// The bytes of a grant archive: secret, so they cannot be printed.
pub(crate) struct GrantArchive(pub(crate) Vec<u8>);

impl fmt::Debug for GrantArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantArchive({} bytes)", self.0.len())
    }
}

/// Why the engine gives no grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrantRefused {
    /// There is none to give: unknown, expired, used, or fetched too often; the engine knows which.
    Unknown,
    /// The head could not store the delivery.
    Failed(String),
}

impl fmt::Display for GrantRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrantRefused::Unknown => f.write_str("not given"),
            GrantRefused::Failed(why) => write!(f, "not delivered: {why}"),
        }
    }
}

/// What the engine loop hears.
#[derive(Debug)]
pub(crate) enum BootEvent {
    /// The machine of an enrolled node was heard; at most one in [`super::stages::SEEN_INTERVAL`] for each.
    Seen {
        /// Its port.
        mac: MacAddr,
    },
    /// A machine that no node is enrolled for asked for an address.
    PendingMachine(PendingMachine),
    /// A machine asks for a grant; the reply is the archive to send or why not.
    GrantFetch {
        /// The grant.
        grant_id: Uuid,
        /// The address that asks, for the log and for alarms; it proves nothing.
        client: IpAddr,
        /// Where the answer goes; given up after a few seconds.
        reply: oneshot::Sender<Result<GrantArchive, GrantRefused>>,
    },
}

/// The sending end, shared by all servers.
#[derive(Clone)]
pub(crate) struct EventSender {
    queue: mpsc::Sender<BootEvent>,
}

/// The queue was full or its reader is gone; the event is lost and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventLost;

impl EventSender {
    /// A queue of [`EVENT_QUEUE`] events.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<BootEvent>) {
        Self::with_capacity(EVENT_QUEUE)
    }

    fn with_capacity(capacity: usize) -> (Self, mpsc::Receiver<BootEvent>) {
        let (queue, receiver) = mpsc::channel(capacity);
        (EventSender { queue }, receiver)
    }

    /// Queues an event without waiting.
    pub(crate) fn send(&self, event: BootEvent) -> Result<(), EventLost> {
        self.queue.try_send(event).map_err(|_| {
            metrics::counter!("kraken_boot_events_dropped_total").increment(1);
            EventLost
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let (sender, mut receiver) = EventSender::with_capacity(2);
        let seen = || BootEvent::Seen {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
        };
        assert_eq!(sender.send(seen()), Ok(()));
        assert_eq!(sender.send(seen()), Ok(()));
        assert_eq!(sender.send(seen()), Err(EventLost));
        assert!(receiver.try_recv().is_ok());
        assert_eq!(sender.send(seen()), Ok(()));
        drop(receiver);
        assert_eq!(sender.send(seen()), Err(EventLost));
    }

    #[test]
    fn an_archive_does_not_print_its_bytes() {
        let archive = GrantArchive(b"secret 1234".to_vec());
        assert_eq!(format!("{archive:?}"), "GrantArchive(11 bytes)");
    }
}
