//! Stack traces: exceptions, their causes, their frames.

use crate::log::{Kind, Log, probe};

/// A stack trace, from the outermost exception to the root cause.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace {
    /// The line that announced it, if one did.
    pub head: Option<usize>,
    /// In the order of the text: the root cause is the last.
    pub exceptions: Vec<Exception>,
}

/// An exception and where it came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exception {
    pub line: usize,
    /// Fully qualified, or obfuscated.
    pub class: String,
    pub message: String,
    pub frames: Vec<Frame>,
}

/// A call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub line: usize,
    /// Fully qualified.
    pub class: String,
    pub method: String,
    /// Module id and version of a modular loader (`TRANSFORMER/id@version/`).
    pub module: Option<(String, String)>,
    /// The jar it is in, by the frame's own annotation.
    pub jar: Option<String>,
}

/// Traces kept of one log, and frames of one exception.
const MAX_TRACES: usize = 400;
const FIRST_TRACES: usize = 50;
const MAX_FRAMES: usize = 256;

impl Trace {
    pub(crate) fn root(&self) -> Option<&Exception> {
        self.exceptions.last()
    }

    pub(crate) fn first_line(&self) -> usize {
        self.head.or(self.exceptions.first().map(|e| e.line)).unwrap_or(0)
    }
}

/// All traces of lines that count.
pub(crate) fn traces(log: &Log) -> Vec<Trace> {
    let mut found: Vec<Trace> = Vec::new();
    let mut open: Option<Trace> = None;
    let mut head: Option<usize> = None;
    let mut previous: Option<usize> = None;
    for (index, line) in log.lines.iter().enumerate() {
        if matches!(line.kind, Kind::Info | Kind::Loose | Kind::HsErr) {
            close(&mut open, &mut found);
            (head, previous) = (None, None);
            continue;
        }
        let message = line.message();
        let trimmed = message.trim();
        if let Some(frame) = frame(trimmed, index) {
            let trace = open.get_or_insert_with(Trace::default);
            if trace.exceptions.is_empty() {
                // Frames below a line that is no exception by its look: `aog$a: already locked`.
                let above = previous.map(|at| probe(log.lines[at].message())).unwrap_or_default();
                let (class, message) = above.split_once(": ").unwrap_or((above, ""));
                let class = if class.contains(' ') { "" } else { class };
                trace.head = head;
                trace.exceptions.push(Exception {
                    line: previous.unwrap_or(index),
                    class: class.to_owned(),
                    message: message.to_owned(),
                    frames: Vec::new(),
                });
            }
            if let Some(exception) = trace.exceptions.last_mut()
                && exception.frames.len() < MAX_FRAMES
            {
                exception.frames.push(frame);
            }
        } else if let Some((class, text, cause)) = exception(trimmed) {
            if !cause || open.is_none() {
                close(&mut open, &mut found);
                let head = if line.kind == Kind::Error { Some(index) } else { head };
                open = Some(Trace { head, exceptions: Vec::new() });
            }
            if let Some(trace) = &mut open
                && trace.exceptions.len() < 32
            {
                let exception = Exception { line: index, class, message: text, frames: Vec::new() };
                trace.exceptions.push(exception);
            }
        } else {
            let ends = match line.kind {
                Kind::Error => true,
                Kind::Report => trimmed.is_empty() || trimmed.starts_with("-- "),
                _ => false,
            };
            if ends {
                close(&mut open, &mut found);
            }
            let describes = line.kind == Kind::Report && trimmed.starts_with("Description:");
            if line.kind == Kind::Error || describes {
                head = Some(index);
            }
        }
        // What came last is what ended it; a few of the first tell how it began.
        if found.len() > MAX_TRACES {
            found.remove(FIRST_TRACES);
        }
        if !trimmed.is_empty() {
            previous = Some(index);
        }
    }
    close(&mut open, &mut found);
    found
}

fn close(open: &mut Option<Trace>, found: &mut Vec<Trace>) {
    if let Some(trace) = open.take().filter(|trace| !trace.exceptions.is_empty()) {
        found.push(trace);
    }
}

