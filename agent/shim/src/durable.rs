//! Durable files: old or new after a crash, never half; broken ones are noticed.
//!
//! A write goes to a temporary file in the same directory, is synced, renamed
//! over the target, and the directory is synced. Records carry a schema number
//! and the SHA-256 of their body, so that a torn or edited file reads as
//! [`ReadError::Corrupt`], not as something else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::faults::point;

/// Ends the names of temporary files, after the pid of their writer.
const TEMPORARY: &str = ".tmp";

/// The largest record that is read back.
const MAX_RECORD: u64 = 4 << 20;

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// It is not what was written.
    #[error("{path} is damaged: {why}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It was written by a newer version.
    #[error("{path} has schema {found}, this version reads {wanted}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// Found in the file.
        found: u32,
        /// What this version reads.
        wanted: u32,
    },
    /// It could not be opened or read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Envelope<'a> {
    schema: u32,
    sha256: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Replaces `path` with `bytes`, durably, with the given mode.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a durable file needs a directory"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("a durable file needs a name"))?;
    let mut temp_name = std::ffi::OsString::from(".");
    temp_name.push(name);
    temp_name.push(format!(".{}{TEMPORARY}", std::process::id()));
    let temp = dir.join(temp_name);
    let result = write_and_rename(&temp, path, bytes, mode).and_then(|()| sync_dir(dir));
    if result.is_err() {
        // Best effort: whoever [`sweep`]s removes it.
        let _ = fs::remove_file(&temp);
    }
    result
}

fn write_and_rename(temp: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A leftover of the same pid (containers reuse pids) must not lend us its mode.
    match fs::remove_file(temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    point("durable.create")?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temp)?;
    file.write_all(bytes)?;
    point("durable.sync")?;
    file.sync_all()?;
    drop(file);
    point("durable.rename")?;
    fs::rename(temp, path)
}

/// Removes the temporary files that writers who were killed left in `dir`: they carry the pid of
/// one that is no more. Called before one's own first write there: what carries our own pid is of
/// somebody who had it before us.
pub fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let writer = entry.file_name().to_str().and_then(writer_of);
        let Some(pid) = writer else { continue };
        // Who cannot be looked at may live.
        let dead = match crate::process::stat(pid) {
            Ok(stat) => stat.is_dead(),
            Err(error) => error.kind() == io::ErrorKind::NotFound || is_gone(&error),
        };
        if dead || u32::try_from(pid) == Ok(std::process::id()) {
            // Best effort: the next one tries it again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// It ended while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// The pid of whoever writes, or wrote, a temporary file of that name; none if it is no such file.
pub fn writer_of(name: &str) -> Option<i32> {
    name.strip_prefix('.')?.strip_suffix(TEMPORARY)?.rsplit_once('.')?.1.parse().ok()
}

/// Removes a file for good; one that is not there is as good as removed. Needs no room.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes renames and removals in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    point("durable.sync_dir")?;
    File::open(dir)?.sync_all()
}

/// Serialises a record with its envelope.
pub fn encode_record<T: Serialize>(schema: u32, body: &T) -> io::Result<Vec<u8>> {
    let body = RawValue::from_string(serde_json::to_string(body)?)?;
    let envelope = Envelope { schema, sha256: hex_digest(body.get()), body: &body };
    let mut bytes = serde_json::to_vec(&envelope)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Replaces `path` with a record, durably, mode 0600.
pub fn write_record<T: Serialize>(path: &Path, schema: u32, body: &T) -> io::Result<()> {
    write(path, &encode_record(schema, body)?, 0o600)
}

/// Reads a record back.
pub fn read_record<T: DeserializeOwned>(path: &Path, schema: u32) -> Result<T, ReadError> {
    let bytes = read_bounded(path, MAX_RECORD)?;
    decode_record(path, &bytes, schema)
}

/// Decodes a record; zero bytes after it (a preallocated slot) are ignored.
pub fn decode_record<T: DeserializeOwned>(path: &Path, bytes: &[u8], schema: u32) -> Result<T, ReadError> {
    let corrupt = |why: String| ReadError::Corrupt { path: path.to_owned(), why };
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| corrupt("not text".to_owned()))?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|e| corrupt(e.to_string()))?;
    if envelope.sha256 != hex_digest(envelope.body.get()) {
        return Err(corrupt("its checksum does not match".to_owned()));
    }
    if envelope.schema != schema {
        return Err(ReadError::Schema { path: path.to_owned(), found: envelope.schema, wanted: schema });
    }
    serde_json::from_str(envelope.body.get()).map_err(|e| corrupt(e.to_string()))
}

