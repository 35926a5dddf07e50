//! Text from servers, made harmless for the operator's terminal.
//!
//! A game's console, a player's name, an error text: all of it was written by
//! somebody else, and a terminal obeys what it is sent (clipboard writes, title
//! changes, answers typed back into the shell). Everything printed passes through
//! here; only the raw console does not.
//!
//! What is taken out: escape sequences of every form (7-bit and 8-bit CSI, OSC,
//! DCS, SOS, PM, APC), all other control characters but line feed and tab, and
//! the bidirectional controls that make text read differently from what it is.
//! A line feed ends an unfinished sequence, so that nothing after it is swallowed.
//!
//! [`Lines`] does the same for a console log, and takes out what a line editor
//! redraws (prompts), so that the log reads as lines.

/// Takes escape sequences out of a byte stream, across chunk borders.
#[derive(Debug, Default)]
pub(crate) struct Stripper {
    state: State,
    /// The bytes of a character that is not complete yet; never more than three.
    partial: Vec<u8>,
    /// The beginning of a control sequence's parameters.
    parameters: String,
}

impl Stripper {
    /// Appends the harmless text of `bytes` to `out`. Invalid UTF-8 becomes U+FFFD.
    /// A carriage return, also one made by a sequence, comes out as such.
    fn push(&mut self, bytes: &[u8], out: &mut String) {
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            joined = [std::mem::take(&mut self.partial).as_slice(), bytes].concat();
            joined.as_slice()
        };
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => return self.push_str(text, out),
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    self.push_str(std::str::from_utf8(valid).unwrap_or_default(), out);
                    let Some(length) = error.error_len() else {
                        self.partial = bad.to_vec();
                        return;
                    };
                    self.push_char(char::REPLACEMENT_CHARACTER, out);
                    rest = bad.get(length..).unwrap_or_default();
                }
            }
        }
    }

    fn push_str(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.push_char(c, out);
        }
    }

    fn push_char(&mut self, c: char, out: &mut String) {
        if c == '\n' {
            self.state = State::Ground;
            out.push(c);
            return;
        }
        if self.state == State::Control && self.parameters.len() < 4 && matches!(c, ' '..='?') {
            self.parameters.push(c);
        }
        self.state = match (self.state, c) {
            // CAN and SUB abort every sequence.
            (_, '\u{18}' | '\u{1a}') => State::Ground,
            (State::Text, '\u{7}' | '\u{9c}') => State::Ground,
            (State::Text, '\u{1b}') => State::TextEscape,
            (State::Text, _) => State::Text,
            // ESC \ ends a string; ESC and anything else ends it and begins a new sequence.
            (State::TextEscape, '\\') => State::Ground,
            (_, '\u{1b}') => State::Escape,
            (_, '\u{9b}') => State::Control,
            (_, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => State::Text,
            (State::Escape | State::TextEscape, '[') => State::Control,
            (State::Escape | State::TextEscape, 'P' | 'X' | ']' | '^' | '_') => State::Text,
            (State::Escape | State::TextEscape, ' '..='/') => State::Escape,
            (State::Escape | State::TextEscape, _) => State::Ground,
            (State::Control, ' '..='?') => State::Control,
            (State::Control, c) => {
                // "Cursor to column 1" is a carriage return by another name.
                if c == 'G' && matches!(self.parameters.as_str(), "" | "0" | "1") {
                    out.push('\r');
                }
                State::Ground
            }
            (State::Ground, c) => {
                if is_harmless(c) || c == '\r' {
                    out.push(c);
                }
                State::Ground
            }
        };
        if self.state != State::Control {
            self.parameters.clear();
        }
    }
}

/// A console log as whole, harmless lines.
///
/// What is rewritten after a carriage return is dropped if it was a prompt and what
/// was typed there; anything else becomes a line of its own, so that nothing hides.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    stripper: Stripper,
    line: String,
    returned: bool,
}

impl Lines {
    /// Appends the lines that `bytes` completes to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut String) {
        let mut text = String::new();
        self.stripper.push(bytes, &mut text);
        for c in text.chars() {
            match c {
                '\n' => self.end(out),
                '\r' => self.returned = true,
                c => {
                    if std::mem::take(&mut self.returned) && !self.line.is_empty() {
                        if is_prompt(&self.line) { self.line.clear() } else { self.end(out) }
                    }
                    self.line.push(c);
                    if self.line.len() >= MAX_LINE_BYTES {
                        self.end(out);
                    }
                }
            }
        }
    }

    /// What stands in the last line, unless it is a prompt.
    pub(crate) fn finish(&mut self, out: &mut String) {
        if !is_prompt(&self.line) {
            self.end(out);
        }
    }

    fn end(&mut self, out: &mut String) {
        self.returned = false;
        out.push_str(self.line.trim_end());
        out.push('\n');
        self.line.clear();
    }
}

fn is_prompt(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('>')
}

/// The harmless text of `text`.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    Stripper::default().push_str(text, &mut out);
    out.retain(|c| c != '\r');
    out
}

