//! `zlhctl wait`.

use anyhow::{Context, Result};

use crate::cli::Wait;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::target::Targets;
use crate::ui::progress::Progress;
use crate::wait;

pub(crate) async fn run(options: &Wait, targets: &Targets, printer: Printer) -> Result<Exit> {
    let (target, client) = targets.one(&options.one.name)?;
    let line = Progress::new(printer).line(&target.name);
    let wait = wait::Wait { goal: options.goal, operation: None, timeout: options.timeout };
    let status = wait.run(&client, |seen| line.seen(seen)).await;
    line.clear();
    let status = status.with_context(|| target.name.clone())?;
    line.finish(if status.ready { "ready" } else { status.state.as_str() });
    Ok(Exit::Ok)
}
