//! The publishers' own checksums.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use sha1::Digest;

use crate::exit::Hint;

/// A hash that a publisher states, in lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    algorithm: Algorithm,
    digits: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

impl Checksum {
    /// Reads what a publisher states; anything but the digits of that hash is an error.
    pub(crate) fn new(algorithm: Algorithm, text: &str) -> Result<Self> {
        let digits = text.trim().to_ascii_lowercase();
        anyhow::ensure!(
            digits.len() == algorithm.digits() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "the publisher's {algorithm} is not one: `{}`",
            text.trim().chars().take(80).collect::<String>()
        );
        Ok(Self { algorithm, digits })
    }

    /// The line of a `sha256sum` list that is for that file.
    pub(crate) fn in_list(algorithm: Algorithm, list: &str, file_name: &str) -> Result<Self> {
        let line = list.lines().find_map(|line| {
            let (digits, name) = line.split_once(char::is_whitespace)?;
            (name.trim_start().trim_start_matches('*') == file_name).then_some(digits)
        });
        let digits = line.ok_or_else(|| anyhow!("the publisher's list of checksums lacks `{file_name}`"))?;
        Self::new(algorithm, digits)
    }

    /// Whether a file has it. Blocks.
    pub(crate) fn check(&self, path: &Path, shown: &str) -> Result<()> {
        let read = || format!("cannot read `{}`", path.display());
        let file = File::open(path).with_context(read)?;
        let found = match self.algorithm {
            Algorithm::Md5 => hash::<md5::Md5>(file),
            Algorithm::Sha1 => hash::<sha1::Sha1>(file),
            Algorithm::Sha256 => hash::<sha2::Sha256>(file),
            Algorithm::Sha512 => hash::<sha2::Sha512>(file),
        }
        .with_context(read)?;
        if found == self.digits {
            return Ok(());
        }
        Err(anyhow!("{shown} has the {} {found}, its publisher says {}", self.algorithm, self.digits))
            .hint("try again; if it stays so, what is served there is not what was published")
    }
}

fn hash<D: Digest>(mut file: File) -> std::io::Result<String> {
    let (mut hasher, mut buffer) = (D::new(), vec![0; 128 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Algorithm {
    fn digits(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_knows_its_abc() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("abc");
        std::fs::write(&file, "abc").unwrap();
        for (algorithm, digits) in [
            (Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Sha1, "A9993E364706816ABA3E25717850C26C9CD0D89D\n"),
            (Algorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                Algorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            let checksum = Checksum::new(algorithm, digits).unwrap();
            checksum.check(&file, "abc").unwrap();
            std::fs::write(folder.path().join("abd"), "abd").unwrap();
            let wrong = checksum.check(&folder.path().join("abd"), "abd").unwrap_err();
            assert!(wrong.to_string().contains("its publisher says"), "{wrong}");
            assert!(Checksum::new(algorithm, &digits[1..]).is_err());
            assert!(Checksum::new(algorithm, &digits.replace(['9', 'b'], "g")).is_err());
        }
    }

    #[test]
    fn lists_of_checksums() {
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let list = format!("{sum}  a.tar.gz\n{sum} *b.tar.gz\n");
        assert!(Checksum::in_list(Algorithm::Sha256, &list, "a.tar.gz").is_ok());
        assert!(Checksum::in_list(Algorithm::Sha256, &list, "b.tar.gz").is_ok());
        let missing = Checksum::in_list(Algorithm::Sha256, &list, "tar.gz").unwrap_err();
        assert!(missing.to_string().contains("lacks `tar.gz`"), "{missing}");
    }
}
