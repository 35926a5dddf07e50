//! The terminal in raw mode, and back again whatever happens.
//!
//! Raw mode ends when the guard is dropped, and before a panic's message is
//! printed. What a server may have switched on (mouse reports, bracketed paste, a
//! hidden cursor) is switched off as well.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::Once;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Raw mode for as long as this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                before(panic);
            }));
        });
        crossterm::terminal::enable_raw_mode()?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        leave();
    }
}

/// Does nothing when raw mode is not on.
fn leave() {
    if crossterm::terminal::is_raw_mode_enabled().unwrap_or(false) {
        let _ = crossterm::terminal::disable_raw_mode();
        let mut out = io::stdout().lock();
        let _ = out.write_all(RESET);
        let _ = out.flush();
    }
}

/// No echo of keys for as long as this lives: what is typed, `^C` too, would break
/// lines that rewrite themselves. Nothing happens where there is no terminal.
#[derive(Debug)]
pub(crate) struct NoEcho(Option<Termios>);

impl NoEcho {
    pub(crate) fn enter() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        Self(tcsetattr(io::stdin(), OptionalActions::Now, &quiet).is_ok().then_some(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Whether a person sits at both ends.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Standard input in pieces, read by a thread of its own: a read of a terminal
/// cannot be cancelled, and must not keep the process from ending.
pub(crate) fn input() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let piece = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// A key that produces one control byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u8);

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ctrl-{}", char::from(self.0 | 0x40).to_ascii_lowercase())
    }
}

/// `ctrl-]`, `ctrl-q`, `^]`.
pub(crate) fn parse_key(text: &str) -> Result<Key, String> {
    let name = text.strip_prefix("ctrl-").or_else(|| text.strip_prefix('^'));
    let mut letters = name.unwrap_or_default().bytes();
    match (letters.next().map(|b| b.to_ascii_uppercase()), letters.next()) {
        // Enter, tab and escape are needed for typing.
        (Some(b @ b'@'..=b'_'), None) if !matches!(b, b'J' | b'M' | b'I' | b'[') => Ok(Key(b & 0x1f)),
        _ => Err(format!("`{}` is not a key such as ctrl-] or ctrl-q", text.escape_debug())),
    }
}

/// Attributes, mouse, focus, bracketed paste, application keys, cursor.
const RESET: &[u8] =
    b"\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[?1l\x1b>\x1b[?25h";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert_eq!(parse_key("ctrl-]"), Ok(Key(0x1d)));
        assert_eq!(parse_key("^q"), Ok(Key(0x11)));
        assert_eq!(Key(0x1d).to_string(), "ctrl-]");
        assert_eq!(Key(0x11).to_string(), "ctrl-q");
        for refused in ["", "q", "ctrl-", "ctrl-m", "ctrl-qq", "ctrl-é", "ctrl-1", "ctrl-["] {
            assert!(parse_key(refused).is_err(), "{refused}");
        }
    }
}
