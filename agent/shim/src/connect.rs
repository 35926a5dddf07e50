//! The client's first steps, blocking and bounded: connect, check the peer, shake hands.
//!
//! What comes back is a plain non-blocking stream; an agent wraps it in whatever
//! it uses to wait.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::IoSliceMut;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType, socket_with,
};

use crate::files;
use crate::frame::{self, Frame};
use crate::process::ProcessId;
use crate::proto::{self, kind};

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket, non-blocking.
    pub stream: UnixStream,
    /// What the shim said.
    pub welcome: proto::Welcome,
    /// A duplicate of the terminal's master. Held, it keeps the workload's terminal
    /// alive if the shim dies.
    pub master: Option<OwnedFd>,
    /// The shim's memory for bytes between the terminal and the log ([`crate::flight`]), if
    /// it speaks version 2: held for the shim that takes over if this one dies.
    pub flight: Option<OwnedFd>,
    /// The shim, by the identity of the process that listens.
    pub shim: Option<ProcessId>,
    /// Bytes that arrived behind the welcome.
    pub rest: Vec<u8>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("no shim answers in {dir}")]
    Absent {
        /// The run directory.
        dir: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The peer is somebody else's process.
    #[error("the socket's owner runs as user {uid}, not as root or this user")]
    Stranger {
        /// Its user.
        uid: u32,
    },
    /// It listens and says nothing in time.
    #[error("the shim does not answer (frozen?)")]
    Silent,
    /// It holds another run than the one that was asked for.
    #[error("the shim holds another run ({found})")]
    OtherRun {
        /// The run it says it holds.
        found: String,
    },
    /// It refused.
    #[error("the shim refused: {0}")]
    Refused(proto::Refusal),
    /// It does not speak the protocol.
    #[error("the shim does not speak the protocol: {0}")]
    Malformed(String),
    /// The connection broke.
    #[error("the connection to the shim broke")]
    Io(#[from] io::Error),
}

/// Connects to the shim of `run_dir` and says hello. `instance` may be empty.
pub fn connect(
    run_dir: &Path,
    instance: &str,
    agent_version: &str,
    patience: Duration,
) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + patience;
    let stream = open(run_dir).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => ConnectError::Silent,
        _ => ConnectError::Absent { dir: run_dir.display().to_string(), source },
    })?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(io::Error::from)?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return Err(ConnectError::Stranger { uid: peer.uid.as_raw() });
    }
    let hello = proto::Hello {
        proto_min: proto::VERSIONS.0,
        proto_max: proto::VERSIONS.1,
        agent_version: agent_version.to_owned(),
        instance: instance.to_owned(),
    };
    let mut out = Vec::new();
    frame::encode(kind::HELLO, 0, &proto::body(&hello), &mut out);
    stream.set_write_timeout(Some(patience))?;
    (&stream).write_all(&out).map_err(silent)?;
    let (frame, descriptors, rest) = receive_welcome(&stream, deadline)?;
    let welcome: proto::Welcome = match frame.kind {
        kind::WELCOME => {
            minicbor::decode(&frame.body).map_err(|error| ConnectError::Malformed(error.to_string()))?
        }
        kind::ERROR_REPLY => {
            let refusal: proto::Refusal =
                minicbor::decode(&frame.body).map_err(|error| ConnectError::Malformed(error.to_string()))?;
            return Err(ConnectError::Refused(refusal));
        }
        other => return Err(ConnectError::Malformed(format!("frame type {other} instead of a welcome"))),
    };
    if !instance.is_empty() && welcome.instance != instance {
        return Err(ConnectError::OtherRun { found: welcome.instance });
    }
    let (low, high) = proto::VERSIONS;
    if !(low..=high).contains(&welcome.proto) {
        return Err(ConnectError::Malformed(format!("it chose version {}", welcome.proto)));
    }
    stream.set_nonblocking(true)?;
    let mut descriptors = descriptors.into_iter();
    let master = descriptors.next();
    let flight = descriptors.next().filter(|_| welcome.proto >= proto::WITH_FLIGHT);
    let shim = ProcessId::of(peer.pid.as_raw_nonzero().get()).ok();
    Ok(Connection { stream, welcome, master, flight, shim, rest })
}

/// A socket's path has 107 bytes at most; through the directory's descriptor any depth will do.
fn open(run_dir: &Path) -> io::Result<UnixStream> {
    let dir = rustix::fs::open(
        run_dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), files::SOCKET))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A frozen shim accepts nobody: once its queue is full, a blocking connect would wait
    // for ever, this one says EAGAIN.
    rustix::net::connect(&socket, &address)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket.into())
}

/// The terminal's master and the shim's memory.
const MAX_DESCRIPTORS: usize = 2;

type Welcomed = (Frame, Vec<OwnedFd>, Vec<u8>);

fn receive_welcome(stream: &UnixStream, deadline: Instant) -> Result<Welcomed, ConnectError> {
    let mut input = Vec::new();
    let mut descriptors = Vec::new();
    loop {
        if let Some(frame) =
            frame::take(&mut input).map_err(|error| ConnectError::Malformed(error.to_string()))?
        {
            return Ok((frame, descriptors, input));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ConnectError::Silent);
        }
        stream.set_read_timeout(Some(left))?;
        let mut buffer = [0_u8; 4096];
        let read = if descriptors.is_empty() {
            let (read, received) = receive_with_descriptors(stream, &mut buffer).map_err(silent)?;
            descriptors = received;
            read
        } else {
            (&*stream).read(&mut buffer).map_err(silent)?
        };
        if read == 0 {
            return Err(ConnectError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        input.extend_from_slice(&buffer[..read]);
    }
}

/// What came, and at most [`MAX_DESCRIPTORS`] descriptors; the kernel closes further ones.
fn receive_with_descriptors(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for item in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            descriptors.extend(received);
        }
    }
    Ok((message.bytes, descriptors))
}

fn silent(error: io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ConnectError::Silent,
        _ => ConnectError::Io(error),
    }
}