/// Reads a whole file up to a ceiling.
pub fn read_bounded(path: &Path, ceiling: u64) -> Result<Vec<u8>, ReadError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing(path.to_owned()),
        _ => ReadError::Io { path: path.to_owned(), source },
    };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(ceiling + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > ceiling {
        return Err(ReadError::Corrupt {
            path: path.to_owned(),
            why: format!("it is larger than {ceiling} bytes"),
        });
    }
    Ok(bytes)
}

/// Space taken in advance, so that one small record can still be written on a full disk.
#[derive(Debug)]
pub struct Slot {
    file: File,
    size: usize,
}

impl Slot {
    /// Writes `size` zero bytes to `path` and keeps the file open.
    pub fn reserve(path: &Path, size: usize) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        point("slot.reserve")?;
        let zeros = vec![0_u8; size];
        file.write_all_at(&zeros, 0)?;
        file.sync_all()?;
        Ok(Self { file, size })
    }

    /// Overwrites the slot in place.
    pub fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.size {
            return Err(io::Error::other("the record does not fit its slot"));
        }
        // No point that refuses: what is overwritten in place takes no space.
        self.file.write_all_at(bytes, 0)?;
        self.file.sync_all()
    }
}

/// Lower-case hex SHA-256.
fn hex_digest(text: &str) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Body {
        name: String,
        n: u64,
    }

    fn body() -> Body {
        Body { name: "a \"quoted\" \u{1F600} name".to_owned(), n: u64::MAX }
    }

    #[test]
    fn a_record_reads_back_and_every_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        write_record(&path, 1, &body()).unwrap();
        assert_eq!(read_record::<Body>(&path, 1).unwrap(), body());
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[position] ^= 0x01;
            match decode_record::<Body>(&path, &bad, 1) {
                Err(_) => {}
                Ok(read) => panic!("bit 0 of byte {position} flipped unnoticed: {read:?}"),
            }
        }
        for length in 0..good.len() - 1 {
            assert!(decode_record::<Body>(&path, &good[..length], 1).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_newer_schema_is_told_apart_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        write_record(&path, 7, &body()).unwrap();
        assert!(matches!(read_record::<Body>(&path, 1), Err(ReadError::Schema { found: 7, wanted: 1, .. })));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_debris() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        write(&path, b"old", 0o600).unwrap();
        let blocked = dir.path().join("blocked");
        fs::create_dir(&blocked).unwrap();
        fs::write(blocked.join("x"), b"").unwrap();
        assert!(write(&blocked, b"new", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_killed_writers_left_is_removed_and_what_is_being_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (init, own) = (1, std::process::id());
        let keep = [format!(".r.json.{init}.tmp"), ".r.json.tmp".to_owned(), "r.json.7.tmp".to_owned()];
        for name in &keep {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        for pid in [ended.id(), own] {
            fs::write(dir.path().join(format!(".r.json.{pid}.tmp")), b"half").unwrap();
        }
        sweep(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, keep);
    }

    #[test]
    fn a_slot_holds_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot");
        let slot = Slot::reserve(&path, 4096).unwrap();
        slot.fill(&encode_record(1, &body()).unwrap()).unwrap();
        assert_eq!(read_record::<Body>(&path, 1).unwrap(), body());
        assert!(slot.fill(&[b'x'; 5000]).is_err());
    }
}
