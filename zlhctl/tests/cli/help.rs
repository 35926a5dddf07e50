//! Every help page as it is shown. After a wanted change:
//! `UPDATE_GOLDENS=1 cargo nextest run -p zlhctl help`.

use std::path::Path;
use std::process::Command;

const PAGES: &[&str] = &[
    "",
    "status",
    "get",
    "start",
    "stop",
    "restart",
    "configure",
    "console",
    "send",
    "logs",
    "wait",
    "players",
    "history",
    "operations",
    "fleet",
    "fleet add",
    "shell",
    "shells",
    "shells list",
    "shells close",
    "runtimes",
    "runtimes list",
    "runtimes install",
    "runtimes verify",
    "runtimes repair",
    "runtimes upgrade",
    "runtimes rollback",
    "runtimes remove",
    "runtimes gc",
    "addons",
    "addons list",
    "addons install",
    "addons verify",
    "addons repair",
    "addons upgrade",
    "addons rollback",
    "addons remove",
    "addons gc",
    "game",
    "game version",
    "game upgrade",
    "game rollback",
    "game verify",
    "game repair",
    "game remove",
    "game remove-copy",
    "game gc",
    "agent",
    "agent status",
    "agent update",
    "catalog",
    "catalog keygen",
    "catalog sign",
    "catalog rotate",
    "catalog lint",
    "catalog show",
    "catalog diff",
    "catalog schema",
    "artifacts",
    "artifacts pack",
    "artifacts serve",
    "artifacts verify",
    "artifacts add",
    "artifacts import",
    "artifacts promote",
    "artifacts deprecate",
    "artifacts withdraw",
    "artifacts sign",
    "artifacts mirror",
    "artifacts gc",
    "demo",
    "completions",
];

#[test]
fn pages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    let mut stale = Vec::new();
    for page in PAGES {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zlhctl"));
        let output = command
            .args(page.split_whitespace())
            .arg("--help")
            .env_clear()
            .env("COLUMNS", "80")
            .output()
            .unwrap();
        assert!(output.status.success(), "{page}");
        let shown = String::from_utf8(output.stdout).unwrap();
        let file = folder.join(format!(
            "{}.txt",
            if page.is_empty() { "zlhctl".to_owned() } else { page.replace(' ', "-") }
        ));
        if update {
            std::fs::write(&file, &shown).unwrap();
        } else if std::fs::read_to_string(&file).unwrap_or_default() != shown {
            stale.push(format!("{}\n{shown}", file.display()));
        }
    }
    assert!(stale.is_empty(), "run with UPDATE_GOLDENS=1 if this is wanted:\n{}", stale.join("\n"));
}
