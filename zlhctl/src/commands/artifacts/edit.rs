//! `add`, `promote`, `deprecate`, `withdraw`, `sign`: an operator's edits of a store.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use zlh_catalog::{Catalog, Id, LaunchPlan, Release, STABLE, SecretKey};

use crate::cli::{Add, Promote, Publishing, Reason, SignStore};
use crate::commands::catalog;
use crate::depot::{self, Added, CATALOG, Depot, Item, Offer, Publication};
use crate::exit::{Exit, Hint};
use crate::printer::{Format, Printer};
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) fn add(options: &Add, printer: Printer) -> Result<Exit> {
    let publisher = Publisher::new(&options.publishing)?;
    let (item, version) = item(options)?;
    let mut depot = Depot::open_or_create(&options.store)?;
    let file_name = options.file.file_name().unwrap_or_default().to_string_lossy();
    let added = depot.add(&Offer {
        item,
        version: &version,
        file: &options.file,
        file_name: &file_name,
        channel: options.channel.as_ref(),
        replace: options.replace,
    })?;
    publisher.publish(&mut depot, printer)?;
    report(&[added], &depot.catalog, printer)
}

/// What the options say it is, and its version.
fn item(options: &Add) -> Result<(Item, String)> {
    let version = options.version.clone().unwrap_or_default();
    if let Some(version) = &options.agent {
        return Ok((Item::Agent, version.clone()));
    }
    if let (Some(game), Some(variant)) = (&options.game, &options.variant) {
        let launch = options.launch.as_deref().map(plan).transpose()?;
        let (game, variant, requires) =
            (Id::new(game.as_str())?, Id::new(variant.as_str())?, options.requires.clone());
        return Ok((Item::Game { game, variant, requires, launch, prepared: false }, version));
    }
    let programs = |id: &str| match options.programs.is_empty() {
        true => depot::known_programs(id),
        false => options.programs.clone(),
    };
    let strip = options.strip;
    match (&options.runtime, &options.addon) {
        (Some(id), _) => {
            let programs = programs(id).into_iter().collect();
            Ok((Item::Runtime { id: Id::new(id.as_str())?, strip, programs }, version))
        }
        (None, Some(id)) => {
            let programs = programs(id).into_iter().collect();
            Ok((Item::Addon { id: Id::new(id.as_str())?, strip, programs }, version))
        }
        (None, None) => Err(anyhow!("it is not said what it is")),
    }
}

fn plan(path: &Path) -> Result<Box<LaunchPlan>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("`{}` is no launch plan", path.display()))
}

pub(crate) fn promote(options: &Promote, printer: Printer) -> Result<Exit> {
    let publisher = Publisher::new(&options.publishing)?;
    let mut depot = Depot::open(&options.store)?;
    let release = depot::release(&mut depot.catalog, &options.entry)?;
    if let Some(why) = &release.withdrawn {
        return Err(anyhow!("{} is withdrawn: {why}", options.entry))
            .hint("`zlhctl artifacts withdraw STORE ENTRY --undo` takes that back");
    }
    let mut channels = release.channels.clone();
    if channels.is_empty() {
        channels.insert(Id::new(STABLE)?, 100);
    }
    if let Some(from) = &options.from {
        match channels.get(from) {
            Some(100..) => {}
            Some(part) => {
                return Err(anyhow!("{} has reached {part} % of {from} only", options.entry))
                    .hint(format!("promote it to all of {from} first, or leave --from out"));
            }
            None => {
                return Err(anyhow!("{} is not offered in {from}", options.entry))
                    .hint(format!("it is in: {}", shown(&release.channels)));
            }
        }
    }
    let before = channels.insert(options.to.clone(), options.wave);
    if before.is_some_and(|before| before > options.wave) {
        printer.warning(&format!(
            "the wave was at {} %: containers that have it keep it, others no longer get it",
            before.unwrap_or_default()
        ));
    }
    let all = channels.len() == 1 && channels.iter().all(|(id, part)| id.as_str() == STABLE && *part == 100);
    release.channels = if all { Default::default() } else { channels };
    changed(depot, &options.entry, &publisher, printer)
}

pub(crate) fn deprecate(options: &Reason, printer: Printer) -> Result<Exit> {
    mark(options, printer, |release| &mut release.deprecated)
}

pub(crate) fn withdraw(options: &Reason, printer: Printer) -> Result<Exit> {
    mark(options, printer, |release| &mut release.withdrawn)
}

fn mark(options: &Reason, printer: Printer, field: fn(&mut Release) -> &mut Option<String>) -> Result<Exit> {
    let publisher = Publisher::new(&options.publishing)?;
    let mut depot = Depot::open(&options.store)?;
    *field(depot::release(&mut depot.catalog, &options.entry)?) = options.because.clone();
    changed(depot, &options.entry, &publisher, printer)
}

