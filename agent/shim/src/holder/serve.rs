//! Agents: accepted, greeted, answered. Nothing an agent does or leaves undone is waited for.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use super::client::{Client, Gone};
use super::{ACCEPT_AGAIN, Holder, Life, MAX_CLIENTS, MAX_READ};
use crate::frame::Frame;
use crate::ladder::LONGEST;
use crate::proto::{self, kind};
use crate::record::StopStage;

impl Holder {
    pub(super) fn accept(&mut self) {
        use rustix::net::{SocketFlags, accept_with};
        while self.clients.len() < MAX_CLIENTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.held.listener, flags) {
                Ok(socket) if may_connect(&socket) => self.clients.push(Client::new(socket, Instant::now())),
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return,
                // Out of descriptors or memory: the listener stays readable, and asking again
                // at once would be all we do.
                Err(_) => {
                    self.accept_at = Some(Instant::now() + ACCEPT_AGAIN);
                    return;
                }
            }
        }
    }

    pub(super) fn serve(&mut self, index: usize) {
        let received = match self.clients.get_mut(index) {
            Some(client) => client.receive(),
            None => return,
        };
        match received {
            Ok(frames) => {
                for frame in frames {
                    if !self.answer(index, &frame) {
                        self.clients.remove(index);
                        return;
                    }
                }
            }
            Err(Gone::Closed) => {
                self.clients.remove(index);
            }
            Err(Gone::Malformed(error)) => {
                self.clients[index].refuse(0, "malformed", &error.to_string());
                let _ = self.clients[index].flush(Instant::now());
                self.clients.remove(index);
            }
        }
    }

    /// Answers one request; false ends the connection.
    fn answer(&mut self, index: usize, frame: &Frame) -> bool {
        let id = frame.id;
        if !self.clients[index].greeted {
            return self.greet(index, frame);
        }
        let head = self.held.log.head();
        let reply = match frame.kind {
            kind::STATUS => {
                let status = self.status();
                self.clients[index].answer(kind::STATUS_REPLY, id, &status);
                return true;
            }
            kind::WATCH => parse(frame).map(|watch| {
                self.clients[index].watch = Some((id, watch));
                None
            }),
            kind::READ => match parse::<proto::Read>(frame) {
                Ok(read) => {
                    self.answer_read(index, id, read);
                    return true;
                }
                Err(refusal) => Err(refusal),
            },
            kind::INPUT => parse(frame).and_then(|input| self.take_input(input)).map(|()| Some(head)),
            kind::RESIZE => parse(frame).and_then(|size| self.resize(size)).map(|()| Some(head)),
            kind::SIGNAL => parse(frame).and_then(|signal| self.signal(&signal)).map(|()| Some(head)),
            kind::STOP => parse::<proto::Stop>(frame).map(|stop| {
                self.stop(stop.into());
                Some(head)
            }),
            kind::EXTEND => parse::<proto::Extend>(frame).map(|extend| {
                self.ladder.extend(Instant::now() + Duration::from_millis(extend.from_now_ms).min(LONGEST));
                Some(head)
            }),
            kind::ACK_EXIT => {
                parse(frame).and_then(|instance| self.acknowledge(&instance)).map(|()| Some(head))
            }
            other => Err(refusal("unsupported", &format!("request type {other} is not known to this shim"))),
        };
        match reply {
            Ok(Some(log_head)) => self.clients[index].answer(kind::OK_REPLY, id, &proto::Done { log_head }),
            Ok(None) => {}
            Err(refusal) => self.clients[index].answer(kind::ERROR_REPLY, id, &refusal),
        }
        true
    }

    fn greet(&mut self, index: usize, frame: &Frame) -> bool {
        let refused = match (frame.kind, parse::<proto::Hello>(frame)) {
            (kind::HELLO, Ok(hello)) => {
                match proto::negotiate((hello.proto_min, hello.proto_max), proto::VERSIONS) {
                    None => {
                        let (low, high) = proto::VERSIONS;
                        refusal("version", &format!("this shim speaks protocol {low} to {high}"))
                    }
                    Some(_) if !hello.instance.is_empty() && hello.instance != self.held.spec.instance => {
                        refusal("instance", "this shim holds another run")
                    }
                    Some(version) => {
                        let welcome = proto::Welcome {
                            proto: version,
                            shim_version: crate::VERSION.to_owned(),
                            instance: self.held.spec.instance.clone(),
                            shim_pid: self.held.record.shim.pid,
                            status: self.status(),
                        };
                        let flight = self.held.flight.as_ref().filter(|_| version >= proto::WITH_FLIGHT);
                        let descriptors: Vec<_> = std::iter::once(self.held.master.as_fd())
                            .chain(flight.map(AsFd::as_fd))
                            .collect();
                        let welcomed = self.clients[index].welcome(frame.id, &welcome, &descriptors).is_ok();
                        // Agents come seldom; what greeting them took is not kept.
                        self.trim_at = Some(Instant::now() + super::TRIM_AFTER);
                        return welcomed;
                    }
                }
            }
            (_, Err(refusal)) => refusal,
            (..) => refusal("malformed", "the first frame has to be a hello"),
        };
        self.clients[index].refuse(frame.id, &refused.code, &refused.message);
        let _ = self.clients[index].flush(Instant::now());
        false
    }

    fn status(&self) -> proto::Status {
        let id = self.held.child.id();
        let log = &self.held.log;
        proto::Status {
            sequence: self.sequence,
            pid: id.map_or(0, |id| id.pid),
            start_ticks: id.map_or(0, |id| id.start_ticks),
            started_boot_ms: self.held.record.started_boot_ms,
            started_unix_ms: self.held.record.started_unix_ms,
            log_start: log.start(),
            log_head: log.head(),
            log_unwritten: log.unwritten(),
            stop_stage: match self.ladder.stage() {
                None => 0,
                Some(StopStage::Command) => 1,
                Some(StopStage::Term) => 2,
                Some(StopStage::Kill) => 3,
            },
            exit: match &self.life {
                Life::Ended { message, .. } => Some(message.clone()),
                Life::Gone { message } => message.clone(),
                _ => None,
            },
            log_run_start: self.run_start,
            adopted: (self.held.record.adoptions > 0).then_some(proto::Adopted {
                times: self.held.record.adoptions,
                lost_bytes: self.held.record.lost_bytes,
            }),
        }
    }

    fn answer_read(&mut self, index: usize, id: u32, read: proto::Read) {
        let max = usize::try_from(read.max).unwrap_or(MAX_READ).min(MAX_READ);
        match self.held.log.read(read.offset, max) {
            Ok((offset, bytes)) => {
                self.clients[index].answer(kind::DATA_REPLY, id, &proto::Data { offset, bytes });
            }
            Err(error) => {
                self.clients[index].refuse(id, "failed", &format!("cannot read the console log: {error}"));
            }
        }
    }

    fn take_input(&mut self, input: proto::Input) -> Result<(), proto::Refusal> {
        if !matches!(self.life, Life::Launching | Life::Running) {
            return Err(refusal("ended", "the workload has ended"));
        }
        if !self.input.push(input.bytes, input.line) {
            return Err(refusal("stdin_busy", "the workload does not read its input; try again later"));
        }
        self.write_input();
        Ok(())
    }

    fn resize(&mut self, size: proto::Resize) -> Result<(), proto::Refusal> {
        let size =
            rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.held.master, size)
            .map_err(|errno| refusal("failed", &format!("cannot set the terminal's size: {errno}")))
    }

    fn signal(&mut self, request: &proto::Signal) -> Result<(), proto::Refusal> {
        if request.instance != self.held.spec.instance {
            return Err(refusal("instance", "this shim holds another run"));
        }
        if !matches!(self.life, Life::Launching | Life::Running) {
            return Err(refusal("ended", "the workload has ended"));
        }
        let Some(signal) = Signal::from_named_raw(request.signal) else {
            return Err(refusal("malformed", &format!("{} is not a signal", request.signal)));
        };
        if request.all {
            self.held.child.signal_all(signal);
            return Ok(());
        }
        self.held
            .child
            .signal(signal)
            .map_err(|errno| refusal("failed", &format!("the signal could not be sent: {errno}")))
    }

    fn acknowledge(&mut self, acknowledged: &proto::Instance) -> Result<(), proto::Refusal> {
        if acknowledged.instance != self.held.spec.instance {
            return Err(refusal("instance", "this shim holds another run"));
        }
        match self.life {
            Life::Ended { .. } => {
                self.leaving = true;
                Ok(())
            }
            _ => Err(refusal("running", "the workload has not ended")),
        }
    }

    pub(super) fn tell_watchers(&mut self) {
        let head = self.held.log.head();
        let due = |watch: &proto::Watch| watch.sequence != self.sequence || watch.log_head != head;
        if !self.clients.iter().any(|c| c.watch.is_some_and(|(_, watch)| due(&watch))) {
            return;
        }
        let status = self.status();
        let sequence = self.sequence;
        for client in &mut self.clients {
            if let Some((id, watch)) = client.watch
                && (watch.sequence != sequence || watch.log_head != head)
            {
                client.watch = None;
                client.answer(kind::STATUS_REPLY, id, &status);
            }
        }
    }

    pub(super) fn flush(&mut self) {
        let now = Instant::now();
        self.clients.retain_mut(|client| client.flush(now).is_ok());
    }
}

/// Root and our own user; whoever else reaches the socket is turned away unheard.
fn may_connect(socket: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_peercred(socket)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

fn parse<'b, T: minicbor::Decode<'b, ()>>(frame: &'b Frame) -> Result<T, proto::Refusal> {
    minicbor::decode(&frame.body)
        .map_err(|error| refusal("malformed", &format!("cannot read the request: {error}")))
}

fn refusal(code: &str, message: &str) -> proto::Refusal {
    proto::Refusal { code: code.to_owned(), message: message.to_owned() }
}
