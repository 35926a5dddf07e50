//! The machine and its policy in simulated time: servers that die at every interesting age.
//!
//! Time moves only when the simulation says so. A server takes [`STARTUP`] from its start
//! until it answers; it dies either so long after its start, or so long after it answered.

use std::fmt::Write as _;

use super::*;
use crate::workload::policy::BACKOFF;

/// From the start of the process to its first answer.
const STARTUP: Duration = Duration::from_secs(20);

/// Give-up has to come before this many crashes, whatever the server does between.
const PATIENCE: usize = 50;

fn stable() -> u64 {
    Limits::default().stable.as_secs()
}

#[derive(Debug, Clone, Copy)]
enum Dies {
    AfterStart(u64),
    AfterReady(u64),
}

impl Dies {
    /// Uptime, and how long of it users were accepted.
    fn life(self) -> (Duration, Duration) {
        match self {
            Self::AfterStart(age) => {
                let uptime = Duration::from_secs(age);
                (uptime, uptime.saturating_sub(STARTUP))
            }
            Self::AfterReady(age) => (STARTUP + Duration::from_secs(age), Duration::from_secs(age)),
        }
    }
}

/// A machine under a clock of its own.
struct World {
    machine: Machine,
    /// Seconds since the first start.
    now: u64,
    /// When the pause before a restart is over.
    due: Option<u64>,
    /// What happened, `second:event`.
    told: String,
}

impl World {
    fn started() -> Self {
        let mut world = Self {
            machine: Machine::new(true, true, Policy::default(), Limits::default()),
            now: 0,
            due: None,
            told: String::new(),
        };
        let Ok(Admission::Accepted(effects)) = world.machine.command(Command::Start) else {
            panic!("a configured machine starts")
        };
        world.perform(effects);
        world
    }

    fn tell(&mut self, what: &str) {
        write!(self.told, "{}{}:{what}", if self.told.is_empty() { "" } else { " " }, self.now).unwrap();
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Spawn => {
                    self.tell("start");
                    let effects = self.machine.observe(Observation::Spawned);
                    self.perform(effects);
                }
                Effect::ArmBackoff(pause) => {
                    assert_eq!(self.due, None, "two pauses at once");
                    self.due = Some(self.now + pause.as_secs());
                }
                Effect::DisarmBackoff => self.due = None,
                _ => {}
            }
        }
    }

    fn observe(&mut self, seen: Observation) {
        let effects = self.machine.observe(seen);
        self.perform(effects);
    }

    /// One life of the server, from its start to its death.
    fn live_and_die(&mut self, dies: Dies) {
        let (uptime, ready_for) = dies.life();
        if uptime >= STARTUP {
            self.observe(Observation::Answers);
            assert!(self.machine.ready());
        }
        self.now += uptime.as_secs();
        self.tell("crash");
        self.observe(Observation::Exited(Ended { intended: false, never_ran: None, uptime, ready_for }));
        assert!(!self.machine.ready());
    }

    /// Lets the pause pass; false when no restart is planned.
    fn wait_for_restart(&mut self) -> bool {
        let Some(due) = self.due.take() else { return false };
        assert_eq!(self.machine.state(), State::Crashed);
        self.now = due;
        self.observe(Observation::BackoffOver);
        assert_eq!(self.machine.state(), State::Starting);
        true
    }

    /// Crashes in the same way until the machine gives up.
    fn run(dies: Dies) -> (Self, usize) {
        let mut world = Self::started();
        for crash in 1..=PATIENCE {
            world.live_and_die(dies);
            if !world.wait_for_restart() {
                assert_eq!(world.machine.state(), State::Error);
                world.tell("error");
                return (world, crash);
            }
        }
        (world, PATIENCE)
    }
}

