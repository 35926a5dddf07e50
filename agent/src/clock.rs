//! Clocks: monotonic for every decision, wall time only to show.

/// RFC 3339 in UTC, whole milliseconds.
pub(crate) fn rfc3339(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

/// Now, to show.
pub(crate) fn now_rfc3339() -> String {
    rfc3339(jiff::Timestamp::now())
}
