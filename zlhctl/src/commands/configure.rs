//! `zlhctl configure`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::lifecycle;
use crate::cli::Configure;
use crate::exit::{Exit, Hint};
use crate::printer::Printer;
use crate::target::Targets;
use crate::ui::progress::Progress;
use crate::wait::Goal;

pub(crate) async fn run(options: &Configure, targets: &Targets, printer: Printer) -> Result<Exit> {
    let payload = payload(&options.file)?;
    let (target, client) = targets.one(&options.one.name)?;
    let accepted = client.configure(&payload).await.with_context(|| target.name.clone())?;
    let line = Progress::new(printer).line(&target.name);
    if options.waiting.no_wait {
        line.finish(&format!("accepted: {}", accepted.state));
        return Ok(Exit::Ok);
    }
    let operation = accepted.operation.map(|operation| operation.id);
    lifecycle::settle(&client, Goal::Ready, operation, options.waiting.timeout, line)
        .await
        .with_context(|| target.name)?;
    Ok(Exit::Ok)
}

/// Checked here as far as JSON goes; what the fields mean is the agent's to say.
fn payload(file: &Path) -> Result<Value> {
    let shown =
        if file == Path::new("-") { "standard input".to_owned() } else { format!("`{}`", file.display()) };
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {shown}"))?)
    };
    let mut text = Vec::new();
    source
        .take(MAX_PAYLOAD_BYTES + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("cannot read {shown}"))?;
    if text.len() as u64 > MAX_PAYLOAD_BYTES {
        bail!("{shown} is larger than {MAX_PAYLOAD_BYTES} bytes");
    }
    let value: Value = serde_json::from_slice(&text).with_context(|| format!("{shown} is not JSON"))?;
    if value.is_object() {
        return Ok(value);
    }
    Err(anyhow::anyhow!("{shown} is not a JSON object"))
        .hint(r#"for example {"game":"minecraft","variant":"paper","version":"1.21.7"}"#)
}

/// The agent's own limit.
const MAX_PAYLOAD_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("payload.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            payload(&path).map_err(|error| crate::exit::message(&error))
        };
        assert_eq!(read(r#"{"vmid":1}"#).unwrap()["vmid"], 1);
        assert!(read("{\"vmid\":").unwrap_err().contains("line 1"));
        assert!(read("[]").unwrap_err().contains("not a JSON object"));
        assert!(read(&" ".repeat(70_000)).unwrap_err().contains("larger than"));
        assert!(payload(Path::new("/nonexistent")).is_err());
    }
}
