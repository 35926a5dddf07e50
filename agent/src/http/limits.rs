//! Ceilings on how much one source may take: connections, and wrong tokens.
//!
//! Both count by [`Source`]: the uid of a local process (all of them share the
//! same address, and one must not be able to lock the others out), the address
//! of a remote one, the /64 of an IPv6 one. Both maps are bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::peer::Peer;
use crate::bucket::Bucket;

/// Who is counted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A uid of this container; all whose owner is unknown are one.
    Local(Option<u32>),
    /// An IPv4 address, or the first address of an IPv6 /64.
    Remote(IpAddr),
}

impl From<Peer> for Source {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Local(uid) => Self::Local(uid),
            Peer::Remote(IpAddr::V6(ip)) => {
                Self::Remote(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)))
            }
            Peer::Remote(ip) => Self::Remote(ip),
        }
    }
}

/// Open connections by source.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    open: Mutex<HashMap<Source, usize>>,
}

impl Quota {
    /// Takes a place unless `limit` are taken by this source.
    pub(crate) fn take(self: &Arc<Self>, source: Source, limit: usize) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = open.entry(source).or_default();
        if *taken >= limit {
            return None;
        }
        *taken += 1;
        Some(Place { quota: Arc::clone(self), source })
    }

    /// How many places a source has taken.
    #[cfg(test)]
    pub(crate) fn taken(&self, source: Source) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&source).copied().unwrap_or(0)
    }
}

/// One open connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    quota: Arc<Quota>,
    source: Source,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.quota.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = open.get_mut(&self.source) {
            *taken -= 1;
            if *taken == 0 {
                open.remove(&self.source);
            }
        }
    }
}

/// Wrong tokens by source.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    failures: Mutex<HashMap<Source, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

impl Throttle {
    /// How long a source has to wait before its next token is looked at, none when not at all.
    pub(crate) fn wait(&self, source: Source, now: Instant) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failures.get(&source).filter(|entry| entry.count >= MAX_FAILURES)?;
        WINDOW.checked_sub(now.saturating_duration_since(entry.since)).filter(|wait| !wait.is_zero())
    }

    /// Counts a wrong token; true when it was the one that locks the source out.
    pub(crate) fn failed(&self, source: Source, now: Instant) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |entry: &Failures| now.saturating_duration_since(entry.since) >= WINDOW;
        if failures.len() >= MAX_SOURCES && !failures.contains_key(&source) {
            failures.retain(|_, entry| !over(entry));
            let oldest = failures.iter().min_by_key(|(_, entry)| entry.since).map(|(source, _)| *source);
            if let Some(oldest) = oldest.filter(|_| failures.len() >= MAX_SOURCES) {
                failures.remove(&oldest);
            }
        }
        let entry = failures.entry(source).or_insert(Failures { since: now, count: 0 });
        if over(entry) {
            *entry = Failures { since: now, count: 0 };
        }
        entry.count = entry.count.saturating_add(1);
        entry.count == MAX_FAILURES
    }
}

/// Commands by source.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    buckets: Mutex<HashMap<Source, Bucket>>,
}

impl Pace {
    /// One more command of this source, or how long it has to wait.
    pub(crate) fn take(&self, source: Source, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_SOURCES && !buckets.contains_key(&source) {
            // Whoever has been silent for longest has a full bucket again, or nearly so.
            if let Some(oldest) = buckets.iter().min_by_key(|(_, one)| one.asked()).map(|(source, _)| *source)
            {
                buckets.remove(&oldest);
            }
        }
        let bucket = buckets.entry(source).or_insert_with(|| Bucket::full(COMMANDS, now));
        bucket.take(COMMANDS, COMMANDS_A_SECOND, now)
    }
}

/// Commands of one source at once, and how many more each second.
pub(crate) const COMMANDS: f64 = 500.0;
const COMMANDS_A_SECOND: f64 = 50.0;

/// Wrong tokens of one source within [`WINDOW`] before its tokens are not looked at any more.
const MAX_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
const MAX_SOURCES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(index: u32) -> Source {
        Source::Remote(IpAddr::V4((0x0a00_0000 + index).into()))
    }

    #[test]
    fn ten_failures_in_a_minute_lock_one_source_for_the_rest_of_it() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for second in 0..9 {
            assert!(!throttle.failed(remote(1), start + Duration::from_secs(second)));
        }
        assert_eq!(throttle.wait(remote(1), start + Duration::from_secs(9)), None);
        assert!(throttle.failed(remote(1), start + Duration::from_secs(9)));
        assert_eq!(throttle.wait(remote(1), start + Duration::from_secs(10)), Some(Duration::from_secs(50)));
        assert_eq!(throttle.wait(remote(2), start + Duration::from_secs(10)), None);
        assert_eq!(throttle.wait(remote(1), start + Duration::from_secs(60)), None);
        assert!(!throttle.failed(remote(1), start + Duration::from_secs(60)));
    }

    #[test]
    fn commands_have_a_pace_and_the_map_of_them_a_bound() {
        let pace = Pace::default();
        let start = Instant::now();
        let taken = (0..1000).filter(|_| pace.take(remote(1), start).is_ok()).count();
        assert_eq!(taken, 500);
        let wait = pace.take(remote(1), start).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(20), "{wait:?}");
        assert!(pace.take(remote(2), start).is_ok(), "another one's pace is his own");
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| pace.take(remote(1), later).is_ok()).count(), 50);
        for index in 0..5000 {
            let _ = pace.take(remote(index), later + Duration::from_millis(u64::from(index)));
        }
        assert_eq!(pace.buckets.lock().unwrap().len(), MAX_SOURCES);
    }

    #[test]
    fn the_map_of_failures_is_bounded_and_forgets_the_oldest() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for index in 0..5000 {
            throttle.failed(remote(index), start + Duration::from_millis(u64::from(index)));
        }
        let kept = throttle.failures.lock().unwrap();
        assert_eq!(kept.len(), MAX_SOURCES);
        assert!(kept.contains_key(&remote(4999)) && !kept.contains_key(&remote(0)));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let source = |ip: &str| Source::from(Peer::Remote(ip.parse().unwrap()));
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::9"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }

    #[test]
    fn a_place_comes_back_when_it_is_dropped() {
        let quota = Arc::new(Quota::default());
        let first = quota.take(remote(1), 2).unwrap();
        let _second = quota.take(remote(1), 2).unwrap();
        assert!(quota.take(remote(1), 2).is_none());
        assert!(quota.take(remote(2), 2).is_some());
        drop(first);
        assert!(quota.take(remote(1), 2).is_some());
        assert_eq!(quota.open.lock().unwrap().len(), 1);
    }
}
