//! Counts the connections of a port, in all and by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places for connections; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(most: usize, per_address: usize) -> Self {
        Self { shared: Arc::new(Shared { most, per_address, taken: Mutex::default() }) }
    }

    /// Takes a place, or says which limit is reached.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, &'static str> {
        let address = network(address);
        let mut taken = self.shared.taken();
        if taken.all >= self.shared.most {
            return Err("connections");
        }
        let here = taken.by_address.entry(address).or_default();
        if *here >= self.shared.per_address {
            return Err("connections_per_address");
        }
        *here += 1;
        taken.all += 1;
        Ok(Place { shared: Arc::clone(&self.shared), address })
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Plain counts: a panic elsewhere leaves them whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What belongs to one holder: whoever has an IPv6 address usually has 64 bits of them.
/// What counts as one address: whoever has one of IPv6 mostly has 64 bits of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_counted_in_all_and_by_address_and_come_back() {
        let places = Places::new(3, 2);
        let first = places.take(ip("10.0.0.1")).unwrap();
        let second = places.take(ip("10.0.0.1")).unwrap();

        assert_eq!(places.take(ip("10.0.0.1")).unwrap_err(), "connections_per_address");
        let third = places.take(ip("10.0.0.2")).unwrap();
        assert_eq!(places.take(ip("10.0.0.3")).unwrap_err(), "connections");
        drop(first);
        assert!(places.take(ip("10.0.0.3")).is_ok());
        drop((second, third));

        let taken = places.shared.taken();
        assert_eq!((taken.all, taken.by_address.len()), (0, 0));
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one_address() {
        let places = Places::new(9, 1);
        let _one = places.take(ip("2001:db8::1")).unwrap();

        assert!(places.take(ip("2001:db8:0:0:ffff::2")).is_err());
        assert!(places.take(ip("2001:db8:0:1::1")).is_ok());
        let _mapped = places.take(ip("::ffff:10.0.0.1")).unwrap();
        assert!(places.take(ip("10.0.0.1")).is_err());
    }
}
