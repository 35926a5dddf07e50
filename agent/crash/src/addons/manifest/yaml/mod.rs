//! The YAML that plugin manifests are written in: maps, lists, flow lists and maps, plain,
//! quoted and block texts, comments. Not: anchors, tags, several documents.
//!
//! It never fails: a line that fits nowhere is skipped. All scalars are texts, so a
//! version `1.10` stays `1.10`. Linear in the text; nesting and lines are bounded.

mod flow;

use serde_json::{Map, Value};

use flow::flow_value;

/// Reads a document.
pub(super) fn read(text: &str) -> Value {
    let lines: Vec<Line<'_>> = text.lines().filter_map(Line::new).take(MAX_LINES).collect();
    let mut reader = Reader { lines: &lines, at: 0 };
    reader.block(0, 0)
}

#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    indent: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// None for what says nothing.
    fn new(line: &'a str) -> Option<Self> {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let text = text.trim_end();
        let nothing = text.is_empty()
            || text.starts_with('#')
            || (indent == 0 && (text == "---" || text == "..." || text.starts_with('%')));
        (!nothing).then_some(Self { indent, text })
    }
}

struct Reader<'a> {
    lines: &'a [Line<'a>],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<Line<'a>> {
        self.lines.get(self.at).copied()
    }

    /// A map, a list or a text whose lines start at `least` or deeper.
    fn block(&mut self, least: usize, depth: usize) -> Value {
        let Some(first) = self.peek().filter(|line| line.indent >= least) else { return Value::Null };
        if depth > MAX_DEPTH {
            self.skip(least);
            return Value::Null;
        }
        if is_item(first.text) {
            return self.list(first.indent, depth);
        }
        if first.text.starts_with(['{', '[']) {
            self.at += 1;
            return self.flow(first.text, first.indent);
        }
        let mut map = Map::new();
        while let Some(line) = self.peek().filter(|line| line.indent >= least) {
            self.at += 1;
            if line.indent == first.indent
                && let Some((key, value)) = key_value(line.text)
            {
                let value = self.value(value, line.indent, depth);
                map.insert(key.to_owned(), value);
            }
        }
        Value::Object(map)
    }

    fn list(&mut self, indent: usize, depth: usize) -> Value {
        let mut all = Vec::new();
        while let Some(line) = self.peek().filter(|line| line.indent == indent && is_item(line.text)) {
            self.at += 1;
            let rest = line.text[1..].trim_start();
            let inner = indent + line.text.len() - rest.len();
            match key_value(rest).filter(|_| !rest.starts_with(['"', '\'', '{', '['])) {
                // `- key: value`, and its brothers deeper.
                Some((key, value)) => {
                    let mut map = Map::new();
                    map.insert(key.to_owned(), self.value(value, inner, depth + 1));
                    if let Value::Object(more) = self.block(indent + 1, depth + 1) {
                        map.extend(more);
                    }
                    all.push(Value::Object(map));
                }
                None => all.push(self.value(rest, indent, depth)),
            }
        }
        // What is left of it deeper than it fits nowhere.
        self.skip(indent + 1);
        Value::Array(all)
    }

    /// What stands behind a key or a dash at `indent`, and in the lines that belong to it.
    fn value(&mut self, text: &'a str, indent: usize, depth: usize) -> Value {
        let bare = comment(text);
        if bare.is_empty() {
            return match self.peek() {
                Some(line) if line.indent > indent => self.block(indent + 1, depth + 1),
                // A list may stand as far left as its key.
                Some(line) if line.indent == indent && is_item(line.text) && depth <= MAX_DEPTH => {
                    self.list(indent, depth + 1)
                }
                _ => Value::Null,
            };
        }
        if bare.starts_with(['|', '>']) {
            return Value::String(self.rest(indent).join(" "));
        }
        if bare.starts_with(['[', '{']) {
            return self.flow(text, indent);
        }
        if let Some(quoted) = quoted(text) {
            self.skip(indent + 1);
            return Value::String(quoted);
        }
        let mut whole = bare.to_owned();
        // A text that began with a quote which does not end here, or a plain one that goes on.
        for more in self.rest(indent) {
            if whole.len() < MAX_TEXT {
                whole.push(' ');
                whole.push_str(comment(more));
            }
        }
        Value::String(quoted_anyhow(&whole))
    }

    /// The lines deeper than `indent`.
    fn rest(&mut self, indent: usize) -> Vec<&'a str> {
        let from = self.at;
        self.skip(indent + 1);
        self.lines[from..self.at].iter().map(|line| line.text).collect()
    }

    fn skip(&mut self, least: usize) {
        while self.peek().is_some_and(|line| line.indent >= least) {
            self.at += 1;
        }
    }

    /// A flow list or map, which may go on in the next lines.
    fn flow(&mut self, text: &'a str, indent: usize) -> Value {
        let mut whole = text.to_owned();
        let mut open = depth_of(text);
        while open > 0
            && let Some(line) = self.peek()
            && (line.indent > indent || line.text.starts_with([']', '}']))
        {
            self.at += 1;
            open += depth_of(line.text);
            whole.push(' ');
            whole.push_str(comment(line.text));
        }
        self.skip(indent + 1);
        flow_value(&mut whole.as_str(), 0)
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// `key: value` or `key:`; the key may be quoted.
fn key_value(text: &str) -> Option<(&str, &str)> {
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (key, rest) = text[1..].split_once(quote)?;
        let value = rest.trim_start().strip_prefix(':')?;
        return Some((key, value.trim()));
    }
    let at = text
        .match_indices(':')
        .map(|(at, _)| at)
        .find(|&at| text[at + 1..].is_empty() || text[at + 1..].starts_with([' ', '\t']))?;
    Some((text[..at].trim(), text[at + 1..].trim()))
}

/// Without the comment at its end.
fn comment(text: &str) -> &str {
    if text.starts_with('#') {
        return "";
    }
    let mut quote = None;
    let mut last = ' ';
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '#') if last.is_whitespace() => return text[..at].trim_end(),
            (None, '"' | '\'') if at == 0 || matches!(last, ' ' | ',' | '[' | '{' | ':') => quote = Some(c),
            (Some(open), c) if c == open && last != '\\' => quote = None,
            _ => {}
        }
        last = c;
    }
    text.trim_end()
}

/// The content of a quoted text that ends on this line.
fn quoted(text: &str) -> Option<String> {
    let mut chars = text.chars();
    let quote = chars.next().filter(|c| matches!(c, '"' | '\''))?;
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote == '"' => match chars.next()? {
                'n' | 't' | 'r' => out.push(' '),
                c => out.push(c),
            },
            '\'' if quote == '\'' && chars.as_str().starts_with('\'') => {
                chars.next();
                out.push('\'');
            }
            c if c == quote => return Some(out),
            c => out.push(c),
        }
    }
    None
}

fn quoted_anyhow(text: &str) -> String {
    quoted(text).unwrap_or_else(|| text.trim_matches(['"', '\'']).to_owned())
}

/// Brackets that a line opens, less those it closes; texts in quotes aside.
fn depth_of(text: &str) -> isize {
    let mut quote = None;
    let mut depth = 0;
    for c in comment(text).chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            _ => {}
        }
    }
    depth
}

const MAX_LINES: usize = 8_000;
const MAX_DEPTH: usize = 24;
/// Longest text that is put together from several lines, bytes.
const MAX_TEXT: usize = 2_000;
