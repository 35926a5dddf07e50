//! Clocks: monotonic for every decision, wall time only to show.

use std::io;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// RFC 3339 in UTC, whole milliseconds.
pub(crate) fn rfc3339(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

/// Now. It may jump by years: nothing but what people read, and what a catalog says of its
/// own age, may depend on it.
pub(crate) fn now() -> jiff::Timestamp {
    let shift = jiff::SignedDuration::from_secs(zlh_shim::faults::clock_shift_s());
    let now = jiff::Timestamp::now();
    now.checked_add(shift).unwrap_or(now)
}

/// Now, to show.
pub(crate) fn now_rfc3339() -> String {
    rfc3339(now())
}

/// Sleeps until the next multiple of [`BEAT`]. What is looked at now and then is looked at
/// together: one timer more that fires at the same moment costs no wake-up.
///
/// A timer of the kernel's: the runtime's own wheel wakes up two or three times for a
/// pause of seconds.
pub(crate) async fn beat() {
    beat_of(BEAT).await;
}

/// Between two looks at something that is expected to be well.
pub(crate) const BEAT: Duration = Duration::from_secs(5);

async fn beat_of(period: Duration) {
    if kernel_timer(period).await.is_err() {
        // No descriptor is left: it costs what it costs.
        tokio::time::sleep(period).await;
    }
}

/// The next multiple of the period.
fn next_beat(now: Duration, period: Duration) -> io::Result<Duration> {
    let beats = u32::try_from(now.as_nanos() / period.as_nanos() + 1).map_err(io::Error::other)?;
    Ok(period * beats)
}

async fn kernel_timer(period: Duration) -> io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
    let at = next_beat(now, period)?;
    let at = Timespec { tv_sec: at.as_secs().cast_signed(), tv_nsec: at.subsec_nanos().into() };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &once)?;
    #[allow(unsafe_code)]
    // SAFETY: an owned descriptor; it is closed after the registration is undone.
    let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }
        .map_err(|error| error.into_parts().1)?;
    timer.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_wakes_up_at_the_same_moment_and_once_a_beat() {
        let ms = Duration::from_millis;
        for (now, next) in [(0, 200), (1, 200), (70, 200), (199, 200), (200, 400), (399, 400)] {
            assert_eq!(next_beat(ms(now), ms(200)).unwrap(), ms(next), "at {now}");
        }
        let years = Duration::from_secs(20 * 365 * 24 * 3600);
        assert_eq!(next_beat(years + ms(1), BEAT).unwrap(), years + BEAT);
    }

    #[tokio::test]
    async fn nobody_wakes_up_before_the_beat() {
        const PERIOD: Duration = Duration::from_millis(200);
        let beats = || {
            let now = clock_gettime(ClockId::Monotonic);
            (now.tv_sec * 1000 + now.tv_nsec / 1_000_000) / 200
        };
        for _ in 0..3 {
            let before = beats();
            // The timer itself: its stand-in would hide that it does not work.
            kernel_timer(PERIOD).await.unwrap();
            assert!(beats() > before, "{before}");
        }
    }
}
