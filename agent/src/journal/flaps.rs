//! A server that stops answering and answers again, all day long.
//!
//! The journal is bounded, and a month of starts, ends and crashes stands in it, too. So it may
//! change so often, and then, until there is room for the next change, it counts as not answering:
//! that is the worse of the two, and nearer to what its players see.

use std::time::{Duration, Instant};

use crate::bucket::Bucket;

/// Times that it may fall silent and answer again at once, and how often more in a second: with
/// some 200 bytes each way about a quarter of the journal in thirty days.
const AT_ONCE: f64 = 100.0;
const A_SECOND: f64 = 1.0 / 2000.0;

/// What of it is noted.
#[derive(Debug)]
pub(crate) struct Flaps {
    left: Bucket,
    silent: bool,
}

impl Flaps {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: Bucket::full(AT_ONCE, now), silent: false }
    }

    /// It does not answer any more: whether that is news.
    pub(crate) fn silent(&mut self) -> bool {
        !std::mem::replace(&mut self.silent, true)
    }

    /// It answers again: whether that is news, or after how long it will be if it still does.
    pub(crate) fn answers(&mut self, now: Instant) -> Result<(), Duration> {
        if self.silent {
            self.left.take(AT_ONCE, A_SECOND, now)?;
        }
        self.silent = false;
        Ok(())
    }

    /// What comes is of another run.
    pub(crate) fn begin(&mut self) {
        self.silent = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_flaps_all_day_is_silent_until_it_has_settled() {
        let mut now = Instant::now();
        let mut flaps = Flaps::new(now);
        let (mut noted, mut wait) = (0, None);
        for _ in 0..1000 {
            now += Duration::from_secs(10);
            noted += u32::from(flaps.silent());
            now += Duration::from_secs(10);
            match flaps.answers(now) {
                Ok(()) => noted += 1,
                Err(left) => wait = Some(left),
            }
        }
        // 100 at once, and ten more in these six hours; it is silent in the end.
        assert!((210..=225).contains(&noted), "{noted}");
        let wait = wait.unwrap();
        assert!(wait <= Duration::from_secs(2000), "{wait:?}");
        assert!(flaps.answers(now + wait / 2).is_err());
        assert!(flaps.answers(now + wait + Duration::from_secs(1)).is_ok());
        assert!(flaps.answers(now + wait + Duration::from_secs(2)).is_ok(), "it answers already");
        assert!(flaps.silent());
        flaps.begin();
        assert!(flaps.silent(), "another run begins with answers");
    }
}
