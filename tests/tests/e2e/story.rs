//! The whole story, with a real server and a real player.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
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

    // The agent goes and comes back while she plays.
    let game = agent.game();
    agent.kill();
    player.say("is anybody there");
    player.wait_heard("is anybody there");
    agent.start();
    agent.wait_ready();
    assert_eq!(agent.game(), game);
    agent.wait_console("<Ada> is anybody there");

    // This server forgets changes made while it saves, and its stop waits for no save: so she
    // goes on building until the files have what she built last.
    let world = agent.root_path("opt/zlh/minecraft/flying-squid/world/world/1.18.2");
    let end = Instant::now() + PATIENT;
    let mut top = place.clone();
    while !is_saved(&mut player, &world, &top) {
        assert!(Instant::now() < end, "the server never saved {top}");
        top = player.place("gold_block");
    }
    assert_eq!(player.block_at(&place), "gold_block");
    player.quit();
    agent.post("/stop", 204);
    let status = agent.wait_status("idle", PATIENT, |status| status.state == State::Idle);
    assert_eq!(status.crash_count, 0);
    assert!(!game.is_alive());
    let regions: Vec<_> = fs::read_dir(world.join("region")).unwrap().flatten().collect();
    assert!(regions.iter().any(|file| file.metadata().unwrap().len() > 8192), "{regions:?}");

    let begun = Instant::now();
    let started: zlh_api::Accepted = agent.post("/start", 202).json();
    assert_eq!(started.state, State::Starting, "nothing is installed again");
    agent.wait_status("readiness", PATIENT, |status| status.ready);
    println!("second start: {:?}", begun.elapsed());
    let mut player = Player::join(port, "Ada");
    assert_eq!(player.block_at(&place), "gold_block", "the world was saved");
    player.quit();
}

/// Whether a block reaches the files within a few of the server's saves, one a second.
fn is_saved(player: &mut Player, world: &Path, place: &Value) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if player.stored_at(world, place) == "gold_block" {
            return true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    false
}
