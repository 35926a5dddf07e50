//! `mirror` and `gc`: copies of a store, and what is left over in one.

use std::cell::Cell as Told;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use zlh_catalog::PublicKey;

use crate::cli::{Gc, Mirror};
use crate::commands::catalog;
use crate::depot::{self, Depot, PROGRESS};
use crate::exit::{Exit, Hint};
use crate::printer::{Format, Printer};
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) async fn mirror(options: &Mirror, printer: Printer) -> Result<Exit> {
    let url = url(&options.source)?;
    let keys: Vec<PublicKey> = options.keys.iter().map(|key| catalog::public(key)).collect::<Result<_>>()?;
    if keys.is_empty() {
        printer.warning("the signature is copied and not checked: give the agents' key with --key");
    }
    let (began, told) = (Instant::now(), Told::new(Instant::now()));
    let copied = depot::copy(
        &url,
        &options.dest,
        &keys,
        options.jobs.into(),
        options.publish_agent,
        |done, all, bytes| {
            if told.get().elapsed() > PROGRESS && done < all {
                told.set(Instant::now());
                printer.note(&format!("{done} of {all} files, {} fetched", units::bytes(bytes)));
            }
        },
    )
    .await?;
    if matches!(printer.format, Format::Json | Format::Yaml) {
        printer.document(&json!({
            "serial": copied.serial, "files": copied.files, "bytes": copied.bytes,
            "fetched": copied.fetched, "fetchedBytes": copied.fetched_bytes,
        }))?;
    }
    printer.note(&format!(
        "catalog {}: {} files ({}), {} of them fetched ({}) in {}",
        copied.serial,
        copied.files,
        units::bytes(copied.bytes),
        copied.fetched,
        units::bytes(copied.fetched_bytes),
        units::duration(began.elapsed()),
    ));
    Ok(Exit::Ok)
}

/// A folder as a URL; a URL as it is.
fn url(source: &str) -> Result<String> {
    if source.contains("://") {
        return Ok(source.to_owned());
    }
    if !Path::new(source).is_dir() {
        return Err(anyhow!("`{source}` is no folder")).hint("give a folder, or http://HOST:PORT");
    }
    let path = std::path::absolute(source).with_context(|| format!("cannot find `{source}`"))?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte);
    let encode = |byte: u8| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    let encoded: String = path.to_string_lossy().bytes().map(encode).collect();
    Ok(format!("file://{encoded}"))
}

pub(crate) fn gc(options: &Gc, printer: Printer) -> Result<Exit> {
    let depot = Depot::open(&options.store)?;
    let found = depot::garbage(&depot, options.grace)?;
    if !options.dry_run {
        depot::collect(&depot, &found)?;
    }
    let bytes = found.iter().map(|one| one.size).sum();
    match printer.format {
        Format::Json | Format::Yaml => printer.document(&json!({
            "removed": !options.dry_run, "bytes": bytes,
            "files": found.iter().map(|one| json!({ "path": one.path, "size": one.size, "ageSeconds": one.age.as_secs() })).collect::<Vec<_>>(),
        }))?,
        Format::Name => {
            for one in &found {
                printer.line(&one.path)?;
            }
        }
        Format::Table | Format::Wide if found.is_empty() => {}
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["FILE", "SIZE", "AGE"]);
            for one in &found {
                table.row(vec![
                    Cell::new(&one.path),
                    Cell::new(units::bytes(one.size)),
                    Cell::new(units::age(one.age)),
                ]);
            }
            printer.table(&table)?;
        }
    }
    let verb = if options.dry_run { "would be removed" } else { "removed" };
    let grace = units::duration(options.grace);
    printer.note(&match found.len() {
        0 => format!("the catalog names every file that is older than {grace}"),
        1 => format!("1 file ({}) {verb}", units::bytes(bytes)),
        count => format!("{count} files ({}) {verb}", units::bytes(bytes)),
    });
    Ok(Exit::Ok)
}
