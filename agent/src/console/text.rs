//! Console bytes as plain text: no escape sequences, no other control characters.

/// Removes escape sequences (CSI, OSC, DCS and the like), carriage returns and other
/// control characters; tabs and newlines stay. Bytes that are not UTF-8 are replaced.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => skip_csi(&mut chars, &mut out),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut chars),
                // Two-character sequences with an intermediate, such as `ESC ( B`.
                Some(' '..='/') => {
                    chars.next();
                }
                _ => {}
            },
            '\u{9b}' => skip_csi(&mut chars, &mut out),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut chars),
            // Back to the beginning of the line: what follows is written over it.
            '\r' => {
                while chars.next_if_eq(&'\r').is_some() {}
                if chars.peek().is_some_and(|next| *next != '\n') {
                    restart_line(&mut out);
                }
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Skips a control sequence; one that moves to the first column begins the line anew.
fn skip_csi(chars: &mut Chars<'_>, out: &mut String) {
    let mut parameters = String::new();
    while let Some(&c) = chars.peek() {
        // A line break inside means that it was no sequence after all.
        if c == '\n' {
            return;
        }
        chars.next();
        if ('\u{40}'..='\u{7e}').contains(&c) {
            if c == 'G' && matches!(parameters.as_str(), "" | "0" | "1") {
                restart_line(out);
            }
            return;
        }
        if parameters.len() < 8 {
            parameters.push(c);
        }
    }
}

/// A line editor has gone back to the first column to draw the line again.
fn restart_line(out: &mut String) {
    let start = out.rfind('\n').map_or(0, |newline| newline + 1);
    out.truncate(start);
}

fn skip_string(chars: &mut Chars<'_>) {
    while let Some(&c) = chars.peek() {
        if c == '\n' {
            return;
        }
        chars.next();
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                chars.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

/// At most `width` bytes of a line, at a character's edge.
pub(crate) fn cut(line: &str, width: usize) -> &str {
    &line[..line.floor_char_boundary(width.min(line.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_a_record_is_only_text() {
        let raw = b"\x1b[32mINFO\x1b[39m ok\r\n\x1b]52;c;ZXZpbA==\x07clip\x1b]8;;http://x\x1b\\link\x1bPq#0\x1b\\ \x1b(Bb\x07\x9b31mx\n";
        assert_eq!(plain(raw), "INFO ok\ncliplink b\u{fffd}31mx\n");
        assert_eq!(plain("a\u{9b}31mb\u{9d}0;t\u{9c}c".as_bytes()), "abc");
    }

    #[test]
    fn a_line_that_was_drawn_again_is_the_line() {
        let drawn = b"> \r\x1b[K[12:00:00 INFO]: Stopping the server\r\r\n> ";
        assert_eq!(plain(drawn), "[12:00:00 INFO]: Stopping the server\n> ");
        assert_eq!(plain(b"one\n> \x1b[1Gtwo\r\n"), "one\ntwo\n");
        assert_eq!(plain(b"done\r"), "done");
    }

    #[test]
    fn an_unfinished_sequence_does_not_eat_the_next_line() {
        assert_eq!(plain(b"\x1b[31\nnext\x1b]0;title\nlast"), "\nnext\nlast");
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("a\u{20ac}b", 3), "a");
        assert_eq!(cut("ab", 9), "ab");
    }
}
