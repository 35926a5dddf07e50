//! `zlhctl catalog`: keys and signatures.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use zlh_catalog::{Catalog, SecretKey};

use crate::atomic;
use crate::cli::CatalogCommand;
use crate::exit::{Exit, Hint};
use crate::printer::Printer;

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
    }
    Ok(Exit::Ok)
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
