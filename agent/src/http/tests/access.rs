//! Access over real sockets, under real uids.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use axum::http::Method;
use nix::unistd::Uid;

use super::fixture::{Fixture, exchange, request, until, within};
use crate::config::TokenHash;
use crate::http::limits::Source;
use crate::http::peer::Peer;

const TOKEN: &str = "a-token-of-good-length";
const NOBODY: u32 = 65534;
const STOP: &[u8] = b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

/// Runs `act` in a thread whose sockets belong to uid `NOBODY`; none without the right to.
///
/// A socket is owned by the file-system uid of the thread that makes it, which needs no child process.
fn as_nobody<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can open sockets as another user");
        return None;
    }
    let thread = std::thread::spawn(move || {
        nix::unistd::setfsuid(Uid::from_raw(NOBODY));
        act()
    });
    Some(thread.join().unwrap())
}

fn blocking_exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_user_is_let_in_without_a_token() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    assert!(exchange(address, &get("/status")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv4_peer_of_an_ipv6_listener_is_known_too() {
    let fixture = Fixture::new();
    let Ok(listener) = crate::http::bind("[::]:0".parse().unwrap()).await else {
        eprintln!("skipped: no IPv6 here");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    tokio::spawn(crate::http::serve(listener, fixture.app.clone(), shutdown));
    for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
        let answer = exchange(SocketAddr::new(ip.parse().unwrap(), port), &get("/status")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{ip}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_this_machine_gets_health_and_nothing_else() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let Some((health, status, stop)) = as_nobody(move || {
        let ask = |bytes: &[u8]| blocking_exchange(address, bytes);
        let stop = [&STOP[..STOP.len() - 2], b"Connection: close\r\n\r\n"].concat();
        (ask(&get("/health")), ask(&get("/status")), ask(&stop))
    }) else {
        return;
    };
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok"), "{health}");
    for refused in [status, stop] {
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
        assert!(refused.contains("uid 65534") && refused.contains("ZLH_AGENT_TOKEN"), "{refused}");
    }
    assert!(fixture.script().verbs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_user_who_closes_at_once_is_refused() {
    let fixture = Fixture::new();
    let address = fixture.listen().await;
    let attacked = as_nobody(move || {
        for round in 0..60 {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(STOP);
            match round % 3 {
                // FIN: the socket lingers, owned by uid 0 in the table.
                0 => drop(stream),
                1 => {
                    stream.shutdown(Shutdown::Write).unwrap();
                    drop(stream);
                }
                // RST.
                _ => {
                    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                    nix::sys::socket::setsockopt(&stream.as_fd(), nix::sys::socket::sockopt::Linger, &linger)
                        .unwrap();
                    drop(stream);
                }
            }
        }
    });
    if attacked.is_none() {
        return;
    }
    // A call that is let in proves that the server is past the attack, and that it still works.
    assert!(exchange(address, &get("/ready")).await.starts_with("HTTP/1.1 503"));
    within(fixture.quiet()).await;
    assert!(fixture.script().verbs.is_empty(), "a stranger stopped the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_take_all_the_places() {
    let fixture = Fixture::with(|_| {}, |limits| limits.connections_of_a_stranger = 4);
    let address = fixture.listen().await;
    let app = fixture.app.clone();
    let Some(held) =
        as_nobody(move || (0..4).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>())
    else {
        return;
    };
    until("four taken places", || app.0.quota.taken(Source::Local(Some(NOBODY))) == 4).await;
    let Some(fifth) = as_nobody(move || blocking_exchange(address, &get("/health"))) else { return };
    assert!(fifth.starts_with("HTTP/1.1 503") && fifth.contains("too many connections"), "{fifth}");
    assert!(exchange(address, &get("/status")).await.starts_with("HTTP/1.1 200"));
    drop(held);
}

#[tokio::test]
async fn with_a_token_the_token_decides() {
    let fixture = Fixture::with(|config| config.token = Some(TokenHash::new(TOKEN).unwrap()), |_| {});
    let address = fixture.listen().await;
    assert!(exchange(address, &get("/health")).await.starts_with("HTTP/1.1 200"));
    let refused = exchange(address, &get("/status")).await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("www-authenticate: Bearer"), "{refused}");
    let good = format!(
        "GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange(address, good.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(TOKEN), "{answer}");
}

#[tokio::test]
async fn w10_ten_wrong_tokens_lock_a_source_out_and_nobody_else() {
    let fixture = Fixture::with(|config| config.token = Some(TokenHash::new(TOKEN).unwrap()), |_| {});
    let ask = async |peer: Peer, token: Option<&str>| {
        let mut request = request(Method::GET, "/status", "");
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        fixture.ask(peer, request).await
    };
    let attacker = Peer::Remote("192.0.2.9".parse().unwrap());
    // Calls without a token guess nothing, and count for nothing.
    for _ in 0..20 {
        ask(attacker, None).await.is_problem(401, "unauthorized");
    }
    for _ in 0..10 {
        ask(attacker, Some("wrong-wrong-wrong-wrong")).await.is_problem(401, "unauthorized");
    }
    let locked = ask(attacker, Some(TOKEN)).await;
    locked.is_problem(429, "too_many_attempts");
    let wait: u64 = locked.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    ask(attacker, None).await.is_problem(401, "unauthorized");
    for other in [Peer::Remote("192.0.2.10".parse().unwrap()), Peer::Local(Some(0)), Peer::Local(Some(1001))]
    {
        assert_eq!(ask(other, Some(TOKEN)).await.status.as_u16(), 200);
    }
}
