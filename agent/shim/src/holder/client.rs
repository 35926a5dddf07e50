//! One connected agent: bounded buffers, a deadline for the handshake and for slow readers.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, IoSlice};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::frame::{self, Frame, FrameError};
use crate::proto;

/// Time to say hello.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Time for a peer to take something of what is waiting for it.
const STALL: Duration = Duration::from_secs(30);

/// Unsent bytes above which no further request is read.
const BACKLOG: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    deadline: Option<Instant>,
    /// The handshake is done.
    pub(super) greeted: bool,
    /// A pending watch and its request id.
    pub(super) watch: Option<(u32, proto::Watch)>,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Gone {
    /// It was closed, or broke.
    Closed,
    /// It does not speak the protocol.
    Malformed(FrameError),
}

impl Client {
    /// A fresh connection.
    pub(super) fn new(socket: OwnedFd, now: Instant) -> Self {
        Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
            deadline: Some(now + HANDSHAKE),
            greeted: false,
            watch: None,
        }
    }

    pub(super) fn wants_read(&self) -> bool {
        self.output.len() < BACKLOG
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Reads what has arrived and takes the whole frames out of it.
    pub(super) fn receive(&mut self) -> Result<Vec<Frame>, Gone> {
        let mut buffer = [0_u8; 16 << 10];
        match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, 0)) => return Err(Gone::Closed),
            Ok((_, n)) => self.input.extend_from_slice(&buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Err(Gone::Closed),
        }
        let mut frames = Vec::new();
        while let Some(frame) = frame::take(&mut self.input).map_err(Gone::Malformed)? {
            frames.push(frame);
        }
        if self.input.is_empty() {
            self.input.shrink_to(1024);
        }
        Ok(frames)
    }

    /// Queues an answer.
    pub(super) fn answer<T: minicbor::Encode<()>>(&mut self, kind: u16, id: u32, message: &T) {
        frame::encode(kind, id, &proto::body(message), &mut self.output);
    }

    /// Queues a refusal.
    pub(super) fn refuse(&mut self, id: u32, code: &str, message: &str) {
        let refusal = proto::Refusal { code: code.to_owned(), message: message.to_owned() };
        self.answer(proto::kind::ERROR_REPLY, id, &refusal);
    }

    /// Sends the welcome with descriptors beside it: the terminal's master and, for those who
    /// know of it, the memory for bytes in flight.
    pub(super) fn welcome(
        &mut self,
        id: u32,
        message: &proto::Welcome,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::encode(proto::kind::WELCOME, id, &proto::body(message), &mut bytes);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        let sent =
            rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        self.output.extend_from_slice(&bytes[sent..]);
        self.greeted = true;
        self.deadline = None;
        Ok(())
    }

    /// Sends what the peer takes.
    pub(super) fn flush(&mut self, now: Instant) -> Result<(), Gone> {
        while !self.output.is_empty() {
            match rustix::net::send(&self.socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(0) => return Err(Gone::Closed),
                Ok(n) => {
                    self.output.drain(..n);
                    self.deadline = self.greeted.then_some(now + STALL);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.greeted {
                        self.deadline.get_or_insert(now + STALL);
                    }
                    return Ok(());
                }
                Err(_) => return Err(Gone::Closed),
            }
        }
        if self.greeted {
            self.deadline = None;
        }
        self.output.shrink_to(4096);
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
