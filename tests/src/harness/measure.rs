//! Measurements that both the suite and the benchmark take.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use zlh_api::State;

use super::agent::Agent;
use super::ports::Port;
use super::wait::SOON;
use crate::fake::events::{What, monotonic_ns};

/// From exec to the moment the agent's port takes a connection, `rounds` times, sorted.
#[track_caller]
pub fn exec_to_listening(agent: &mut Agent, rounds: usize) -> Vec<Duration> {
    let port = Port::lease().expect("a port for the agent");
    agent.listen_on(port.number());
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        agent.spawn().expect("start the agent");
        while TcpStream::connect(("127.0.0.1", port.number())).is_err() {
            assert!(begun.elapsed() < SOON, "the agent does not listen:\n{}", agent.log());
            std::thread::sleep(FINE);
        }
        times.push(begun.elapsed());
        agent.kill();
    }
    times.sort_unstable();
    times
}

/// From the fake game's own "the port is open" to `ready`, `rounds` starts, sorted.
/// The workload must be configured, and is left stopped.
#[track_caller]
pub fn answer_to_ready(agent: &Agent, rounds: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        agent.post("/stop", 204);
        agent.wait_state(State::Idle);
        let before = listened(agent).len();
        agent.post("/start", 202);
        let begun = Instant::now();
        // Asked without a pause: what this loop takes counts against the agent.
        let seen = loop {
            if agent.http().get("/ready").expect("ask for readiness").status == 200 {
                break monotonic_ns();
            }
            assert!(begun.elapsed() < SOON, "never ready: {:?}", agent.status().error);
        };
        let answered = *listened(agent).get(before).expect("the game says when it listens");
        times.push(Duration::from_nanos(seen.saturating_sub(answered)));
    }
    agent.post("/stop", 204);
    agent.wait_state(State::Idle);
    times.sort_unstable();
    times
}

fn listened(agent: &Agent) -> Vec<u64> {
    let events = agent.events().into_iter();
    events.filter(|event| event.what == What::Listening).map(|event| event.at_ns).collect()
}

const FINE: Duration = Duration::from_micros(200);