/// `at [loader/][module@version/]pkg.Class.method(File.java:12) ~[jar:version] {…}`
fn frame(line: &str, index: usize) -> Option<Frame> {
    let rest = line.strip_prefix("at ")?;
    let (call, after) = rest.split_once('(')?;
    let mut path = call.trim();
    let mut module = None;
    if let Some((_, inner)) = path.split_once("//") {
        // `WorldEdit.jar//com.sk89q…`, `knot//net.minecraft…`
        let owner = &path[..path.len() - inner.len() - 2];
        if owner.ends_with(".jar") {
            module = Some((owner.to_owned(), String::new()));
        }
        path = inner;
    }
    while let Some((layer, inner)) = path.split_once('/') {
        if let Some((id, version)) = layer.split_once('@') {
            module = Some((id.to_owned(), version.to_owned()));
        }
        path = inner;
    }
    let (class, method) = path.rsplit_once('.')?;
    if class.is_empty() || class.contains(' ') {
        return None;
    }
    let jar = after.split_once('[').and_then(|(_, inside)| {
        let inside = &inside[..inside.find(']')?];
        // `file.jar%23123!/:1.0`, `pipez:1.16.5-1.2.15`, `file.jar:?`, `?:?`
        let name = inside.rsplit_once(':').map_or(inside, |(name, _)| name);
        let name = name.trim_end_matches('/').trim_end_matches('!');
        let name = name.split("%23").next().unwrap_or(name);
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        (!name.is_empty() && name != "?" && !name.ends_with(".class") && !name.ends_with(".java"))
            .then(|| name.to_owned())
    });
    let (mut module, mut jar) = (module, jar);
    if let Some((file, _)) = module.take_if(|(id, _)| id.ends_with(".jar")) {
        jar = Some(file);
    }
    Some(Frame { line: index, class: class.to_owned(), method: method.to_owned(), module, jar })
}

/// Class, message, and whether it is the cause of the one before.
pub(crate) fn exception(line: &str) -> Option<(String, String, bool)> {
    let cause = line.starts_with("Caused by: ");
    let text = probe(line);
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "._$/".contains(c))).unwrap_or(text.len());
    let class = &text[..end];
    let rest = &text[end..];
    let message = match rest.strip_prefix(':') {
        Some(message) => message.trim(),
        None if rest.trim().is_empty() => "",
        None => return None,
    };
    let class = class.rsplit('/').next().unwrap_or(class);
    let last = class.rsplit('.').next()?;
    let named = last.starts_with(|c: char| c.is_ascii_uppercase())
        && class.contains('.')
        && ENDINGS.iter().any(|ending| last.ends_with(ending));
    let obfuscated = cause && !class.is_empty() && class.len() < 200;
    (named || obfuscated).then(|| (class.to_owned(), message.to_owned(), cause))
}

const ENDINGS: [&str; 9] = [
    "Exception",
    "Error",
    "Throwable",
    "Death",
    "Crash",
    "Watchdog",
    "Failure",
    "ExceptionWorldConflict",
    "Interrupt",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_loaders() {
        let all = [
            ("at com.a.B.c(B.java:1)", "com.a.B", None, None),
            (
                "at TRANSFORMER/create@0.5.1/com.simibubi.create.X.y(X.java:9) ~[create-1.jar%23130!/:0.5.1]",
                "com.simibubi.create.X",
                Some("create"),
                Some("create-1.jar"),
            ),
            ("at WorldEdit.jar//com.sk89q.W.x(W.java:1) ~[?:?]", "com.sk89q.W", None, Some("WorldEdit.jar")),
            (
                "at knot//net.minecraft.class_1.method_2(class_1.java:1) ~[server-intermediary.jar:?]",
                "net.minecraft.class_1",
                None,
                Some("server-intermediary.jar"),
            ),
            (
                "at de.m.P.r(P.java:163) ~[pipez:1.16.5-1.2.15] {re:classloading}",
                "de.m.P",
                None,
                Some("pipez"),
            ),
            ("at java.base/java.lang.Thread.run(Thread.java:1) [?:?]", "java.lang.Thread", None, None),
        ];
        for (line, class, module, jar) in all {
            let found = frame(line, 0).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(
                (found.class.as_str(), found.module.as_ref().map(|m| m.0.as_str()), found.jar.as_deref()),
                (class, module, jar),
                "{line}"
            );
        }
        for line in ["at least one", "at the (end", "attack"] {
            assert!(frame(line, 0).is_none(), "{line}");
        }
    }

    #[test]
    fn exceptions_by_their_look() {
        assert_eq!(exception("java.lang.Error: x"), Some(("java.lang.Error".into(), "x".into(), false)));
        assert_eq!(exception("Caused by: aog$a: locked").map(|e| (e.0, e.2)), Some(("aog$a".into(), true)));
        for line in ["[x] java.lang.Error: x", "an.Error happened", "Error: x", "some text"] {
            assert_eq!(exception(line), None, "{line}");
        }
    }
}
