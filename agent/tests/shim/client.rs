//! A blocking client and the life of a shim under test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zlh_shim::connect::{self, ConnectError};
use zlh_shim::console_log::Reader;
use zlh_shim::flight::{self, Flight};
use zlh_shim::process::ProcessId;
use zlh_shim::proto::{self, kind};
use zlh_shim::record::{ExitRecord, ShimRecord};
use zlh_shim::spec::{ConsoleLimits, Size, Spec, StopPlan};
use zlh_shim::{files, frame, handover};

const DEADLINE: Duration = Duration::from_secs(60);

/// A workload that is a shell script.
pub(crate) fn shell(script: &str) -> Spec {
    Spec {
        instance: zlh_shim::holder::random_hex().unwrap(),
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        workdir: "/".into(),
        user: None,
        size: Size { rows: 24, cols: 80 },
        controlling_terminal: false,
        new_privileges: false,
        oom_score_adj: 0,
        max_open_files: 1024,
        stop: StopPlan {
            command: Some("stop".to_owned()),
            grace_ms: 30_000,
            term_ms: 5_000,
            ..StopPlan::default()
        },
        shutdown_ms: None,
        console: ConsoleLimits::default(),
    }
}

/// Waits for a state, not for a time.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn kill(pid: i32, signal: i32) {
    let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// A shim and what it holds. Everything it started is ended with it.
pub(crate) struct Held {
    _scratch: Option<Arc<tempfile::TempDir>>,
    dir: PathBuf,
    instance: String,
    shim: ProcessId,
    process: std::process::Child,
    stream: Option<UnixStream>,
    master: Option<OwnedFd>,
    flight: Option<OwnedFd>,
    rest: Vec<u8>,
    next: u32,
    log: Vec<u8>,
}

impl Held {
    pub(crate) fn start(spec: Spec) -> Self {
        let scratch = Arc::new(tempfile::tempdir().unwrap());
        let mut held = Self::start_in(&scratch.path().join("run"), spec);
        held._scratch = Some(scratch);
        held
    }

    pub(crate) fn start_in(dir: &Path, spec: Spec) -> Self {
        let instance = spec.instance.clone();
        let process = Self::try_start(dir, spec).unwrap();
        let pid = i32::try_from(process.id()).unwrap();
        let mut held = Self {
            _scratch: None,
            dir: dir.to_owned(),
            instance,
            shim: ProcessId::of(pid).unwrap(),
            process,
            stream: None,
            master: None,
            flight: None,
            rest: Vec::new(),
            next: 1,
            log: Vec::new(),
        };
        held.reconnect();
        held
    }

    /// Another run in the same place, once this one is over.
    pub(crate) fn again(&self, spec: Spec) -> Self {
        let mut held = Self::start_in(&self.dir, spec);
        held._scratch = self._scratch.clone();
        held
    }

    /// Spawns a shim; the error is what it said.
    pub(crate) fn try_start(dir: &Path, spec: Spec) -> Result<std::process::Child, String> {
        if !dir.exists() {
            std::fs::create_dir(dir).unwrap();
        }
        spec.write(dir).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_zlh-agent"))
            .arg("shim")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim_end() == "ready" {
            return Ok(process);
        }
        process.wait().unwrap();
        Err(line)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        self.shim.pid
    }

    pub(crate) fn shim_alive(&self) -> bool {
        self.shim.is_alive()
    }

    /// The main process, once it exists.
    pub(crate) fn child(&self) -> ProcessId {
        let mut child = None;
        eventually("the child is recorded", || {
            child = ShimRecord::read(&self.dir).ok().and_then(|r| r.child);
            child.is_some()
        });
        child.unwrap()
    }

