//! Zip archives built record by record, so that the records can lie.

use std::io::Write;

/// One raw zip entry. Patches overwrite bytes of its records after they were made.
#[derive(Clone)]
pub(crate) struct Zipped {
    pub(crate) name: Vec<u8>,
    pub(crate) content: Vec<u8>,
    /// 8, or 0 for stored.
    pub(crate) method: u16,
    pub(crate) flags: u16,
    /// The whole of `st_mode`; 0 for none.
    pub(crate) mode: u32,
    pub(crate) dos: u8,
    /// What stands for the compressed content, if it is not that.
    pub(crate) data: Option<Vec<u8>>,
    /// What follows the data.
    pub(crate) after: Vec<u8>,
    pub(crate) local_extra: Vec<u8>,
    pub(crate) central_extra: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    pub(crate) local: Vec<(usize, Vec<u8>)>,
    pub(crate) central: Vec<(usize, Vec<u8>)>,
}

pub(crate) fn zipped(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Zipped {
    Zipped {
        name: name.as_ref().to_vec(),
        content: content.as_ref().to_vec(),
        method: 8,
        flags: UTF8,
        mode: 0o100_644,
        dos: 0,
        data: None,
        after: Vec::new(),
        local_extra: Vec::new(),
        central_extra: Vec::new(),
        comment: Vec::new(),
        local: Vec::new(),
        central: Vec::new(),
    }
}

pub(crate) fn zipped_dir(name: &str) -> Zipped {
    Zipped { method: 0, dos: 0x10, ..zipped(name, "").mode(0o040_755) }
}

pub(crate) fn zipped_link(name: &str, target: &str) -> Zipped {
    zipped(name, target).mode(0o120_777)
}

/// An extra field.
pub(crate) fn extra(id: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&id.to_le_bytes()[..], &length.to_le_bytes(), data].concat()
}

impl Zipped {
    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn stored(mut self) -> Self {
        self.method = 0;
        self
    }

    pub(crate) fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    /// Overwrites bytes of the local header.
    pub(crate) fn local(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.local.push((at, bytes.as_ref().to_vec()));
        self
    }

    /// Overwrites bytes of the record in the directory.
    pub(crate) fn central(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.central.push((at, bytes.as_ref().to_vec()));
        self
    }

    /// Overwrites the same field of both, by its place in the directory's.
    pub(crate) fn both(self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.local(at - 2, bytes.as_ref()).central(at, bytes)
    }

    pub(crate) fn extras(mut self, field: &[u8]) -> Self {
        self.local_extra = field.to_vec();
        self.central_extra = field.to_vec();
        self
    }

    pub(crate) fn packed(&self) -> Vec<u8> {
        match &self.data {
            Some(data) => data.clone(),
            None if self.method == 8 => deflate(&self.content),
            None => self.content.clone(),
        }
    }

    pub(crate) fn crc(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(&self.content);
        crc.sum()
    }

    /// As written in one go: the numbers are behind the data, and not in front.
    pub(crate) fn streamed(mut self) -> Self {
        self.flags |= DESCRIPTOR;
        let numbers = [self.crc(), size(&self.packed()), size(&self.content)];
        self.after =
            b"PK\x07\x08".iter().copied().chain(numbers.into_iter().flat_map(u32::to_le_bytes)).collect();
        self.local(14, [0; 12])
    }

    /// The fields that both records have, from the flags on.
    fn common(&self, extra: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.flags.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0, 0, 0x21, 0x50]);
        out.extend(self.crc().to_le_bytes());
        out.extend(size(&self.packed()).to_le_bytes());
        out.extend(size(&self.content).to_le_bytes());
        out.extend(short(&self.name));
        out.extend(short(extra));
        out
    }

    fn local_bytes(&self) -> Vec<u8> {
        let mut out = b"PK\x03\x04\x14\0".to_vec();
        out.extend(self.common(&self.local_extra));
        out.extend(&self.name);
        out.extend(&self.local_extra);
        patch(&mut out, &self.local);
        out.extend(self.packed());
        out.extend(&self.after);
        out
    }

    fn central_bytes(&self, offset: usize) -> Vec<u8> {
        let mut out = b"PK\x01\x02\x14\x03\x14\0".to_vec();
        out.extend(self.common(&self.central_extra));
        out.extend(short(&self.comment));
        out.extend([0; 4]);
        out.extend((self.mode << 16 | u32::from(self.dos)).to_le_bytes());
        out.extend(u32::try_from(offset).unwrap().to_le_bytes());
        out.extend(&self.name);
        out.extend(&self.central_extra);
        out.extend(&self.comment);
        patch(&mut out, &self.central);
        out
    }
}

fn patch(record: &mut [u8], patches: &[(usize, Vec<u8>)]) {
    for (at, bytes) in patches {
        record[*at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// An archive in its three parts.
#[derive(Clone)]
pub(crate) struct Zip {
    pub(crate) body: Vec<u8>,
    pub(crate) directory: Vec<u8>,
    pub(crate) count: u64,
}

impl Zip {
    pub(crate) fn new(entries: &[Zipped]) -> Self {
        let (mut body, mut directory) = (Vec::new(), Vec::new());
        for entry in entries {
            directory.extend(entry.central_bytes(body.len()));
            body.extend(entry.local_bytes());
        }
        Self { body, directory, count: entries.len() as u64 }
    }

    /// The end record with honest numbers.
    pub(crate) fn end(&self) -> Vec<u8> {
        let count = u16::try_from(self.count).unwrap();
        self.end_with(count, size(&self.directory), size(&self.body))
    }

    pub(crate) fn end_with(&self, count: u16, bytes: u32, start: u32) -> Vec<u8> {
        let mut out = b"PK\x05\x06\0\0\0\0".to_vec();
        out.extend(count.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(bytes.to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend([0, 0]);
        out
    }

    /// The zip64 end record and its locator, with honest numbers.
    pub(crate) fn wide_end(&self) -> Vec<u8> {
        let (start, bytes) = (self.body.len() as u64, self.directory.len() as u64);
        let mut out = b"PK\x06\x06".to_vec();
        out.extend(44_u64.to_le_bytes());
        out.extend([45, 3, 45, 0]);
        out.extend([0; 8]);
        for number in [self.count, self.count, bytes, start] {
            out.extend(number.to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend((start + bytes).to_le_bytes());
        out.extend(1_u32.to_le_bytes());
        out
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.body[..], &self.directory, &self.end()].concat()
    }

    /// With zip64 records, and nothing but ones in the end record.
    pub(crate) fn wide_bytes(&self) -> Vec<u8> {
        let end = self.end_with(u16::MAX, u32::MAX, u32::MAX);
        [&self.body[..], &self.directory, &self.wide_end(), &end].concat()
    }

    /// With zip64 records of which `at` was overwritten; the record is first, the locator
    /// at 56.
    pub(crate) fn wide_lie(&self, at: usize, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let mut wide = self.wide_end();
        patch(&mut wide, &[(at, bytes.as_ref().to_vec())]);
        let end = self.end_with(u16::MAX, u32::MAX, u32::MAX);
        [&self.body[..], &self.directory, &wide, &end].concat()
    }
}

pub(crate) fn zip(entries: &[Zipped]) -> Vec<u8> {
    Zip::new(entries).bytes()
}

pub(crate) fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

fn short(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap().to_le_bytes()
}

pub(crate) const UTF8: u16 = 1 << 11;
pub(crate) const DESCRIPTOR: u16 = 1 << 3;
