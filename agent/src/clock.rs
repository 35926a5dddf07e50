//! Clocks: monotonic for every decision, wall time only to show.

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
