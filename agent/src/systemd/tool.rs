//! A program of systemd's: a clean environment, a deadline, a ceiling on what it may say.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// A program at its fixed place: `PATH` is not asked.
#[derive(Debug, Clone)]
pub(crate) struct Tool(PathBuf);

/// Why a tool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// It could not be run.
    #[error("{} cannot be run", tool.display())]
    Run {
        /// The program.
        tool: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error("{} did not end within {limit:?}", tool.display())]
    Late {
        /// The program.
        tool: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// It said no.
    #[error("{} failed ({status}): {said}", tool.display())]
    Failed {
        /// The program.
        tool: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// Its first words on standard error, on one line.
        said: String,
    },
}

impl Tool {
    /// Looks where distributions put it.
    pub(super) fn find(name: &str) -> Option<Self> {
        let places = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
        places.into_iter().find(|path| path.is_file()).map(Self)
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A command that runs it, with nothing inherited but what the caller adds.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        command.env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    /// Runs it and answers how it ended and what it said.
    pub(super) async fn output(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<(ExitStatus, String), ToolError> {
        let (status, said, _) = self.finish(arguments, limit).await?;
        Ok((status, said))
    }

    /// Runs it; anything but success is an error with its own words.
    pub(crate) async fn succeed(
        &self,
        arguments: &[impl AsRef<OsStr>],
        limit: Duration,
    ) -> Result<(), ToolError> {
        let (status, _, complaint) = self.finish(arguments, limit).await?;
        if status.success() {
            return Ok(());
        }
        Err(ToolError::Failed { tool: self.0.clone(), status, said: one_line(&complaint) })
    }

    async fn finish(
        &self,
        arguments: &[impl AsRef<OsStr>],
        limit: Duration,
    ) -> Result<(ExitStatus, String, String), ToolError> {
        let run = |source| ToolError::Run { tool: self.0.clone(), source };
        let mut child = self
            .command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(run)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let ended = async { tokio::join!(child.wait(), words(out), words(err)) };
        match tokio::time::timeout(limit, ended).await {
            Ok((status, out, err)) => Ok((status.map_err(run)?, out, err)),
            Err(_) => Err(ToolError::Late { tool: self.0.clone(), limit }),
        }
    }
}

/// The first [`MAX_WORDS`] bytes; the rest is read and dropped, so that nobody blocks on it.
async fn words(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0_u8; 1024];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        let room = MAX_WORDS.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect()
}

const MAX_WORDS: usize = 4096;
const MAX_LINE: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Tool {
        Tool::find("sh").unwrap()
    }

    #[tokio::test]
    async fn words_are_bounded_and_failures_carry_them() {
        let flood = "i=0; while [ $i -lt 3000 ]; do echo 0123456789; i=$((i+1)); done";
        let (status, said) = shell().output(&["-c", flood], Duration::from_secs(20)).await.unwrap();
        assert!(status.success());
        assert_eq!(said.len(), MAX_WORDS);
        let error =
            shell().succeed(&["-c", "echo no  way >&2; exit 3"], Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(&error, ToolError::Failed { said, .. } if said == "no way"), "{error}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended() {
        let limit = Duration::from_millis(50);
        let error = shell().succeed(&["-c", "exec sleep 60"], limit).await.unwrap_err();
        assert!(matches!(error, ToolError::Late { .. }), "{error}");
    }

    #[tokio::test]
    async fn nothing_of_our_environment_reaches_it() {
        let (_, said) = shell()
            .output(&["-c", "echo ${CARGO_MANIFEST_DIR-unset}"], Duration::from_secs(20))
            .await
            .unwrap();
        assert_eq!(said, "unset\n");
    }
}
