//! The texts of one run as lines, each with what it may prove.
//!
//! ```text
//! Start   before the first prefixed line: the JVM, the launcher, a shell
//! Info    an INFO (or lower) line: only whole lines of the server itself count
//! Error   a WARN, ERROR, FATAL or SEVERE line, or wrapped standard error
//! Stack   without a prefix, right after an Error line: stack traces, lists of a loader
//! Loose   without a prefix, after an Info line: anybody may have written it
//! Report  of a crash report
//! HsErr   of the JVM's fatal error log
//! ```

use crate::line::{self, Level};
use crate::text;
use crate::{Source, Text};

/// What a line may prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Info,
    Error,
    Stack,
    Loose,
    Report,
    HsErr,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub number: u64,
    pub source: Source,
    /// Index into [`Log::names`].
    pub name: usize,
    pub text: String,
    /// Byte at which the message begins.
    pub at: usize,
    pub kind: Kind,
    /// Believed only because it is the last that was printed.
    pub last_word: bool,
    /// The logger's thread is the server's own, or no thread is told.
    pub server_thread: bool,
}

impl Line {
    pub(crate) fn message(&self) -> &str {
        &self.text[self.at..]
    }

    /// What it says: no prefix, no bullet, no `Caused by:`.
    pub(crate) fn probe(&self) -> &str {
        probe(self.message())
    }
}

/// All lines of a run, console first.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub lines: Vec<Line>,
    pub names: Vec<String>,
    /// The line that told that the server is up.
    pub done: Option<usize>,
    /// The first line of a stop that the server itself told.
    pub stopping: Option<usize>,
    /// It told `Stopping the server`: somebody used the command.
    pub stopped_inside: bool,
    /// The port it told that it is about to listen on.
    pub port: Option<u16>,
}

impl Log {
    /// Reads the texts; of a console that holds several runs only the last one.
    pub(crate) fn read(console: &[Text<'_>], reports: &[Text<'_>], hs_err: Option<&Text<'_>>) -> Self {
        let mut log = Self::default();
        for text in console {
            log.add(text, Source::Console);
        }
        log.last_run();
        log.last_words();
        log.milestones();
        for text in reports {
            log.add(text, Source::Report);
        }
        if let Some(text) = hs_err {
            log.add(text, Source::HsErr);
        }
        log
    }

