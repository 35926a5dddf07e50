//! One log line: collecting its fields, and its two forms.

use std::fmt::{self, Write};

use serde_json::Value;
use slog::{KV, Key, Level, OwnedKVList, Record, Serializer};

/// The fields of one line, each key once.
pub(super) struct Line {
    time: String,
    level: Level,
    message: String,
    component: String,
    vmid: Option<u32>,
    fields: Vec<(Key, Value)>,
}

impl Line {
    /// Takes a record apart; the innermost value of a key wins.
    pub(super) fn collect(record: &Record<'_>, values: &OwnedKVList, vmid: Option<u32>) -> Self {
        let mut collector = Collector { fields: Vec::new() };
        // A value that cannot be formatted costs that value, not the line.
        let _ = record.kv().serialize(record, &mut collector);
        let _ = values.serialize(record, &mut collector);
        let mut fields = collector.fields;
        let component = match fields.iter().position(|(key, _)| *key == "component") {
            Some(at) => plain(&fields.remove(at).1),
            None => "agent".to_owned(),
        };
        fields.retain(|(key, _)| !RESERVED.contains(key));
        Self {
            time: crate::clock::now_rfc3339(),
            level: record.level(),
            message: clipped(record.msg().to_string()),
            component,
            vmid,
            fields,
        }
    }

    /// One JSON object and a line feed.
    pub(super) fn json(&self) -> String {
        let mut text = String::with_capacity(256);
        let mut put = |key: &str, value: &Value| {
            text.push(if text.is_empty() { '{' } else { ',' });
            let _ = write!(text, "{}:{value}", Value::from(key));
        };
        put("ts", &Value::from(self.time.as_str()));
        put("level", &Value::from(level(self.level)));
        put("msg", &Value::from(self.message.as_str()));
        put("component", &Value::from(self.component.as_str()));
        put("vmid", &self.vmid.map_or(Value::Null, Value::from));
        put("version", &Value::from(crate::version()));
        for (key, value) in &self.fields {
            put(key, value);
        }
        text.push_str("}\n");
        text
    }

    /// For people: time, level, component, message, fields.
    pub(super) fn human(&self, colour: bool) -> String {
        let (on, off) = match self.level {
            _ if !colour => ("", ""),
            Level::Critical | Level::Error => ("\x1b[31m", "\x1b[0m"),
            Level::Warning => ("\x1b[33m", "\x1b[0m"),
            Level::Info => ("\x1b[32m", "\x1b[0m"),
            Level::Debug | Level::Trace => ("\x1b[2m", "\x1b[0m"),
        };
        let mut text = format!("{} {on}{:<5}{off} {:<9} ", self.time, level(self.level), self.component);
        harmless(&mut text, &self.message);
        for (key, value) in self.fields.iter().rev() {
            let _ = write!(text, "  {key}=");
            harmless(&mut text, &plain(value));
        }
        if let Some(vmid) = self.vmid {
            let _ = write!(text, "  vmid={vmid}");
        }
        text.push('\n');
        text
    }
}

struct Collector {
    fields: Vec<(Key, Value)>,
}

impl Collector {
    fn put(&mut self, key: Key, value: Value) -> slog::Result {
        if !self.fields.iter().any(|(known, _)| *known == key) {
            self.fields.push((key, value));
        }
        Ok(())
    }
}

macro_rules! keep_numbers {
    ($($emit:ident($type:ty)),*) => {$(
        fn $emit(&mut self, key: Key, value: $type) -> slog::Result {
            self.put(key, Value::from(value))
        }
    )*};
}

impl Serializer for Collector {
    keep_numbers!(
        emit_bool(bool),
        emit_u8(u8),
        emit_i8(i8),
        emit_u16(u16),
        emit_i16(i16),
        emit_u32(u32),
        emit_i32(i32),
        emit_u64(u64),
        emit_i64(i64),
        emit_usize(usize),
        emit_isize(isize),
        emit_f32(f32),
        emit_f64(f64)
    );

    fn emit_unit(&mut self, key: Key) -> slog::Result {
        self.put(key, Value::Null)
    }

    fn emit_none(&mut self, key: Key) -> slog::Result {
        self.put(key, Value::Null)
    }

    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.put(key, Value::from(clipped(value.to_string())))
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::Error => "error",
        Level::Warning => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Appends `value` without anything that could end the line or reach the terminal.
fn harmless(text: &mut String, value: &str) {
    for c in value.chars() {
        if c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
}

fn clipped(mut value: String) -> String {
    if value.len() > MAX_VALUE_BYTES {
        value.truncate(value.floor_char_boundary(MAX_VALUE_BYTES));
        value.push('…');
    }
    value
}

const MAX_VALUE_BYTES: usize = 4096;
/// Written by the line itself, and so not taken from a logger.
const RESERVED: &[&str] = &["ts", "level", "msg", "vmid", "version"];
