//! Who listens where a shim should, and is none.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use zlh_shim::connect::{self, ConnectError};
use zlh_shim::files;
use zlh_shim::frame;
use zlh_shim::proto::{self, kind};

/// With those who answer: more than a busy machine needs, and than they get.
const PATIENCE: Duration = Duration::from_secs(60);

/// With those who say nothing.
const BRIEF: Duration = Duration::from_millis(300);

fn connect(run_dir: &Path) -> ConnectError {
    connect_within(PATIENCE, run_dir)
}

fn connect_within(patience: Duration, run_dir: &Path) -> ConnectError {
    let begun = Instant::now();
    let error = connect::connect(run_dir, "ours", "test", patience).expect_err("nobody to trust");
    assert!(begun.elapsed() < PATIENCE / 2, "{error:?} took {:?}", begun.elapsed());
    error
}

/// Listens, and answers every connection with the same bytes.
fn liar(bytes: Vec<u8>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join(files::SOCKET)).unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut hello = [0_u8; 4096];
            // Whoever hangs up on a liar is right.
            let _ = stream.read(&mut hello);
            let _ = stream.write_all(&bytes);
            open.push(stream);
        }
    });
    dir
}

fn welcome(instance: &str, version: u16) -> Vec<u8> {
    let status = proto::Status {
        sequence: 1,
        pid: 1,
        start_ticks: 1,
        started_boot_ms: 0,
        started_unix_ms: 0,
        log_start: 0,
        log_head: 0,
        log_unwritten: 0,
        stop_stage: 0,
        exit: None,
        log_run_start: 0,
        adopted: None,
    };
    let (instance, shim_version) = (instance.to_owned(), "1".to_owned());
    let welcome = proto::Welcome { proto: version, shim_version, instance, shim_pid: 1, status };
    let mut out = Vec::new();
    frame::encode(kind::WELCOME, 0, &proto::body(&welcome), &mut out);
    out
}

#[test]
fn every_lie_is_told_apart_and_none_is_waited_for() {
    let gigabyte = (1_u32 << 30).to_le_bytes().to_vec();
    assert!(matches!(connect(liar(gigabyte).path()), ConnectError::Malformed(_)));
    assert!(matches!(connect(liar(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()).path()), ConnectError::Malformed(_)));
    assert!(matches!(connect(liar(vec![0xff; 300]).path()), ConnectError::Malformed(_)));
    assert!(matches!(connect_within(BRIEF, liar(Vec::new()).path()), ConnectError::Silent));
    // Half a frame, and then nothing.
    let half = liar(welcome("ours", 1)[..20].to_vec());
    assert!(matches!(connect_within(BRIEF, half.path()), ConnectError::Silent));
    let other = connect(liar(welcome("theirs", 1)).path());
    assert!(matches!(&other, ConnectError::OtherRun { found } if found == "theirs"), "{other:?}");
    assert!(matches!(connect(liar(welcome("ours", 7)).path()), ConnectError::Malformed(_)));
    assert!(matches!(connect(tempfile::tempdir().unwrap().path()), ConnectError::Absent { .. }));
}

#[test]
fn a_queue_that_nobody_empties_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(dir.path().join(files::SOCKET)).unwrap()).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    // As with a frozen shim, to which an agent comes back again and again.
    for _ in 0..6 {
        assert!(matches!(connect_within(BRIEF, dir.path()), ConnectError::Silent));
    }
}

#[test]
fn another_users_socket_is_not_talked_to() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(dir.path().join(files::SOCKET)).unwrap()).unwrap();
    // Who listens is who a client sees. Users are a thread's own, below the C library.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let nobody = rustix::process::Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
                rustix::net::listen(&socket, 4).unwrap();
            })
            .join()
            .unwrap();
    });
    let error = connect(dir.path());
    assert!(matches!(error, ConnectError::Stranger { uid: 65_534 }), "{error:?}");
}