    fn add(&mut self, input: &Text<'_>, source: Source) {
        let name = self.names.len();
        self.names.push(input.name.to_owned());
        let text = text::decode(input.bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let kind = match source {
            Source::Report => Kind::Report,
            Source::HsErr => Kind::HsErr,
            // A tail goes on where nobody knows what came before.
            _ if input.first_line > 1 => Kind::Loose,
            _ => Kind::Start,
        };
        let most = match source {
            Source::Report => 20_000,
            Source::HsErr => 5000,
            _ => MAX_LINES,
        };
        let total = text.split('\n').count();
        // Of more than that the middle is left out.
        let gap = (most / 2)..total.saturating_sub(most / 2).max(most / 2);
        let mut state = State { kind, fixed: kind != Kind::Start && kind != Kind::Loose };
        for (index, raw) in text.split('\n').enumerate() {
            if gap.contains(&index) {
                continue;
            }
            let cleaned = text::clean(raw);
            let (kind, at, server_thread) = state.sort(&cleaned);
            let number = input.first_line.max(1) + index as u64;
            self.lines.push(Line {
                number,
                source,
                name,
                text: cleaned,
                at,
                kind,
                last_word: false,
                server_thread,
            });
        }
    }

    /// What the JVM prints when it dies stands behind everything that was logged: there a
    /// line without a prefix can be believed, in the middle anybody may have written it.
    fn last_words(&mut self) {
        let logged = self.lines.iter().rposition(|line| matches!(line.kind, Kind::Info | Kind::Error));
        let Some(logged) = logged else { return };
        let mut kind = None;
        for index in logged + 1..self.lines.len() {
            if self.lines[index].kind != Kind::Loose {
                return;
            }
            let framed = self.lines.get(index + 1).is_none_or(|next| {
                let next = next.text.trim_start();
                next.is_empty()
                    || next.starts_with("at ")
                    || next.starts_with("...")
                    // Without memory it prints no frame, and goes on to the next word.
                    || next.starts_with("Exception in thread \"")
                    || LAST_WORDS.iter().any(|last| next.starts_with(last))
            });
            let word = self.lines[index].text.trim();
            if word.starts_with("Exception in thread \"") && framed {
                kind = Some(Kind::Stack);
            } else if is_report_head(word) {
                kind = Some(Kind::Report);
            } else if is_hs_err_head(word) {
                kind = Some(Kind::HsErr);
            } else if LAST_WORDS.iter().any(|last| word.starts_with(last)) {
                (self.lines[index].kind, self.lines[index].last_word) = (Kind::Start, true);
            }
            if let Some(kind) = kind {
                (self.lines[index].kind, self.lines[index].last_word) = (kind, true);
            }
        }
    }

    /// Players restart by hand, and two processes write one file: the last start counts.
    fn last_run(&mut self) {
        let (mut booted, mut begin) = (false, 0);
        for (index, line) in self.lines.iter().enumerate() {
            if line.kind != Kind::Info {
                continue;
            }
            let message = line.message();
            let starting = message.starts_with("Starting minecraft server version");
            if booted && (starting || BOOT.iter().any(|boot| message.starts_with(boot))) {
                begin = index;
                booted = starting;
            }
            booted |= starting;
        }
        self.lines.drain(..begin);
    }

    fn milestones(&mut self) {
        for (index, line) in self.lines.iter().enumerate().filter(|(_, line)| line.kind == Kind::Info) {
            let message = line.message().trim();
            if message.starts_with("Done (") && message.contains(")!") {
                self.done = Some(index);
            } else if line.server_thread
                && matches!(message, "Stopping the server" | "Stopping server" | "Stopping the server.")
            {
                self.stopped_inside |= message.starts_with("Stopping the server");
                self.stopping.get_or_insert(index);
            } else if let Some(address) = message.strip_prefix("Starting Minecraft server on ")
                && line.server_thread
            {
                self.port = address.rsplit(':').next().and_then(|port| port.parse().ok()).or(self.port);
            }
        }
    }
}

/// First lines of a start.
const BOOT: [&str; 9] = [
    "ModLauncher running:",
    "Loading Minecraft ",
    "Loading for game Minecraft",
    "Loading libraries, please wait",
    "Forge Mod Loader version ",
    "Booting up Velocity",
    "Enabled BungeeCord version",
    "Enabled Waterfall version",
    "Starting org.bukkit.craftbukkit.Main",
];

struct State {
    kind: Kind,
    fixed: bool,
}

impl State {
    fn sort(&mut self, line: &str) -> (Kind, usize, bool) {
        if self.fixed {
            return (self.kind, 0, true);
        }
        if let Some(prefix) = line::prefix(line) {
            let error = prefix.level >= Level::Warn;
            self.kind = if error { Kind::Stack } else { Kind::Loose };
            let server = prefix.thread.is_empty() || SERVER_THREADS.contains(&prefix.thread.as_str());
            return (if error { Kind::Error } else { Kind::Info }, prefix.message, server);
        }
        let word = line.trim();
        if matches!(self.kind, Kind::Start | Kind::Stack) {
            if is_report_head(word) {
                self.kind = Kind::Report;
            } else if is_hs_err_head(word) {
                self.kind = Kind::HsErr;
            }
        }
        (self.kind, 0, true)
    }
}

/// Threads of the server itself.
const SERVER_THREADS: [&str; 4] = ["Server thread", "main", "ServerMain", "Server Shutdown Thread"];

/// Lines of one text that are read.
const MAX_LINES: usize = 60_000;

/// What the JVM or a shell says last.
const LAST_WORDS: [&str; 8] = [
    "Terminating due to java.lang.OutOfMemoryError",
    "Aborting due to java.lang.OutOfMemoryError",
    "Exception: java.lang.OutOfMemoryError thrown from the UncaughtExceptionHandler",
    "OpenJDK 64-Bit Server VM warning: INFO: os::commit_memory",
    "Java HotSpot(TM) 64-Bit Server VM warning: INFO: os::commit_memory",
    "terminate called after throwing an instance of",
    "java.lang.OutOfMemoryError: Java heap space",
    "java.lang.OutOfMemoryError: GC overhead limit exceeded",
];

fn is_hs_err_head(line: &str) -> bool {
    line.starts_with("# A fatal error has been detected by the Java Runtime")
        || line.starts_with("# There is insufficient memory for the Java Runtime")
}

/// `---- Minecraft Crash Report ----`
fn is_report_head(line: &str) -> bool {
    line.starts_with("----") && line.ends_with("----") && line.len() < 80 && line.contains("Crash Report")
}

/// What a message says, without what only leads to it.
pub(crate) fn probe(message: &str) -> &str {
    let mut rest = message.trim();
    loop {
        let before = rest;
        for lead in LEADS {
            rest = rest.strip_prefix(lead).unwrap_or(rest);
        }
        if let Some(thread) = rest.strip_prefix("Exception in thread \"")
            && let Some((_, after)) = thread.split_once("\" ")
        {
            rest = after;
        }
        if rest.len() == before.len() {
            return rest;
        }
        rest = rest.trim_start();
    }
}

const LEADS: [&str; 14] = [
    "Caused by: ",
    "Suppressed: ",
    "- ",
    "* ",
    "\u{2022} ",
    "\\-- ",
    "|-- ",
    "[ModernPluginLoadingStrategy] ",
    "[LegacyPluginLoadingStrategy] ",
    "[DirectoryProviderSource] ",
    "[FileProviderSource] ",
    "[EntrypointUtil] ",
    "[PluginInitializerManager] ",
    "[ServerEntrypointHandler] ",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let text = Text { name: "console", bytes: text.as_bytes(), first_line: 1 };
        Log::read(&[text], &[], None).lines.iter().map(|line| line.kind).collect()
    }

