//! How long a catalog is good for new installs.

use jiff::{SignedDuration, Timestamp};

use crate::Catalog;

/// What an instant makes of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It is good.
    Current,
    /// It expired then, and is still taken, with a warning.
    Expired(Timestamp),
    /// It expired then, and agents install nothing new from it.
    TooOld(Timestamp),
}

/// How long an expired catalog is still taken.
const GRACE: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Catalog {
    /// Whether it is good for new installs at `now`.
    pub fn expiry(&self, now: Timestamp) -> Expiry {
        match self.expires {
            Some(at) if now > at.saturating_add(GRACE).unwrap_or(Timestamp::MAX) => Expiry::TooOld(at),
            Some(at) if now > at => Expiry::Expired(at),
            _ => Expiry::Current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_catalog_is_taken_for_a_week_more() {
        let at: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        let mut catalog = crate::fixtures::catalog();
        catalog.expires = Some(at);
        let of = |text: &str| catalog.expiry(text.parse().unwrap());
        assert_eq!(of("2026-01-10T00:00:00Z"), Expiry::Current);
        assert_eq!(of("2026-01-10T00:00:01Z"), Expiry::Expired(at));
        assert_eq!(of("2026-01-17T00:00:00Z"), Expiry::Expired(at));
        assert_eq!(of("2026-01-17T00:00:01Z"), Expiry::TooOld(at));
        catalog.expires = None;
        assert_eq!(catalog.expiry(Timestamp::MAX), Expiry::Current);
        catalog.expires = Some(Timestamp::MAX);
        assert_eq!(catalog.expiry(at), Expiry::Current);
    }
}
