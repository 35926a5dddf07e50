//! The two records that a zip has for every entry, and what they have to agree on.

use std::io::Read;

use crate::unpack::UnpackError;
use crate::unpack::decode::failure;
use crate::unpack::entry::text;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
}

/// A record of the central directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Central {
    flags: u16,
    pub(super) method: Method,
    pub(super) crc: u32,
    /// Bytes in the archive.
    pub(super) packed: u64,
    /// Bytes after decompression.
    pub(super) size: u64,
    /// Of the local header.
    pub(super) offset: u64,
    attributes: u32,
    name: Vec<u8>,
}

/// The header in front of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    /// Whether it has zip64 numbers; the descriptor then has them too.
    pub(super) wide: bool,
    name: Vec<u8>,
}

impl Central {
    pub(super) fn read(input: &mut impl Read) -> Result<Self, UnpackError> {
        let head: [u8; 46] = array(input)?;
        if head[..4] != *b"PK\x01\x02" {
            return Err(damaged("its directory has no record where one has to be"));
        }
        let name = bytes(input, u16_at(&head, 28))?;
        let extra = bytes(input, u16_at(&head, 30))?;
        let shown = String::from_utf8_lossy(&name);
        if u16_at(&head, 32) != 0 {
            return Err(UnpackError::refused(&shown, "it has a comment"));
        }
        if u16_at(&head, 34) != 0 {
            return Err(UnpackError::refused(&shown, "it is on another disk"));
        }
        let flags = u16_at(&head, 8);
        check_flags(&shown, flags)?;
        let method = match u16_at(&head, 10) {
            STORED => Method::Stored,
            DEFLATED => Method::Deflated,
            other => {
                let why = format!("its compression method {other} is not known");
                return Err(UnpackError::refused(&shown, why));
            }
        };
        let mut wide = Wide::of(&shown, &extra)?;
        let (size, packed) = (wide.widen(u32_at(&head, 24))?, wide.widen(u32_at(&head, 20))?);
        let offset = wide.widen(u32_at(&head, 42))?;
        wide.finish()?;
        if method == Method::Stored && size != packed {
            return Err(UnpackError::refused(&shown, "it is stored but its two sizes differ"));
        }
        let crc = u32_at(&head, 16);
        Ok(Self { flags, method, crc, packed, size, offset, attributes: u32_at(&head, 38), name })
    }

    /// The name, which is UTF-8 by its flag, or ASCII.
    pub(super) fn path(&self) -> Result<String, UnpackError> {
        let path = text(self.name.clone())?;
        if self.flags & UTF8 == 0 && !path.is_ascii() {
            return Err(UnpackError::refused(&path, "its name is not ASCII and not marked as UTF-8"));
        }
        Ok(path)
    }

    pub(super) fn has_descriptor(&self) -> bool {
        self.flags & DESCRIPTOR != 0
    }

    /// The file type of Unix attributes, `None` without them.
    pub(super) fn unix_type(&self) -> Option<u32> {
        Some(self.unix_mode() & 0o170_000).filter(|kind| *kind != 0)
    }

    /// Permission bits; those of a plain file where the archive says nothing.
    pub(super) fn mode(&self) -> u64 {
        match self.unix_mode() {
            0 => 0o644,
            mode => (mode & 0o7777).into(),
        }
    }

