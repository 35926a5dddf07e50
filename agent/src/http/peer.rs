//! Who is at the other end of a connection.
//!
//! Loopback is no boundary: the game and the developer share it with the agent.
//! What does tell them apart is the owner of the peer's socket, which the kernel
//! shows in `/proc/net/tcp` and `tcp6`. It is asked once, at accept, before a
//! byte of the request is read.
//!
//! Invariants:
//! - Only a row that is `ESTABLISHED` and has an inode counts. A closed socket
//!   that lingers, and one in an accept queue, show uid 0 and belong to nobody.
//! - After the peer's row was seen, our own end must still be established under
//!   our own inode; else the row could be that of a later connection between the
//!   same ports.
//! - What cannot be established is [`Peer::Local`] without an owner: refused. Where there is no
//!   descriptor left to look with, nothing is established, and whoever calls is told to come again.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The other end of a connection, fixed at accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// A process of this container, and the uid its socket belongs to if that could be told.
    Local(Option<u32>),
    /// Another machine.
    Remote(IpAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(Some(uid)) => write!(f, "uid {uid} of this container"),
            Self::Local(None) => f.write_str("a local process whose owner cannot be told"),
            Self::Remote(ip) => ip.fmt(f),
        }
    }
}

/// Both ends of an accepted connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Inode of our socket.
    pub inode: u64,
}

impl Peer {
    /// Looks the peer up. Blocking, some ten microseconds on an ordinary machine.
    ///
    /// `certain` forces the look into the tables for an address that does not
    /// seem to be ours, because much depends on it.
    ///
    /// # Errors
    /// Only when there is no descriptor or memory left to look with.
    pub(crate) fn identify(ends: &Ends, certain: bool) -> io::Result<Self> {
        Self::from_tables(ends, certain, &own_addresses()?, Path::new(TABLES))
    }

    fn from_tables(ends: &Ends, certain: bool, own: &Own, tables: &Path) -> io::Result<Self> {
        let ip = ends.remote.ip().to_canonical();
        let ours = ip.is_loopback() || ip == ends.local.ip().to_canonical() || own.holds(ip);
        if !ours && !certain {
            return Ok(Self::Remote(ip));
        }
        // The table can skip a row while others come and go, hence a second look.
        let owner = match owner(tables, ends)? {
            None => owner(tables, ends)?,
            owner => owner,
        };
        Ok(match owner {
            Some(owner) => Self::Local(owner),
            None if ours => Self::Local(None),
            None => Self::Remote(ip),
        })
    }
}

/// The addresses of this machine's interfaces, none when they cannot be told.
struct Own(Option<Vec<IpAddr>>);

impl Own {
    fn holds(&self, ip: IpAddr) -> bool {
        self.0.as_ref().is_none_or(|own| own.contains(&ip))
    }
}

fn own_addresses() -> io::Result<Own> {
    let interfaces = match nix::ifaddrs::getifaddrs().map_err(io::Error::from) {
        Err(error) if is_exhaustion(&error) => return Err(error),
        interfaces => interfaces.ok(),
    };
    Ok(Own(interfaces.map(|list| {
        list.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()).to_canonical()))
        })
        .collect()
    })))
}

/// Looks through the tables before a row counts as absent.
const LOOKS: usize = 3;

/// None: the peer has no socket here. Some(None): it has one, but whose cannot be told.
fn owner(tables: &Path, ends: &Ends) -> io::Result<Option<Option<u32>>> {
    let (local, remote) = (flat(ends.local), flat(ends.remote));
    let Some(theirs) = find(tables, |row| row.local == remote && row.remote == local)? else {
        return Ok(None);
    };
    if !theirs.alive() {
        return Ok(Some(None));
    }
    let ours = find(tables, |row| row.local == local && row.remote == remote && row.inode == ends.inode)?;
    Ok(Some(ours.filter(Row::alive).map(|_| theirs.uid)))
}

/// The kernel hands the table out in pieces, and a row can slip between two of them while
/// others come and go: so a row that is not there is looked for again.
fn find(tables: &Path, wanted: impl Fn(&Row) -> bool) -> io::Result<Option<Row>> {
    for name in ["tcp", "tcp6"].repeat(LOOKS) {
        match scan(&tables.join(name), &wanted) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) if is_exhaustion(&error) => return Err(error),
            // A kernel without that table, say.
            Err(_) => {}
        }
    }
    Ok(None)
}

fn is_exhaustion(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM))
}

fn scan(table: &Path, wanted: impl Fn(&Row) -> bool) -> io::Result<Option<Row>> {
    let mut reader = BufReader::new(File::open(table)?.take(MAX_TABLE_BYTES));
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if let Some(row) = Row::parse(&line).filter(&wanted) {
            return Ok(Some(row));
        }
        line.clear();
    }
    Ok(None)
}

/// One socket of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    state: u8,
    uid: u32,
    inode: u64,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = endpoint(fields.next()?)?;
        let remote = endpoint(fields.next()?)?;
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        // Queues, timer and retransmits lie between the state and the owner.
        let uid = fields.nth(3)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        Some(Self { local, remote, state, uid, inode })
    }

    fn alive(&self) -> bool {
        self.state == ESTABLISHED && self.inode != 0
    }
}

