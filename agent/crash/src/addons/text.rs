//! Text out of jars: of bounded length and safe to print.

/// Decodes in whatever encoding, without a byte order mark.
pub(super) fn decode(bytes: &[u8]) -> String {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// At most `max` characters, without line ends, control and direction characters and `§x`
/// colours.
pub(super) fn cut(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    let mut kept = 0;
    let mut chars = text.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            '§' => drop(chars.next()),
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}') =>
                {}
            _ if kept == max => break,
            c => {
                out.push(c);
                kept += 1;
            }
        }
    }
    out
}

/// The same for bytes.
pub(super) fn clean(bytes: &[u8], max: usize) -> String {
    cut(&String::from_utf8_lossy(bytes), max)
}

/// A file's name as it is; what is no text or would move a cursor is replaced.
pub(crate) fn file_name(bytes: &[u8]) -> String {
    let name = String::from_utf8_lossy(bytes);
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
