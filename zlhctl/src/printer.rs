//! The only place that writes to the terminal.
//!
//! Standard output carries data that could be piped; everything else goes to
//! standard error. Colour is decided once, from `--no-color`, `NO_COLOR`, `TERM`
//! and whether the stream is a terminal, and never carries meaning alone.

use std::io::{self, IsTerminal, Write};

use crate::exit;
use crate::ui::escape::{ascii_controls, clean};
use crate::ui::table::Table;

/// How a word is set off where colour is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Bold,
    Dim,
    Good,
    Busy,
    Bad,
}

impl Paint {
    /// `text`, set off if `colour`.
    pub(crate) fn apply(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            _ if !colour => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Busy => "33",
            Self::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// In which form data is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// The same with more columns.
    Wide,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// Where things are printed, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    quiet: bool,
    colour_out: bool,
    colour_err: bool,
    out_width: Option<usize>,
}

impl Printer {
    pub(crate) fn new(format: Format, quiet: bool, no_colour: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let allowed =
            !no_colour && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
        let out_is_terminal = io::stdout().is_terminal();
        let columns = || crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns));
        Self {
            format,
            quiet,
            colour_out: allowed && out_is_terminal,
            colour_err: allowed && io::stderr().is_terminal(),
            out_width: if out_is_terminal { columns().filter(|&columns| columns > 0) } else { None },
        }
    }

    /// Whether progress may be drawn: on a terminal, unless quiet.
    pub(crate) fn is_interactive(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Data, as it is. The caller has made it harmless.
    pub(crate) fn data(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// One line of data.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        self.data(&format!("{}\n", clean(text)))
    }

    pub(crate) fn table(&self, table: &Table) -> io::Result<()> {
        self.data(&table.render(self.out_width, self.colour_out))
    }

    /// `value` as JSON or YAML.
    pub(crate) fn document(&self, value: &serde_json::Value) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Yaml => yaml(value)?,
            _ => format!("{}\n", ascii_controls(&serde_json::to_string_pretty(value)?)),
        };
        Ok(self.data(&text)?)
    }

    /// `value` as JSON on one line, of several that follow each other.
    pub(crate) fn object(&self, value: &serde_json::Value) -> io::Result<()> {
        self.data(&format!("{}\n", ascii_controls(&value.to_string())))
    }

    /// Columns of the terminal, where standard output is one.
    pub(crate) fn width(&self) -> Option<usize> {
        self.out_width
    }

    /// A word for standard output, coloured where that is allowed.
    pub(crate) fn painted(&self, text: &str, paint: Paint) -> String {
        paint.apply(&clean(text), self.colour_out)
    }

    /// A remark on standard error; silent with `-q`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.message(None, text);
        }
    }

    /// Something that works, but not as the operator may think.
    pub(crate) fn warning(&self, text: &str) {
        self.message(Some(("warning", Paint::Busy)), text);
    }

    /// What to do next.
    pub(crate) fn hint(&self, text: &str) {
        self.message(Some(("hint", Paint::Bold)), text);
    }

    /// An error and its remedy.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        self.message(Some(("error", Paint::Bad)), &exit::message(error));
        if let Some(hint) = exit::hint(error) {
            self.hint(&hint);
        }
    }

    /// Standard error may be closed; there is nobody left to tell then.
    fn message(&self, label: Option<(&str, Paint)>, text: &str) {
        let label = label.map_or(String::new(), |(word, paint)| {
            format!("{} ", paint.apply(&format!("{word}:"), self.colour_err))
        });
        let _ = io::stderr().lock().write_all(format!("{label}{}\n", clean(text)).as_bytes());
    }
}

fn yaml(value: &serde_json::Value) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(&harmless(value))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// YAML would print some of the characters a terminal obeys.
fn harmless(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => Value::Array(items.iter().map(harmless).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (clean(key), harmless(value))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_only_where_allowed() {
        assert_eq!(Paint::Good.apply("x", false), "x");
        assert_eq!(Paint::Good.apply("x", true), "\u{1b}[32mx\u{1b}[0m");
        assert_eq!(Paint::Plain.apply("x", true), "x");
    }

    #[test]
    fn yaml_keeps_strings_strings_and_terminals_safe() {
        let value = serde_json::json!({
            "version": "1.20", "yes": "yes", "null": "null", "count": 3, "list": ["a", {"b": null}],
            "evil": "\u{1b}]0;x\u{7}text\u{9b}2J", "multi": "a\nb", "empty": [], "colon": "a: b # c", "dash": "- x",
        });
        let text = yaml(&value).unwrap();
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{text}");
        for line in ["count: 3", "version: \"1.20\""] {
            assert!(text.lines().any(|l| l == line || l == line.replace('"', "'")), "{line} in\n{text}");
        }
        for (key, bare) in [("yes", "yes"), ("null", "null"), ("colon", "a: b # c"), ("dash", "- x")] {
            assert!(!text.lines().any(|line| line.ends_with(&format!("{key}: {bare}"))), "{key} in\n{text}");
        }
    }
}
