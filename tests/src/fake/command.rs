//! Console commands, parsed.

use super::settings::DaemonMode;
use super::{Bytes, PingMode, SignalName};

/// One line of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Stop,
    Say(String),
    List,
    Help,
    SaveAll,
    SaveOff,
    SaveOn,
    Join(String),
    Leave(String),
    Echo(String),
    Ping(PingMode),
    Crash(u8),
    Signal(SignalName),
    Freeze,
    Hang,
    Flood {
        bytes: Bytes,
        rate: Bytes,
    },
    Line(Bytes),
    Noise(Bytes),
    Fork(u32),
    /// So many orphans that end at once.
    Storm(u32),
    /// Forks for ever; only in a limited control group of a test.
    Bomb,
    Daemon(DaemonMode),
    Leak(Bytes),
    /// As Minecraft, an unknown command is an answer, not an error.
    Unknown(String),
}

impl Command {
    /// `None` for an empty line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end_matches(['\r', '\n']);
        let bare = line.trim_start().trim_start_matches('/');
        let (word, rest) = bare.split_once(' ').unwrap_or((bare, ""));
        if word.is_empty() {
            return None;
        }
        Some(Self::of(word, rest).unwrap_or_else(|| Self::Unknown(bare.to_owned())))
    }

    fn of(word: &str, rest: &str) -> Option<Self> {
        Some(match word {
            "stop" => Self::Stop,
            "say" => Self::Say(rest.to_owned()),
            "list" => Self::List,
            "help" => Self::Help,
            "save-all" => Self::SaveAll,
            "save-off" => Self::SaveOff,
            "save-on" => Self::SaveOn,
            "join" => Self::Join(rest.to_owned()),
            "leave" => Self::Leave(rest.to_owned()),
            "echo" => Self::Echo(rest.to_owned()),
            "ping" => Self::Ping(clap::ValueEnum::from_str(rest, false).ok()?),
            "crash" => Self::Crash(rest.parse().ok()?),
            "signal" => Self::Signal(rest.parse().ok()?),
            "freeze" => Self::Freeze,
            "hang" => Self::Hang,
            "flood" => {
                let (bytes, rate) = rest.split_once(' ')?;
                Self::Flood { bytes: bytes.parse().ok()?, rate: rate.parse().ok()? }
            }
            "line" => Self::Line(rest.parse().ok()?),
            "noise" => Self::Noise(rest.parse().ok()?),
            "bomb" => Self::Bomb,
            "storm" => Self::Storm(rest.parse().ok()?),
            "fork" => Self::Fork(rest.parse().ok()?),
            "daemon" => Self::Daemon(clap::ValueEnum::from_str(rest, false).ok()?),
            "leak" => Self::Leak(rest.parse().ok()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        assert_eq!(Command::parse("stop\r\n"), Some(Command::Stop));
        assert_eq!(Command::parse("/say hi  there"), Some(Command::Say("hi  there".to_owned())));
        assert_eq!(
            Command::parse("flood 1MB 0"),
            Some(Command::Flood { bytes: Bytes(1_000_000), rate: Bytes(0) })
        );
        assert_eq!(Command::parse("daemon holds-terminal"), Some(Command::Daemon(DaemonMode::HoldsTerminal)));
        assert_eq!(Command::parse("ping silent"), Some(Command::Ping(PingMode::Silent)));
        assert_eq!(Command::parse("crash many"), Some(Command::Unknown("crash many".to_owned())));
        assert_eq!(Command::parse("  \n"), None);
    }
}