fn changed(mut depot: Depot, entry: &str, publisher: &Publisher, printer: Printer) -> Result<Exit> {
    depot
        .catalog
        .validate()
        .context("the catalog would not hold together")
        .hint("what needs this version has to go, or get another one, first")?;
    publisher.publish(&mut depot, printer)?;
    let release = depot::release(&mut depot.catalog, entry)?.clone();
    match printer.format {
        Format::Json | Format::Yaml => printer.document(&json!({
            "entry": entry, "channels": channels(&release), "deprecated": release.deprecated,
            "withdrawn": release.withdrawn, "serial": depot.catalog.serial,
        }))?,
        Format::Name => printer.line(entry)?,
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["ENTRY", "CHANNELS", "MARK"]);
            let mark = match (&release.withdrawn, &release.deprecated) {
                (Some(why), _) => format!("withdrawn: {why}"),
                (None, Some(why)) => format!("deprecated: {why}"),
                (None, None) => String::new(),
            };
            table.row(vec![Cell::new(entry), Cell::new(shown(&release.channels)), Cell::new(mark)]);
            printer.table(&table)?;
        }
    }
    Ok(Exit::Ok)
}

fn channels(release: &Release) -> serde_json::Value {
    match release.channels.is_empty() {
        true => json!({ STABLE: 100 }),
        false => json!(release.channels),
    }
}

fn shown(channels: &std::collections::BTreeMap<Id, u8>) -> String {
    if channels.is_empty() {
        return STABLE.to_owned();
    }
    let one = |(id, part): (&Id, &u8)| if *part == 100 { id.to_string() } else { format!("{id} {part} %") };
    channels.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub(crate) fn sign(options: &SignStore, printer: Printer) -> Result<Exit> {
    let key = catalog::load(&options.key)?;
    let mut depot = Depot::open(&options.store)?;
    let missing: Vec<String> = depot.missing();
    if let Some(first) = missing.first() {
        return Err(anyhow!("{} of its files are not in the store, `{first}` for one", missing.len()))
            .hint("`zlhctl artifacts verify STORE` says what is wrong with each");
    }
    match options.expires {
        Some(lifetime) => {
            depot.publish(&Publication {
                key: Some(&key),
                lifetime,
                publish_agent: options.publish_agent,
            })?;
        }
        None => {
            let path = depot.root().join(CATALOG);
            let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            for one in zlh_catalog::lint(&bytes, jiff::Timestamp::now()).1 {
                printer.warning(&format!("{}: {}", one.at, one.what));
            }
            let signature = key.sign(&bytes, depot.catalog.serial)?;
            depot.replace(&bytes, Some(&signature))?;
            depot.write_views(options.publish_agent)?;
        }
    }
    let (serial, id) = (depot.catalog.serial, key.public()?.id());
    if matches!(printer.format, Format::Json | Format::Yaml) {
        printer.document(&json!({ "serial": serial, "expires": depot.catalog.expires, "key": id }))?;
    }
    printer.note(&format!("catalog {serial} signed by {id}, {} entries", depot.catalog.entries().len()));
    stale_manifest(&depot, printer);
    Ok(Exit::Ok)
}

/// How the edited catalog is published; the key is read before anything is done.
pub(super) struct Publisher {
    key: Option<SecretKey>,
    lifetime: Duration,
    publish_agent: bool,
}

impl Publisher {
    pub(super) fn new(options: &Publishing) -> Result<Self> {
        let key = options.key.as_deref().map(catalog::load).transpose()?;
        Ok(Self { key, lifetime: options.expires, publish_agent: options.publish_agent })
    }

    pub(super) fn publish(&self, depot: &mut Depot, printer: Printer) -> Result<()> {
        if !depot.is_changed() && self.key.is_none() && !self.publish_agent {
            printer.note("nothing is different: the catalog stays as it is");
            return Ok(());
        }
        depot.publish(&Publication {
            key: self.key.as_ref(),
            lifetime: self.lifetime,
            publish_agent: self.publish_agent,
        })?;
        let serial = depot.catalog.serial;
        match &self.key {
            Some(key) => printer.note(&format!("catalog {serial} signed by {}", key.public()?.id())),
            None => {
                printer.warning(&format!("catalog {serial} is not signed: agents refuse it"));
                printer.hint(&format!("zlhctl artifacts sign {} --key catalog.key", depot.root().display()));
            }
        }
        stale_manifest(depot, printer);
        Ok(())
    }
}

fn stale_manifest(depot: &Depot, printer: Printer) {
    if depot.manifest_is_stale() {
        printer.warning("agents/manifest.json still says something else: --publish-agent writes it anew");
    }
}

/// What was put in.
pub(super) fn report(added: &[Added], catalog: &Catalog, printer: Printer) -> Result<Exit> {
    match printer.format {
        Format::Json | Format::Yaml => {
            let entries = added.iter().map(|one| {
                json!({ "entry": one.entry, "what": one.what, "file": one.artifact.path,
                        "size": one.artifact.size, "sha256": one.artifact.sha256 })
            });
            printer.document(&json!({ "serial": catalog.serial, "entries": entries.collect::<Vec<_>>() }))?;
        }
        Format::Name => {
            for one in added {
                printer.line(&one.entry)?;
            }
        }
        Format::Table | Format::Wide => {
            let wide = printer.format == Format::Wide;
            let mut table = Table::new(&["ENTRY", "WHAT", "SIZE", "SHA-256", "FILE"]);
            for one in added {
                let hash = one.artifact.sha256;
                table.row(vec![
                    Cell::new(&one.entry),
                    Cell::new(one.what),
                    Cell::new(units::bytes(one.artifact.size)),
                    Cell::new(if wide { hash.to_string() } else { hash.short() }),
                    Cell::new(one.artifact.path.as_str()),
                ]);
            }
            printer.table(&table)?;
        }
    }
    Ok(Exit::Ok)
}
