//! JSON as it is written by hand: comments, line ends within texts, commas too many, a
//! byte order mark, something behind the end. Loaders read it so, and so do we.

use serde_json::{Map, Value};

/// The value, and what is wrong with it.
pub(super) fn read(text: &str) -> (Value, Option<String>) {
    let strict = strict(text);
    match serde_json::Deserializer::from_str(&strict).into_iter::<Value>().next() {
        Some(Ok(value)) => (value, None),
        Some(Err(error)) => (fragments(&strict), Some(format!("it is no JSON: {error}"))),
        None => (Value::Null, Some("it is empty".to_owned())),
    }
}

/// The same without what strict JSON does not have. Linear, and no longer than twice the
/// text.
fn strict(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    // Where a comma stands that nothing but space followed.
    let mut comma = None;
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                comma = None;
                out.push('"');
                copy_text(&mut chars, &mut out);
            }
            '/' if chars.peek() == Some(&'/') => skip_line(&mut chars),
            '#' => skip_line(&mut chars),
            '/' if chars.peek() == Some(&'*') => {
                chars.next();
                let mut last = ' ';
                for c in chars.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            ',' => {
                comma = Some(out.len());
                out.push(',');
            }
            ']' | '}' => {
                if let Some(at) = comma.take() {
                    out.replace_range(at..=at, " ");
                }
                out.push(c);
            }
            c if c.is_whitespace() => out.push(' '),
            c if c.is_control() => {}
            c => {
                comma = None;
                out.push(c);
            }
        }
    }
    out
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_line(chars: &mut Chars<'_>) {
    while chars.next_if(|&c| c != '\n' && c != '\r').is_some() {}
}

/// Copies a text up to its closing quote.
fn copy_text(chars: &mut Chars<'_>, out: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' | 'u')) => out.extend(['\\', c]),
                Some('\n' | '\r') => {}
                Some(c) => out.push(c),
                None => {}
            },
            '"' => {
                out.push('"');
                return;
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
}

/// What can still be told of broken JSON: the first texts of the keys that make a name.
fn fragments(text: &str) -> Value {
    let mut map = Map::new();
    for key in ["id", "modid", "name", "version", "main"] {
        if let Some(value) = first(text, key) {
            map.insert(key.to_owned(), Value::String(value.to_owned()));
        }
    }
    Value::Object(map)
}

fn first<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("\"{key}\"");
    let behind = &text[text.find(&quoted)? + quoted.len()..];
    let value = behind.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    value.split_once('"').map(|(value, _)| value)
}
