//! `zlhctl artifacts`: what goes into a store, how it is served, and the proof that it holds what
//! its catalog says.

mod edit;
mod import;
mod junit;
mod proof;
mod upkeep;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use zlh_artifacts::{Limits, Pack, Store, pack_dir};
use zlh_catalog::{Expiry, MediaType, PublicKey};

use self::proof::{Found, Proof, Source};
use crate::cli::{ArtifactsCommand, Verify};
use crate::commands::catalog;
use crate::exit::{Exit, Hint};
use crate::printer::{Format, Paint, Printer};
use crate::serve::Server;
use crate::ui::progress::Progress;
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) async fn run(command: ArtifactsCommand, printer: Printer) -> Result<Exit> {
    match command {
        ArtifactsCommand::Serve { dir, listen } => serve(&dir, listen, printer).await,
        ArtifactsCommand::Pack { dir, out } => pack(&dir, &out, printer),
        ArtifactsCommand::Verify(options) => verify(&options, printer).await,
        ArtifactsCommand::Add(options) => blocking(move || edit::add(&options, printer)).await,
        ArtifactsCommand::Import(options) => import::run(&options, printer).await,
        ArtifactsCommand::Promote(options) => blocking(move || edit::promote(&options, printer)).await,
        ArtifactsCommand::Deprecate(options) => blocking(move || edit::deprecate(&options, printer)).await,
        ArtifactsCommand::Withdraw(options) => blocking(move || edit::withdraw(&options, printer)).await,
        ArtifactsCommand::Sign(options) => blocking(move || edit::sign(&options, printer)).await,
        ArtifactsCommand::Mirror(options) => upkeep::mirror(&options, printer).await,
        ArtifactsCommand::Gc(options) => blocking(move || upkeep::gc(&options, printer)).await,
    }
}

/// Files are read and written off the threads that serve the network.
async fn blocking(work: impl FnOnce() -> Result<Exit> + Send + 'static) -> Result<Exit> {
    tokio::task::spawn_blocking(work).await?
}

async fn serve(dir: &Path, listen: SocketAddr, printer: Printer) -> Result<Exit> {
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

/// An archive of a folder, and its entry.
fn pack(dir: &Path, out: &Path, printer: Printer) -> Result<Exit> {
    let name = out.to_string_lossy();
    let media_type = if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        MediaType::TarGz
    } else if name.ends_with(".tar.zst") {
        MediaType::TarZst
    } else {
        return Err(anyhow!("`{name}` is neither a .tar.gz nor a .tar.zst"))
            .hint("the end of the name says how it is compressed");
    };
    let packed = pack_dir(&Pack { src: dir, out, media_type, level: None, exclude: &|_| false })?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let store = Store::open(folder.path().join("store"))?;
    let inspected = store.inspect(out, media_type, 0, &[], &Limits::default())?;
    printer.document(&json!({
        "path": name, "size": packed.size, "sha256": packed.sha256, "media_type": media_type,
        "tree_sha256": inspected.tree_sha256,
    }))?;
    printer.note(&format!("{} entries; `path` has to be the one below the store", packed.entries));
    Ok(Exit::Ok)
}

/// Every file of a catalog, on the server itself: the gate of a publication.
async fn verify(options: &Verify, printer: Printer) -> Result<Exit> {
    let source = Source::new(&options.source)?;
    let keys: Vec<PublicKey> = options.keys.iter().map(|key| catalog::public(key)).collect::<Result<_>>()?;
    let report = |found: &[Found], warnings: &[String]| match &options.junit {
        None => Ok(()),
        Some(path) => crate::atomic::write_public(path, junit::report(found, warnings).as_bytes())
            .with_context(|| format!("cannot write `{}`", path.display())),
    };
    let catalog = match source.catalog(&keys).await {
        Ok(catalog) => catalog,
        Err(error) => {
            report(&[Found::of_catalog(crate::exit::message(&error))], &[])?;
            return Err(error);
        }
    };
    let mut warnings = Vec::new();
    if keys.is_empty() {
        warnings.push("the signature was not checked: give the agents' key with --key".to_owned());
    }
    let too_old = match catalog.expiry(jiff::Timestamp::now()) {
        Expiry::TooOld(at) => Some(Found::of_catalog(format!(
            "it expired on {at:.0}, more than a week ago: agents install nothing new from it; publish it anew"
        ))),
        Expiry::Expired(at) => {
            warnings.push(format!("the catalog expired on {at:.0}: publish it anew within a week of that"));
            None
        }
        Expiry::Current => None,
    };
    warnings.iter().for_each(|text| printer.warning(text));
    let proof = Proof { source, run: options.run, jobs: options.jobs.into() };
    let line = Progress::new(printer).line("verify");
    line.text("reading the files");
    let mut found = proof.all(&catalog, |done, all| line.files("reading the files", done, all)).await?;
    line.clear();
    found.extend(too_old);
    report(&found, &warnings)?;
    let bad = found.iter().filter(|one| one.defect.is_some()).count();
    match printer.format {
        Format::Json | Format::Yaml => printer.document(&json!({
            "serial": catalog.serial,
            "signed": !keys.is_empty(),
            "expires": catalog.expires,
            "ok": bad == 0,
            "warnings": warnings,
            "files": found.iter().map(document).collect::<Vec<_>>(),
        }))?,
        Format::Name => {
            for one in found.iter().filter(|one| one.defect.is_some()) {
                printer.line(&one.path)?;
            }
        }
        Format::Table | Format::Wide => {
            printer.table(&table(&found))?;
            let bytes = units::bytes(found.iter().map(|one| one.size).sum());
            match bad {
                0 => printer.note(&format!("all {} files ({bytes}) are as the catalog says", found.len())),
                bad => printer.note(&format!("agents would refuse {bad} of {} files", found.len())),
            }
        }
    }
    Ok(if bad == 0 { Exit::Ok } else { Exit::Failed })
}

fn document(one: &Found) -> serde_json::Value {
    json!({
        "path": one.path, "entries": one.entries, "size": one.size, "sha256": one.sha256,
        "ok": one.defect.is_none(), "defect": one.defect, "seconds": one.took.as_secs_f64(),
    })
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new(&["RESULT", "FILE", "SIZE", "FOR"]);
    for one in found {
        match &one.defect {
            None => table.row(vec![
                Cell::painted("good", Paint::Good),
                Cell::new(&one.path),
                Cell::new(units::bytes(one.size)),
                Cell::new(one.entries.join(", ")),
            ]),
            Some(why) => table.remark(
                vec![Cell::painted("refused", Paint::Bad), Cell::new(&one.path)],
                Cell::painted(format!("{why} (for {})", one.entries.join(", ")), Paint::Bad),
            ),
        }
    }
    table
}
