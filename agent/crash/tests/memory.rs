//! Which memory ran out, when the JVM names it in one line and not in the next.

use zlh_crash::{Analysis, Cause, Class, Evidence, Exit, Text, analyse};

const LAST: &str =
    "Exception: java.lang.OutOfMemoryError thrown from the UncaughtExceptionHandler in thread \"main\"";

fn of(lines: &[&str]) -> Analysis {
    let log = format!(
        "[12:00:00] [Server thread/INFO]: Starting minecraft server version 1.20.1\n{}\n",
        lines.join("\n")
    );
    analyse(&Evidence {
        exit: Some(Exit { code: Some(1), ..Exit::default() }),
        console: vec![Text { name: "console", bytes: log.as_bytes(), first_line: 1 }],
        ..Evidence::default()
    })
}

/// A JVM whose handler of uncaught errors runs out of memory as well says so without naming
/// which. Seen with a full metaspace under load.
#[test]
fn the_line_that_names_the_memory_decides() {
    for (named, cause) in [
        ("Metaspace", Cause::Metaspace),
        (
            "Cannot reserve 8388608 bytes of direct buffer memory (allocated: 0, limit: 1)",
            Cause::DirectMemory,
        ),
        (
            "unable to create native thread: possibly out of memory or process/resource limits reached",
            Cause::NativeThreads,
        ),
        ("Java heap space", Cause::Heap),
    ] {
        let line = format!("Exception in thread \"main\" java.lang.OutOfMemoryError: {named}");
        for lines in [[line.as_str(), LAST], [LAST, line.as_str()]] {
            let found = of(&lines);
            assert_eq!((found.cause, found.certain), (Some(cause), true), "{lines:?}");
        }
    }
}

#[test]
fn alone_it_is_memory_and_no_certainty() {
    let found = of(&[LAST]);
    assert_eq!(found.classification, Some(Class::Oom));
    assert_eq!((found.cause, found.certain), (Some(Cause::Heap), false));
}
