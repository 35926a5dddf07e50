//! Extended headers: `<length> <key>=<value>\n`, repeated.
//!
//! Path, link target and size are understood; times, owners and comments do not matter and
//! are passed over; whatever would change what a file *is* (extended attributes, access
//! lists, sparse maps, other character sets) is refused.

use super::UnpackError;

/// What extended headers say about the next entry.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
}

impl Extensions {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the records of one header.
    pub(crate) fn read(&mut self, mut data: &[u8]) -> Result<(), UnpackError> {
        while !data.is_empty() {
            let (key, value, rest) = record(data)
                .ok_or_else(|| UnpackError::Damaged("an extended header is malformed".to_owned()))?;
            data = rest;
            self.apply(key, value)?;
        }
        Ok(())
    }

    fn apply(&mut self, key: &str, value: &[u8]) -> Result<(), UnpackError> {
        let twice = match key {
            "path" => self.path.replace(value.to_vec()).is_some(),
            "linkpath" => self.link.replace(value.to_vec()).is_some(),
            "size" => {
                let size = decimal(value).ok_or_else(|| {
                    UnpackError::Damaged("an extended header has an impossible size".to_owned())
                })?;
                self.size.replace(size).is_some()
            }
            "hdrcharset" if value != b"ISO-IR 10646 2000 UTF-8" => {
                return Err(refused(key));
            }
            _ if FORBIDDEN.iter().any(|word| key.contains(word)) => return Err(refused(key)),
            _ => false,
        };
        if twice {
            return Err(UnpackError::Damaged(format!("an extended header has `{key}` twice")));
        }
        Ok(())
    }
}

fn refused(key: &str) -> UnpackError {
    UnpackError::refused(
        key,
        "extended attributes, access lists, sparse files and other character sets are not unpacked",
    )
}

fn record(data: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = data.iter().take(MAX_LENGTH_DIGITS + 1).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    let (body, rest) = (data.get(space + 1..length)?, data.get(length..)?);
    let body = body.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(&body[..equals]).ok().filter(|key| !key.is_empty())?;
    Some((key, &body[equals + 1..], rest))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

const FORBIDDEN: [&str; 6] = ["xattr", "acl", "ACL", "sparse", "security", "selinux"];
const MAX_LENGTH_DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(data: &[u8]) -> Result<Extensions, String> {
        let mut extensions = Extensions::default();
        extensions.read(data).map(|()| extensions).map_err(|error| error.to_string())
    }

    #[test]
    fn records() {
        let found = read(b"18 path=a/very/lo\n20 mtime=1700000000.5\n9 size=7\n".as_slice());
        assert!(found.is_err(), "the second length is wrong");
        let found = read(b"18 path=a/very/lo\n22 mtime=1700000000.5\n9 size=7\n").unwrap();
        assert_eq!((found.path.as_deref(), found.size), (Some(b"a/very/lo".as_slice()), Some(7)));
        for damaged in [
            b"".as_slice().to_vec(),
            b"5 a=b".to_vec(),
            b"6 a=b\n ".to_vec(),
            b"99 a=b\n".to_vec(),
            b"0 a=b\n".to_vec(),
            b"6 ab\n\n".to_vec(),
            b"9 size=x\n".to_vec(),
            b"11 size=-12\n".to_vec(),
            b"5 =b\n".to_vec(),
            b"9 path=a\n9 path=b\n".to_vec(),
            b"18446744073709551615 a=b\n".to_vec(),
        ]
        .into_iter()
        .skip(1)
        {
            assert!(read(&damaged).is_err(), "{:?}", String::from_utf8_lossy(&damaged));
        }
    }

    #[test]
    fn what_changes_a_file_is_refused() {
        for key in [
            "SCHILY.xattr.security.capability",
            "LIBARCHIVE.xattr.x",
            "SCHILY.acl.access",
            "GNU.sparse.major",
            "RHT.security.selinux",
        ] {
            let body = format!(" {key}=x\n");
            let record = format!("{}{body}", body.len() + 2);
            assert!(read(record.as_bytes()).unwrap_err().contains("are not unpacked"), "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&data);
        }
    }
}
