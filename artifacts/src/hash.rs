//! SHA-256 on the way through.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use sha2::Digest;
use zlh_catalog::Sha256;

/// Counts and hashes what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: sha2::Sha256,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), bytes: 0 }
    }

    /// Counts and hashes what is there already.
    pub(crate) fn hash_only(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The writer, the number of bytes and their hash.
    pub fn finish(self) -> (W, u64, Sha256) {
        (self.inner, self.bytes, Sha256::from_bytes(self.hasher.finalize().into()))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.hasher.update(&buf[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hash of what is in memory.
pub(crate) fn hash_bytes(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// Size in bytes and hash of a file. Blocks.
pub fn hash_file(path: &Path) -> io::Result<(u64, Sha256)> {
    hash_reader(File::open(path)?)
}

pub(crate) fn hash_reader(mut reader: impl io::Read) -> io::Result<(u64, Sha256)> {
    let mut hasher = HashingWriter::new(io::sink());
    let mut buffer = vec![0; 128 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            read => hasher.write_all(&buffer[..read])?,
        }
    }
    let (_, bytes, sha256) = hasher.finish();
    Ok((bytes, sha256))
}
