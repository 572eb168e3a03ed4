//! Which addresses may be dialled for somebody else: those of the public Internet, and what the
//! operator allows by name.
//!
//! Source: the IANA registries of special-purpose addresses (RFC 6890), and services of cloud
//! providers that trust whoever reaches them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why an address may not be dialled.
pub type Forbidden = &'static str;

/// A range of addresses: `10.0.0.0/8`, `::1/128`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    first: IpAddr,
    bits: u8,
}

const fn v4(a: u8, b: u8, c: u8, bits: u8) -> Range {
    Range { first: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), bits }
}

const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Range {
    Range { first: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), bits }
}

const FORBIDDEN_V4: &[(Range, Forbidden)] = &[
    (v4(0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 8), "private"),
    (v4(100, 64, 0, 10), "behind a carrier's translation"),
    (v4(127, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 16), "link-local"),
    (v4(172, 16, 0, 12), "private"),
    (v4(192, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 24), "documentation"),
    (v4(192, 31, 196, 24), "AS112"),
    (v4(192, 52, 193, 24), "AMT"),
    (v4(192, 88, 99, 24), "6to4 relay"),
    (v4(192, 168, 0, 16), "private"),
    (v4(192, 175, 48, 24), "AS112"),
    (v4(198, 18, 0, 15), "benchmarks"),
    (v4(198, 51, 100, 24), "documentation"),
    (v4(203, 0, 113, 24), "documentation"),
    (v4(224, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 4), "reserved"),
];

/// Azure's virtual machines reach the platform here, and nowhere else does anybody.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// All that is routed: everything else is forbidden, known or not.
const GLOBAL_V6: Range = v6(0x2000, 0, 0, 3);

const FORBIDDEN_V6: &[(Range, Forbidden)] = &[
    (v6(0x2001, 0, 0, 32), "Teredo"),
    (v6(0x2001, 0, 0, 23), "protocol assignments"),
    (v6(0x2001, 0x0db8, 0, 32), "documentation"),
    (v6(0x2002, 0, 0, 16), "6to4"),
    (v6(0x2620, 0x004f, 0x8000, 48), "AS112"),
    (v6(0x3fff, 0, 0, 20), "documentation"),
    (v6(0x3ffe, 0, 0, 16), "6bone"),
];

impl Range {
    /// Whether an address lies in it. An IPv4 address in the clothes of IPv6 does not lie in a range
    /// of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                let top = |address: Ipv4Addr| u32::from(address).checked_shr(shift).unwrap_or(0);
                top(first) == top(address)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                let top = |address: Ipv6Addr| u128::from(address).checked_shr(shift).unwrap_or(0);
                top(first) == top(address)
            }
            _ => false,
        }
    }
}

/// Whether an address may be dialled for somebody else.
///
/// # Errors
///
/// What kind of address it is.
pub fn check(address: IpAddr, allowed: &[Range]) -> Result<(), Forbidden> {
    if is_allowed_by_name(address, allowed) {
        return Ok(());
    }
    let forbidden = match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => forbidden_v6(address),
    };
    forbidden.map_or(Ok(()), Err)
}

/// Whether the operator allows it by name.
pub fn is_allowed_by_name(address: IpAddr, allowed: &[Range]) -> bool {
    allowed.iter().any(|range| range.contains(address))
}

fn forbidden_v4(address: Ipv4Addr) -> Option<Forbidden> {
    if address == AZURE_PLATFORM {
        return Some("the platform of a cloud");
    }
    let found = FORBIDDEN_V4.iter().find(|(range, _)| range.contains(address.into()));
    found.map(|&(_, why)| why)
}

fn forbidden_v6(address: Ipv6Addr) -> Option<Forbidden> {
    if !GLOBAL_V6.contains(address.into()) {
        // Loopback, unique-local, link-local, multicast, mapped, NAT64, and what is not assigned.
        return Some("not an address of the public Internet");
    }
    let found = FORBIDDEN_V6.iter().find(|(range, _)| range.contains(address.into()));
    if let Some(&(_, why)) = found {
        return Some(why);
    }
    // ISATAP: the last half is 0000:5efe or 0200:5efe and an address of IPv4.
    match address.segments() {
        [_, _, _, _, 0 | 0x0200, 0x5efe, ..] => Some("ISATAP"),
        _ => None,
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of addresses, such as 10.0.0.0/8 or ::1/128");
        let (first, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let first: IpAddr = first.parse().map_err(|_error| wrong())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse::<u8>().map_err(|_error| wrong()))?;
        let range = Self { first, bits };
        // All bits after the prefix are zero, or somebody meant something else.
        let is_whole = match first {
            IpAddr::V4(first) => u32::from(first).checked_shl(bits.into()).unwrap_or(0) == 0,
            IpAddr::V6(first) => u128::from(first).checked_shl(bits.into()).unwrap_or(0) == 0,
        };
        if bits > most || !is_whole { Err(wrong()) } else { Ok(range) }
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_contain_what_they_should() {
        for (text, inside, outside) in [
            ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::1/128", "::1", "::2"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            let range: Range = text.parse().unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{text} {outside}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "::/129", "a/8", "10.0.0.0/-1", "10/8"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_allowed_and_nothing_beside_it() {
        let allowed = ["127.0.0.1/32".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
        let may = |text: &str| check(text.parse().unwrap(), &allowed).is_ok();

        assert!(may("127.0.0.1") && may("10.1.2.3") && may("93.184.215.14"));
        assert!(!may("127.0.0.2") && !may("10.2.0.1") && !may("::ffff:127.0.0.1") && !may("::1"));
    }
}