/// The kernel prints each 32 bit word of an address as it lies in memory.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for (index, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

fn flat(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

const TABLES: &str = "/proc/net";
/// Some 400,000 sockets; who is not found among them is not let in.
const MAX_TABLE_BYTES: u64 = 64 * 1024 * 1024;
const ESTABLISHED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    /// `state`, `uid` and `inode` of the peer's row and of ours; a state of 0 leaves the row out.
    fn peer_by(theirs: (u8, u32, u64), ours: (u8, u64)) -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let mut table = HEADER.to_owned();
        if ours.0 != 0 {
            table += &format!(
                "   0: 0100007F:49C8 0100007F:9C40 {:02X} 00000000:00000000 00:00000000 00000000     0        0 {} 1 0 20\n",
                ours.0, ours.1
            );
        }
        if theirs.0 != 0 {
            table += &format!(
                "   1: 0100007F:9C40 0100007F:49C8 {:02X} 00000000:00000000 00:00000000 00000000  {}        0 {} 1 0 20\n",
                theirs.0, theirs.1, theirs.2
            );
        }
        std::fs::write(dir.path().join("tcp"), table).unwrap();
        let ends = Ends {
            local: "[::ffff:127.0.0.1]:18888".parse().unwrap(),
            remote: "[::ffff:127.0.0.1]:40000".parse().unwrap(),
            inode: 77,
        };
        Peer::from_tables(&ends, false, &Own(Some(Vec::new())), dir.path()).unwrap()
    }

    #[test]
    fn only_a_living_socket_names_its_owner() {
        assert_eq!(peer_by((1, 1001, 9), (1, 77)), Peer::Local(Some(1001)));
        assert_eq!(peer_by((1, 0, 9), (1, 77)), Peer::Local(Some(0)));
        // FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE: orphans show uid 0.
        for state in [4, 5, 6, 7] {
            assert_eq!(peer_by((state, 0, 0), (8, 77)), Peer::Local(None), "state {state}");
            assert_eq!(peer_by((state, 0, 9), (1, 77)), Peer::Local(None), "state {state}");
        }
    }

    #[test]
    fn a_socket_in_an_accept_queue_names_nobody() {
        assert_eq!(peer_by((1, 0, 0), (1, 77)), Peer::Local(None));
    }

    #[test]
    fn a_later_connection_between_the_same_ports_does_not_vouch_for_ours() {
        assert_eq!(peer_by((1, 0, 9), (1, 78)), Peer::Local(None));
        assert_eq!(peer_by((1, 0, 9), (8, 77)), Peer::Local(None));
        assert_eq!(peer_by((1, 0, 9), (0, 0)), Peer::Local(None));
    }

    #[test]
    fn no_row_at_all_names_nobody() {
        assert_eq!(peer_by((0, 0, 0), (1, 77)), Peer::Local(None));
    }

    #[test]
    fn own_addresses_are_local_and_unknown_ones_count_as_own() {
        let dir = tempfile::tempdir().unwrap();
        let ends = Ends {
            local: "10.0.0.5:18888".parse().unwrap(),
            remote: "10.0.0.9:5".parse().unwrap(),
            inode: 1,
        };
        let other = "10.0.0.9".parse().unwrap();
        let peer = |own| Peer::from_tables(&ends, false, &own, dir.path()).unwrap();
        assert_eq!(peer(Own(Some(vec!["10.0.0.5".parse().unwrap()]))), Peer::Remote(other));
        assert_eq!(peer(Own(Some(vec![other]))), Peer::Local(None));
        assert_eq!(peer(Own(None)), Peer::Local(None));
    }

    #[test]
    fn a_socket_of_ours_behind_a_foreign_address_is_found_when_it_matters() {
        let dir = tempfile::tempdir().unwrap();
        let row = "0: 0900000A:0005 0500000A:49C8 01 0:0 0:0 0 1001 0 9 1\n1: 0500000A:49C8 0900000A:0005 01 0:0 0:0 0 0 0 1 1\n";
        std::fs::write(dir.path().join("tcp6"), row).unwrap();
        let ends = Ends {
            local: "10.0.0.5:18888".parse().unwrap(),
            remote: "10.0.0.9:5".parse().unwrap(),
            inode: 1,
        };
        let own = Own(Some(Vec::new()));
        assert_eq!(Peer::from_tables(&ends, true, &own, dir.path()).unwrap(), Peer::Local(Some(1001)));
        assert_eq!(
            Peer::from_tables(&ends, false, &own, dir.path()).unwrap(),
            Peer::Remote(ends.remote.ip())
        );
    }

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        assert_eq!(endpoint("0100007F:49C8"), Some(("127.0.0.1".parse().unwrap(), 18888)));
        let mapped = endpoint("0000000000000000FFFF00000100007F:0001");
        assert_eq!(mapped, Some(("127.0.0.1".parse().unwrap(), 1)));
        let v6 = endpoint("B80D0120000000000000000001000000:FFFF");
        assert_eq!(v6, Some(("2001:db8::1".parse().unwrap(), 65535)));
        for bad in ["", "0100007F", "0100007:1", "zz00007F:1", "0100007F:10000", "é100007:1"] {
            assert_eq!(endpoint(bad), None, "{bad}");
        }
    }
}
