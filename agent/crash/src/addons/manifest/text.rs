//! `META-INF/MANIFEST.MF`: one key is wanted.

use super::super::text::{cut, decode};
use super::MAX_VERSION;

/// `Implementation-Version` of the main section.
pub(in crate::addons) fn implementation_version(bytes: &[u8]) -> Option<String> {
    let text = decode(bytes);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            return None;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        if key.eq_ignore_ascii_case("Implementation-Version") {
            let mut value = value.to_owned();
            // A line is at most 72 bytes; the rest stands behind a space.
            while let Some(more) = lines.next_if(|line| line.starts_with(' ')) {
                value.push_str(&more[1..]);
            }
            let value = cut(&value, MAX_VERSION);
            return (!value.is_empty()).then_some(value);
        }
    }
    None
}
