//! The agent's side of a shim connection: requests with answers, and a published status.
//!
//! Nothing is pushed by the shim: the watch request is answered when something
//! changed, so one slow agent costs the shim one pending answer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use zlh_shim::connect::{self, ConnectError, Connection};
use zlh_shim::frame::{self, Frame};
use zlh_shim::process::ProcessId;
use zlh_shim::proto::{self, kind};

use super::drain::Legacy;

/// How long a living shim may take over the handshake.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// How long it may take over a request.
const ANSWER: Duration = Duration::from_secs(10);

/// How long it may take over a stop, before the workload is stopped without it.
pub(super) const STOP_ANSWER: Duration = Duration::from_secs(2);

/// How long it may take until it says that it has begun what it took.
const BEGINS: Duration = Duration::from_secs(1);

/// A stage that no shim is ever at.
pub(super) const GONE_STAGE: u8 = u8::MAX;

/// In which what it said before its last answer is heard.
pub(super) const HEARD: Duration = Duration::from_millis(200);

/// Between two looks at what changed, while something changes all the time: fifty a second.
const PACE: Duration = Duration::from_millis(20);

/// Looks that may follow each other at once; one is earned for each pace that nothing was asked.
const CREDIT: u32 = 64;

/// How long an acknowledged shim may take to go.
const LEAVE: Duration = Duration::from_secs(5);

/// Connections so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// The shim refused it.
    #[error("{0}")]
    Refused(proto::Refusal),
    /// The connection is gone.
    #[error("the connection to the shim is gone")]
    Gone,
    /// It took a stop and did not begin it.
    #[error("it took it and did not begin")]
    Idle,
    /// No answer in time.
    #[error("the shim does not answer (frozen?)")]
    Silent,
}

/// Who waits for which answer; none once the connection is gone, so that nobody begins to
/// wait for what cannot come.
type Answers = Option<HashMap<u32, oneshot::Sender<Frame>>>;

type Pending = Arc<Mutex<Answers>>;

/// A connection to one run's shim. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ShimClient {
    /// Which connection of this agent it is: news of an earlier one are old.
    id: u64,
    instance: String,
    out: mpsc::Sender<Vec<u8>>,
    pending: Pending,
    next: Arc<AtomicU32>,
    status: watch::Receiver<proto::Status>,
    /// Held so that the workload's terminal, and what was read from it last, outlive the shim.
    legacy: Option<Legacy>,
    /// The shim's process.
    shim: Option<ProcessId>,
}

impl ShimClient {
    /// Connects to the shim that holds `run_dir`. An empty `instance` takes any run.
    /// `head` follows the end of the console log.
    pub(crate) async fn connect(
        run_dir: &Path,
        instance: &str,
        head: watch::Sender<u64>,
    ) -> Result<Self, ConnectError> {
        let (dir, instance): (PathBuf, String) = (run_dir.to_owned(), instance.to_owned());
        let connection = tokio::task::spawn_blocking(move || {
            connect::connect(&dir, &instance, crate::version(), HANDSHAKE)
        })
        .await
        .map_err(|_| ConnectError::Silent)??;
        Self::start(connection, head)
    }

    fn start(connection: Connection, head: watch::Sender<u64>) -> Result<Self, ConnectError> {
        let Connection { stream, welcome, master, flight, shim, rest } = connection;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        let (out, requests) = mpsc::channel(64);
        let pending = Pending::new(Mutex::new(Some(HashMap::new())));
        head.send_replace(welcome.status.log_head);
        let (publish, status) = watch::channel(welcome.status);
        let client = Self {
            id: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            instance: welcome.instance,
            out,
            pending: pending.clone(),
            next: Arc::new(AtomicU32::new(1)),
            status,
            legacy: master.map(|master| Legacy { master: Arc::new(master), flight: flight.map(Arc::new) }),
            shim,
        };
        tokio::spawn(write_frames(write, requests));
        tokio::spawn(read_frames(read, rest, pending));
        tokio::spawn(follow(client.weak(), publish, head));
        Ok(client)
    }

    /// Which connection it is.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Identity of the run.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// The workload's terminal, to go on with if the shim dies.
    pub(super) fn legacy(&self) -> Option<Legacy> {
        self.legacy.clone()
    }

    /// The shim's process.
    pub(super) fn shim(&self) -> Option<ProcessId> {
        self.shim
    }

    /// What the shim holds. The channel closes when the connection is gone.
    pub(crate) fn status(&self) -> watch::Receiver<proto::Status> {
        self.status.clone()
    }

    /// Types into the workload's terminal; answers the log's end before it.
    pub(crate) async fn input(&self, bytes: Vec<u8>, line: bool) -> Result<u64, ShimError> {
        self.done(kind::INPUT, &proto::Input { bytes, line }).await
    }