    pub(super) fn is_dos_dir(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// Bytes of both headers: they count like those of a tar.
    pub(super) fn header_bytes(&self) -> u64 {
        46 + 30 + 2 * self.name.len() as u64
    }

    /// Whatever system the archive says it is from: programs differ in whether they look.
    fn unix_mode(&self) -> u32 {
        self.attributes >> 16
    }

    pub(super) fn check_local(&self, path: &str, local: &Local) -> Result<(), UnpackError> {
        let method = match self.method {
            Method::Stored => STORED,
            Method::Deflated => DEFLATED,
        };
        // With a descriptor the numbers come behind the data, and may be missing here.
        let known = |found: u64, expected: u64| found == expected || (self.has_descriptor() && found == 0);
        let what = if self.name != local.name {
            "names"
        } else if self.flags != local.flags {
            "flags"
        } else if method != local.method {
            "methods"
        } else if !known(local.packed, self.packed) || !known(local.size, self.size) {
            "sizes"
        } else if !known(local.crc.into(), self.crc.into()) {
            "checksums"
        } else {
            return Ok(());
        };
        Err(UnpackError::refused(path, format!("its two headers have different {what}")))
    }
}

impl Local {
    pub(super) fn read(input: &mut impl Read) -> Result<Self, UnpackError> {
        let head: [u8; 30] = array(input)?;
        if head[..4] != *b"PK\x03\x04" {
            return Err(damaged("an entry has no header where its directory says"));
        }
        let name = bytes(input, u16_at(&head, 26))?;
        let extra = bytes(input, u16_at(&head, 28))?;
        let mut wide = Wide::of(&String::from_utf8_lossy(&name), &extra)?;
        let is_wide = wide.0.is_some();
        let (size, packed) = (wide.widen(u32_at(&head, 22))?, wide.widen(u32_at(&head, 18))?);
        wide.finish()?;
        let (flags, method, crc) = (u16_at(&head, 6), u16_at(&head, 8), u32_at(&head, 14));
        Ok(Self { flags, method, crc, packed, size, wide: is_wide, name })
    }
}

/// The numbers behind the data of an entry that was written in one go.
pub(super) fn check_descriptor(
    input: &mut impl Read,
    path: &str,
    central: &Central,
    wide: bool,
) -> Result<(), UnpackError> {
    let head: [u8; 8] = array(input)?;
    let (packed, size) = if wide {
        let numbers: [u8; 16] = array(input)?;
        (u64_at(&numbers, 0), u64_at(&numbers, 8))
    } else {
        let numbers: [u8; 8] = array(input)?;
        (u32_at(&numbers, 0).into(), u32_at(&numbers, 4).into())
    };
    let same = (u32_at(&head, 4), packed, size) == (central.crc, central.packed, central.size);
    if head[..4] != *b"PK\x07\x08" || !same {
        return Err(UnpackError::refused(path, "what follows its data contradicts its header"));
    }
    Ok(())
}

/// The zip64 numbers of a record, of which each is there exactly when its short form is
/// all ones.
struct Wide<'a>(Option<&'a [u8]>);

impl<'a> Wide<'a> {
    /// Goes through the extra fields. Times and owners do not matter; a second name, a
    /// second mode and encryption do.
    fn of(path: &str, mut extra: &'a [u8]) -> Result<Self, UnpackError> {
        let mut found = None;
        while !extra.is_empty() {
            let malformed = || UnpackError::refused(path, "its extra fields are malformed");
            let (head, rest) = extra.split_at_checked(4).ok_or_else(malformed)?;
            let (field, rest) = rest.split_at_checked(u16_at(head, 2).into()).ok_or_else(malformed)?;
            extra = rest;
            match u16_at(head, 0) {
                EXTRA_ZIP64 if found.is_none() => found = Some(field),
                EXTRA_ZIP64 => return Err(damaged("an entry has zip64 numbers twice")),
                id if EXTRA_REFUSED.contains(&id) => {
                    return Err(UnpackError::refused(path, "it has a second name, mode or encryption"));
                }
                _ => {}
            }
        }
        Ok(Self(found))
    }

    fn widen(&mut self, short: u32) -> Result<u64, UnpackError> {
        if short != u32::MAX {
            return Ok(short.into());
        }
        let split = self.0.and_then(|rest| rest.split_at_checked(8));
        let (number, rest) = split.ok_or_else(|| damaged("an entry lacks its zip64 numbers"))?;
        self.0 = Some(rest);
        Ok(u64_at(number, 0))
    }

    fn finish(self) -> Result<(), UnpackError> {
        match self.0 {
            None | Some([]) => Ok(()),
            Some(_) => Err(damaged("an entry has zip64 numbers that contradict its short ones")),
        }
    }
}

fn check_flags(path: &str, flags: u16) -> Result<(), UnpackError> {
    if flags & ENCRYPTED != 0 {
        return Err(UnpackError::refused(path, "it is encrypted"));
    }
    if flags & !(LEVEL | DESCRIPTOR | UTF8) != 0 {
        return Err(UnpackError::refused(path, "it has flags that are not known"));
    }
    Ok(())
}

fn array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], UnpackError> {
    let mut out = [0; N];
    input.read_exact(&mut out).map_err(failure)?;
    Ok(out)
}

/// At most 64 KiB.
fn bytes(input: &mut impl Read, count: u16) -> Result<Vec<u8>, UnpackError> {
    let mut out = vec![0; count.into()];
    input.read_exact(&mut out).map_err(failure)?;
    Ok(out)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn damaged(why: &str) -> UnpackError {
    UnpackError::Damaged(why.to_owned())
}

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Bits 0, 6 and 13 of the flags.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// How hard was compressed: nothing to those who decompress.
const LEVEL: u16 = 0b110;
const DESCRIPTOR: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;
const EXTRA_ZIP64: u16 = 0x0001;
/// Strong encryption, PKWARE and ASi Unix (modes, links, devices), Unicode path, AES.
const EXTRA_REFUSED: [u16; 5] = [0x0017, 0x000d, 0x756e, 0x7075, 0x9901];
