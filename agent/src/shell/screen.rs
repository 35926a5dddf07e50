//! What a terminal would show: a model that is fed what a shell printed.
//!
//! Nobody is served by a replay of a full-screen program's bytes: half of them drew what is gone.
//! Whoever comes back gets the screen as it is, and then what follows. The model is fed late: when
//! somebody wants to see it, when the size changes, and before the log forgets.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use vt100::Parser;

use crate::console::Console;

/// So much may be unread before it is fed without anybody asking, bytes.
pub(super) const BEHIND: u64 = 1 << 20;

/// Bytes fed at once.
const PIECE: usize = 128 << 10;

/// The screen of a shell, up to some byte of its log.
pub(super) struct Screen {
    parser: Parser,
    fed: u64,
}

impl Screen {
    /// An empty one, at the beginning of a log.
    pub(super) fn new((columns, rows): (u16, u16)) -> Self {
        Self { parser: Parser::new(rows, columns, 0), fed: 0 }
    }

    /// How far it has been fed.
    pub(super) fn fed(&self) -> u64 {
        self.fed
    }

    /// Takes in what was printed until now.
    pub(super) async fn catch_up(&mut self, console: &Console) -> io::Result<()> {
        let head = console.head();
        while self.fed < head {
            let piece = console.read(self.fed, PIECE).await?;
            if piece.offset > self.fed {
                // What drew the screen is gone: it begins anew with what is left.
                self.clear();
            }
            if piece.bytes.is_empty() {
                self.fed = piece.offset.max(self.fed);
                break;
            }
            let parser = &mut self.parser;
            // The bytes are a tenant's: a fault in the model costs what it knew, and nothing else.
            if catch_unwind(AssertUnwindSafe(|| parser.process(&piece.bytes))).is_err() {
                self.clear();
            }
            self.fed = piece.offset + piece.bytes.len() as u64;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn clear(&mut self) {
        let (rows, columns) = self.parser.screen().size();
        self.parser = Parser::new(rows, columns, 0);
    }

    /// The terminal has another size from here on.
    pub(super) fn resize(&mut self, (columns, rows): (u16, u16)) {
        let parser = &mut self.parser;
        if catch_unwind(AssertUnwindSafe(|| parser.screen_mut().set_size(rows, columns))).is_err() {
            self.parser = Parser::new(rows, columns, 0);
        }
    }

    /// What a fresh terminal has to be sent to look the same.
    pub(super) fn drawn(&self) -> Vec<u8> {
        let screen = self.parser.screen();
        let mut bytes = Vec::new();
        // The program's own way back leads out of it again.
        if screen.alternate_screen() {
            bytes.extend_from_slice(b"\x1b[?1049h");
        }
        bytes.extend_from_slice(&screen.state_formatted());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use zlh_shim::console_log::Writer;
    use zlh_shim::spec::ConsoleLimits;

    use super::*;

    async fn screen_of(bytes: &[u8], size: (u16, u16)) -> Screen {
        let dir = tempfile::tempdir().unwrap();
        let limits = ConsoleLimits { segment_bytes: 1 << 20, segments: 4 };
        let mut writer = Writer::open(dir.path(), limits, 0).unwrap();
        writer.append(bytes);
        let (_head, seen) = watch::channel(writer.head());
        let (_shim, shim) = watch::channel(None);
        let console = Console::new(dir.path(), seen, shim);
        let mut screen = Screen::new(size);
        screen.catch_up(&console).await.unwrap();
        assert_eq!(screen.fed(), bytes.len() as u64);
        screen
    }

    #[tokio::test]
    async fn a_redrawn_screen_is_the_same_screen() {
        let mut noise = Vec::new();
        for row in 1..=24 {
            noise.extend(
                format!("\x1b[{row};1H\x1b[{}mrow {row} \u{e9}\u{4e2d}\x1b[0m", 30 + row % 8).bytes(),
            );
        }
        let cases: [&[u8]; 4] = [
            b"plain\r\ntext \x1b[1;31mbold red\x1b[0m and\x1b[5;10Hmoved",
            b"before\x1b[?1049h\x1b[2J\x1b[3;4Hfull screen\x1b[7mreversed",
            b"\x1b[?2004h\x1b[?1h\x1b=\x1b[?25lkeys",
            &noise,
        ];
        for bytes in cases {
            let first = screen_of(bytes, (80, 24)).await;
            let again = screen_of(&first.drawn(), (80, 24)).await;
            let (a, b) = (first.parser.screen(), again.parser.screen());
            assert_eq!(a.contents(), b.contents());
            assert_eq!(a.contents_formatted(), b.contents_formatted());
            assert_eq!(a.cursor_position(), b.cursor_position());
            assert_eq!(a.alternate_screen(), b.alternate_screen());
            assert_eq!(a.input_mode_formatted(), b.input_mode_formatted());
        }
    }

    #[tokio::test]
    async fn noise_of_any_kind_is_survived() {
        let mut state = 7_u32;
        let noise: Vec<u8> = (0..300_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if state >> 28 == 0 { 0x1b } else { u8::try_from(state >> 24).unwrap() }
            })
            .collect();
        let mut screen = screen_of(&noise, (80, 24)).await;
        for size in [(1, 1), (500, 200), (80, 24)] {
            screen.resize(size);
            drop(screen.drawn());
        }
    }
}
