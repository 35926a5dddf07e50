//! Bytes and times for people.

use std::time::Duration;

/// `999 B`, `1.5 KiB`, `185 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Tenths, in integers: a rounded-up 1024.0 KiB reads 1.0 MiB.
    let mut tenths = u128::from(count) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10 * 1024 - 5 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = next;
    }
    if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", (tenths + 5) / 10)
    }
}

/// `0.4s`, `12s`, `5m 32s`, `3h 12m`, `2d 4h`.
pub(crate) fn duration(length: Duration) -> String {
    let s = length.as_secs();
    match s {
        0..10 if length.subsec_millis() >= 50 => format!("{:.1}s", length.as_secs_f64()),
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Whole seconds only: what a table shows.
pub(crate) fn age(length: Duration) -> String {
    duration(Duration::from_secs(length.as_secs()))
}

/// How long ago an RFC 3339 instant was; nothing when it cannot be read.
pub(crate) fn since(rfc3339: &str, now: jiff::Timestamp) -> Option<Duration> {
    let then: jiff::Timestamp = rfc3339.parse().ok()?;
    Some(Duration::try_from(now.duration_since(then)).unwrap_or_default())
}

/// `10m`, `90s`, `1h30m`, `250ms`; a bare number is refused, it has no unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{}` is not a duration such as 90s, 10m or 1h30m", text.escape_debug());
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| refuse())?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(refuse()),
        };
        let part = Duration::from_millis(number.checked_mul(millis).ok_or_else(refuse)?);
        total = total.checked_add(part).ok_or_else(refuse)?;
        rest = tail;
    }
    if text.is_empty() || total > MAX_DURATION { Err(refuse()) } else { Ok(total) }
}

/// Longer waits overflow clocks and help nobody.
const MAX_DURATION: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 * 1024, "10 KiB"),
            (1_048_575, "1.0 MiB"),
            (185 << 20, "185 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn durations_for_people() {
        for (millis, text) in [
            (0, "0s"),
            (420, "0.4s"),
            (9_960, "10.0s"),
            (12_300, "12s"),
            (332_000, "5m 32s"),
            (11_520_000, "3h 12m"),
            (187_200_000, "2d 4h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text, "{millis}");
        }
    }

    #[test]
    fn durations_from_people() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for refused in
            ["", "10", "m", "-5s", "5 s", "1y", "99999999999999999999s", "18446744073709551615d", "400d"]
        {
            assert!(parse_duration(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn ages() {
        let now: jiff::Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(since("2026-01-01T00:00:00Z", now), Some(Duration::from_secs(60)));
        assert_eq!(since("2026-01-01T00:02:00Z", now), Some(Duration::ZERO));
        assert_eq!(since("yesterday", now), None);
    }
}
