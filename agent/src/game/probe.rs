//! Readiness: asked often while starting, seldom while all is well.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use zlh_api::Players;
use zlh_catalog::Probe;

use super::slp;
use crate::clock;

/// Between two questions while the answer is awaited: readiness is known this soon.
const EAGER: Duration = Duration::from_millis(100);

/// Questions under way at once while the answer is awaited.
const QUESTIONS: usize = 32;

/// Between two questions once it has stopped answering.
const WORRIED: Duration = Duration::from_secs(1);

/// For one question.
const PATIENCE: Duration = Duration::from_secs(3);

/// Failures in a row before a ready server counts as silent: one lost answer is no news.
const FAILURES: u32 = 2;

/// What the probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It accepts users.
    Answers,
    /// It does not.
    Silent(String),
    /// Whether somebody is, or may be, online.
    Occupied(bool),
}

/// Deployed name of a probe.
pub(crate) fn source(probe: Probe) -> &'static str {
    match probe {
        Probe::MinecraftPing => "minecraft_ping",
        Probe::TcpConnect => "tcp_connect",
    }
}

/// Asks until nobody listens to the answers any more. Only news is sent.
pub(crate) async fn watch(probe: Probe, port: u16, seen: mpsc::Sender<Seen>) {
    tokio::select! {
        () = follow(probe, port, &seen) => {}
        () = seen.closed() => {}
    }
}

async fn follow(probe: Probe, port: u16, seen: &mpsc::Sender<Seen>) {
    let mut occupied = first_answer(probe, port, seen).await;
    let mut told = Seen::Answers;
    // Whoever asked has gone when a send fails: `watch` ends with it. Who is online comes first:
    // a stop of a server that is ready warns those.
    let _ = seen.send(Seen::Occupied(occupied)).await;
    let _ = seen.send(told.clone()).await;
    let mut failures = 0;
    loop {
        match failures {
            0 => clock::beat().await,
            _ => tokio::time::sleep(WORRIED).await,
        }
        let news = match ask(probe, port).await {
            Ok(somebody) => {
                failures = 0;
                if occupied != somebody {
                    occupied = somebody;
                    let _ = seen.send(Seen::Occupied(occupied)).await;
                }
                Seen::Answers
            }
            Err(why) => {
                failures += 1;
                if failures < FAILURES { continue } else { Seen::Silent(why) }
            }
        };
        if told != news {
            let _ = seen.send(news.clone()).await;
            told = news;
        }
    }
}

/// Until the first complete answer. A server can take a connection long before it answers
/// it, or drop it; so a fresh question goes out every [`EAGER`], whatever became of the others.
async fn first_answer(probe: Probe, port: u16, seen: &mpsc::Sender<Seen>) -> bool {
    let mut questions = FuturesUnordered::new();
    let mut tick = tokio::time::interval(EAGER);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if questions.len() < QUESTIONS {
                    questions.push(ask(probe, port));
                }
            }
            Some(answer) = questions.next() => match answer {
                Ok(somebody) => return somebody,
                Err(why) if why != told => {
                    let _ = seen.send(Seen::Silent(why.clone())).await;
                    told = why;
                }
                Err(_) => {}
            },
        }
    }
}

/// Whether somebody may be online: a game that does not say who is not called empty.
async fn ask(probe: Probe, port: u16) -> Result<bool, String> {
    let address = local(port);
    match probe {
        Probe::MinecraftPing => slp::ping(address, PATIENCE)
            .await
            .map(|answer| answer.players.online > 0)
            .map_err(|e| e.to_string()),
        Probe::TcpConnect => match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(_)) => Err(format!("nothing answers on port {port}")),
            Err(_) => Err(format!("port {port} does not take connections")),
        },
    }
}

/// Who is online.
pub(crate) async fn players(port: u16) -> Result<Players, slp::PingError> {
    slp::ping(local(port), PATIENCE).await.map(|answer| answer.players)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
