//! Networks in CIDR notation, IPv4 and IPv6.
//!
//! Refuses host bits that are set (`10.0.0.1/8` is more often a mistake than a
//! wish) and lengths beyond the family's. IPv4-mapped IPv6 is treated as IPv4.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    base: IpAddr,
    length: u8,
}

impl Cidr {
    /// Whether `address` lies in this network.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = mask(u32::BITS, self.length);
                (u128::from(base.to_bits()) ^ u128::from(address.to_bits())) & mask == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                (base.to_bits() ^ address.to_bits()) & mask(u128::BITS, self.length) == 0
            }
            _ => false,
        }
    }

    /// Whether this network is every address of its family.
    pub(crate) fn is_everything(&self) -> bool {
        self.length == 0
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        if base.to_canonical() != base {
            return Err(CidrError::Mapped(base.to_canonical()));
        }
        let (width, bits) = match base {
            IpAddr::V4(base) => (u32::BITS, u128::from(base.to_bits())),
            IpAddr::V6(base) => (u128::BITS, base.to_bits()),
        };
        let length = match length {
            // `from_str` would take a sign and leading zeros too.
            Some(digits) if digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| CidrError::Length(width))?
            }
            Some(_) => return Err(CidrError::Length(width)),
            None => u8::try_from(width).map_err(|_| CidrError::Length(width))?,
        };
        if u32::from(length) > width {
            return Err(CidrError::Length(width));
        }
        let kept = bits & mask(width, length);
        if kept != bits {
            let network = match base {
                IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept).unwrap_or(0).into()),
                IpAddr::V6(_) => IpAddr::V6(kept.into()),
            };
            return Err(CidrError::HostBits(network, length));
        }
        Ok(Self { base, length })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CidrError {
    /// The part before the slash.
    #[error("is no IP address with an optional length, such as 10.60.0.0/24")]
    Address,
    /// The part behind the slash.
    #[error("has a length that is no number from 0 to {0}")]
    Length(u32),
    /// Bits are set behind the length.
    #[error("has bits set beyond its length, write {0}/{1}")]
    HostBits(IpAddr, u8),
    /// IPv6 notation of an IPv4 address.
    #[error("is an IPv4 address in IPv6 clothes, write {0}")]
    Mapped(IpAddr),
}

/// The low `width` bits with the upper `length` of them set.
fn mask(width: u32, length: u8) -> u128 {
    let all = u128::MAX >> (u128::BITS - width);
    let host = width - u32::from(length).min(width);
    all & u128::MAX.checked_shl(host).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn membership_is_by_the_leading_bits() {
        assert!(contains("10.60.0.0/24", "10.60.0.255"));
        assert!(!contains("10.60.0.0/24", "10.60.1.0"));
        assert!(contains("10.60.0.0/24", "::ffff:10.60.0.7"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("10.1.2.3", "10.1.2.3"));
        assert!(!contains("10.1.2.3", "10.1.2.2"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("::/0", "fe80::1"));
        assert!(!contains("::/0", "10.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "no IP address"),
            ("10.0.0/8", "no IP address"),
            ("host/8", "no IP address"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/8/8", "0 to 32"),
            ("::/129", "0 to 128"),
            ("::/999", "0 to 128"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("2001:db8::1/64", "write 2001:db8::/64"),
            ("::ffff:10.0.0.0/104", "write 10.0.0.0"),
        ] {
            // The mapped form is reported before its length is looked at.
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