    /// Begins the stop ladder, and waits until it has begun.
    pub(crate) async fn stop(&self, stop: &proto::Stop) -> Result<(), ShimError> {
        let answer = self.request(kind::STOP, stop, STOP_ANSWER).await;
        let failure = match answer.and_then(|frame| decode::<proto::Done>(&frame, kind::OK_REPLY)) {
            Ok(_) if self.says(1, BEGINS).await => return Ok(()),
            Ok(_) => ShimError::Idle,
            Err(ShimError::Silent) => ShimError::Silent,
            Err(error) => return Err(error),
        };
        // After a time in which nothing ran it may not have had its turn, nor been heard.
        let answer = tokio::time::timeout(BEGINS, self.extend(Duration::ZERO)).await;
        let begun = self.says(1, HEARD).await;
        match failure {
            // What it said before proves nothing: it may have begun with an earlier stop.
            ShimError::Silent if !matches!(answer, Ok(Ok(()))) => Err(failure),
            _ if begun => Ok(()),
            _ => Err(failure),
        }
    }

    /// Waits, not for ever, until it says that it is at a stage of a stop, or nothing is left to be
    /// stopped; at [`GONE_STAGE`] until it tells the end.
    pub(super) async fn says(&self, stage: u8, patience: Duration) -> bool {
        let mut status = self.status.clone();
        let says = |status: &proto::Status| {
            let main = ProcessId { pid: status.pid, start_ticks: status.start_ticks };
            status.stop_stage >= stage
                || status.exit.is_some()
                || stage < GONE_STAGE && status.pid > 0 && !main.is_alive()
        };
        match tokio::time::timeout(patience, status.wait_for(says)).await {
            Ok(Ok(_)) => true,
            // Whoever holds the connection learns of its end elsewhere.
            Ok(Err(_)) => true,
            Err(_) => says(&self.status.borrow()),
        }
    }

    /// Gives the terminal another size.
    pub(crate) async fn resize(&self, cols: u16, rows: u16) -> Result<(), ShimError> {
        self.done(kind::RESIZE, &proto::Resize { rows, cols }).await.map(drop)
    }

    /// Sends the main process a signal.
    pub(crate) async fn signal(&self, signal: i32) -> Result<(), ShimError> {
        let signal = proto::Signal { signal, all: false, instance: self.instance.clone() };
        self.done(kind::SIGNAL, &signal).await.map(drop)
    }

    /// The terminal's size now, if it is in our hands.
    pub(crate) fn terminal_size(&self) -> Option<(u16, u16)> {
        let size = rustix::termios::tcgetwinsize(&*self.legacy.as_ref()?.master).ok()?;
        Some((size.ws_col, size.ws_row))
    }

    /// Puts the next rung of the ladder off.
    pub(crate) async fn extend(&self, from_now: Duration) -> Result<(), ShimError> {
        let from_now_ms = u64::try_from(from_now.as_millis()).unwrap_or(u64::MAX);
        self.done(kind::EXTEND, &proto::Extend { from_now_ms }).await.map(drop)
    }

    /// The exit is recorded: the shim may go.
    pub(crate) async fn acknowledge(&self) -> Result<(), ShimError> {
        self.done(kind::ACK_EXIT, &proto::Instance { instance: self.instance.clone() }).await.map(drop)
    }

