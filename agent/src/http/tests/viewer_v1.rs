//! `zlh.console.v1` over real sockets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use zlh_api::{CONSOLE_PROTOCOL, ConsoleControl, ConsoleEvent, CrashRecord, ErrorCode, State};

use super::fixture::{Fixture, problem, until, within};
use crate::workload::Snapshot;

struct Viewer {
    socket: WebSocketStream<TcpStream>,
    /// First byte not received yet.
    offset: u64,
    bytes: Vec<u8>,
    events: VecDeque<ConsoleEvent>,
}

impl Viewer {
    async fn open(address: SocketAddr, query: &str) -> Self {
        Self::with(address, query, None).await.unwrap()
    }

    async fn with(
        address: SocketAddr,
        query: &str,
        buffer: Option<u32>,
    ) -> Result<Self, Box<tungstenite::Error>> {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(size) = buffer {
            socket.set_recv_buffer_size(size).unwrap();
        }
        let stream = socket.connect(address).await.unwrap();
        let mut request = format!("ws://{address}/console/stream{query}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", CONSOLE_PROTOCOL.parse().unwrap());
        let (socket, response) = within(client_async(request, stream)).await.map_err(Box::new)?;
        assert_eq!(response.headers()["sec-websocket-protocol"], CONSOLE_PROTOCOL);
        let mut viewer = Self { socket, offset: 0, bytes: Vec::new(), events: VecDeque::new() };
        let ConsoleEvent::Offset { offset, .. } = viewer.event().await else { panic!("no offset first") };
        viewer.offset = offset;
        assert_eq!(viewer.event().await, ConsoleEvent::Size { columns: 200, rows: 50 });
        Ok(viewer)
    }

    /// One message; what it says of the offset has to be true of what was received.
    async fn receive(&mut self) {
        match within(self.socket.next()).await {
            Some(Ok(Message::Binary(bytes))) => {
                self.offset += bytes.len() as u64;
                self.bytes.extend_from_slice(&bytes);
            }
            Some(Ok(Message::Text(text))) => {
                let event = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                match event {
                    ConsoleEvent::Dropped { from, to } => {
                        assert_eq!(from, self.offset);
                        self.offset = to;
                    }
                    ConsoleEvent::Live { offset } | ConsoleEvent::Exit { offset, .. } => {
                        assert_eq!(offset, self.offset);
                    }
                    _ => {}
                }
                self.events.push_back(event);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?} at {}", self.offset),
        }
    }

    async fn event(&mut self) -> ConsoleEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.receive().await;
        }
    }

    async fn until(&mut self, end: &[u8]) {
        while !self.bytes.ends_with(end) {
            self.receive().await;
        }
    }

    async fn say(&mut self, control: ConsoleControl) {
        self.socket.send(Message::text(serde_json::to_string(&control).unwrap())).await.unwrap();
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("{other:?} instead of a close frame"),
            }
        }
    }
}

fn publish(fixture: &Fixture, pid: Option<i32>, state: State, crash: Option<CrashRecord>) {
    let process = pid.map(|pid| (pid, "2026-01-01T00:00:00Z".to_owned()));
    fixture.snapshot.send_modify(|now| {
        *now = Arc::new(Snapshot { process, state, last_crash: crash, ..(**now).clone() });
    });
}

#[tokio::test]
async fn bytes_are_as_they_were_printed_and_an_offset_goes_on_where_it_was() {
    let fixture = Fixture::new();
    fixture.print(b"one\r\n\xff\x1b[0m\xf0\x9f");
    let address = fixture.listen().await;
    let mut viewer = Viewer::open(address, "").await;
    assert_eq!(viewer.event().await, ConsoleEvent::Live { offset: 12 });
    assert_eq!(viewer.bytes, b"one\r\n\xff\x1b[0m\xf0\x9f", "no byte is made into text");
    let reached = viewer.offset;
    drop(viewer);
    fixture.print(b"\x98\x80 while away\r\n");
    let mut again = Viewer::open(address, &format!("?since={reached}")).await;
    fixture.print(b"and live> ");
    again.until(b"live> ").await;
    assert_eq!(again.bytes, b"\x98\x80 while away\r\nand live> ", "neither a gap nor a byte twice");
    let mut tail = Viewer::open(address, "?tail=2").await;
    tail.until(b"> ").await;
    assert_eq!(tail.bytes, b"\xff\x1b[0m\xf0\x9f\x98\x80 while away\r\nand live> ");
}

#[tokio::test]
async fn what_was_not_printed_yet_is_the_end() {
    let fixture = Fixture::new();
    fixture.print(b"abc");
    let address = fixture.listen().await;
    let viewer = Viewer::open(address, "?since=1000").await;
    assert_eq!(viewer.offset, 3, "and it is told");
    for bad in ["?since=-1", "?tail=x", "?window=1e3"] {
        let refused = Viewer::with(address, bad, None).await.err().unwrap();
        assert!(matches!(*refused, tungstenite::Error::Http(ref r) if r.status() == 400), "{bad}: {refused}");
    }
}

