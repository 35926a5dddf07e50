//! Token buckets: so much at once, and so much more with time.

use std::time::{Duration, Instant};

/// A budget that fills up again with time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn full(burst: f64, now: Instant) -> Self {
        Self { left: burst, at: now }
    }

    /// When it was asked last.
    pub(crate) fn asked(&self) -> Instant {
        self.at
    }

    /// Takes one, or says after how long there is one.
    pub(crate) fn take(&mut self, burst: f64, a_second: f64, now: Instant) -> Result<(), Duration> {
        self.spend(1.0, burst, a_second, now)
    }

    /// Takes so much at once.
    pub(crate) fn spend(
        &mut self,
        cost: f64,
        burst: f64,
        a_second: f64,
        now: Instant,
    ) -> Result<(), Duration> {
        let gone = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + gone * a_second).min(burst);
        self.at = now;
        if self.left < cost {
            return Err(Duration::from_secs_f64((cost - self.left) / a_second));
        }
        self.left -= cost;
        Ok(())
    }
}
