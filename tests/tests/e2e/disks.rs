//! Disks that fail under everything: the power goes at any moment, the kernel finds the file
//! system damaged and writes no more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use zlh_api::State;
use zlh_tests::harness::agent::Agent;
use zlh_tests::harness::disk::Disk;
use zlh_tests::harness::faults::thorough;
use zlh_tests::harness::process::living_in;
use zlh_tests::harness::store::{FakePlan, Store};
use zlh_tests::harness::wait::{SOON, until};

use crate::faults::{Lived, all_is_well, live_a_little, restart_on_a_full_disk};
use crate::guards::skip;

/// An agent whose root lies on a disk of its own, which is to outlive it.
fn on_a_disk() -> Option<(Disk, Agent)> {
    let mut agent = Agent::prepare(Store::fake(&FakePlan::new(&[])).unwrap()).unwrap();
    let (image, at) = (agent.store.path("disk.img"), agent.root_path("disk"));
    let disk = match Disk::mount(&image, &at) {
        Ok(disk) => disk,
        Err(why) => {
            skip(&why);
            return None;
        }
    };
    agent.move_root(&at);
    Some((disk, agent))
}

/// Everything that runs there ends at once, without a word.
fn kill_everything(agent: &mut Agent) {
    let shims = agent.shims();
    agent.kill();
    until("nothing to run from this disk", SOON, || {
        let doomed = living_in(agent.root());
        let all = shims.iter().copied().filter(|shim| shim.is_alive()).chain(doomed);
        all.map(|process| process.signal(Signal::SIGKILL)).count() == 0
    });
}

/// The container's power fails at moments all over a life: what is found afterwards is whole, and
/// what was answered before holds.
#[test]
fn a_power_cut_at_any_moment_leaves_old_or_new_and_never_half() {
    let Some((disk, mut agent)) = on_a_disk() else { return };
    let rounds: u32 = if thorough() { 40 } else { 6 };
    // How long a life takes here, that the cuts fall into all of it.
    let begun = Instant::now();
    agent.start();
    live_a_little(&agent, &mut Lived::default(), || true).expect("an undisturbed life");
    let life = begun.elapsed().max(Duration::from_millis(500));
    let mut lived = Lived::default();
    for round in 0..rounds {
        kill_everything(&mut agent);
        // Every third from nothing, that installs are hit as well.
        if round % 3 == 0 {
            for entry in std::fs::read_dir(agent.root()).unwrap().flatten() {
                if entry.file_name() != "lost+found" {
                    std::fs::remove_dir_all(entry.path()).unwrap();
                }
            }
            nix::unistd::sync();
            lived = Lived::default();
        }
        lived = lived.with_a_crash_by_accident();
        agent.spawn().unwrap();
        let cut = Instant::now() + life * (round * 7 % rounds + 1) / rounds;
        let process = agent.process();
        let is_off = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (agent, lived, is_off) = (&mut agent, &mut lived, &is_off);
            // What is answered without power is no promise.
            let counts = || !is_off.load(Ordering::SeqCst);
            let life = scope.spawn(move || {
                while agent.try_connect().is_none() && Instant::now() < cut {}
                while Instant::now() < cut && live_a_little(agent, lived, counts).is_some() {}
            });
            while Instant::now() < cut {
                std::thread::yield_now();
            }
            is_off.store(true, Ordering::SeqCst);
            disk.power_off().unwrap();
            // Ends the rest of that life.
            process.signal(Signal::SIGKILL);
            life.join().unwrap();
        });
        kill_everything(&mut agent);
        disk.remount();
        let rest = all_is_well(&mut agent, &format!("power cut {round}"), &lived);
        lived = Lived::since(&rest);
    }
    println!("{rounds} power cuts over a life of {life:?}");
}

/// The kernel finds the disk damaged and lets nobody write: the game is left alone, its console
/// goes on, the next agent knows it, and a stop stops.
#[test]
fn a_disk_that_turned_read_only_costs_no_game() {
    let Some((disk, mut agent)) = on_a_disk() else { return };
    agent.start();
    agent.configure();
    agent.wait_ready();
    let game = agent.game();
    disk.turn_read_only().unwrap();
    let touched = std::fs::write(agent.root_path("touched"), "x").unwrap_err();
    assert_eq!(touched.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    agent.command("say onto a dead disk");
    agent.wait_console("[Server] onto a dead disk");
    restart_on_a_full_disk(&mut agent);
    agent.wait_ready();
    assert_eq!(agent.game(), game);
    agent.command("say once more");
    agent.wait_console("[Server] once more");
    agent.post("/stop", 204);
    let status = agent.wait_state(State::Idle);
    assert!(!game.is_alive());
    assert_eq!(status.crashes_total, 0, "{status:?}");
    agent.post("/start", 202);
    let status = agent.wait_status("the reason", SOON, |s| s.state == State::Error);
    let error = status.error.unwrap();
    assert!(error.contains("Read-only file system"), "{error}");
    let told = status.warnings.iter().any(|line| line.contains("free or repair the disk"));
    assert!(told, "{:?}", status.warnings);
    // A container that comes up like this has an agent that says so.
    kill_everything(&mut agent);
    disk.remount();
    disk.mount_read_only().unwrap();
    agent.start_at_known_address();
    agent.wait_status("what is known", SOON, |s| s.config.is_some());
    agent.post("/start", 202);
    let status = agent.wait_status("the reason", SOON, |s| s.state == State::Error);
    assert!(status.error.as_ref().is_some_and(|why| why.contains("Read-only file system")), "{status:?}");
    kill_everything(&mut agent);
    disk.remount();
    all_is_well(&mut agent, "a repaired disk", &Lived::default().with_a_crash_by_accident());
}
