//! `zlhctl catalog`: keys and signatures, and what a catalog says.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use zlh_catalog::{Catalog, CatalogError, DifferenceKind, KeyList, PublicKey, SecretKey, SignatureError};

use crate::atomic;
use crate::cli::CatalogCommand;
use crate::depot::{CATALOG, Chain, Depot, SIGNATURE};
use crate::exit::{Exit, Hint};
use crate::printer::{Format, Paint, Printer};
use crate::ui::table::{Cell, Table};
use crate::ui::units;

pub(crate) fn run(command: CatalogCommand, printer: Printer) -> Result<Exit> {
    match command {
        CatalogCommand::Keygen { out } => {
            let key = generate(&out)?;
            printer
                .note(&format!("the secret key is in `{}`: keep it off the artifact server", out.display()));
            printer.note("agents are given the public key:");
            printer.line(&key.public()?.to_string())?;
        }
        CatalogCommand::Sign { file, key } => {
            let signature = sign(&file, &load(&key)?)?;
            printer.note(&format!("signed: `{}`", signature.display()));
        }
        CatalogCommand::Rotate { store, key, add, drop } => {
            let list = rotate(&store, &load(&key)?, &add, &drop)?;
            printer.note(&format!("agents trust from `{}` on:", KeyList::path(list.serial)));
            for key in &list.keys {
                printer.line(&key.to_string())?;
            }
        }
        CatalogCommand::Schema => printer.data(zlh_catalog::SCHEMA_JSON)?,
        CatalogCommand::Lint { file, strict } => return lint(&file, strict, printer),
        CatalogCommand::Show { file } => show(&open(&file)?, printer)?,
        CatalogCommand::Diff { old, new } => differences(&open(&old)?, &open(&new)?, printer)?,
    }
    Ok(Exit::Ok)
}

/// The next list of keys, written and signed.
fn rotate(store: &Path, key: &SecretKey, add: &[String], drop: &[String]) -> Result<KeyList> {
    let depot = Depot::open(store)?;
    let mine = key.public()?;
    // Whom agents were configured to trust is not known here.
    let mut lists = Chain::from(&[]);
    loop {
        let (path, signed) = lists.next();
        let path = depot.root().join(path);
        if !path.exists() {
            break;
        }
        let bytes = read(&path, MAX_CATALOG_BYTES)?;
        let signature = read(&depot.root().join(signed), MAX_KEY_BYTES)?;
        lists.take(&bytes, &signature).with_context(|| format!("`{}`", path.display()))?;
    }
    let serial = lists.serial();
    let mut keys = match lists.keys() {
        [] => vec![mine.clone()],
        keys => keys.to_vec(),
    };
    if !keys.contains(&mine) {
        return Err(anyhow!("the key {} is not in list {serial}: agents do not trust it", mine.id()))
            .hint("sign with a key of the last list");
    }
    for text in add {
        let key = public(text)?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    for text in drop {
        let key = public(text)?;
        if !keys.contains(&key) {
            return Err(anyhow!("the key {} is not in the list", key.id())).hint("leave --drop out");
        }
        keys.retain(|one| *one != key);
    }
    if keys.is_empty() {
        return Err(anyhow!("no key would be left")).hint("add another one first");
    }
    let list = KeyList { serial: serial + 1, keys };
    if !drop.is_empty() {
        still_signed(&depot, &list)?;
    }
    let (text, path) = (list.to_json(), store.join(KeyList::path(list.serial)));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    let cannot = || format!("cannot write `{}`", path.display());
    let mut signed = path.clone().into_os_string();
    signed.push(".minisig");
    // The signature first: agents look for the list.
    atomic::write_public(Path::new(&signed), key.sign(text.as_bytes(), list.serial)?.as_bytes())
        .with_context(cannot)?;
    atomic::write_public(&path, text.as_bytes()).with_context(cannot)?;
    Ok(list)
}

/// Refuses a list that leaves out whoever signed the catalog.
fn still_signed(depot: &Depot, list: &KeyList) -> Result<()> {
    let (catalog, signature) = (depot.root().join(CATALOG), depot.root().join(SIGNATURE));
    if !signature.exists() {
        return Ok(());
    }
    let bytes = read(&catalog, MAX_CATALOG_BYTES)?;
    let signature = String::from_utf8_lossy(&read(&signature, MAX_KEY_BYTES)?).into_owned();
    match zlh_catalog::open_signed(&bytes, &signature, &list.keys) {
        Err(CatalogError::Signature(SignatureError::OtherKey { got, .. })) => Err(anyhow!(
            "{CATALOG} is signed by key {got}, which the new list leaves out: every agent would refuse it"
        ))
        .hint(format!(
            "sign it first with a key that stays: zlhctl catalog sign {} --key FILE",
            catalog.display()
        )),
        _ => Ok(()),
    }
}

/// A public key, or the file that holds it.
pub(crate) fn public(text: &str) -> Result<PublicKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let content = fs::read_to_string(text)
        .with_context(|| format!("`{text}` is no public key, and no file that holds one"))?;
    Ok(content.parse()?)
}

