//! The binary as an operator uses it, against an agent that is a small mock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod console;
mod depot;
mod fleet;
mod help;
mod history;
mod import;
mod lifecycle;
mod mock;
mod prepare;
mod status;
mod store;

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a run left behind.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs `zlhctl` with `fleet` as its fleet file, away from this machine's own files.
fn zlhctl(fleet: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zlhctl"));
    command.arg("--fleet").arg(fleet).args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(fleet: &Path, args: &[&str]) -> Ran {
    ran(zlhctl(fleet, args).output().await.unwrap())
}

async fn run_with_input(fleet: &Path, args: &[&str], input: &str) -> Ran {
    let mut command = zlhctl(fleet, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    ran(child.wait_with_output().await.unwrap())
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().expect("ended by a signal"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A fleet file with these agents.
fn fleet(agents: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.toml");
    let text: String = agents
        .iter()
        .map(|(name, url)| {
            format!("[[agents]]\nname = \"{name}\"\nurl = \"{url}\"\nlabels = {{ id = \"{name}\" }}\n")
        })
        .collect();
    std::fs::write(&path, text).unwrap();
    (folder, path)
}
