//! Durations, sizes and signals the way people write them: `250ms`, `10MB`, `SIGKILL`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// A duration written `5s`, `250ms`, `2m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// A number of bytes written `4096`, `64k`, `10MB` or `8MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

/// A signal written `KILL`, `SIGKILL` or `9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SignalName(pub Signal);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(format!("`{text}` is not a duration: write 250ms, 5s, 2m or 1h")),
        };
        let number: u64 =
            number.parse().map_err(|_| format!("`{text}` is not a duration: no whole number"))?;
        let millis = number.checked_mul(millis).ok_or_else(|| format!("`{text}` is too long"))?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let factor = match unit {
            "" | "B" => 1,
            "k" | "kB" | "KB" => 1_000,
            "KiB" => 1 << 10,
            "M" | "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "G" | "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            _ => return Err(format!("`{text}` is not a size: write 4096, 64k, 10MB or 8MiB")),
        };
        let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a size: no whole number"))?;
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("`{text}` is too much"))
    }
}

impl FromStr for SignalName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let signal = match upper.parse::<i32>() {
            Ok(number) => Signal::try_from(number).ok(),
            Err(_) if upper.starts_with("SIG") => Signal::from_str(&upper).ok(),
            Err(_) => Signal::from_str(&format!("SIG{upper}")).ok(),
        };
        signal.map(Self).ok_or_else(|| format!("`{text}` is not a signal: write KILL, SIGKILL or 9"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

macro_rules! as_string {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_string!(Span, Bytes, SignalName);

/// The leading digits and the rest.
fn split(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_s_notation_is_read_and_written_back() {
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        assert_eq!("10MB".parse(), Ok(Bytes(10_000_000)));
        assert_eq!("8MiB".parse(), Ok(Bytes(8 << 20)));
        assert_eq!("kill".parse(), Ok(SignalName(Signal::SIGKILL)));
        assert_eq!("SIGTERM".parse(), Ok(SignalName(Signal::SIGTERM)));
        assert_eq!("11".parse(), Ok(SignalName(Signal::SIGSEGV)));
        assert_eq!(Span(Duration::from_secs(3)).to_string().parse(), Ok(Span(Duration::from_secs(3))));
    }

    #[test]
    fn a_missing_unit_is_refused_where_it_could_be_misread() {
        assert!("5".parse::<Span>().unwrap_err().contains("250ms"));
        assert!("10 MB".parse::<Bytes>().is_err());
        assert!("99999999999999999999".parse::<Bytes>().is_err());
        assert!("SIGNOPE".parse::<SignalName>().is_err());
    }
}
