//! `zlhctl artifacts serve`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use crate::exit::Exit;
use crate::printer::Printer;
use crate::serve::Server;

pub(crate) async fn serve(dir: &Path, listen: SocketAddr, printer: Printer) -> Result<Exit> {
    let server = Server::bind(dir, listen).await?;
    printer.note(&format!("serving `{}` at http://{}; ctrl-c ends", dir.display(), server.address()));
    if !dir.join("catalog.json").exists() {
        printer.warning("there is no `catalog.json` in it: agents will find nothing to install");
    }
    tokio::select! {
        () = server.run() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(Exit::Ok)
}