fn open(file: &Path) -> Result<Catalog> {
    Catalog::parse(&read(file, MAX_CATALOG_BYTES)?).with_context(|| format!("`{}`", file.display()))
}

fn lint(file: &Path, strict: bool, printer: Printer) -> Result<Exit> {
    let (catalog, found) = zlh_catalog::lint(&read(file, MAX_CATALOG_BYTES)?, jiff::Timestamp::now());
    match printer.format {
        Format::Json | Format::Yaml => {
            let remarks =
                found.iter().map(|one| json!({ "fatal": one.fatal, "at": one.at, "what": one.what }));
            printer.document(&json!({ "ok": catalog.is_some(), "remarks": remarks.collect::<Vec<_>>() }))?;
        }
        Format::Table | Format::Wide | Format::Name => {
            let mut table = Table::new(&["LEVEL", "AT", "WHAT"]);
            for one in &found {
                let (word, paint) = if one.fatal { ("refused", Paint::Bad) } else { ("remark", Paint::Busy) };
                table.row(vec![Cell::painted(word, paint), Cell::new(&one.at), Cell::new(&one.what)]);
            }
            if !found.is_empty() {
                printer.table(&table)?;
            }
            match &catalog {
                Some(catalog) => printer.note(&format!(
                    "agents take it: serial {}, {} entries",
                    catalog.serial,
                    catalog.entries().len()
                )),
                None => printer.note("agents would refuse it"),
            }
        }
    }
    Ok(if catalog.is_none() || (strict && !found.is_empty()) { Exit::Failed } else { Exit::Ok })
}

fn show(catalog: &Catalog, printer: Printer) -> Result<()> {
    if matches!(printer.format, Format::Json | Format::Yaml) {
        return printer.document(&serde_json::to_value(catalog)?);
    }
    let mut table = Table::new(&["ENTRY", "FILES", "SIZE", "SHA-256"]);
    for entry in catalog.entries() {
        let size = entry.files.iter().map(|file| file.artifact.size).sum();
        let hash = entry.files.first().map(|file| file.artifact.sha256.to_string()).unwrap_or_default();
        let hash =
            if matches!(printer.format, Format::Wide) { hash } else { hash.chars().take(12).collect() };
        table.row(vec![
            Cell::new(&entry.name),
            Cell::new(entry.files.len().to_string()),
            Cell::new(units::bytes(size)),
            Cell::painted(hash, Paint::Dim),
        ]);
    }
    printer.table(&table)?;
    let ends = catalog.expires.map_or("it never expires".to_owned(), |at| format!("it expires on {at:.0}"));
    printer.note(&format!("serial {}, issued {:.0}; {ends}", catalog.serial, catalog.issued));
    Ok(())
}

