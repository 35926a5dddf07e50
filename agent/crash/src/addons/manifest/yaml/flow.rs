//! Lists and maps within one text: `[a, 'b', {c: d}]`.

use serde_json::{Map, Value};

use super::{MAX_DEPTH, quoted};

/// Takes one value off the front of a flow text.
pub(super) fn flow_value(text: &mut &str, depth: usize) -> Value {
    *text = text.trim_start();
    let close = match text.chars().next() {
        _ if depth > MAX_DEPTH => None,
        Some('[') => Some(']'),
        Some('{') => Some('}'),
        _ => None,
    };
    let Some(close) = close else { return Value::String(flow_text(text, depth)) };
    *text = &text[1..];
    let (mut all, mut map) = (Vec::new(), Map::new());
    loop {
        *text = text.trim_start().trim_start_matches([',', ' ']);
        let Some(first) = text.chars().next() else { break };
        if first == close || first == ']' || first == '}' {
            *text = &text[1..];
            break;
        }
        if close == ']' {
            all.push(flow_value(text, depth + 1));
            continue;
        }
        let key = flow_text(text, depth);
        *text = text.trim_start();
        let value = match text.strip_prefix(':') {
            Some(rest) => {
                *text = rest;
                flow_value(text, depth + 1)
            }
            None => Value::Null,
        };
        map.insert(key, value);
    }
    if close == ']' { Value::Array(all) } else { Value::Object(map) }
}

/// A scalar in a flow text. Takes at least one character.
fn flow_text(text: &mut &str, depth: usize) -> String {
    if text.starts_with(['"', '\''])
        && let Some(value) = quoted(text)
    {
        let quote = if text.starts_with('"') { '"' } else { '\'' };
        let end = closing(&text[1..], quote).map_or(text.len(), |at| at + 2);
        *text = &text[end..];
        return value;
    }
    let stop = |(at, c): (usize, char)| match c {
        ',' | ']' | '}' => Some(at),
        ':' if depth <= MAX_DEPTH && text[at + 1..].starts_with([' ', '"', '\'']) => Some(at),
        _ => None,
    };
    let end = text.char_indices().find_map(stop).unwrap_or(text.len());
    let value = text[..end].trim().to_owned();
    let end = end.max(text.chars().next().map_or(0, char::len_utf8));
    *text = &text[end..];
    value
}

/// Where a quoted text ends.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    let mut skip = false;
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut skip) || std::mem::take(&mut escaped) {
            continue;
        }
        match c {
            '\\' if quote == '"' => escaped = true,
            '\'' if quote == '\'' && text[at + 1..].starts_with('\'') => skip = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}