/// Every timeline in full: whoever changes the policy sees here what it does to users.
#[test]
fn servers_that_die_at_5_29_31_40_90_and_200_seconds() {
    let ladder = |life: u64| {
        // 30 s, 60 s, 120 s, then the fourth crash is the last.
        let (a, b, c) = (life + 30, 2 * life + 90, 3 * life + 210);
        format!(
            "0:start {}:crash {a}:start {}:crash {b}:start {}:crash {c}:start {}:crash {}:error",
            life,
            a + life,
            b + life,
            c + life,
            c + life
        )
    };
    let budget = |life: u64| {
        // Every life was long enough for the first step; the fifth crash ends it.
        let mut told = "0:start".to_owned();
        for round in 0..4 {
            let begun = round * (life + 30);
            write!(told, " {}:crash {}:start", begun + life, begun + life + 30).unwrap();
        }
        let last = 4 * (life + 30) + life;
        write!(told, " {last}:crash {last}:error").unwrap();
        told
    };
    let cases = [
        (Dies::AfterStart(5), ladder(5), 4),
        (Dies::AfterStart(29), ladder(29), 4),
        (Dies::AfterStart(30), budget(30), 5),
        (Dies::AfterStart(31), budget(31), 5),
        (Dies::AfterStart(40), budget(40), 5),
        (Dies::AfterStart(90), budget(90), 5),
        (Dies::AfterStart(200), budget(200), 5),
        (Dies::AfterReady(5), ladder(25), 4),
        (Dies::AfterReady(29), budget(49), 5),
        (Dies::AfterReady(31), budget(51), 5),
        (Dies::AfterReady(40), budget(60), 5),
        (Dies::AfterReady(90), budget(110), 5),
        (Dies::AfterReady(200), budget(220), 5),
    ];
    for (dies, timeline, crashes) in cases {
        let (world, seen) = World::run(dies);
        assert_eq!(world.told, timeline, "{dies:?}");
        assert_eq!(seen, crashes, "{dies:?}");
        assert_eq!(world.machine.policy().total, u32::try_from(crashes).unwrap());
    }
}

#[test]
fn a_server_with_five_stable_minutes_between_its_crashes_is_never_given_up() {
    let (world, crashes) = World::run(Dies::AfterReady(stable()));
    assert_eq!(crashes, PATIENCE);
    assert_eq!(world.machine.state(), State::Starting);
}

#[test]
fn one_second_short_of_stable_is_not_stable() {
    let (_, crashes) = World::run(Dies::AfterReady(stable() - 1));
    assert_eq!(crashes, usize::try_from(Limits::default().budget).unwrap());
}

/// One stable period in the middle forgives what was before it, and no more.
#[test]
fn stability_forgives_once() {
    let mut world = World::started();
    for dies in [40, 40, 40, 40].map(Dies::AfterStart) {
        world.live_and_die(dies);
        assert!(world.wait_for_restart());
    }
    world.live_and_die(Dies::AfterReady(stable()));
    assert!(world.wait_for_restart(), "the fifth crash came after five stable minutes");
    for dies in [40, 40, 40].map(Dies::AfterStart) {
        world.live_and_die(dies);
        assert!(world.wait_for_restart());
    }
    world.live_and_die(Dies::AfterStart(40));
    assert!(!world.wait_for_restart(), "five again since then");
}

/// A start from `error` clears everything but the total.
#[test]
fn a_start_by_hand_begins_anew() {
    let (mut world, _) = World::run(Dies::AfterStart(5));
    let Ok(Admission::Accepted(effects)) = world.machine.command(Command::Start) else {
        panic!("start from error")
    };
    world.perform(effects);
    assert_eq!(world.machine.policy().remaining(Limits::default()), u32::try_from(BACKOFF.len()).unwrap());
    world.live_and_die(Dies::AfterStart(5));
    assert_eq!(world.due, Some(world.now + BACKOFF[0].as_secs()));
    assert_eq!(world.machine.policy().total, 5);
}

/// A stop in the middle of any pause ends it for good.
#[test]
fn a_stop_in_a_pause_ends_it() {
    for crashes in 1..=BACKOFF.len() {
        let mut world = World::started();
        for crash in 1..=crashes {
            world.live_and_die(Dies::AfterStart(5));
            assert!(crash == crashes || world.wait_for_restart());
        }
        let Ok(Admission::Accepted(effects)) = world.machine.command(Command::Stop) else {
            panic!("stop while backing off")
        };
        world.perform(effects);
        assert_eq!((world.machine.state(), world.due), (State::Idle, None));
        // A timer that had fired already changes nothing any more.
        world.observe(Observation::BackoffOver);
        assert_eq!(world.machine.state(), State::Idle);
    }
}
