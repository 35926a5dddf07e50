//! One line of a log: its level, thread and message, in any of the forms that servers print.
//!
//! ```text
//! [12:00:05] [Server thread/INFO]: message
//! [05Jul2022 23:44:28.958] [Server thread/ERROR] [net.minecraft.server.MinecraftServer/]: message
//! [12:00:05 INFO]: message
//! [12:00:05] [main/INFO] (FabricLoader) message
//! 2011-12-20 05:11:56 [SEVERE] message
//! 12:00:05.123 [main] ERROR some.Logger - message
//! [Server thread/INFO] [STDERR]: [java.lang.ThreadGroup:uncaughtException:1061]: message
//! ```
//!
//! What collectors and panels put in front (a container's name, a timestamp) is skipped.

/// How bad a line says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// Where a prefix ends, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub level: Level,
    pub thread: String,
    /// Byte at which the message begins.
    pub message: usize,
    /// The JVM's standard error, wrapped by a logger.
    pub stderr: bool,
}

/// The prefix of a cleaned line, if it has one.
pub(crate) fn prefix(line: &str) -> Option<Prefix> {
    let start = skip_collector(line);
    let rest = &line[start..];
    let mut found = if rest.starts_with('[') { bracketed(rest) } else { dated(rest) }?;
    found.message += start;
    unwrap_stderr(line, &mut found);
    Some(found)
}

fn level(word: &str) -> Option<Level> {
    Some(match word {
        "INFO" | "DEBUG" | "TRACE" | "FINE" | "FINER" | "FINEST" | "CONFIG" | "info" | "STDOUT" => {
            Level::Info
        }
        "WARN" | "WARNING" | "warn" => Level::Warn,
        "ERROR" | "FATAL" | "SEVERE" | "error" | "STDERR" => Level::Error,
        _ => return None,
    })
}

/// `[…] [thread/LEVEL] [logger]: message` and its relatives.
fn bracketed(line: &str) -> Option<Prefix> {
    let mut at = 0;
    let mut known: Option<(Level, String)> = None;
    let mut stderr = false;
    for _ in 0..6 {
        let group = line[at..].strip_prefix('[')?;
        let end = group.find(']')?;
        if end > 160 {
            break;
        }
        let inside = &group[..end];
        let after = at + end + 2;
        match &known {
            None => known = level_in(inside),
            // A logger only where it ends the prefix: a message may begin with a bracket.
            Some(_) if line[after..].starts_with(':') => stderr |= inside.trim_end_matches('/') == "STDERR",
            Some(_) => break,
        }
        at = after;
        if known.is_some() && line[at..].starts_with(':') {
            at += 1;
            break;
        }
        let spaces = line[at..].len() - line[at..].trim_start_matches(' ').len();
        if !line[at + spaces..].starts_with('[') {
            break;
        }
        at += spaces;
    }
    let (level, thread) = known?;
    let mut message = at;
    message += line[message..].len() - line[message..].trim_start_matches(' ').len();
    // `(FabricLoader) message`
    if let Some(named) = line[message..].strip_prefix('(')
        && let Some(end) = named.find(") ")
        && end <= 60
        && named[..end].chars().all(|c| c.is_alphanumeric() || "/_-. |".contains(c))
        && line[..message].ends_with("] ")
    {
        message += end + 3;
    }
    Some(Prefix { level, thread, message, stderr })
}

/// `Server thread/INFO`, `12:00:05 INFO`, `SEVERE`.
fn level_in(group: &str) -> Option<(Level, String)> {
    if let Some((thread, word)) = group.rsplit_once('/')
        && let Some(level) = level(word)
    {
        return Some((level, thread.to_owned()));
    }
    if let Some((_, word)) = group.rsplit_once(' ')
        && let Some(level) = level(word)
    {
        return Some((level, String::new()));
    }
    level(group).map(|level| (level, String::new()))
}

/// A date or a time without brackets, then the level in brackets or as a word.
fn dated(line: &str) -> Option<Prefix> {
    if !line.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let end = line.char_indices().take(80).last().map_or(0, |(at, c)| at + c.len_utf8());
    let head = &line[..end];
    let mut at = head.find(|c: char| !(c.is_ascii_digit() || " :-./,TZ".contains(c)))?;
    if !head[..at].contains(':') {
        return None;
    }
    let mut thread = String::new();
    for _ in 0..3 {
        let rest = &line[at..];
        let (word, next) = match rest.strip_prefix('[') {
            Some(group) => {
                let end = group.find(']')?;
                (&group[..end], at + end + 2)
            }
            None => {
                let end = rest.find([' ', ':'])?;
                (&rest[..end], at + end)
            }
        };
        let after = next + (line[next..].len() - line[next..].trim_start_matches([' ', ':']).len());
        if let Some((level, named)) = level_in(word) {
            let mut message = after;
            // `[INFO] [Logger] message`, `ERROR some.Logger - message`
            if let Some(group) = line[message..].strip_prefix('[')
                && let Some(end) = group.find("] ")
                && matches!(
                    &group[..end],
                    "Minecraft"
                        | "Minecraft-Server"
                        | "ForgeModLoader"
                        | "STDERR"
                        | "STDOUT"
                        | "Minecraft-Client"
                )
            {
                let stderr = &group[..end] == "STDERR";
                message += end + 3;
                return Some(Prefix { level, thread: named, message, stderr });
            }
            if let Some(dash) = line[message..].find(" - ")
                && dash < 100
                && !line[message..message + dash].contains(' ')
            {
                message += dash + 3;
            }
            return Some(Prefix {
                level,
                thread: if named.is_empty() { thread } else { named },
                message,
                stderr: false,
            });
        }
        word.clone_into(&mut thread);
        at = after;
    }
    None
}