#[tokio::test]
async fn what_is_no_longer_kept_is_a_gap_of_exact_size() {
    let fixture = Fixture::new();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..7 {
        fixture.print(&block);
    }
    fixture.print(b"end");
    let address = fixture.listen().await;
    let mut viewer = Viewer::open(address, "?since=5").await;
    viewer.until(b"end").await;
    let gap = viewer.events.iter().find_map(|event| match event {
        ConsoleEvent::Dropped { from, to } => Some((*from, *to)),
        _ => None,
    });
    let (from, to) = gap.unwrap_or_else(|| panic!("no gap: {:?}", viewer.events));
    assert_eq!((from, to + viewer.bytes.len() as u64), (5, (7 << 20) + 3));
    assert_eq!(viewer.offset, (7 << 20) + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_viewer_misses_nothing_that_is_kept_and_holds_up_nobody() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut slow = Viewer::with(address, "", Some(16 * 1024)).await.unwrap();
    let mut quick = Viewer::open(address, "").await;
    let mut all = Vec::new();
    for round in 0..40 {
        let block = format!("{round:06}\n").repeat(9000);
        fixture.print(block.as_bytes());
        all.extend_from_slice(block.as_bytes());
        while quick.offset < all.len() as u64 {
            quick.receive().await;
        }
    }
    assert!(quick.bytes == all);
    while slow.offset < all.len() as u64 {
        slow.receive().await;
    }
    assert!(slow.bytes == all, "2.5 MB late, and every byte of it");
}

#[tokio::test]
async fn a_window_is_as_far_as_the_agent_goes() {
    let fixture = Fixture::new();
    fixture.print(&[b'x'; 300_000]);
    let address = fixture.listen().await;
    let mut viewer = Viewer::open(address, "?since=100&window=70000").await;
    while viewer.offset < 70_100 {
        viewer.receive().await;
    }
    fixture.print(&[b'y'; 1000]);
    let more = tokio::time::timeout(Duration::from_millis(200), viewer.socket.next()).await;
    assert!(more.is_err(), "nothing beyond the window: {more:?}");
    while viewer.offset < 301_000 {
        viewer.say(ConsoleControl::Ack { offset: viewer.offset }).await;
        viewer.receive().await;
    }
    assert!(viewer.bytes.ends_with(&[b'y'; 1000]));
}

#[tokio::test]
async fn a_process_comes_and_goes_and_its_end_is_told_behind_its_last_byte() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut viewer = Viewer::open(address, "").await;
    assert_eq!(viewer.event().await, ConsoleEvent::Live { offset: 0 });
    publish(&fixture, Some(7), State::Starting, None);
    assert_eq!(viewer.event().await, ConsoleEvent::Started { pid: 7 });
    fixture.print(b"last words");
    let crash = CrashRecord { id: "17-ab".to_owned(), exit_code: Some(3), ..CrashRecord::default() };
    publish(&fixture, None, State::Crashed, Some(crash.clone()));
    let exit =
        ConsoleEvent::Exit { offset: 10, state: State::Crashed, crash: Some(Box::new((&crash).into())) };
    assert_eq!(viewer.event().await, exit);
    assert_eq!(viewer.bytes, b"last words");
    publish(&fixture, Some(8), State::Running, Some(crash.clone()));
    assert_eq!(viewer.event().await, ConsoleEvent::Started { pid: 8 });
    publish(&fixture, None, State::Idle, Some(crash));
    let exit = ConsoleEvent::Exit { offset: 10, state: State::Idle, crash: None };
    assert_eq!(viewer.event().await, exit, "an old crash is not this end's");
}

#[tokio::test]
async fn control_messages_are_answered_and_bytes_are_typed() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut viewer = Viewer::open(address, "").await;
    viewer.event().await;
    viewer.say(ConsoleControl::Resize { columns: 80, rows: 24 }).await;
    assert_eq!(viewer.event().await, ConsoleEvent::Size { columns: 200, rows: 50 }, "a game's is its own");
    viewer.socket.send(Message::binary(b"say \xff\r".to_vec())).await.unwrap();
    until("input", || !fixture.script().input.is_empty()).await;
    assert_eq!(fixture.script().input, [(b"say \xff\r".to_vec(), true)]);
    fixture.script().refuse_input = Some(problem(ErrorCode::NotRunning));
    for _ in 0..3 {
        viewer.socket.send(Message::binary(b"x".to_vec())).await.unwrap();
    }
    let refused = viewer.event().await;
    assert!(matches!(refused, ConsoleEvent::Refused { error: ErrorCode::NotRunning, .. }), "{refused:?}");
    viewer.say(ConsoleControl::Resize { columns: 80, rows: 24 }).await;
    assert!(matches!(viewer.event().await, ConsoleEvent::Size { .. }), "it was said once");
    for nonsense in ["", "stop\n", r#"{"type":"format_disk"}"#, r#"{"type":"resize","columns":-1,"rows":2}"#]
    {
        let mut viewer = Viewer::open(address, "").await;
        viewer.socket.send(Message::text(nonsense)).await.unwrap();
        assert_eq!(viewer.close_code().await, 1008, "{nonsense:?}");
    }
}

#[tokio::test]
async fn w7_the_limits_of_the_deployed_protocol_hold_here_too() {
    let fixture = Fixture::with(
        |_| {},
        |limits| {
            limits.viewers = 2;
            limits.write_stall = Duration::from_millis(300);
        },
    );
    let address = fixture.listen().await;
    let mut loud = Viewer::open(address, "").await;
    let _other = Viewer::open(address, "").await;
    let refused = Viewer::with(address, "", None).await.err().unwrap();
    assert!(matches!(*refused, tungstenite::Error::Http(ref response) if response.status() == 503));
    loud.socket.send(Message::binary(vec![0; 64 * 1024 + 1])).await.unwrap();
    assert_eq!(loud.close_code().await, 1008);
    drop(loud);
    until("a free place", || fixture.app.0.viewers.available_permits() == 1).await;
    // One that takes nothing is given up.
    let _deaf = Viewer::with(address, "", Some(16 * 1024)).await.unwrap();
    let flood = async {
        while fixture.app.0.viewers.available_permits() < 2 {
            fixture.print(&[b'x'; 64 * 1024]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(flood).await;
    fixture.shut_down();
    within(fixture.quiet()).await;
}
