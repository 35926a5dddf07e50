//! The console WebSocket over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use zlh_api::ErrorCode;

use super::fixture::{Fixture, problem, until, within};

type Socket = WebSocketStream<TcpStream>;

async fn connect(address: SocketAddr) -> Result<Socket, Box<tungstenite::Error>> {
    connect_as(address, "/console/stream", None, None).await
}

async fn connect_as(
    address: SocketAddr,
    path: &str,
    origin: Option<&str>,
    receive_buffer: Option<u32>,
) -> Result<Socket, Box<tungstenite::Error>> {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size).unwrap();
    }
    let stream = socket.connect(address).await.unwrap();
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    let (socket, _) = within(client_async(request, stream)).await.map_err(Box::new)?;
    Ok(socket)
}

/// Reads text frames until what they hold ends with `end`.
async fn text_until(socket: &mut Socket, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        match within(socket.next()).await {
            Some(Ok(Message::Text(part))) => text.push_str(&part),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?} after {:?}", &text[text.len().saturating_sub(200)..]),
        }
    }
    text
}

/// The code of the close frame.
async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        match within(socket.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            other => panic!("{other:?} instead of a close frame"),
        }
    }
}

#[tokio::test]
async fn what_was_is_replayed_and_what_comes_follows_without_a_seam() {
    let fixture = Fixture::new();
    fixture.print(b"first\r\n\x1b[32msecond\x1b[0m\r\n> ");
    let address = fixture.listen().await;
    for path in ["/console/stream", "/console/ws", "/console/stream?serverId=7"] {
        let mut viewer = connect_as(address, path, None, None).await.unwrap();
        let replay = text_until(&mut viewer, "> ").await;
        assert!(replay.starts_with("first\r\n\x1b[32msecond\x1b[0m\r\n"), "{replay}");
        fixture.print(b"third\r\n> ");
        assert_eq!(text_until(&mut viewer, "> ").await, "third\r\n> ");
    }
}

#[tokio::test]
async fn the_replay_is_64_kib_from_the_beginning_of_a_line() {
    let fixture = Fixture::new();
    let text: String = (0..20_000).map(|line| format!("line {line}\r\n")).collect();
    fixture.print(text.as_bytes());
    let address = fixture.listen().await;
    let replay = text_until(&mut connect(address).await.unwrap(), "line 19999\r\n").await;
    assert!(replay.starts_with("line ") && text.ends_with(&replay), "{replay:.40}");
    assert!((65_536 - 20..=65_536).contains(&replay.len()), "{}", replay.len());
}

#[tokio::test]
async fn while_nothing_runs_it_is_accepted_and_waits() {
    let fixture = Fixture::with(|_| {}, |limits| limits.ping = Duration::from_millis(50));
    fixture.script().refuse_input = Some(problem(ErrorCode::NotRunning));
    let address = fixture.listen().await;
    let mut viewer = connect(address).await.unwrap();
    assert!(matches!(within(viewer.next()).await, Some(Ok(Message::Ping(_)))));
    // What is typed into the void is said to be lost, once.
    for _ in 0..3 {
        viewer.send(Message::text("x")).await.unwrap();
    }
    assert_eq!(
        text_until(&mut viewer, "]\r\n").await,
        "\r\n[zlh: input dropped: because the test says so]\r\n"
    );
    fixture.script().refuse_input = None;
    viewer.send(Message::text("stop\n")).await.unwrap();
    until("input", || !fixture.script().input.is_empty()).await;
    fixture.print(b"at last");
    assert_eq!(text_until(&mut viewer, "at last").await, "at last");
}

#[tokio::test]
async fn a_character_is_never_cut_by_a_frame() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut viewer = connect(address).await.unwrap();
    for byte in "grüße 🎮".as_bytes() {
        fixture.print(&[*byte]);
        tokio::task::yield_now().await;
    }
    assert_eq!(text_until(&mut viewer, "🎮").await, "grüße 🎮");
    fixture.print(b"\xff\xfe ok");
    assert_eq!(text_until(&mut viewer, "ok").await, "\u{fffd}\u{fffd} ok");
}

#[tokio::test]
async fn input_goes_to_the_terminal_unchanged() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut viewer = connect(address).await.unwrap();
    viewer.send(Message::text("say hi\r\u{3}\u{1b}[A")).await.unwrap();
    viewer.send(Message::binary(vec![0xff, 0x00])).await.unwrap();
    until("input", || fixture.script().input.len() == 2).await;
    let expected = [(b"say hi\r\x03\x1b[A".to_vec(), true), (vec![0xff, 0x00], true)];
    assert_eq!(fixture.script().input, expected);
}

