//! Waiting for states, with a deadline and a last word on what was seen instead.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once. Generous: a
/// loaded machine is slow, and a test that passes does not wait at all.
pub const SOON: Duration = Duration::from_secs(20);

/// How long a test waits for tens of megabytes through a terminal, or for what is made of them.
pub const FLOODED: Duration = Duration::from_secs(120);

/// Asks `probe` until it says `Ok`, and panics at the deadline with what it said last.
#[track_caller]
pub fn eventually<T, E: Debug>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + within;
    loop {
        let last = match probe() {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(Instant::now() < end, "{what}: not within {within:?}; last seen: {last:?}");
        std::thread::sleep(STEP);
    }
}

/// As [`eventually`], for probes that have nothing to tell.
#[track_caller]
pub fn until(what: &str, within: Duration, mut probe: impl FnMut() -> bool) {
    eventually(what, within, || if probe() { Ok(()) } else { Err("not yet") });
}

/// Pause between two probes.
pub(super) const STEP: Duration = Duration::from_millis(10);