    pub(crate) fn wait_running(&self) {
        let child = self.child();
        eventually("the workload runs", || {
            std::fs::read_link(format!("/proc/{}/exe", child.pid))
                .is_ok_and(|exe| !exe.ends_with("zlh-agent"))
        });
    }

    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
        self.master = None;
        self.flight = None;
    }

    /// Kills the shim, and nothing else.
    pub(crate) fn kill_shim(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.stream = None;
        self.rest.clear();
    }

    /// The descriptors an agent holds, packed for another shim.
    pub(crate) fn packed(&self) -> OwnedFd {
        let flight = self.flight.as_ref().map(AsFd::as_fd);
        handover::pack(self.master.as_ref().expect("the terminal").as_fd(), flight).unwrap()
    }

    /// Begins to adopt the workload; whatever comes of it comes later.
    pub(crate) fn spawn_adopting(&self, input: OwnedFd, head: &str) -> std::process::Child {
        Command::new(env!("CARGO_BIN_EXE_zlh-agent"))
            .arg("shim")
            .arg(&self.dir)
            .args(["--adopt", head])
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Another shim takes the workload over; the error is what it said.
    pub(crate) fn adopt(&mut self) -> Result<(), String> {
        let mut process = self.spawn_adopting(self.packed(), "0");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim_end() != "ready" {
            process.wait().unwrap();
            return Err(line);
        }
        self.shim = ProcessId::of(i32::try_from(process.id()).unwrap()).unwrap();
        self.process = process;
        self.reconnect();
        Ok(())
    }

    pub(crate) fn reconnect(&mut self) {
        let mut last = None;
        eventually("the shim welcomes us", || {
            match connect::connect(&self.dir, &self.instance, "test", DEADLINE) {
                Ok(connection) => {
                    assert!(connection.master.is_some(), "the terminal came along");
                    connection.stream.set_nonblocking(false).unwrap();
                    connection.stream.set_read_timeout(Some(DEADLINE)).unwrap();
                    self.stream = Some(connection.stream);
                    self.master = connection.master;
                    self.flight = connection.flight;
                    self.rest = connection.rest;
                    true
                }
                Err(error @ ConnectError::Io(_)) => {
                    last = Some(error);
                    false
                }
                Err(error) => panic!("{error:?} after {last:?}"),
            }
        });
    }

    /// A connection that has not said hello.
    pub(crate) fn raw(&self) -> UnixStream {
        let dir = std::fs::File::open(&self.dir).unwrap();
        let stream =
            UnixStream::connect(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), files::SOCKET)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A handshake of our own making.
    pub(crate) fn hello(&self, hello: &proto::Hello) -> Result<proto::Welcome, proto::Refusal> {
        let mut stream = self.raw();
        let mut out = Vec::new();
        frame::encode(kind::HELLO, 5, &proto::body(hello), &mut out);
        stream.write_all(&out).unwrap();
        let frame = receive(&mut stream, &mut Vec::new());
        assert_eq!(frame.id, 5);
        match frame.kind {
            kind::WELCOME => Ok(minicbor::decode(&frame.body).unwrap()),
            _ => Err(minicbor::decode(&frame.body).unwrap()),
        }
    }

    pub(crate) fn request_raw(&mut self, kind: u16, body: &[u8]) -> Result<frame::Frame, proto::Refusal> {
        let id = self.next;
        self.next += 1;
        let mut out = Vec::new();
        frame::encode(kind, id, body, &mut out);
        let stream = self.stream.as_mut().expect("connected");
        stream.write_all(&out).unwrap();
        let frame = receive(stream, &mut self.rest);
        assert_eq!(frame.id, id);
        match frame.kind {
            kind::ERROR_REPLY => Err(minicbor::decode(&frame.body).unwrap()),
            _ => Ok(frame),
        }
    }

    pub(crate) fn status(&mut self) -> proto::Status {
        let frame = self.request_raw(kind::STATUS, &[]).unwrap();
        minicbor::decode(&frame.body).unwrap()
    }

    pub(crate) fn input(&mut self, text: &str, line: bool) -> Result<(), proto::Refusal> {
        let input = proto::Input { bytes: text.as_bytes().to_vec(), line };
        self.request_raw(kind::INPUT, &proto::body(&input)).map(|_| ())
    }

    pub(crate) fn stop(&mut self, command: Option<&str>, grace: Duration, term: Duration) {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap();
        self.stop_as(StopPlan {
            command: command.map(str::to_owned),
            grace_ms: ms(grace),
            term_ms: ms(term),
            ..StopPlan::default()
        });
    }

    pub(crate) fn stop_as(&mut self, plan: StopPlan) {
        self.request_raw(kind::STOP, &proto::body(&proto::Stop::from(plan))).unwrap();
    }

    pub(crate) fn acknowledge(&mut self) {
        let instance = proto::Instance { instance: self.instance.clone() };
        self.request_raw(kind::ACK_EXIT, &proto::body(&instance)).unwrap();
    }

    /// Follows the watch request until the end is told.
    pub(crate) fn wait_exit(&mut self) -> proto::Status {
        let mut status = self.status();
        while status.exit.is_none() {
            let watch = proto::Watch { sequence: status.sequence, log_head: status.log_head };
            let frame = self.request_raw(kind::WATCH, &proto::body(&watch)).unwrap();
            status = minicbor::decode(&frame.body).unwrap();
        }
        self.reread();
        status
    }

    pub(crate) fn wait_record(&self) {
        eventually("the exit is recorded", || ExitRecord::read(&self.dir, &self.instance).is_ok());
    }

    /// The shim has left, and cleanly.
    pub(crate) fn wait_gone(&mut self) {
        eventually("the shim has left", || self.process.try_wait().unwrap().is_some());
        assert!(self.process.wait().unwrap().success());
        assert!(!self.dir.join(files::SOCKET).exists());
    }

    pub(crate) fn wait_log(&mut self, text: &str) {
        eventually(&format!("`{text}` in the log"), || {
            self.reread();
            String::from_utf8_lossy(&self.log).contains(text)
        });
    }

    /// Reads the files again; they are complete once the end was told.
    pub(crate) fn reread(&mut self) {
        let reader = Reader::new(&self.dir.join(files::CONSOLE));
        self.log.clear();
        let mut offset = 0;
        loop {
            let (at, bytes) = reader.read(offset, 1 << 20).unwrap();
            if bytes.is_empty() {
                return;
            }
            offset = at + bytes.len() as u64;
            self.log.extend(bytes);
        }
    }

    /// The workload has ended and no shim is there: what it still said lies in the terminal and
    /// in the memory of the shim that was killed. Taken as an agent takes it.
    pub(crate) fn take_last_words(&mut self) {
        let mut left = self.flight.as_ref().map(|fd| Flight::open(fd.try_clone().unwrap()).unwrap());
        let console = self.dir.join(files::CONSOLE);
        let (mut log, _) = flight::resume(&console, ConsoleLimits::default(), 0, left.as_mut()).unwrap();
        let master = self.master.as_ref().expect("the terminal");
        let mut buffer = [0_u8; 32 << 10];
        loop {
            match rustix::io::read(master, &mut buffer) {
                Ok(n) if n > 0 => log.append(&buffer[..n]),
                Err(rustix::io::Errno::INTR) => {}
                // Hung up.
                Err(rustix::io::Errno::IO) => return,
                other => panic!("the terminal of what has ended: {other:?}"),
            }
        }
    }

    pub(crate) fn log(&mut self) -> Vec<u8> {
        self.reread();
        self.log.clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The workload first, by identity; then the shim, which is our own child.
        if let Ok(record) = ShimRecord::read(&self.dir)
            && let Some(child) = record.child
            && child.is_alive()
        {
            kill(child.pid, nix::libc::SIGKILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn receive(stream: &mut UnixStream, rest: &mut Vec<u8>) -> frame::Frame {
    let mut buffer = [0_u8; 4096];
    loop {
        if let Some(frame) = frame::take(rest).unwrap() {
            return frame;
        }
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the shim hung up");
        rest.extend_from_slice(&buffer[..n]);
    }
}

/// One figure of `/proc/<pid>/smaps_rollup`, kB.
pub(crate) fn smaps(pid: i32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|l| l.starts_with(&format!("{name}:"))).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn voluntary_switches(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How many descriptors come with the next bytes.
pub(crate) fn descriptors_received(stream: &UnixStream) -> usize {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0_u8; 4096];
    let mut slices = [rustix::io::IoSliceMut::new(&mut buffer)];
    recvmsg(stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    ancillary
        .drain()
        .map(|item| match item {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.count(),
            _ => 0,
        })
        .sum()
}
