//! rtnetlink(7): reads the network into [`Present`], carries [`Step`]s out. The only place that knows the crates' types, which change
//! several times a year.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, State};
use netlink_packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::time::{Instant, sleep};

use super::plan::{Link, Present, Step, Wanted};
use crate::cmdline::{Cidr, Mac};

/// Time between two looks for an interface or a carrier.
const LOOK: Duration = Duration::from_millis(20);

/// Why the network is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetError {
    /// The kernel refuses to talk.
    #[error("no netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refuses a request.
    #[error("the kernel refuses: {what}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Its answer.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// The interface does not show up.
    #[error(
        "there is no interface {wanted}; there are: {present}. Is its driver in the initramfs?"
    )]
    NoInterface {
        /// Which one.
        wanted: String,
        /// What there is.
        present: String,
    },
}

/// A conversation with the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Netlink(Handle);

impl Netlink {
    /// Opens a socket; its driver runs as a task of the current runtime.
    pub(crate) fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Socket)?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// The network as it is.
    pub(crate) async fn present(&self) -> Result<Present, NetError> {
        let mut links = BTreeMap::new();
        let mut dump = self.0.link().get().execute();
        while let Some(message) = dump.try_next().await.map_err(refused("list links"))? {
            let flags = message.header.flags;
            let mut link = Link {
                index: message.header.index,
                loopback: flags.contains(LinkFlags::Loopback),
                up: flags.contains(LinkFlags::Up),
                carrier: flags.contains(LinkFlags::LowerUp),
                ..Link::default()
            };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::Address(bytes) => {
                        link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac)
                    }
                    LinkAttribute::Controller(index) => link.enslaved = index != 0,
                    LinkAttribute::OperState(State::Up) => link.carrier = true,
                    _ => {}
                }
            }
            links.insert(link.index, link);
        }
        let mut dump = self.0.address().get().execute();
        while let Some(message) = dump.try_next().await.map_err(refused("list addresses"))? {
            let prefix = message.header.prefix_len;
            let local = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                    _ => None,
                });
            if let (Some(link), Some(ip)) = (links.get_mut(&message.header.index), local) {
                link.addresses.push(Cidr { ip, prefix });
            }
        }
        Ok(Present {
            links: links.into_values().collect(),
            defaults: self.default_routes().await?,
        })
    }

    async fn default_routes(&self) -> Result<Vec<(Ipv4Addr, u32)>, NetError> {
        let mut defaults = Vec::new();
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut dump = self.0.route().get(filter).execute();
        while let Some(message) = dump.try_next().await.map_err(refused("list routes"))? {
            if message.header.destination_prefix_length != 0 {
                continue;
            }
            let mut gateway = None;
            let mut link = None;
            for attribute in message.attributes {
                match attribute {
                    RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(ip),
                    RouteAttribute::Oif(index) => link = Some(index),
                    _ => {}
                }
            }
            defaults.extend(gateway.zip(link));
        }
        Ok(defaults)
    }

    /// Waits until the wanted interface is there.
    pub(crate) async fn wait_for(
        &self,
        mac: Option<Mac>,
        limit: Duration,
    ) -> Result<(Present, Link), NetError> {
        let deadline = Instant::now() + limit;
        loop {
            let present = self.present().await?;
            if let Some(link) = present.choose(mac) {
                let link = link.clone();
                return Ok((present, link));
            }
            if Instant::now() >= deadline {
                return Err(NetError::NoInterface {
                    wanted: mac.map_or("at all".to_owned(), |mac| format!("with address {mac}")),
                    present: present.describe(),
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the interface hears the other end; says whether it does.
    pub(crate) async fn wait_for_carrier(
        &self,
        index: u32,
        limit: Duration,
    ) -> Result<bool, NetError> {
        let deadline = Instant::now() + limit;
        loop {
            let present = self.present().await?;
            if present
                .links
                .iter()
                .any(|link| link.index == index && link.carrier)
            {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
    }

    /// Brings the network to what is wanted.
    pub(crate) async fn bring_to(&self, wanted: &Wanted) -> Result<(), NetError> {
        let steps = self.present().await?.steps_to(wanted);
        self.carry_out(&steps).await
    }

    /// Carries steps out, in order.
    pub(crate) async fn carry_out(&self, steps: &[Step]) -> Result<(), NetError> {
        for step in steps {
            let done = match *step {
                Step::Up(index) => {
                    self.0
                        .link()
                        .set(LinkUnspec::new_with_index(index).up().build())
                        .execute()
                        .await
                }
                Step::AddAddress(index, address) => {
                    let request =
                        self.0
                            .address()
                            .add(index, IpAddr::V4(address.ip), address.prefix);
                    request.replace().execute().await
                }
                Step::DefaultRoute(gateway, index) => {
                    let route = RouteMessageBuilder::<Ipv4Addr>::new()
                        .gateway(gateway)
                        .output_interface(index)
                        .build();
                    self.0.route().add(route).replace().execute().await
                }
            };
            done.map_err(refused(&format!("{step:?}")))?;
        }
        Ok(())
    }
}

fn refused(what: &str) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let what = what.to_owned();
    move |source| NetError::Refused {
        what,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_seen() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let present = runtime.block_on(async { Netlink::open().unwrap().present().await.unwrap() });
        let lo = present.links.iter().find(|link| link.loopback).unwrap();
        assert_eq!(lo.name, "lo");
    }
}
