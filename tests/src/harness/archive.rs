//! Tar archives written by hand, header by header: the harness can pack what no
//! tar library would, and its archives do not depend on the packer under test.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// One member of an archive.
#[derive(Debug, Clone)]
pub struct Member {
    name: String,
    kind: u8,
    mode: u32,
    link: String,
    content: Vec<u8>,
}

impl Member {
    /// A file.
    pub fn file(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { name: name.to_owned(), kind: b'0', mode: 0o644, link: String::new(), content: content.into() }
    }

    /// A program.
    pub fn program(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { mode: 0o755, ..Self::file(name, content) }
    }

    /// A directory.
    pub fn dir(name: &str) -> Self {
        Self { kind: b'5', mode: 0o755, ..Self::file(name, "") }
    }

    /// A symbolic link.
    pub fn symlink(name: &str, to: &str) -> Self {
        Self { kind: b'2', link: to.to_owned(), ..Self::file(name, "") }
    }

    /// The same with another mode.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
}

/// A gzip-compressed archive of `members`.
pub fn tar_gz(members: &[Member]) -> io::Result<Vec<u8>> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    for member in members {
        gz.write_all(&header(member))?;
        gz.write_all(&member.content)?;
        gz.write_all(&vec![0; member.content.len().next_multiple_of(BLOCK) - member.content.len()])?;
    }
    gz.write_all(&[0; 2 * BLOCK])?;
    gz.finish()
}

/// A ustar header.
fn header(member: &Member) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, member.name.as_bytes());
    put(100, format!("{:07o}\0", member.mode).as_bytes());
    put(108, b"0000000\x000000000\x00");
    put(124, format!("{:011o}\0", member.content.len()).as_bytes());
    put(136, b"00000000000\0        ");
    put(156, &[member.kind]);
    put(157, member.link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

const BLOCK: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_tar_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let members = [
            Member::dir("bin/"),
            Member::program("bin/run", "#!/bin/sh\necho hello\n"),
            Member::symlink("run", "bin/run"),
        ];
        std::fs::write(&path, tar_gz(&members).unwrap()).unwrap();
        let status =
            std::process::Command::new("tar").arg("-xzf").arg(&path).current_dir(dir.path()).status();
        assert!(status.unwrap().success());
        let output = std::process::Command::new(dir.path().join("run")).output().unwrap();
        assert_eq!(output.stdout, b"hello\n");
    }
}
