//! Templates: the only place where values enter a command or a file of a launch plan.
//!
//! A template is parsed once, when the catalog is loaded; an unknown variable is an
//! error then, not at three in the morning. Expansion is a single pass over the
//! parsed form: a value is never looked at again, so a world called `{version}`
//! comes out as `{version}`. `{{` and `}}` stand for the braces themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Id;
use crate::name::{Shown, is_deceptive};

/// Text with variables, for example `-Xmx{heap_mb}M`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

/// What a template can ask for. The list is closed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// `{exec:java}`: an executable of the required runtime, absolute.
    Exec(Id),
    /// `{file:installer}`: a verified file in the cache, absolute; for installers.
    File(Id),
    /// `{server}`: the unpacked server tree, absolute.
    Server,
    /// `{root}`: the game root, absolute.
    Root,
    /// `{world}`: the world's name.
    World,
    /// `{version}`: the version of the entry.
    Version,
    /// `{port}`: the port players join on.
    Port,
    /// `{heap_mb}`: memory for the program's heap, MiB.
    HeapMb,
}

/// The values of one workload. What a plan does not use may stay absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// Absolute paths of the required runtime's executables.
    pub executables: BTreeMap<Id, PathBuf>,
    /// Absolute paths of verified files.
    pub files: BTreeMap<Id, PathBuf>,
    /// The unpacked server tree.
    pub server: Option<PathBuf>,
    /// The game root.
    pub root: Option<PathBuf>,
    /// The world's name.
    pub world: Option<String>,
    /// The version of the entry.
    pub version: Option<String>,
    /// The port players join on.
    pub port: Option<u16>,
    /// Memory for the program's heap, MiB.
    pub heap_mb: Option<u64>,
}

/// Why a template could not be parsed or expanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("template {} has an unbalanced brace at byte {at}; write `{{{{` or `}}}}` for a literal one", Shown(.template))]
    Unbalanced {
        /// The template.
        template: String,
        /// Where.
        at: usize,
    },
    /// A variable that does not exist.
    #[error("template {} asks for {}; known are {KNOWN}", Shown(.template), Shown(.name))]
    UnknownVariable {
        /// The template.
        template: String,
        /// What stands between the braces.
        name: String,
    },
    /// Longer than any command or line should be, or with characters that would leave it.
    #[error("template {} must be one line of at most 16,384 bytes without control characters", Shown(.template))]
    BadText {
        /// The template.
        template: String,
    },
    /// The workload has no such value.
    #[error("there is no value for `{{{0}}}`")]
    NoValue(Variable),
    /// A value that cannot stand in a command: not UTF-8, or with a NUL or line break.
    #[error("the value for `{{{0}}}` is not one line of UTF-8")]
    BadValue(Variable),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

impl Template {
    /// Parses `text`.
    pub fn parse(text: impl Into<String>) -> Result<Self, TemplateError> {
        let source = text.into();
        if source.len() > MAX_BYTES || source.chars().any(is_deceptive) {
            return Err(TemplateError::BadText { template: source });
        }
        let parts = parse_parts(&source)?;
        Ok(Self { source, parts })
    }

    /// The text it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The variables it asks for, in order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// Whether the result is an absolute path whatever the values are.
    pub fn is_absolute(&self) -> bool {
        match self.parts.first() {
            Some(Part::Text(text)) => text.starts_with('/'),
            Some(Part::Variable(variable)) => variable.is_path(),
            None => false,
        }
    }

    /// Puts the values in. A value is copied as it is and never parsed again.
    pub fn expand(&self, values: &Values) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(self.source.len());
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(variable) => out.push_str(&values.get(variable)?),
            }
        }
        Ok(out)
    }
}

impl Variable {
    /// Whether its value is an absolute path.
    pub fn is_path(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::File(_) | Self::Server | Self::Root)
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "server" => Self::Server,
            "root" => Self::Root,
            "world" => Self::World,
            "version" => Self::Version,
            "port" => Self::Port,
            "heap_mb" => Self::HeapMb,
            _ => match name.split_once(':')? {
                ("exec", id) => Self::Exec(Id::new(id).ok()?),
                ("file", id) => Self::File(Id::new(id).ok()?),
                _ => return None,
            },
        })
    }
}

impl Values {
    fn get(&self, variable: &Variable) -> Result<String, TemplateError> {
        let path = |path: &Path| path.to_str().map(str::to_owned);
        let found = match variable {
            Variable::Exec(id) => self.executables.get(id).map(|value| path(value)),
            Variable::File(id) => self.files.get(id).map(|value| path(value)),
            Variable::Server => self.server.as_deref().map(path),
            Variable::Root => self.root.as_deref().map(path),
            Variable::World => self.world.clone().map(Some),
            Variable::Version => self.version.clone().map(Some),
            Variable::Port => self.port.map(|port| Some(port.to_string())),
            Variable::HeapMb => self.heap_mb.map(|mb| Some(mb.to_string())),
        };
        let value = found
            .ok_or_else(|| TemplateError::NoValue(variable.clone()))?
            .ok_or_else(|| TemplateError::BadValue(variable.clone()))?;
        if value.contains(['\0', '\n', '\r']) {
            return Err(TemplateError::BadValue(variable.clone()));
        }
        Ok(value)
    }
}

