//! Old segments of a console log are packed when the server is quiet for a moment.

use std::path::PathBuf;
use std::time::Duration;

use slog::{Logger, warn};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use zlh_shim::console_log::pack_one;
use zlh_shim::spec::ConsoleLimits;

/// So long nothing is printed before there is time for it …
const QUIET: Duration = Duration::from_secs(3);

/// … but a server that is never quiet is not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two segments: there is no hurry.
const PAUSE: Duration = Duration::from_millis(100);

/// Packs what there is, then whenever a segment is full, until the log's end is nobody's any more.
pub(crate) async fn pack(dir: PathBuf, mut head: watch::Receiver<u64>, log: Logger) {
    let limits = ConsoleLimits::default();
    let keep = limits.segment_bytes * limits.segments as u64;
    let mut failing = false;
    // The start of an agent has other things to do.
    sleep(QUIET).await;
    loop {
        let full = *head.borrow_and_update() / limits.segment_bytes;
        let folder = dir.clone();
        let packed = tokio::task::spawn_blocking(move || pack_one(&folder, keep)).await;
        match packed {
            Ok(Ok(true)) => {
                failing = false;
                sleep(PAUSE).await;
                // It prints again: the cores are its own.
                if head.has_changed().unwrap_or(false) && !quiet(&mut head).await {
                    return;
                }
                continue;
            }
            // None so far.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(Err(error)) if !failing => {
                failing = true;
                warn!(log, "an old part of the console log cannot be packed; it stays as it is"; "error" => %error);
            }
            _ => {}
        }
        // Until another segment is full, and then until there is time.
        loop {
            if head.changed().await.is_err() {
                return;
            }
            if *head.borrow_and_update() / limits.segment_bytes != full {
                break;
            }
        }
        if !quiet(&mut head).await {
            return;
        }
    }
}

/// Waits until nothing was printed for a while, but not for ever; false when nobody can print any more.
async fn quiet(head: &mut watch::Receiver<u64>) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match timeout(QUIET, head.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return false,
            Err(_) => break,
        }
    }
    true
}
