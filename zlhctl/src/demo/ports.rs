//! Ports that are free, the usual ones first.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

/// For the agent, which listens on the loopback.
pub(crate) fn agent() -> Result<u16> {
    free(super::AGENT_PORT, |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

/// For the server, which listens on every address of both families.
pub(crate) fn game() -> Result<u16> {
    free(super::GAME_PORT, |port| {
        let six = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        // Without IPv6 the other family decides alone.
        let no_six = six.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::AddrInUse);
        let six_free = six.is_ok() || no_six;
        drop(six);
        six_free && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
    })
}

fn free(preferred: u16, is_free: impl Fn(u16) -> bool) -> Result<u16> {
    (preferred..preferred.saturating_add(TRIES))
        .find(|&port| is_free(port))
        .with_context(|| format!("the {TRIES} ports from {preferred} on are all in use"))
}

const TRIES: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_passed_over() {
        for taken in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(taken) else { continue };
            let port = listener.local_addr().unwrap().port();
            let found = free(port, |port| {
                TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok()
                    && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
            });
            assert_ne!(found.unwrap(), port, "{taken}");
        }
        assert!(free(2000, |_| false).is_err());
    }
}
