//! Sets of addresses, written as networks.
//!
//! Owns whether an address is in one. Refuses to know what that means and how they were spelled.

use std::net::IpAddr;

/// A network: the addresses whose first `prefix` bits are those of `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Some networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Network {
    /// `None` when the prefix is longer than the address, or there are bits behind it.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let (bits, width) = bits(address);
        let is_clean = prefix <= width && first(bits, prefix) == bits;
        is_clean.then_some(Self { address, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let ((ours, width), (theirs, their_width)) = (bits(self.address), bits(address));
        width == their_width && first(theirs, self.prefix) == ours
    }
}

impl Networks {
    /// Whether the address is in one of them. An IPv4 address in the clothes of IPv6
    /// (`::ffff:192.0.2.1`) is what it is.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// The address from the highest bit on, and how many of the bits count.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

fn first(bits: u128, count: u8) -> u128 {
    let rest = u128::BITS - u32::from(count);
    bits.checked_shr(rest)
        .and_then(|kept| kept.checked_shl(rest))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[(&str, u8)]) -> Networks {
        list.iter()
            .map(|&(address, prefix)| Network::new(address.parse().unwrap(), prefix).unwrap())
            .collect()
    }

    fn contain(networks: &Networks, address: &str) -> bool {
        networks.contain(address.parse().unwrap())
    }

    #[test]
    fn a_network_ends_where_its_prefix_says() {
        let some = networks(&[("10.1.0.0", 16), ("192.0.2.7", 32), ("2001:db8::", 33)]);

        for inside in [
            "10.1.0.0",
            "10.1.255.255",
            "192.0.2.7",
            "2001:db8:7fff::1",
            "::ffff:10.1.2.3",
        ] {
            assert!(contain(&some, inside), "{inside}");
        }
        for outside in [
            "10.0.255.255",
            "10.2.0.0",
            "192.0.2.6",
            "192.0.2.8",
            "2001:db8:8000::",
            "::",
        ] {
            assert!(!contain(&some, outside), "{outside}");
        }
    }

    #[test]
    fn everything_of_one_family_is_nothing_of_the_other() {
        let all = networks(&[("0.0.0.0", 0)]);

        assert!(contain(&all, "255.255.255.255") && !contain(&all, "::"));
        assert!(!Networks::default().contain([127, 0, 0, 1].into()));
    }

    #[test]
    fn a_prefix_is_not_longer_than_its_address_and_ends_it() {
        assert_eq!(Network::new([10, 0, 0, 0].into(), 33), None);
        assert_eq!(Network::new([10, 0, 0, 1].into(), 31), None);
        assert_eq!(Network::new([10, 0, 0, 1].into(), 255), None);
        assert!(Network::new([10, 0, 0, 1].into(), 32).is_some());
    }
}
