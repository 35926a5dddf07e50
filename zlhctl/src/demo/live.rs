//! In a terminal: stay, show what the server does, until Ctrl-C.

use std::time::Duration;

use anyhow::Result;
use zlh_api::{Players, Status};

use super::Running;
use super::signals::Signals;
use crate::ui::progress::Progress;
use crate::ui::units;

pub(super) async fn stay(running: &Running, signals: &mut Signals, progress: &Progress) -> Result<()> {
    let line = progress.line(super::NAME);
    loop {
        let text = match running.client.status().await {
            Ok(status) => {
                describe(&status, running.client.players().await.ok().as_ref(), jiff::Timestamp::now())
            }
            Err(error) => error.to_string(),
        };
        line.text(&text);
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = signals.next() => return Ok(()),
        }
    }
}

fn describe(status: &Status, players: Option<&Players>, now: jiff::Timestamp) -> String {
    let mut parts = vec![status.state.to_string()];
    if let Some(error) = &status.error {
        parts.push(error.clone());
    }
    if status.process_running {
        if let Some(players) = players {
            parts.push(format!("{}/{} players", players.online, players.max));
        }
        if let Some(resources) = &status.resources {
            parts.push(units::bytes(resources.memory_bytes));
        }
        if let Some(up) = status.started_at.as_deref().and_then(|at| units::since(at, now)) {
            parts.push(format!("up {}", units::age(up)));
        }
    }
    parts.push("ctrl-c stops it".to_owned());
    parts.join(" · ")
}

const PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::status;
    use zlh_api::State;

    #[test]
    fn one_line() {
        let mut running = status(State::Running);
        running.process_running = true;
        running.started_at = Some("2026-01-01T00:00:00Z".to_owned());
        let players = Players { online: 1, max: 20, players: vec![] };
        let now = "2026-01-01T00:02:05Z".parse().unwrap();
        assert_eq!(
            describe(&running, Some(&players), now),
            "running · 1/20 players · up 2m 5s · ctrl-c stops it"
        );
    }
}
