//! Archives built byte by byte, so that they can be wrong in every way.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod seeds;
pub(crate) mod zip;

use std::io::Write;
use std::path::Path;

use sha2::Digest;
use zlh_catalog::{Artifact, Id, MediaType, RelPath, Sha256};

/// One raw tar entry.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) size: Option<Vec<u8>>,
    pub(crate) content: Vec<u8>,
}

pub(crate) fn raw(kind: u8, name: impl AsRef<[u8]>) -> Raw {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    Raw { name: name.as_ref().to_vec(), link: Vec::new(), kind, mode, size: None, content: Vec::new() }
}

pub(crate) fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Raw {
    Raw { content: content.as_ref().to_vec(), ..raw(b'0', name) }
}

pub(crate) fn dir(name: &str) -> Raw {
    raw(b'5', name)
}

pub(crate) fn link(kind: u8, name: &str, target: &str) -> Raw {
    Raw { link: target.as_bytes().to_vec(), ..raw(kind, name) }
}

/// A PAX header with these records.
pub(crate) fn pax(kind: u8, records: &[(&str, &str)]) -> Raw {
    let mut content = String::new();
    for (key, value) in records {
        let body = format!(" {key}={value}\n");
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length += 1;
        }
        content += &format!("{length}{body}");
    }
    Raw { content: content.into_bytes(), ..raw(kind, "pax") }
}

impl Raw {
    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn size(mut self, field: impl AsRef<[u8]>) -> Self {
        self.size = Some(field.as_ref().to_vec());
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, b"0030071\x000030071\x00");
        put(124, self.size.as_deref().unwrap_or(format!("{:011o}", self.content.len()).as_bytes()));
        put(136, b"14000000000");
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut out = block.to_vec();
        out.extend(&self.content);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

/// The entries and the end of the archive.
pub(crate) fn tar(entries: &[Raw]) -> Vec<u8> {
    let mut out: Vec<u8> = entries.iter().flat_map(Raw::bytes).collect();
    out.extend([0; 1024]);
    out
}

pub(crate) fn gz(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zst(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

pub(crate) fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn sha256(data: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(data).into())
}

/// A catalog entry that pins exactly these bytes.
pub(crate) fn artifact(path: &str, data: &[u8]) -> Artifact {
    Artifact {
        name: Id::new("server").unwrap(),
        path: RelPath::new(path).unwrap(),
        size: data.len() as u64,
        sha256: sha256(data),
        media_type: MediaType::TarGz,
        tree_sha256: None,
    }
}

/// Every path below a directory with what is there, sorted.
pub(crate) fn listing(root: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                out.push(format!("{shown}/"));
                walk(root, &path, out);
            } else if meta.is_symlink() {
                out.push(format!("{shown} -> {}", std::fs::read_link(&path).unwrap().display()));
            } else {
                out.push(shown);
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out.sort();
    out
}

/// The whole chain of an error.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