fn differences(old: &Catalog, new: &Catalog, printer: Printer) -> Result<()> {
    let found = zlh_catalog::diff(old, new);
    let word = |kind| match kind {
        DifferenceKind::Added => ("added", Paint::Good),
        DifferenceKind::Removed => ("removed", Paint::Bad),
        DifferenceKind::Changed => ("changed", Paint::Busy),
    };
    if matches!(printer.format, Format::Json | Format::Yaml) {
        let all = found.iter().map(
            |one| json!({ "kind": word(one.kind).0, "at": one.at, "what": one.what, "danger": one.danger }),
        );
        return printer.document(&json!({ "differences": all.collect::<Vec<_>>() }));
    }
    if found.is_empty() {
        printer.note("they have the same entries with the same bytes");
        return Ok(());
    }
    let mut table = Table::new(&["WHAT", "ENTRY", "DETAILS"]);
    for one in &found {
        let (kind, paint) = word(one.kind);
        let details = match one.danger {
            Some(danger) => Cell::painted(format!("{}: {danger}", one.what), Paint::Bad),
            None => Cell::new(&one.what),
        };
        table.row(vec![Cell::painted(kind, paint), Cell::new(&one.at), details]);
    }
    Ok(printer.table(&table)?)
}

/// Makes a secret key in a file of its own; an existing one is never replaced.
pub(crate) fn generate(path: &Path) -> Result<SecretKey> {
    let key = SecretKey::generate()?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(anyhow!("`{}` exists", path.display()))
                .hint("agents trust it: move it away yourself if it is to be replaced");
        }
        other => other.with_context(|| format!("cannot write `{}`", path.display()))?,
    };
    file.write_all(key.to_string().as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(key)
}

/// Reads a secret key, which must be the operator's alone.
pub(crate) fn load(path: &Path) -> Result<SecretKey> {
    let shown = || format!("cannot read `{}`", path.display());
    let mode = fs::metadata(path)
        .with_context(shown)
        .hint("`zlhctl catalog keygen` makes a key")?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(anyhow!("others may read the secret key `{}` (mode {mode:04o})", path.display()))
            .hint(format!("run `chmod 600 {}`", path.display()));
    }
    let text = String::from_utf8(read(path, MAX_KEY_BYTES)?)?;
    text.parse().with_context(|| format!("`{}`", path.display()))
}

/// Signs what agents would accept, and nothing else.
pub(crate) fn sign(file: &Path, key: &SecretKey) -> Result<PathBuf> {
    let bytes = read(file, MAX_CATALOG_BYTES)?;
    let catalog = Catalog::parse(&bytes).with_context(|| format!("`{}`", file.display()))?;
    let mut path = file.as_os_str().to_owned();
    path.push(".minisig");
    let path = PathBuf::from(path);
    atomic::write_public(&path, key.sign(&bytes, catalog.serial)?.as_bytes())
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    if bytes.len() as u64 > limit {
        return Err(anyhow!("`{}` is larger than {limit} bytes", path.display()));
    }
    Ok(bytes)
}

const MAX_KEY_BYTES: u64 = 4096;
const MAX_CATALOG_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const CATALOG: &str = r#"{"schema":1,"serial":7,"issued":"2026-01-02T03:04:05Z"}"#;

    #[test]
    fn what_was_signed_opens_with_the_public_key() {
        let folder = tempfile::tempdir().unwrap();
        let (key, file) = (folder.path().join("key"), folder.path().join("catalog.json"));
        let public = generate(&key).unwrap().public().unwrap();
        fs::write(&file, CATALOG).unwrap();
        let signature = fs::read_to_string(sign(&file, &load(&key).unwrap()).unwrap()).unwrap();
        assert_eq!(zlh_catalog::open_signed(CATALOG.as_bytes(), &signature, &[public]).unwrap().serial, 7);
    }

    #[test]
    fn refusals() {
        let folder = tempfile::tempdir().unwrap();
        let (key, file) = (folder.path().join("key"), folder.path().join("catalog.json"));
        assert!(load(&key).is_err());
        let secret = generate(&key).unwrap();
        assert!(generate(&key).unwrap_err().to_string().contains("exists"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&key).unwrap_err().to_string().contains("0640"));
        fs::write(&file, "{}").unwrap();
        assert!(sign(&file, &secret).is_err());
        assert!(!folder.path().join("catalog.json.minisig").exists());
    }
}
