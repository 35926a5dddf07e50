//! Bytes of a log as lines of plain text: whatever the encoding, without escape sequences,
//! colour codes and control characters, and no longer than [`MAX_LINE`].

use std::borrow::Cow;

/// Longest line kept, bytes; the rest of it is skipped.
pub(crate) const MAX_LINE: usize = 8 << 10;

/// UTF-8, UTF-16 with a byte order mark (or recognised by its zero bytes), else a one-byte
/// code page, of which only the ASCII half matters here.
pub(crate) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => return decode(rest),
        _ => {}
    }
    let sample = &bytes[..bytes.len().min(512)];
    let zeros = |odd: usize| sample.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    if sample.len() >= 16 {
        let half = sample.len() / 2;
        if zeros(1) * 10 >= half * 9 && zeros(0) * 10 < half {
            return utf16(bytes, u16::from_le_bytes);
        }
        if zeros(0) * 10 >= half * 9 && zeros(1) * 10 < half {
            return utf16(bytes, u16::from_be_bytes);
        }
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        // A character that was cut at the end of what was read is no other encoding.
        Err(error) if error.valid_up_to() + 4 > bytes.len() => String::from_utf8_lossy(bytes),
        Err(_) => Cow::Owned(one_byte(bytes)),
    }
}

/// Valid UTF-8 stays, every other byte becomes the character of its number.
fn one_byte(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|byte| char::from(*byte)));
    }
    out
}

fn utf16(bytes: &[u8], read: fn([u8; 2]) -> u16) -> Cow<'static, str> {
    let units = bytes.chunks_exact(2).map(|pair| read([pair[0], pair[1]]));
    Cow::Owned(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}

/// A line without what only a terminal or the game's own chat shows.
pub(crate) fn clean(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = &line[..line.floor_char_boundary(MAX_LINE.min(line.len()))];
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                Some(']') => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
                _ => {}
            },
            // `§c` colours what follows; a code page shows it as `Â§c`.
            '\u{a7}' => {
                chars.next();
            }
            '\u{c2}' if chars.peek() == Some(&'\u{a7}') => {}
            // A line editor draws its prompt and then the line over it. Whatever else stands
            // before is no prompt, and is not to be hidden.
            '\r' if out.chars().all(|c| "> .".contains(c)) => out.clear(),
            '\r' => out.push(' '),
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    if out.contains('&') { entities(&out) } else { out }
}

/// Logs from pastes carry HTML entities.
fn entities(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&quot;", "\""), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_becomes_text() {
        let wide: Vec<u8> =
            "Error: Unable to access jarfile x.jar".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(decode(&wide), "Error: Unable to access jarfile x.jar");
        let marked: Vec<u8> =
            [0xfe, 0xff].into_iter().chain("grün".encode_utf16().flat_map(u16::to_be_bytes)).collect();
        assert_eq!(decode(&marked), "grün");
        assert_eq!(decode(b"\xef\xbb\xbfa"), "a");
        assert_eq!(decode(b"gr\xfcn and more of it"), "grün and more of it");
        assert_eq!(decode(b"cut \xe2\x82"), "cut \u{fffd}");
    }

    #[test]
    fn colours_and_controls_are_gone() {
        assert_eq!(clean("\u{1b}[31mERROR\u{1b}[m: \u{a7}cred\u{a7}r \u{1b}]0;title\u{7}x"), "ERROR: red x");
        assert_eq!(clean("> \r\u{1b}[K[12:00:00 INFO]: hi\r"), "[12:00:00 INFO]: hi");
        assert_eq!(clean("[INFO]: <Bob> hi\r[ERROR]: forged\r\r"), "[INFO]: <Bob> hi [ERROR]: forged");
        assert_eq!(clean("at a.&lt;clinit&gt;(A.java:1)"), "at a.<clinit>(A.java:1)");
        assert!(clean(&"x".repeat(100_000)).len() <= MAX_LINE);
    }
}
