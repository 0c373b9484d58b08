//! How many connections each address has, so that one machine cannot take all places of a listener.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts by address; only addresses that have connections take memory.
#[derive(Clone)]
pub(crate) struct Sources {
    most: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place; given back when dropped.
pub(crate) struct Source {
    sources: Sources,
    address: IpAddr,
}

impl Sources {
    /// At most this many connections of one address.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            counts: Arc::default(),
        }
    }

    /// A place for one more connection of this address; `None` if it has enough.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Source> {
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Source {
            sources: self.clone(),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut counts = self.sources.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_by_address_and_given_back() {
        let sources = Sources::new(2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = sources.enter(a);
        let second = sources.enter(a);
        assert!(first.is_some() && second.is_some() && sources.enter(a).is_none());
        let other = sources.enter(b);
        assert!(other.is_some());
        drop(first);
        assert!(sources.enter(a).is_some());
        drop((second, other));
        assert!(sources.lock().is_empty());
    }
}
