//! Which addresses the boot interfaces have, read over netlink and kept up to date.
//!
//! An interface may be missing when the head starts, come up later, or get another address: the servers follow a watch
//! channel per interface. Kernel events are only a reason to read again, because their queue can overflow; a slow poll
//! covers what was lost. IPv6 addresses are not looked at.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use ipnet::Ipv4Net;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::MulticastGroup;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::MacAddr;

/// How often interfaces are read again when the kernel told nothing.
const POLL: Duration = Duration::from_secs(5);

/// Events of one change come in a burst; they are read after this pause.
const SETTLE: Duration = Duration::from_millis(50);

/// Wait before netlink is opened again after it failed.
const REOPEN: Duration = Duration::from_secs(1);

/// An interface that is up and has an IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InterfaceFacts {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its number in the kernel; another one means that the interface was made anew.
    pub(crate) index: u32,
    /// Its own hardware address, if it is an Ethernet.
    pub(crate) mac: Option<MacAddr>,
    /// Its addresses, at least one, the kernel's order.
    pub(crate) addresses: Vec<Ipv4Net>,
}

impl InterfaceFacts {
    /// Our address in the subnet that holds this one.
    pub(crate) fn address_near(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        self.addresses
            .iter()
            .find(|net| net.contains(&address))
            .map(Ipv4Net::addr)
    }

    /// Whether an address is one of ours.
    pub(crate) fn has_address(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }
}

/// What is known of one interface; none while it is missing, down or without an address.
pub(crate) type FactsReceiver = watch::Receiver<Option<Arc<InterfaceFacts>>>;

/// Follows these interfaces until told to stop.
pub(crate) fn follow(names: &[Arc<str>], stop: CancellationToken) -> Vec<FactsReceiver> {
    let (mut senders, mut receivers) = (HashMap::new(), Vec::new());
    for name in names {
        let (sender, receiver) = watch::channel(None);
        senders.insert(Arc::clone(name), sender);
        receivers.push(receiver);
    }
    tokio::spawn(async move {
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = follow_netlink(&senders) => result,
            };
            if let Err(error) = result {
                warn!(%error, "cannot follow the network interfaces, trying again");
            }
            tokio::time::sleep(REOPEN).await;
        }
    });
    receivers
}

type Senders = HashMap<Arc<str>, watch::Sender<Option<Arc<InterfaceFacts>>>>;

async fn follow_netlink(senders: &Senders) -> io::Result<()> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    let connection = tokio::spawn(connection);
    let _abort = AbortOnDrop(connection.abort_handle());
    let mut is_first = true;
    loop {
        let found = read_all(&handle, senders).await.map_err(io::Error::other)?;
        for (name, sender) in senders {
            if is_first && !found.contains_key(name) {
                warn!(interface = %name, "boot interface is missing, down or without an IPv4 address: waiting for it");
            }
            publish(name, sender, found.get(name));
        }
        is_first = false;
        let event = tokio::time::timeout(POLL, messages.next()).await;
        if matches!(event, Ok(None)) {
            return Err(io::Error::other("the netlink connection ended"));
        }
        tokio::time::sleep(SETTLE).await;
        while futures::FutureExt::now_or_never(messages.next())
            .flatten()
            .is_some()
        {}
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn publish(
    name: &str,
    sender: &watch::Sender<Option<Arc<InterfaceFacts>>>,
    found: Option<&InterfaceFacts>,
) {
    sender.send_if_modified(|known| {
        if known.as_deref() == found {
            return false;
        }
        match found {
            Some(facts) => {
                let addresses: Vec<_> = facts.addresses.iter().map(ToString::to_string).collect();
                info!(
                    interface = name,
                    index = facts.index,
                    addresses = addresses.join(","),
                    "boot interface ready"
                );
            }
            None => warn!(interface = name, "boot interface lost, waiting for it"),
        }
        *known = found.cloned().map(Arc::new);
        true
    });
}

async fn read_all(
    handle: &rtnetlink::Handle,
    wanted: &Senders,
) -> Result<HashMap<Arc<str>, InterfaceFacts>, rtnetlink::Error> {
    let mut by_index = HashMap::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        if !link.header.flags.contains(LinkFlags::Up) {
            continue;
        }
        let (mut name, mut mac) = (None, None);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(text) => {
                    name = wanted
                        .get_key_value(text.as_str())
                        .map(|(name, _)| Arc::clone(name))
                }
                LinkAttribute::Address(bytes) => mac = bytes.try_into().ok().map(MacAddr),
                _ => {}
            }
        }
        if let Some(name) = name {
            let facts = InterfaceFacts {
                name,
                index: link.header.index,
                mac,
                addresses: Vec::new(),
            };
            by_index.insert(facts.index, facts);
        }
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let Some(facts) = by_index.get_mut(&message.header.index) else {
            continue;
        };
        // On a point-to-point link `Address` is the peer's, so `Local` counts where there is one.
        let (mut address, mut local) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(IpAddr::V4(ip)) => address = Some(*ip),
                AddressAttribute::Local(IpAddr::V4(ip)) => local = Some(*ip),
                _ => {}
            }
        }
        if let Some(ip) = local.or(address)
            && let Ok(net) = Ipv4Net::new(ip, message.header.prefix_len)
        {
            facts.addresses.push(net);
        }
    }
    let with_address = by_index
        .into_values()
        .filter(|facts| !facts.addresses.is_empty());
    Ok(with_address
        .map(|facts| (Arc::clone(&facts.name), facts))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_has_its_address_and_a_missing_interface_none() {
        let stop = CancellationToken::new();
        let mut facts = follow(&["lo".into(), "missing0".into()], stop.clone());
        let lo = tokio::time::timeout(Duration::from_secs(10), facts[0].wait_for(Option::is_some))
            .await
            .expect("loopback is up on the machines that run this test")
            .expect("the follower runs")
            .clone();
        let lo = lo.expect("waited for it");
        assert_eq!(&*lo.name, "lo");
        assert!(lo.has_address(Ipv4Addr::LOCALHOST), "{lo:?}");
        assert_eq!(
            lo.address_near(Ipv4Addr::new(127, 1, 2, 3)),
            Some(Ipv4Addr::LOCALHOST)
        );
        assert!(facts[1].borrow().is_none());
        stop.cancel();
    }
}