/// `[java.lang.ThreadGroup:uncaughtException:1061]: message`
fn unwrap_stderr(line: &str, prefix: &mut Prefix) {
    let message = &line[prefix.message..];
    if let Some(group) = message.strip_prefix('[')
        && let Some(end) = group.find("]: ")
        && end < 160
    {
        let inside = &group[..end];
        let mut parts = inside.rsplitn(3, ':');
        let number = parts.next().is_some_and(|n| n.parse::<i32>().is_ok());
        if number && parts.next().is_some() && parts.next().is_some_and(|class| class.contains('.')) {
            prefix.message += end + 4;
        }
    }
    if prefix.stderr {
        prefix.level = prefix.level.max(Level::Error);
    }
}

/// What a container runtime, a panel or a prompt puts in front.
fn skip_collector(line: &str) -> usize {
    let mut at = line.len() - line.trim_start_matches(['>', ' ', '.']).len();
    // `name-1  | message`
    if let Some(bar) = line[at..].find(" | ")
        && bar < 40
        && line[at..at + bar].trim_end().chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && bar > 0
    {
        at += bar + 3;
    }
    // `2024-01-01T12:00:00.123456789Z message`
    let rest = &line[at..];
    if let Some((stamp, after)) = rest.split_once(' ')
        && stamp.len() >= 19
        && stamp.as_bytes().get(10) == Some(&b'T')
        && stamp.as_bytes()[..4].iter().all(u8::is_ascii_digit)
        && after.starts_with('[')
    {
        at += stamp.len() + 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(line: &str, level: Level, thread: &str, message: &str) {
        let found = prefix(line).unwrap_or_else(|| panic!("no prefix in {line}"));
        assert_eq!((found.level, found.thread.as_str(), &line[found.message..]), (level, thread, message));
    }

    #[test]
    fn the_forms_of_all_servers() {
        is("[12:00:05] [Server thread/INFO]: hi", Level::Info, "Server thread", "hi");
        is(
            "[05Jul2022 23:44:28.958] [Server thread/ERROR] [net.minecraft.server.MinecraftServer/]: hi",
            Level::Error,
            "Server thread",
            "hi",
        );
        is("[12:00:05 WARN]: hi", Level::Warn, "", "hi");
        is("[12:00:05] [main/INFO] (FabricLoader) hi", Level::Info, "main", "hi");
        is("2011-12-20 05:11:56 [SEVERE] hi", Level::Error, "", "hi");
        is("2013-08-01 12:00:00 [INFO] [ForgeModLoader] hi", Level::Info, "", "hi");
        is("12:00:05 [INFO] hi", Level::Info, "", "hi");
        is("12:00:05.123 [main] ERROR some.Logger - hi", Level::Error, "main", "hi");
        is(
            "[12:00:05] [Chunk I/O Executor Thread-1/ERROR] [FML]: hi",
            Level::Error,
            "Chunk I/O Executor Thread-1",
            "hi",
        );
        is("[12:00:05] [Server thread/ERROR]: [Plugin] hi", Level::Error, "Server thread", "[Plugin] hi");
        is("[12:00:05] [Server thread/ERROR]: ", Level::Error, "Server thread", "");
        is("mc-1  | [12:00:05 INFO]: hi", Level::Info, "", "hi");
        is("2024-01-01T12:00:00.1Z [12:00:05 INFO]: hi", Level::Info, "", "hi");
        is("> [12:00:05 INFO]: hi", Level::Info, "", "hi");
        is("[18:12:23 ERROR] [velocity]: hi", Level::Error, "", "hi");
        is("[11:38:17] [main/INFO] [com.velocitypowered.proxy.Velocity]:  Done", Level::Info, "main", "Done");
    }

    #[test]
    fn standard_error_is_told_from_a_message() {
        let line =
            "[1:1:1] [Server thread/INFO] [STDERR]: [java.lang.ThreadGroup:uncaughtException:1061]: boom";
        let found = prefix(line).unwrap();
        assert!(found.stderr && found.level == Level::Error);
        assert_eq!(&line[found.message..], "boom");
    }

    #[test]
    fn what_is_no_prefix() {
        for line in [
            "",
            "\tat a.B.c(B.java:1)",
            "java.lang.Error: x",
            "[Plugin] hi",
            "12 apples",
            "[",
            "[x",
            "Error: y",
            "Time: 1/2/3",
        ] {
            assert_eq!(prefix(line), None, "{line}");
        }
    }
}
