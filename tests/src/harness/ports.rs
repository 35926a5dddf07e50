//! Ports for games, one test at a time.
//!
//! Below the range the kernel hands out by itself, and leased through a lock file:
//! tests run as many processes at once, and a port that was free a moment ago is
//! somebody else's when the server finally starts.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};

use super::paths::target_dir;

/// A port that is this test's until it is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lease: File,
}

impl Port {
    /// Leases one that nothing listens on.
    pub fn lease() -> Result<Self> {
        let dir = target_dir()?.join("zlh-ports");
        fs::create_dir_all(&dir)?;
        let first = u16::try_from(std::process::id() % u32::from(LAST - FIRST)).unwrap_or(0);
        for step in 0..LAST - FIRST {
            let number = FIRST + (first + step) % (LAST - FIRST);
            let lease = File::create(dir.join(number.to_string())).context("create a lease")?;
            if lease.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Ok(Self { number, _lease: lease });
            }
        }
        bail!("no port between {FIRST} and {LAST} is free")
    }

    /// The port.
    pub fn number(&self) -> u16 {
        self.number
    }
}

const FIRST: u16 = 20_000;
const LAST: u16 = 30_000;
