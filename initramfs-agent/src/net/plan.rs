//! Which interface, and what it lacks. Pure.

use std::net::Ipv4Addr;

use crate::cmdline::{Cidr, Mac};

/// An interface as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The kernel's number.
    pub(crate) index: u32,
    /// The kernel's name; may change under us, so it is for people only.
    pub(crate) name: String,
    /// Link-layer address.
    pub(crate) mac: Option<Mac>,
    /// It is the loopback.
    pub(crate) loopback: bool,
    /// It is switched on.
    pub(crate) up: bool,
    /// It hears the other end.
    pub(crate) carrier: bool,
    /// It is part of a bridge or bond.
    pub(crate) enslaved: bool,
    /// Its addresses.
    pub(crate) addresses: Vec<Cidr>,
}

/// The network as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    /// All interfaces, by index.
    pub(crate) links: Vec<Link>,
    /// Default routes: gateway and interface.
    pub(crate) defaults: Vec<(Ipv4Addr, u32)>,
}

/// An address to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// On which interface.
    pub(crate) link: u32,
    /// Which.
    pub(crate) address: Cidr,
    /// Where everything else goes.
    pub(crate) gateway: Option<Ipv4Addr>,
}

/// One request to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Switch an interface on.
    Up(u32),
    /// Add an address.
    AddAddress(u32, Cidr),
    /// Set the default route.
    DefaultRoute(Ipv4Addr, u32),
}

impl Present {
    /// The interface that booted: the one with this link-layer address, or else the first that is a candidate at all.
    pub(crate) fn choose(&self, mac: Option<Mac>) -> Option<&Link> {
        let candidates = || {
            self.links
                .iter()
                .filter(|link| !link.loopback && !link.enslaved)
        };
        match mac {
            Some(mac) => candidates().find(|link| link.mac == Some(mac)),
            None => candidates()
                .find(|link| link.carrier)
                .or_else(|| candidates().next()),
        }
    }

    /// The interfaces, for a message that says why none was chosen.
    pub(crate) fn describe(&self) -> String {
        let real: Vec<String> = self
            .links
            .iter()
            .filter(|link| !link.loopback)
            .map(|link| match link.mac {
                Some(mac) => format!("{} ({mac})", link.name),
                None => link.name.clone(),
            })
            .collect();
        if real.is_empty() {
            "none".to_owned()
        } else {
            real.join(", ")
        }
    }

    /// What switches on the loopback and the chosen interface.
    pub(crate) fn steps_up(&self, link: u32) -> Vec<Step> {
        let wanted = self.links.iter().filter(|l| l.loopback || l.index == link);
        wanted
            .filter(|l| !l.up)
            .map(|l| Step::Up(l.index))
            .collect()
    }

    /// What gives the interface its address and route. Addresses that others added stay.
    pub(crate) fn steps_to(&self, wanted: &Wanted) -> Vec<Step> {
        let mut steps = self.steps_up(wanted.link);
        let link = self.links.iter().find(|link| link.index == wanted.link);
        if !link.is_some_and(|link| link.addresses.contains(&wanted.address)) {
            steps.push(Step::AddAddress(wanted.link, wanted.address));
        }
        if let Some(gateway) = wanted.gateway
            && !self.defaults.contains(&(gateway, wanted.link))
            && gateway != wanted.address.ip
        {
            steps.push(Step::DefaultRoute(gateway, wanted.link));
        }
        steps
    }
}

#[cfg(test)]
mod tests;
