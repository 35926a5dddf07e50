//! Whether an unpacked program can be executed here at all.
//!
//! A file that is no program, or one for another machine, would otherwise show only when
//! the game is started.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What is wrong with an executable, if anything. The tree was just unpacked, so every
/// link in it stays inside.
pub(crate) fn defect(path: &Path) -> Option<String> {
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some("it is not in the archive".to_owned());
        }
        Err(error) => return Some(error.to_string()),
    };
    if !meta.is_file() {
        return Some("it is not a file".to_owned());
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Some("it is not marked executable in the archive".to_owned());
    }
    let mut head = Vec::new();
    if let Err(error) = File::open(path).and_then(|file| file.take(20).read_to_end(&mut head)) {
        return Some(error.to_string());
    }
    match head.as_slice() {
        [b'#', b'!', ..] => None,
        [0x7f, b'E', b'L', b'F', ..] => wrong_machine(&head),
        _ => Some("it is neither a program nor a script".to_owned()),
    }
}

fn wrong_machine(head: &[u8]) -> Option<String> {
    let machine = head.get(18..20).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    if machine == Some(OUR_MACHINE.0) {
        return None;
    }
    let theirs = match machine {
        Some(62) => "x86_64",
        Some(183) => "aarch64",
        Some(243) => "riscv64",
        Some(3) => "i386",
        Some(40) => "arm",
        _ => "another machine",
    };
    Some(format!("it was built for {theirs}, this is {}", OUR_MACHINE.1))
}

#[cfg(target_arch = "x86_64")]
const OUR_MACHINE: (u16, &str) = (62, "x86_64");
#[cfg(target_arch = "aarch64")]
const OUR_MACHINE: (u16, &str) = (183, "aarch64");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_what_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
        elf.extend(OUR_MACHINE.0.to_le_bytes());
        let mut foreign = elf.clone();
        foreign[18..20].copy_from_slice(&243_u16.to_le_bytes());
        for (content, mode, expected) in [
            (elf.as_slice(), 0o755, ""),
            (b"#!/bin/sh\n", 0o755, ""),
            (&elf, 0o644, "not marked executable"),
            (&foreign, 0o755, "built for riscv64"),
            (b"<!DOCTYPE html>", 0o755, "neither a program nor a script"),
            (b"", 0o755, "neither a program nor a script"),
            (&elf[..12], 0o755, "built for another machine"),
        ] {
            let path = temp.path().join("program");
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = defect(&path).unwrap_or_default();
            assert!(
                found.contains(expected) && found.is_empty() == expected.is_empty(),
                "{content:?}: {found}"
            );
        }
        assert!(defect(&temp.path().join("none")).unwrap().contains("not in the archive"));
        assert!(defect(temp.path()).unwrap().contains("not a file"));
    }
}