#[tokio::test]
async fn w7_a_message_over_the_limit_ends_the_view() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut viewer = connect(address).await.unwrap();
    viewer.send(Message::text("a".repeat(64 * 1024))).await.unwrap();
    until("input", || !fixture.script().input.is_empty()).await;
    viewer.send(Message::text("a".repeat(64 * 1024 + 1))).await.unwrap();
    assert_eq!(close_code(&mut viewer).await, 1008);
    assert_eq!(fixture.script().input.len(), 1);
    drop(viewer);
    within(fixture.quiet()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_viewer_skips_ahead_and_holds_up_nobody() {
    // However long the machine takes for all rounds, it is only slow.
    let fixture = Fixture::with(|_| {}, |limits| limits.write_stall = Duration::from_secs(600));
    let address = fixture.listen().await;
    let mut slow = connect_as(address, "/console/stream", None, Some(16 * 1024)).await.unwrap();
    let mut quick = connect(address).await.unwrap();
    let block: String = (0..4096).map(|_| "0123456789abcd\r\n").collect();
    let mut printed = 0_u64;
    for round in 0..600 {
        fixture.print(block.as_bytes());
        fixture.print(format!("round {round}\r\n").as_bytes());
        printed += block.len() as u64;
        // The quick one sees every round while the slow one reads nothing.
        text_until(&mut quick, &format!("round {round}\r\n")).await;
    }
    fixture.print(b"THE END");
    let seen = text_until(&mut slow, "THE END").await;
    let notice = seen.find("\r\n[zlh: ").unwrap_or_else(|| panic!("no notice in {} bytes", seen.len()));
    assert!(seen[notice..].starts_with("\r\n[zlh: ") && seen[notice..].contains(" bytes skipped]\r\n"));
    let skipped: u64 = seen
        .match_indices("[zlh: ")
        .map(|(at, mark)| seen[at + mark.len()..].split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    let notices = seen.matches("bytes skipped]").count();
    let notice_bytes: usize = seen
        .match_indices("\r\n[zlh: ")
        .map(|(at, _)| seen[at + 2..].find("]\r\n").unwrap() + 2 + "]\r\n".len())
        .sum();
    let rounds: u64 = (0..600).map(|round| format!("round {round}\r\n").len() as u64).sum();
    assert_eq!((seen.len() - notice_bytes) as u64 + skipped, printed + rounds + 7, "{notices} notices");
}

#[tokio::test]
async fn a_viewer_that_takes_nothing_is_dropped() {
    let fixture = Fixture::with(|_| {}, |limits| limits.write_stall = Duration::from_millis(300));
    let address = fixture.listen().await;
    let viewer = connect_as(address, "/console/stream", None, Some(16 * 1024)).await.unwrap();
    let flood = async {
        while fixture.app.0.viewers.available_permits() < 200 {
            fixture.print(&[b'x'; 64 * 1024]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(flood).await;
    drop(viewer);
}

#[tokio::test]
async fn a_viewer_that_answers_no_ping_is_dropped() {
    let fixture = Fixture::with(
        |_| {},
        |limits| {
            limits.ping = Duration::from_millis(50);
            limits.silence = Duration::from_secs(6);
        },
    );
    let address = fixture.listen().await;
    let mut attentive = connect(address).await.unwrap();
    let _deaf = connect(address).await.unwrap();
    until("two viewers", || fixture.app.0.viewers.available_permits() == 198).await;
    // Reading is what answers pings.
    let drop_one = until("one viewer", || fixture.app.0.viewers.available_permits() == 199);
    tokio::select! {
        () = drop_one => {}
        () = async { while attentive.next().await.is_some() {} } => panic!("the attentive viewer was dropped"),
    }
    fixture.print(b"still here");
    text_until(&mut attentive, "still here").await;
}

#[tokio::test]
async fn viewers_are_limited_and_give_their_places_back() {
    let fixture = Fixture::with(|_| {}, |limits| limits.viewers = 2);
    let address = fixture.listen().await;
    let first = connect(address).await.unwrap();
    let _second = connect(address).await.unwrap();
    let refused = connect(address).await.unwrap_err();
    assert!(
        matches!(*refused, tungstenite::Error::Http(ref response) if response.status() == 503),
        "{refused}"
    );
    drop(first);
    until("a free place", || fixture.app.0.viewers.available_permits() == 1).await;
    connect(address).await.unwrap();
}

#[tokio::test]
async fn at_the_end_viewers_are_told() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let mut viewer = connect(address).await.unwrap();
    fixture.shut_down();
    assert_eq!(close_code(&mut viewer).await, 1001);
    within(fixture.quiet()).await;
}

#[tokio::test]
async fn w5_a_foreign_page_gets_no_console() {
    let fixture =
        Fixture::with(|config| config.allowed_origins = vec!["https://panel.example".to_owned()], |_| {});
    let address = fixture.listen().await;
    for origin in ["null", "https://evil.example"] {
        let refused = connect_as(address, "/console/stream", Some(origin), None).await.unwrap_err();
        assert!(
            matches!(*refused, tungstenite::Error::Http(ref response) if response.status() == 403),
            "{refused}"
        );
    }
    connect_as(address, "/console/stream", Some("https://panel.example"), None).await.unwrap();
}

#[tokio::test]
async fn a_plain_get_is_told_what_this_is() {
    let fixture = Fixture::new();
    let reply = fixture.get("/console/stream").await;
    reply.is_problem(400, "invalid_request");
    assert!(reply.body.contains("WebSocket"), "{}", reply.body);
}
