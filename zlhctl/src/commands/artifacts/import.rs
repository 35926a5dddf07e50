//! `import`: versions from where they are made, verified, into a store.

use std::time::Instant;

use anyhow::{Context, Result};

use super::edit::{Publisher, report};
use crate::cli::Import;
use crate::depot::{Depot, Offer};
use crate::exit::Exit;
use crate::prepare::Preparer;
use crate::printer::Printer;
use crate::ui::units;
use crate::upstream::{self, Wanted, Web};

/// Every version is found, fetched and prepared before the first is entered: one catalog has
/// all of them, or none.
pub(crate) async fn run(options: &Import, printer: Printer) -> Result<Exit> {
    let publisher = Publisher::new(&options.publishing)?;
    let web = Web::new(&options.base_urls)?;
    let mut depot = Depot::open_or_create(&options.store)?;
    let scratch = depot.scratch()?;
    let preparer = Preparer { java: options.java.clone(), patience: options.prepare_timeout };
    let mut fetched = Vec::new();
    for (index, what) in options.what.iter().enumerate() {
        let (name, version) = match what.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (what.as_str(), None),
        };
        let mut found = upstream::find(&web, Wanted { name, version, unstable: options.unstable }).await?;
        let entry = found.item.entry(&found.version);
        let mut path = scratch.path().join(index.to_string());
        let began = Instant::now();
        web.download(name, &found, &path, |_| {}).await.with_context(|| format!("cannot fetch {entry}"))?;
        let size = path.metadata().map_or(0, |meta| meta.len());
        let (size, took) = (units::bytes(size), units::duration(began.elapsed()));
        match &found.checksum {
            Some(checksum) => printer.note(&format!("{entry}: {size} in {took}, {checksum} as published")),
            None => printer.warning(&format!(
                "{entry}: {size} in {took}; its publisher states no checksum, what came is what is pinned"
            )),
        }
        if options.prepare {
            let began = Instant::now();
            let folder = scratch.path().join(format!("{index}.run"));
            let prepared = preparer
                .prepare(&found.item, &found.version, &path, &folder, &depot.catalog)
                .await
                .with_context(|| format!("cannot prepare {entry}"))?;
            if let Some(prepared) = prepared {
                let (entries, took) = (prepared.entries, units::duration(began.elapsed()));
                printer.note(&format!("{entry}: run once, {entries} entries packed in {took}"));
                (found.item, found.file_name, path) = (prepared.item, prepared.file_name, prepared.archive);
            }
        }
        fetched.push((found, path));
    }
    // What servers run on comes first.
    fetched.sort_by_key(|(found, _)| matches!(found.item, crate::depot::Item::Game { .. }));
    let (channel, replace) = (options.channel.clone(), options.replace);
    let entered = tokio::task::spawn_blocking(move || -> Result<_> {
        let mut added = Vec::new();
        for (found, path) in fetched {
            added.push(depot.add(&Offer {
                item: found.item,
                version: &found.version,
                file: &path,
                file_name: &found.file_name,
                channel: channel.as_ref(),
                replace,
            })?);
        }
        drop(scratch);
        publisher.publish(&mut depot, printer)?;
        report(&added, &depot.catalog, printer)
    });
    entered.await?
}
