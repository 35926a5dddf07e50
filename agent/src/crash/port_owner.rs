//! Who listens on a port: the kernel's table, then the descriptors of this container's
//! processes. Bounded, and only looked up when a port was found taken.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zlh_shim::durable::read_bounded;

/// Largest table read, bytes.
const MAX_TABLE: u64 = 4 << 20;

/// Processes and descriptors looked at.
const MAX_PROCESSES: usize = 20_000;
const MAX_DESCRIPTORS: usize = 200_000;

/// The pid that listens on a TCP port; none when nobody does or it is not known here.
pub(crate) fn listener(port: u16) -> Option<i32> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(table)
        .flat_map(|text| listening(&text, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let mut left = MAX_DESCRIPTORS;
    std::fs::read_dir("/proc").ok()?.flatten().take(MAX_PROCESSES).find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let descriptors = std::fs::read_dir(entry.path().join("fd")).ok()?;
        for descriptor in descriptors.flatten() {
            left = left.checked_sub(1)?;
            // Follows the magic link: only the inode is asked for.
            let Ok(meta) = std::fs::metadata(descriptor.path()) else { continue };
            if inodes.contains(&meta.ino()) && is_socket(&descriptor.path()) {
                return Some(pid);
            }
        }
        None
    })
}

/// `java (pid 4711)`
pub(super) fn words(pid: i32) -> String {
    let name = read_bounded(Path::new(&format!("/proc/{pid}/comm")), 256).unwrap_or_default();
    let name: String = String::from_utf8_lossy(&name).chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { format!("pid {pid}") } else { format!("{name} (pid {pid})") }
}

fn table(path: &str) -> Option<String> {
    String::from_utf8(read_bounded(Path::new(path), MAX_TABLE).ok()?).ok()
}

/// Inodes of the sockets that listen on a port: `0A` is LISTEN.
fn listening(table: &str, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let local = words.nth(1)?;
            let state = words.nth(1)?;
            let inode = words.nth(5)?.parse().ok()?;
            (local.ends_with(&suffix) && state == "0A" && inode > 0).then_some(inode)
        })
        .collect()
}

fn is_socket(path: &Path) -> bool {
    std::fs::read_link(path)
        .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:["))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_here_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(listener(port), Some(me));
        assert!(words(me).ends_with(&format!("(pid {me})")));
        drop(socket);
        assert_eq!(listener(port), None);
    }
}
