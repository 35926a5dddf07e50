//! A static HTTP server on loopback that can be told to misbehave, path by path.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::wait::STEP;

/// What goes wrong with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A status and nothing else.
    Status(u16),
    /// The right length, but the byte in the middle is another.
    WrongByte,
    /// The connection ends after this many bytes of the announced length.
    Truncate(u64),
    /// The announced length is that of a shorter file, and the file is.
    Shorter(u64),
    /// Nothing more after this many bytes, with the connection left open.
    Stall(u64),
    /// At most this many bytes a second.
    Slow(u64),
    /// Sent somewhere else.
    Redirect(String),
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct ArtifactServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    faults: Mutex<BTreeMap<String, VecDeque<Repeated>>>,
    requests: Mutex<Vec<String>>,
    closing: AtomicBool,
}

/// A fault and how many more requests meet it; `None` is all of them.
#[derive(Debug, Clone)]
struct Repeated(Fault, Option<u32>);

impl ArtifactServer {
    /// Serves the files below `dir`.
    pub fn serve(dir: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &theirs));
        Ok(Self { address, shared })
    }

    /// Base URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on every request of `path` (without a leading slash) meets `fault`.
    pub fn break_path(&self, path: &str, fault: Fault) {
        lock(&self.shared.faults).insert(path.to_owned(), VecDeque::from([Repeated(fault, None)]));
    }

    /// The next `times` requests of `path` meet `fault`.
    pub fn break_times(&self, path: &str, times: u32, fault: Fault) {
        lock(&self.shared.faults).entry(path.to_owned()).or_default().push_back(Repeated(fault, Some(times)));
    }

    /// All is well again.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Paths requested so far, in order.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for ArtifactServer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // Wakes the accepting thread; it may be gone already.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn fault(&self, path: &str) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let queue = faults.get_mut(path)?;
        let Repeated(fault, left) = queue.front_mut()?;
        let fault = fault.clone();
        if let Some(left) = left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                queue.pop_front();
            }
        }
        Some(fault)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for peer in listener.incoming().flatten() {
        if shared.closing.load(Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(shared);
        // A client that goes away in the middle is the client's business.
        std::thread::spawn(move || drop(serve(peer, &shared)));
    }
}

fn serve(mut peer: TcpStream, shared: &Shared) -> io::Result<()> {
    peer.set_read_timeout(Some(PATIENCE))?;
    let mut from = BufReader::new(peer.try_clone()?).take(1 << 16);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let (mut words, mut header) = (line.split(' '), String::new());
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    while from.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = path.trim_start_matches('/').split('?').next().unwrap_or_default();
    lock(&shared.requests).push(path.to_owned());
    let fault = shared.fault(path);
    match &fault {
        Some(Fault::Status(code)) => return head(&mut peer, *code, 0, ""),
        Some(Fault::Redirect(to)) => return head(&mut peer, 302, 0, &format!("location: {to}\r\n")),
        _ => {}
    }
    let hostile = path.split('/').any(|part| part == ".." || part.is_empty());
    let file = if hostile { None } else { File::open(shared.dir.join(path)).ok() };
    let Some(mut file) = file.filter(|file| file.metadata().is_ok_and(|meta| meta.is_file())) else {
        return head(&mut peer, 404, 0, "");
    };
    let length = file.metadata()?.len();
    let told = if let Some(Fault::Shorter(by)) = fault { length.saturating_sub(by) } else { length };
    head(&mut peer, 200, told, "")?;
    if method == "HEAD" {
        return Ok(());
    }
    let sent = match fault {
        Some(Fault::Truncate(at) | Fault::Stall(at)) => at.min(told),
        _ => told,
    };
    let middle = matches!(fault, Some(Fault::WrongByte)).then_some(told / 2);
    let pace = if let Some(Fault::Slow(rate)) = fault { Some(rate) } else { None };
    send(&mut file, &mut peer, sent, middle, pace, shared)?;
    if matches!(fault, Some(Fault::Stall(_))) {
        // Until the client has had enough, or the test has.
        let mut sink = [0; 64];
        peer.set_read_timeout(Some(Duration::from_millis(100)))?;
        while !shared.closing.load(Ordering::Relaxed) {
            match peer.read(&mut sink) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn send(
    file: &mut File,
    peer: &mut TcpStream,
    length: u64,
    middle: Option<u64>,
    pace: Option<u64>,
    shared: &Shared,
) -> io::Result<()> {
    let mut block = vec![0; 1 << 16];
    let (mut at, begun) = (0, std::time::Instant::now());
    while at < length {
        let most = pace.map_or(block.len() as u64, |rate| (rate / 20).clamp(1, block.len() as u64));
        let want = usize::try_from((length - at).min(most)).unwrap_or(block.len());
        let got = file.read(&mut block[..want])?;
        if got == 0 || shared.closing.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(middle) = middle.and_then(|middle| middle.checked_sub(at))
            && let Some(byte) = usize::try_from(middle).ok().and_then(|index| block[..got].get_mut(index))
        {
            *byte ^= 0x55;
        }
        peer.write_all(&block[..got])?;
        at += got as u64;
        if let Some(due) = pace.and_then(|rate| (at * 1_000).checked_div(rate)) {
            while begun.elapsed() < Duration::from_millis(due) && !shared.closing.load(Ordering::Relaxed) {
                std::thread::sleep(STEP);
            }
        }
    }
    Ok(())
}

fn head(peer: &mut TcpStream, code: u16, length: u64, more: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {code} -\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n");
    peer.write_all(head.as_bytes())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::http::Http;

    #[test]
    fn good_files_come_whole_and_broken_ones_broken() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), [7; 1000]).unwrap();
        let server = ArtifactServer::serve(dir.path()).unwrap();
        let http = Http::new(server.address);
        assert_eq!(http.get("/f").unwrap().body, [7; 1000]);
        assert_eq!(http.get("/../f").unwrap().status, 404);
        server.break_times("f", 1, Fault::Status(500));
        server.break_times("f", 1, Fault::WrongByte);
        assert_eq!(http.get("/f").unwrap().status, 500);
        assert_eq!(http.get("/f").unwrap().body.iter().filter(|byte| **byte != 7).count(), 1);
        assert_eq!(http.get("/f").unwrap().body, [7; 1000]);
        server.break_path("f", Fault::Truncate(10));
        assert_eq!(http.get("/f").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        server.break_path("f", Fault::Shorter(1));
        assert_eq!(http.get("/f").unwrap().body.len(), 999);
        server.break_path("f", Fault::Redirect("http://elsewhere/".into()));
        assert_eq!(http.get("/f").unwrap().header("location"), Some("http://elsewhere/"));
        server.heal();
        assert_eq!(http.get("/f").unwrap().status, 200);
        assert_eq!(server.requests().len(), 9);
    }
}
