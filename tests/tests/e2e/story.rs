//! The whole story, with a real server and a real player.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use zlh_api::State;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::real::{self, Player};
use zlh_tests::harness::slp;
use zlh_tests::harness::wait::SOON;

/// Unpacking 400 MB and starting a server on a busy machine.
const PATIENT: Duration = Duration::from_secs(180);

#[test]
fn a_player_joins_a_real_server_and_finds_the_world_again() {
    let mut agent = Agent::prepare(real::store().unwrap()).unwrap();
    agent.start();
    let mut payload = agent.payload();
    payload["variant"] = json!(real::VARIANT);
    payload["version"] = json!(real::VERSION);
    let begun = Instant::now();
    agent.configure_with(&payload).expect(202);
    let mut steps = Vec::new();
    let status = agent.wait_status("readiness", PATIENT, |status| {
        assert!(!matches!(status.state, State::Error | State::Crashed), "{status:?}");
        status.ready
    });
    println!("installed and ready after {:?}", begun.elapsed());
    assert_eq!(status.state, State::Running);
    assert_eq!(status.artifacts.unwrap().installed, "minecraft/flying-squid 1.18.2");
    let port = agent.port.number();
    assert_eq!(slp::ping(port, SOON).unwrap().status["players"]["online"], 0);

    let mut player = Player::join(port, "Ada");
    agent.wait_console("Ada");
    player.say("hello from a real player");
    player.wait_heard("hello from a real player");
    agent.wait_console("<Ada> hello from a real player");
    let players: zlh_api::Players = agent.http().get("/game/players").unwrap().expect(200).json();
    // This server counts its players in the ping and does not name them.
    assert_eq!(players.online, 1);
    agent.command("say hello from the console");
    player.wait_heard("hello from the console");
    let place = player.place("gold_block");
    steps.push(Instant::now());

    // The agent goes and comes back while she plays.
    let game = agent.game();
    agent.kill();
    player.say("is anybody there");
    player.wait_heard("is anybody there");
    agent.start();
    agent.wait_ready();
    assert_eq!(agent.game(), game);
    agent.wait_console("<Ada> is anybody there");

    // The server's own stop does not wait for the last seconds of its saves.
    let settle = steps[0] + Duration::from_secs(4);
    while Instant::now() < settle {
        assert_eq!(player.block_at(&place), "gold_block");
    }
    player.quit();
    agent.post("/stop", 204);
    let status = agent.wait_status("idle", PATIENT, |status| status.state == State::Idle);
    assert_eq!(status.crash_count, 0);
    assert!(!game.is_alive());
    let world = agent.root_path("opt/zlh/minecraft/flying-squid/world/world/1.18.2");
    let regions: Vec<_> = fs::read_dir(world.join("region")).unwrap().flatten().collect();
    assert!(regions.iter().any(|file| file.metadata().unwrap().len() > 8192), "{regions:?}");

    let begun = Instant::now();
    agent.post("/start", 202);
    agent.wait_status("readiness", PATIENT, |status| status.ready);
    let second = begun.elapsed();
    println!("second start: {second:?}");
    assert!(second < Duration::from_secs(20), "nothing is installed again: {second:?}");
    let mut player = Player::join(port, "Ada");
    assert_eq!(player.block_at(&place), "gold_block", "the world was saved");
    player.quit();
}