fn parse_parts(source: &str) -> Result<Vec<Part>, TemplateError> {
    let unbalanced = |at| TemplateError::Unbalanced { template: source.to_owned(), at };
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut at = 0;
    while let Some(found) = source[at..].find(['{', '}']) {
        let brace = at + found;
        text.push_str(&source[at..brace]);
        let rest = &source[brace..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            text.push_str(&rest[..1]);
            at = brace + 2;
            continue;
        }
        let name = rest.strip_prefix('{').and_then(|rest| rest.split_once(['{', '}']));
        let Some((name, _)) = name.filter(|(name, _)| rest[name.len() + 1..].starts_with('}')) else {
            return Err(unbalanced(brace));
        };
        let variable = Variable::parse(name).ok_or_else(|| TemplateError::UnknownVariable {
            template: source.to_owned(),
            name: name.to_owned(),
        })?;
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Variable(variable));
        at = brace + name.len() + 2;
    }
    text.push_str(&source[at..]);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(id) => write!(f, "exec:{id}"),
            Self::File(id) => write!(f, "file:{id}"),
            Self::Server => f.write_str("server"),
            Self::Root => f.write_str("root"),
            Self::World => f.write_str("world"),
            Self::Version => f.write_str("version"),
            Self::Port => f.write_str("port"),
            Self::HeapMb => f.write_str("heap_mb"),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        Self::parse(text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.source
    }
}

/// A class path of a hundred jars fits.
const MAX_BYTES: usize = 16_384;
const KNOWN: &str = "exec:NAME, file:NAME, server, root, world, version, port, heap_mb";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> Values {
        Values {
            executables: [(Id::new("java").unwrap(), "/rt/bin/java".into())].into(),
            files: [(Id::new("server").unwrap(), "/cache/abc".into())].into(),
            server: Some("/srv/tree".into()),
            root: Some("/game".into()),
            world: Some("world".into()),
            version: Some("1.21.7".into()),
            port: Some(25565),
            heap_mb: Some(1536),
        }
    }

    fn expand(text: &str) -> String {
        Template::parse(text).unwrap().expand(&values()).unwrap()
    }

    #[test]
    fn every_variable_comes_out() {
        assert_eq!(expand("{exec:java}"), "/rt/bin/java");
        assert_eq!(expand("-Xmx{heap_mb}M"), "-Xmx1536M");
        assert_eq!(
            expand("{file:server}|{server}/x|{root}|{world}|{version}|{port}"),
            "/cache/abc|/srv/tree/x|/game|world|1.21.7|25565"
        );
        assert_eq!(expand("{{root}} {{}} }}{{ {{{root}}}"), "{root} {} }{ {/game}");
        assert_eq!(expand(""), "");
    }

    #[test]
    fn a_value_is_never_a_template() {
        for hostile in ["{root}", "{exec:java}", "{{", "${ZLH_TOKEN}", "%h", "{{config.token}}"] {
            let values = Values { world: Some(hostile.into()), ..values() };
            let out = Template::parse("a{world}b{{world}}").unwrap().expand(&values).unwrap();
            assert_eq!(out, format!("a{hostile}b{{world}}"));
        }
    }

    #[test]
    fn a_value_cannot_leave_its_line() {
        for hostile in ["a\nop=me", "a\0", "a\r"] {
            let values = Values { world: Some(hostile.into()), ..values() };
            let error = Template::parse("{world}").unwrap().expand(&values).unwrap_err();
            assert_eq!(error, TemplateError::BadValue(Variable::World));
        }
    }

    #[test]
    fn mistakes_show_when_the_catalog_is_loaded() {
        for text in ["{", "}", "{root", "root}", "a{{b}", "{ro{ot}", "{root}}"] {
            assert!(matches!(Template::parse(text), Err(TemplateError::Unbalanced { .. })), "{text}");
        }
        for text in
            ["{}", "{Root}", "{ root}", "{exec:}", "{exec:../x}", "{env:HOME}", "{exec}", "{config.token}"]
        {
            assert!(matches!(Template::parse(text), Err(TemplateError::UnknownVariable { .. })), "{text}");
        }
        for text in ["a\nb", "a\0", &"x".repeat(16_385)] {
            assert!(matches!(Template::parse(text), Err(TemplateError::BadText { .. })), "{text}");
        }
        let error = Template::parse("{heap}").unwrap_err().to_string();
        assert!(error.contains("`{heap}` asks for `heap`; known are exec:NAME"), "{error}");
        let error = Template::parse("{").unwrap_err().to_string();
        assert!(error.contains("`{{`"), "{error}");
    }

    #[test]
    fn an_absent_value_is_named() {
        let error = Template::parse("{exec:node}").unwrap().expand(&values()).unwrap_err();
        assert_eq!(error.to_string(), "there is no value for `{exec:node}`");
    }

    #[test]
    fn absolute_by_construction() {
        for yes in ["/bin/sh", "{exec:java}", "{server}/run"] {
            assert!(Template::parse(yes).unwrap().is_absolute(), "{yes}");
        }
        for no in ["java", "", "{world}/x", "./x", "x{root}"] {
            assert!(!Template::parse(no).unwrap().is_absolute(), "{no}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_source(text in "\\PC{0,40}|[{}a-z:_]{0,24}") {
            if let Ok(template) = Template::parse(text.clone()) {
                prop_assert_eq!(template.as_str(), text.as_str());
                let _ = template.expand(&values());
            }
        }

        #[test]
        fn escaped_text_comes_out_as_it_was(text in "[^\\p{C}\u{2028}\u{2029}\u{200e}\u{200f}]{0,40}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(Template::parse(escaped).unwrap().expand(&Values::default()).unwrap(), text);
        }
    }
}
