//! `zlhctl send`.

use anyhow::Result;

use crate::cli::Send;
use crate::exit::Exit;
use crate::target::Targets;

pub(crate) async fn run(options: &Send, targets: &Targets) -> Result<Exit> {
    let (_, client) = targets.one(&options.one.name)?;
    client.command(&options.command.join(" ")).await?;
    Ok(Exit::Ok)
}
