//! The card: what happened, who, since when, what to do, and from which lines that is known.

use serde::Deserialize;
use unicode_width::UnicodeWidthStr;

use crate::printer::{Paint, Printer};
use crate::ui::escape::{clean, one_line};
use crate::ui::table::cut;

/// What a card shows, of an analysis or of an agent's record: both have these names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Data {
    id: Option<String>,
    time: Option<String>,
    exit_code: Option<i32>,
    signal_name: Option<String>,
    lost: Option<String>,
    uptime_seconds: Option<u64>,
    was_ready: Option<bool>,
    healthy: bool,
    explained: Option<bool>,
    classification: Option<String>,
    cause: Option<String>,
    certain: bool,
    restart_useless: bool,
    title: String,
    explanation: String,
    remedy: Vec<Step>,
    culprit: Vec<Culprit>,
    dependency: Vec<Dependency>,
    java: Option<Java>,
    place: Option<Place>,
    evidence: Vec<Line>,
    contributing: Vec<Also>,
    changed_since_last_good: Vec<Change>,
    seen_before: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Step {
    text: String,
    action: Option<Action>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Action {
    id: String,
    available: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Culprit {
    id: String,
    name: Option<String>,
    file: Option<String>,
    version: Option<String>,
    why: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Dependency {
    id: String,
    wanted: Option<String>,
    installed: Option<String>,
    requested_by: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Java {
    need: Option<u32>,
    have: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Place {
    dimension: Option<String>,
    block: Option<Vec<i32>>,
    chunk: Option<Vec<i32>>,
    what: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Line {
    source: String,
    file: Option<String>,
    line: Option<u64>,
    text: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Also {
    title: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Change {
    path: String,
    kind: String,
    when: Option<String>,
    before: Option<String>,
    after: Option<String>,
}

/// A card to be drawn.
pub(super) struct Card<'a> {
    /// The log's or the agent's name.
    pub name: &'a str,
    pub data: &'a Data,
    /// The agent that repairs can be asked of.
    pub fix: Option<&'a str>,
    pub printer: Printer,
    /// Everything, not only the most important lines.
    pub wide: bool,
}

/// Width of the labels at the left.
const LABEL: usize = 10;

/// Entries of a list that are shown unless everything is wanted.
const FEW: usize = 6;

impl Card<'_> {
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        let data = self.data;
        let (word, paint) =
            if data.healthy { ("no crash found", Paint::Plain) } else { ("crashed", Paint::Bad) };
        let word = if !data.healthy && data.time.is_none() { "problem" } else { word };
        out.push_str(&format!(
            "{}  {}\n",
            self.printer.painted(self.name, Paint::Bold),
            self.printer.painted(word, paint)
        ));
        if data.explained == Some(false) {
            out.push_str("  the evidence is being looked at; ask again in a second\n");
        }
        if !data.title.is_empty() {
            self.paragraph(&mut out, "", &data.title, Paint::Bold);
        }
        if data.healthy {
            return out;
        }
        out.push('\n');
        self.entry(&mut out, "what", &data.explanation);
        self.entry(&mut out, "cause", &self.cause());
        for (index, one) in data.culprit.iter().take(self.few(data.culprit.len())).enumerate() {
            self.entry(&mut out, if index == 0 { "who" } else { "" }, &who(one));
        }
        self.more(&mut out, data.culprit.len());
        for (index, one) in data.dependency.iter().take(self.few(data.dependency.len())).enumerate() {
            self.entry(&mut out, if index == 0 { "needs" } else { "" }, &need(one));
        }
        self.more(&mut out, data.dependency.len());
        if let Some(java) = &data.java {
            self.entry(&mut out, "java", &java_words(java));
        }
        if let Some(place) = &data.place {
            self.entry(&mut out, "where", &place_words(place));
        }
        self.entry(&mut out, "when", &self.when());
        for (index, one) in
            data.changed_since_last_good.iter().take(self.few(data.changed_since_last_good.len())).enumerate()
        {
            self.entry(&mut out, if index == 0 { "changed" } else { "" }, &change_words(one));
        }
        self.more(&mut out, data.changed_since_last_good.len());
        self.steps(&mut out);
        self.lines(&mut out);
        if !data.contributing.is_empty() {
            out.push_str(&format!("\n  {}\n", self.printer.painted("also found", Paint::Bold)));
            for one in &data.contributing {
                self.wrapped(&mut out, "    - ", 6, &one.title);
            }
        }
        out
    }

    fn cause(&self) -> String {
        let data = self.data;
        let Some(cause) = &data.cause else { return String::new() };
        let mut words = cause.clone();
        if let Some(class) = data.classification.as_ref().filter(|class| *class != cause) {
            words.push_str(&format!(" ({class})"));
        }
        words.push_str(if data.certain { ", certain" } else { ", probable" });
        if data.restart_useless {
            words.push_str("; a restart can only repeat it");
        }
        words
    }

    fn when(&self) -> String {
        let data = self.data;
        let Some(time) = &data.time else { return String::new() };
        let mut words = time.clone();
        let end = match (data.exit_code, &data.signal_name, &data.lost) {
            (Some(code), ..) => format!("exit code {code}"),
            (None, Some(signal), _) => signal.clone(),
            (None, None, Some(lost)) => lost.clone(),
            _ => String::new(),
        };
        if !end.is_empty() {
            words.push_str(&format!(", {end}"));
        }
        if let Some(uptime) = data.uptime_seconds {
            let age = crate::ui::units::age(std::time::Duration::from_secs(uptime));
            words.push_str(&format!(" after {age}"));
            words.push_str(if data.was_ready == Some(true) {
                ", it had been ready"
            } else {
                ", never ready"
            });
        }
        if data.seen_before > 0 {
            words.push_str(&format!("; seen {} times before", data.seen_before));
        }
        words
    }

    fn steps(&self, out: &mut String) {
        if self.data.remedy.is_empty() {
            return;
        }
        out.push_str(&format!("\n  {}\n", self.printer.painted("what to do", Paint::Bold)));
        for (index, step) in self.data.remedy.iter().enumerate() {
            self.wrapped(out, &format!("   {:>2}. ", index + 1), 7, &step.text);
            if let (Some(agent), Some(action)) = (self.fix, &step.action)
                && action.available
            {
                let id = self.data.id.as_deref().unwrap_or_default();
                let command = format!(
                    "zlhctl fix {} {} --crash {}",
                    one_line(agent),
                    one_line(&action.id),
                    one_line(id)
                );
                out.push_str(&format!("       {}\n", self.printer.painted(&command, Paint::Dim)));
            }
        }
    }

    fn lines(&self, out: &mut String) {
        if self.data.evidence.is_empty() {
            return;
        }
        out.push_str(&format!("\n  {}\n", self.printer.painted("evidence", Paint::Bold)));
        let few = self.few(self.data.evidence.len());
        let places: Vec<String> =
            self.data.evidence.iter().take(few).map(|line| place_of(line, self.name)).collect();
        let width = places.iter().map(|place| place.width()).max().unwrap_or(0).min(30);
        for (line, place) in self.data.evidence.iter().zip(&places) {
            let text = one_line(line.text.trim());
            let room = self.width().saturating_sub(width + 6).max(20);
            let text = if self.wide { text } else { cut(&text, room) };
            out.push_str(&format!(
                "    {}  {text}\n",
                self.printer.painted(&format!("{place:>width$}"), Paint::Dim)
            ));
        }
        self.more(out, self.data.evidence.len());
    }

    fn few(&self, count: usize) -> usize {
        if self.wide { count } else { FEW }
    }

    fn more(&self, out: &mut String, count: usize) {
        let hidden = count.saturating_sub(self.few(count));
        if hidden > 0 {
            out.push_str(&format!("  {:LABEL$}and {hidden} more, with -o wide\n", ""));
        }
    }

    /// A label and a text that goes on below itself; nothing without a text.
    fn entry(&self, out: &mut String, label: &str, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let label = self.printer.painted(&format!("{label:LABEL$}"), Paint::Dim);
        self.wrapped(out, &format!("  {label}"), LABEL + 2, text);
    }

    fn paragraph(&self, out: &mut String, label: &str, text: &str, paint: Paint) {
        for line in wrap(&clean(text), self.width().saturating_sub(2)) {
            out.push_str(&format!("  {label}{}\n", self.printer.painted(&line, paint)));
        }
    }

    fn wrapped(&self, out: &mut String, lead: &str, indent: usize, text: &str) {
        for (index, line) in
            wrap(&one_line(text), self.width().saturating_sub(indent)).into_iter().enumerate()
        {
            if index == 0 {
                out.push_str(lead);
            } else {
                out.push_str(&" ".repeat(indent));
            }
            out.push_str(&line);
            out.push('\n');
        }
    }

    fn width(&self) -> usize {
        self.printer.width().unwrap_or(100).clamp(40, 120)
    }
}

/// Lines of at most `width` columns, broken at blanks where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(16);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always one");
        if last.is_empty() {
            last.push_str(word);
        } else if last.width() + 1 + word.width() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn who(one: &Culprit) -> String {
    let mut words = one
        .name
        .clone()
        .filter(|name| *name != one.id)
        .map_or_else(|| one.id.clone(), |name| format!("{name} ({})", one.id));
    if let Some(version) = &one.version {
        words.push_str(&format!(" {version}"));
    }
    if let Some(file) = &one.file {
        words.push_str(&format!(", {file}"));
    }
    if !one.why.is_empty() {
        words.push_str(&format!(": {}", one.why));
    }
    words
}

fn need(one: &Dependency) -> String {
    let mut words = one.id.clone();
    if let Some(wanted) = &one.wanted {
        words.push_str(&format!(" {wanted}"));
    }
    match &one.installed {
        Some(installed) => words.push_str(&format!("; there is {installed}")),
        None => words.push_str("; it is not there"),
    }
    if let Some(by) = &one.requested_by {
        words.push_str(&format!(" (for {by})"));
    }
    words
}

fn java_words(java: &Java) -> String {
    match (java.need, java.have) {
        (Some(need), Some(have)) => format!("needs {need}, runs with {have}"),
        (Some(need), None) => format!("needs {need}"),
        (None, Some(have)) => format!("runs with {have}"),
        (None, None) => String::new(),
    }
}

fn place_words(place: &Place) -> String {
    let numbers = |list: &[i32]| list.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
    let mut words: Vec<String> = place.what.iter().cloned().collect();
    if let Some(block) = &place.block {
        words.push(format!("at {}", numbers(block)));
    } else if let Some(chunk) = &place.chunk {
        words.push(format!("chunk {}", numbers(chunk)));
    }
    if let Some(dimension) = &place.dimension {
        words.push(format!("in {dimension}"));
    }
    words.join(" ")
}

fn change_words(one: &Change) -> String {
    let mut words = format!("{} {}", one.path, one.kind);
    if let (Some(before), Some(after)) = (&one.before, &one.after) {
        words.push_str(&format!(": {before} to {after}"));
    }
    if let Some(when) = &one.when {
        words.push_str(&format!(", {when}"));
    }
    words
}

fn place_of(line: &Line, own: &str) -> String {
    match (&line.file, line.line) {
        // Of the one log that the card is about.
        (Some(file), Some(number)) if file == own => format!("line {number}"),
        (Some(file), Some(number)) => {
            let file = file.rsplit('/').next().unwrap_or(file);
            format!("{}:{number}", cut(&one_line(file), 22))
        }
        _ => line.source.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printer::Format;

    fn card(data: &Data, wide: bool) -> String {
        let printer = Printer::new(Format::Table, false, true);
        Card { name: "lobby", data, fix: Some("lobby"), printer, wide }.render()
    }

    #[test]
    fn a_card_says_what_who_and_what_to_do() {
        let data: Data = serde_json::from_value(serde_json::json!({
            "id": "17-ab", "time": "2026-11-25T20:00:00Z", "exitCode": 1, "uptimeSeconds": 12, "wasReady": false,
            "explained": true, "classification": "missing_dependency", "cause": "dependency", "certain": true,
            "restartUseless": true, "title": "Yung's Menu Tweaks needs yungsapi", "explanation": "It is not there.",
            "remedy": [{"text": "Install yungsapi 5.1.2 or above.",
                        "action": {"id": "disable_addon", "available": true, "file": "mods/x.jar"}}],
            "culprit": [{"id": "yungsmenutweaks", "name": "Yung's Menu Tweaks", "file": "mods/x.jar", "version": "2.1", "why": "the loader names it"}],
            "dependency": [{"id": "yungsapi", "wanted": "5.1.2 or above", "installed": null, "requestedBy": "yungsmenutweaks"}],
            "evidence": [{"source": "console", "file": "console", "line": 16, "text": "Mod \u{1b}[31myungsmenutweaks requires"}],
            "contributing": [{"cause": "mixin", "title": "A mod does not fit"}], "seenBefore": 3,
            "changedSinceLastGood": [{"path": "mods/x.jar", "kind": "added", "when": "2026-11-25T19:00:00Z"}]
        }))
        .unwrap();
        let text = card(&data, false);
        for part in [
            "lobby  crashed",
            "Yung's Menu Tweaks needs yungsapi",
            "dependency (missing_dependency), certain; a restart can only repeat it",
            "Yung's Menu Tweaks (yungsmenutweaks) 2.1, mods/x.jar",
            "yungsapi 5.1.2 or above; it is not there",
            "exit code 1 after 12s, never ready; seen 3 times before",
            "mods/x.jar added, 2026-11-25T19:00:00Z",
            " 1. Install yungsapi",
            "zlhctl fix lobby disable_addon --crash 17-ab",
            "console:16  Mod yungsmenutweaks requires",
            "also found",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().all(|line| line.width() <= 120), "{text}");
    }

    #[test]
    fn a_healthy_one_is_short() {
        let data =
            Data { healthy: true, title: "Nothing in it tells of a crash".to_owned(), ..Data::default() };
        assert_eq!(card(&data, false), "lobby  no crash found\n  Nothing in it tells of a crash\n");
    }

    #[test]
    fn text_is_broken_at_blanks() {
        assert_eq!(wrap("one two three four five", 16), ["one two three", "four five"]);
        assert_eq!(wrap("", 16), [""]);
    }
}