/// The same on one line.
pub(crate) fn one_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// JSON keeps every character, but the ones a terminal would obey are written as
/// `\u` escapes. The serializer does so for the ASCII ones; in valid JSON the
/// others only occur inside strings.
pub(crate) fn ascii_controls(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, '\n' | '\t') || is_harmless(c) {
            out.push(c);
        } else {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    out
}

fn is_harmless(c: char) -> bool {
    c == '\t' || !(c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

/// A line without end is cut here.
const MAX_LINE_BYTES: usize = 64 << 10;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After ESC, and its intermediate bytes.
    Escape,
    /// Inside CSI.
    Control,
    /// Inside OSC, DCS, SOS, PM or APC.
    Text,
    /// After ESC inside one of those.
    TextEscape,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn c2_escape_sequences_are_stripped() {
        for (given, expected) in [
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]52;c;ZXZpbA==\u{7}x", "x"),
            ("\u{1b}]52;c;ZXZpbA==\u{1b}\\x", "x"),
            ("\u{1b}]0;title\u{9c}x", "x"),
            ("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}P$q\"p\u{1b}\\x", "x"),
            ("\u{1b}P+q544e\u{1b}\\x", "x"),
            ("\u{9b}31mred", "red"),
            ("\u{9d}0;title\u{7}x", "x"),
            ("\u{90}1;2\u{9c}x", "x"),
            ("\u{1b}(0lqqk\u{1b}(B", "lqqk"),
            ("\u{1b}#8\u{1b}c\u{1b}=x", "x"),
            ("\u{1b}[?1049h\u{1b}[2J\u{1b}[1;1Hx", "x"),
            ("a\u{8}\u{7}\u{5}b\u{7f}", "ab"),
            ("user\u{202e}gpj.exe\u{2066}", "usergpj.exe"),
            ("\u{1b}[31", ""),
            ("\u{1b}\u{1b}[31mx", "x"),
            ("\u{1b}]unfinished\nnext", "\nnext"),
            ("\u{1b}[12\u{18}x", "x"),
            ("tab\tand\r\nline", "tab\tand\nline"),
            ("grüße 🦑", "grüße 🦑"),
            ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ] {
            assert_eq!(clean(given), expected, "{given:?}");
        }
    }

    #[test]
    fn a_character_split_between_chunks_is_whole() {
        let (mut stripper, mut out) = (Stripper::default(), String::new());
        for byte in "é🦑\u{1b}[1mx".bytes() {
            stripper.push(&[byte], &mut out);
        }
        assert_eq!(out, "é🦑x");
    }

    #[test]
    fn a_log_reads_as_lines() {
        // As flying-squid's and Paper's line editors write it.
        for (given, expected) in [
            ("\u{1b}[1G\u{1b}[0J> \u{1b}[3G\u{1b}[1GDone\r\n\u{1b}[1G\u{1b}[0J> \u{1b}[3G", "Done\n"),
            ("> \r\u{1b}[K[12:00 INFO]: hi\r\n> ", "[12:00 INFO]: hi\n"),
            ("list\r\r\nanswer\n", "list\nanswer\n"),
            ("10%\r50%\r100%\n", "10%\n50%\n100%\n"),
            ("evil\rinnocent\n", "evil\ninnocent\n"),
            ("\n\nx", "\n\nx\n"),
        ] {
            for size in [1, 2, 1000] {
                let (mut lines, mut out) = (Lines::default(), String::new());
                for piece in given.as_bytes().chunks(size) {
                    lines.push(piece, &mut out);
                }
                lines.finish(&mut out);
                assert_eq!(out, expected, "{given:?} by {size}");
            }
        }
    }

    #[test]
    fn c4_a_line_without_end_is_cut() {
        let (mut lines, mut out) = (Lines::default(), String::new());
        for _ in 0..40 {
            lines.push(&[b'x'; 10_000], &mut out);
        }
        assert!(lines.line.len() < MAX_LINE_BYTES && out.lines().count() == 6);
    }

    #[test]
    fn json_escapes_what_the_serializer_does_not() {
        let text = serde_json::to_string(&"\u{1b}[0m\u{9b}31m\u{7f}\u{202e}ok").unwrap();
        let safe = ascii_controls(&text);
        assert_eq!(safe, r#""\u001b[0m\u009b31m\u007f\u202eok""#);
        assert_eq!(
            serde_json::from_str::<String>(&safe).unwrap(),
            serde_json::from_str::<String>(&text).unwrap()
        );
    }

    proptest! {
        #[test]
        fn nothing_a_terminal_obeys_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let (mut stripper, mut out) = (Stripper::default(), String::new());
            let cut = cut.min(bytes.len());
            stripper.push(&bytes[..cut], &mut out);
            stripper.push(&bytes[cut..], &mut out);
            prop_assert!(out.chars().all(|c| matches!(c, '\n' | '\r') || is_harmless(c)), "{out:?}");
            prop_assert!(!clean(&String::from_utf8_lossy(&bytes)).contains('\r'));

            let (mut whole, mut at_once) = (Stripper::default(), String::new());
            whole.push(&bytes, &mut at_once);
            prop_assert_eq!(out, at_once);
        }
    }
}