    #[test]
    fn what_follows_an_error_counts_and_what_follows_chat_does_not() {
        use Kind::{Error, Info, Loose, Stack, Start};
        let log = "Error: x\n[12:00:00 INFO]: <a> hi\njava.lang.OutOfMemoryError: Java heap space\n\
                   [12:00:01 ERROR]: Encountered\njava.lang.Error: y\n\tat a.B.c(B.java:1)\n";
        assert_eq!(kinds(log), [Start, Info, Loose, Error, Stack, Stack]);
    }

    #[test]
    fn the_jvms_last_words_are_believed_behind_everything_only() {
        use Kind::{Info, Loose, Stack, Start};
        let head = "Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space\n\tat a.B.c(B.java:1)\n";
        let said = "[12:00:00 INFO]: <a> hi\n";
        assert_eq!(kinds(&format!("{said}{head}")), [Info, Stack, Stack]);
        assert_eq!(kinds(&format!("{said}{head}{said}")), [Info, Loose, Loose, Info]);
        let word = "Terminating due to java.lang.OutOfMemoryError: Java heap space\n";
        assert_eq!(kinds(&format!("{said}{word}")), [Info, Start]);
        assert_eq!(
            kinds(&format!("{said}---- Minecraft Crash Report ----\nDescription: x\n{said}")),
            [Info, Loose, Loose, Info]
        );
    }

    #[test]
    fn of_endless_lines_the_middle_is_left_out() {
        let many = "\n".repeat(3_000_000);
        let log = Log::read(&[Text { name: "console", bytes: many.as_bytes(), first_line: 1 }], &[], None);
        assert_eq!(log.lines.len(), MAX_LINES);
        assert_eq!(log.lines.last().unwrap().number, 3_000_000);
    }

    #[test]
    fn only_the_last_run_is_read() {
        let run = |word: &str| {
            format!(
                "[12:00:00 INFO]: Loading libraries, please wait...\n[12:00:01 INFO]: Starting minecraft server version 1.21\n[12:00:02 INFO]: {word}\n"
            )
        };
        let both = run("first") + &run("second");
        let text = Text { name: "console", bytes: both.as_bytes(), first_line: 1 };
        let log = Log::read(&[text], &[], None);
        assert_eq!(log.lines.len(), 3);
        assert_eq!((log.lines[2].message(), log.lines[0].number), ("second", 4));
    }

    #[test]
    fn leads_are_taken_off() {
        assert_eq!(probe("\tCaused by: java.lang.Error: x"), "java.lang.Error: x");
        assert_eq!(probe("Exception in thread \"main\" java.lang.Error"), "java.lang.Error");
        assert_eq!(probe("\t - Mod 'A' (a) 1 requires"), "Mod 'A' (a) 1 requires");
    }
}