    /// Lets the shim of an ended run go and waits (not for ever) until it has.
    pub(crate) async fn leave(self) {
        // Acknowledged before, or not there any more: both are fine.
        let _ = self.acknowledge().await;
        let mut status = self.status.clone();
        let closed = async { while status.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(LEAVE, closed).await;
    }

    /// Bytes of the console log, also those that no file holds.
    pub(crate) async fn read(&self, offset: u64, max: u32) -> Result<proto::Data, ShimError> {
        let frame = self.request(kind::READ, &proto::Read { offset, max }, ANSWER).await?;
        decode(&frame, kind::DATA_REPLY)
    }

    async fn done<T: minicbor::Encode<()>>(&self, kind: u16, body: &T) -> Result<u64, ShimError> {
        let frame = self.request(kind, body, ANSWER).await?;
        decode::<proto::Done>(&frame, kind::OK_REPLY).map(|done| done.log_head)
    }

    async fn request<T: minicbor::Encode<()>>(
        &self,
        kind: u16,
        body: &T,
        patience: Duration,
    ) -> Result<Frame, ShimError> {
        request(&self.out, &self.pending, &self.next, kind, &proto::body(body), patience).await
    }

    fn weak(&self) -> Link {
        Link { out: self.out.downgrade(), pending: self.pending.clone(), next: self.next.clone() }
    }
}

/// What the follower needs, without keeping the connection open by itself.
struct Link {
    out: mpsc::WeakSender<Vec<u8>>,
    pending: Pending,
    next: Arc<AtomicU32>,
}

async fn request(
    out: &mpsc::Sender<Vec<u8>>,
    pending: &Pending,
    next: &AtomicU32,
    kind: u16,
    body: &[u8],
    patience: Duration,
) -> Result<Frame, ShimError> {
    let exchange = async {
        let (answer, _forget) = begin(out, pending, next, kind, body).await?;
        answer.await.map_err(|_| ShimError::Gone)
    };
    tokio::time::timeout(patience, exchange).await.map_err(|_| ShimError::Silent)?
}

/// Sends a request; the answer comes through the receiver.
async fn begin<'p>(
    out: &mpsc::Sender<Vec<u8>>,
    pending: &'p Pending,
    next: &AtomicU32,
    kind: u16,
    body: &[u8],
) -> Result<(oneshot::Receiver<Frame>, Forget<'p>), ShimError> {
    let id = next.fetch_add(1, Ordering::Relaxed);
    let (reply, answer) = oneshot::channel();
    lock(pending).as_mut().ok_or(ShimError::Gone)?.insert(id, reply);
    let forget = Forget { pending, id };
    let mut bytes = Vec::with_capacity(body.len() + 16);
    frame::encode(kind, id, body, &mut bytes);
    out.send(bytes).await.map_err(|_| ShimError::Gone)?;
    Ok((answer, forget))
}

/// A request that was given up leaves nothing behind.
struct Forget<'a> {
    pending: &'a Pending,
    id: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(answers) = lock(self.pending).as_mut() {
            answers.remove(&self.id);
        }
    }
}

fn lock(pending: &Pending) -> std::sync::MutexGuard<'_, Answers> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decode<'b, T: minicbor::Decode<'b, ()>>(frame: &'b Frame, expected: u16) -> Result<T, ShimError> {
    let malformed = || proto::Refusal {
        code: "malformed".to_owned(),
        message: format!("the shim answered with frame type {}", frame.kind),
    };
    if frame.kind == kind::ERROR_REPLY {
        let refusal = minicbor::decode(&frame.body).unwrap_or_else(|_| malformed());
        return Err(ShimError::Refused(refusal));
    }
    if frame.kind != expected {
        return Err(ShimError::Refused(malformed()));
    }
    minicbor::decode(&frame.body).map_err(|_| ShimError::Refused(malformed()))
}

async fn write_frames(mut write: OwnedWriteHalf, mut requests: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = requests.recv().await {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_frames(mut read: OwnedReadHalf, mut input: Vec<u8>, pending: Pending) {
    let mut buffer = vec![0_u8; 16 << 10];
    loop {
        loop {
            match frame::take(&mut input) {
                Ok(Some(frame)) => {
                    let asker = lock(&pending).as_mut().and_then(|answers| answers.remove(&frame.id));
                    if let Some(reply) = asker {
                        // Whoever asked may have given up.
                        let _ = reply.send(frame);
                    }
                }
                Ok(None) => break,
                Err(_) => return *lock(&pending) = None,
            }
        }
        match read.read(&mut buffer).await {
            Ok(n) if n > 0 => input.extend_from_slice(&buffer[..n]),
            // Dropping the pending answers tells their askers.
            _ => return *lock(&pending) = None,
        }
    }
}

/// Asks again and again what changed, until the connection or the last client is gone.
async fn follow(link: Link, publish: watch::Sender<proto::Status>, head: watch::Sender<u64>) {
    let (mut last, mut credit) = (Instant::now(), CREDIT);
    loop {
        let known = {
            let status = publish.borrow();
            proto::Watch { sequence: status.sequence, log_head: status.log_head }
        };
        // The sender is held only while sending: nothing may change for days, and a
        // connection that nobody uses any more has to close.
        let Some(out) = link.out.upgrade() else { return };
        let begun = begin(&out, &link.pending, &link.next, kind::WATCH, &proto::body(&known)).await;
        drop(out);
        let Ok((answer, _forget)) = begun else { return };
        let Ok(frame) = answer.await else { return };
        let Ok(status) = decode::<proto::Status>(&frame, kind::STATUS_REPLY) else { return };
        head.send_replace(status.log_head);
        publish.send_replace(status);
        // A server that prints without a pause is followed in steps: the cores are its own.
        let earned = u32::try_from(last.elapsed().as_millis() / PACE.as_millis()).unwrap_or(u32::MAX);
        credit = credit.saturating_add(earned).min(CREDIT);
        match credit.checked_sub(1) {
            Some(rest) => credit = rest,
            None => tokio::time::sleep(PACE.saturating_sub(last.elapsed())).await,
        }
        last = Instant::now();
    }
}
