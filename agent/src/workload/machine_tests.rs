//! The machine against a table of verbs and states, and against a model.

use proptest::prelude::*;

use super::*;

const fn ended(uptime: u64) -> Ended {
    Ended { intended: false, never_ran: None, uptime: Duration::from_secs(uptime), ready_for: Duration::ZERO }
}

fn machine() -> Machine {
    Machine::new(true, true, Policy::default(), Limits::default())
}

fn in_phase(phase: Phase) -> Machine {
    Machine { phase, ..machine() }
}

const CRASHED: Phase = Phase::Crashed { failed: None };

fn error(alive: bool) -> Phase {
    Phase::Error { reason: "x".to_owned(), alive }
}

/// Verbs × states, as callers see them: `+` accepted, `=` already so, `B` busy, `R` running;
/// and the same in maintenance, `H` held.
#[test]
fn the_table_of_verbs_and_states() {
    let running = Phase::Running { silent: None };
    let rows: [(Phase, &str, &str); 11] = [
        // configure(other) start stop restart
        (Phase::Idle, "++=+", "HH=H"),
        (Phase::Installing { cancelled: false }, "B=+B", "H=+H"),
        (Phase::Installing { cancelled: true }, "BB=B", "HB=H"),
        (Phase::Spawning, "B=+B", "H=+H"),
        (Phase::Starting, "B=+B", "H=+H"),
        (running, "R=++", "H=+H"),
        (Phase::Stopping { restart: false }, "BB=B", "HB=H"),
        (Phase::Stopping { restart: true }, "BB+B", "HB+H"),
        (CRASHED, "++++", "HH+H"),
        (error(true), "R+++", "H++H"),
        (error(false), "++++", "HH+H"),
    ];
    let commands = [Command::Configure { same: false }, Command::Start, Command::Stop, Command::Restart];
    let told = |machine: &Machine| -> String {
        let answer = |&command: &Command| match machine.clone().command(command) {
            Ok(Admission::Accepted(_)) => '+',
            Ok(Admission::AlreadySo) => '=',
            Err(Refusal::Busy) => 'B',
            Err(Refusal::Running) => 'R',
            Err(Refusal::Held) => 'H',
            Err(Refusal::NotConfigured) => 'N',
        };
        commands.iter().map(answer).collect()
    };
    for (phase, expected, in_maintenance) in rows {
        let mut machine = in_phase(phase.clone());
        assert_eq!(told(&machine), expected, "{phase:?}");
        machine.set_held(true);
        assert_eq!(told(&machine), in_maintenance, "{phase:?} in maintenance");
        let same = in_phase(phase.clone()).command(Command::Configure { same: true });
        if phase == error(false) {
            assert!(matches!(same, Ok(Admission::Accepted(_))), "what failed is tried again");
        } else {
            assert_eq!(same, Ok(Admission::AlreadySo), "the same payload again in {phase:?}");
        }
    }
}

#[test]
fn nothing_starts_without_a_configuration() {
    let mut machine = Machine::new(false, false, Policy::default(), Limits::default());
    assert_eq!(machine.command(Command::Start), Err(Refusal::NotConfigured));
    assert_eq!(machine.command(Command::Restart), Err(Refusal::NotConfigured));
    assert_eq!(machine.command(Command::Stop), Ok(Admission::AlreadySo));
}

#[test]
fn a_late_answer_turns_an_error_into_running_and_counts_no_crash() {
    let mut machine = in_phase(Phase::Starting);
    machine.observe(Observation::ReadinessTimedOut("60 s".to_owned()));
    assert_eq!(machine.state(), State::Error);
    machine.observe(Observation::Answers);
    assert!(machine.ready());
    assert_eq!(machine.policy().total, 0);
}

#[test]
fn a_stop_during_a_restart_wins() {
    let mut machine = in_phase(Phase::Running { silent: None });
    machine.command(Command::Restart).unwrap();
    machine.command(Command::Stop).unwrap();
    machine.observe(Observation::Exited(ended(1)));
    assert_eq!(machine.state(), State::Idle);
}

#[test]
fn four_quick_crashes_end_in_error_and_start_clears_it() {
    let mut machine = in_phase(Phase::Running { silent: None });
    for pause in [30, 60, 120] {
        let effects = machine.observe(Observation::Exited(ended(1)));
        assert!(effects.contains(&Effect::ArmBackoff(Duration::from_secs(pause))), "{effects:?}");
        assert_eq!(machine.observe(Observation::BackoffOver), [Effect::Spawn]);
        machine.observe(Observation::Spawned);
    }
    machine.observe(Observation::Exited(ended(1)));
    assert_eq!(machine.state(), State::Error);
    assert_eq!(machine.policy().ladder, 4);
    machine.command(Command::Start).unwrap();
    assert_eq!((machine.state(), machine.policy().ladder), (State::Starting, 0));
}

#[test]
fn a_stop_from_inside_is_no_crash() {
    let mut machine = in_phase(Phase::Running { silent: None });
    machine.observe(Observation::Exited(Ended { intended: true, ..ended(50) }));
    assert_eq!((machine.state(), machine.policy().total), (State::Idle, 0));
}

#[test]
fn what_cannot_be_executed_is_not_tried_again() {
    let mut machine = in_phase(Phase::Spawning);
    let effects =
        machine.observe(Observation::Exited(Ended { never_ran: Some("no java".to_owned()), ..ended(0) }));
    assert_eq!(machine.state(), State::Error);
    assert!(!effects.iter().any(|e| matches!(e, Effect::ArmBackoff(_))));
}

#[test]
fn what_would_have_ended_in_a_start_does_not_in_maintenance() {
    // A crash is one, and its restart waits.
    let mut machine = in_phase(Phase::Running { silent: None });
    machine.set_held(true);
    let effects = machine.observe(Observation::Exited(ended(1)));
    assert!(effects.contains(&Effect::ArmBackoff(Duration::from_secs(30))), "{effects:?}");
    assert_eq!(machine.observe(Observation::BackoffOver), []);
    assert_eq!((machine.state(), machine.policy().total), (State::Crashed, 1));
    machine.set_held(false);
    assert_eq!(machine.observe(Observation::BackoffOver), [Effect::Spawn]);

    // A restart ends with its stop, and has failed.
    let mut machine = in_phase(Phase::Running { silent: None });
    machine.command(Command::Restart).unwrap();
    machine.set_held(true);
    let effects = machine.observe(Observation::Exited(ended(1)));
    assert!(matches!(effects.as_slice(), [Effect::Failed(why)] if why == HELD), "{effects:?}");
    assert_eq!(machine.state(), State::Idle);

    // What is being installed is installed.
    let mut machine = in_phase(Phase::Installing { cancelled: false });
    machine.set_held(true);
    assert_eq!(machine.observe(Observation::Installed), [Effect::Succeeded]);
    assert_eq!(machine.state(), State::Idle);
    machine.set_held(false);
    assert!(
        matches!(machine.command(Command::Start), Ok(Admission::Accepted(effects)) if effects == [Effect::Spawn])
    );
}

#[test]
fn a_start_that_nobody_asked_for_is_tried_again() {
    let full = || Observation::SpawnFailed("the disk is full".to_owned());
    let mut machine = machine();
    machine.start_by_itself().unwrap();
    for pause in [30, 60, 120] {
        let effects = machine.observe(full());
        assert!(effects.contains(&Effect::ArmBackoff(Duration::from_secs(pause))), "{effects:?}");
        assert!(matches!(machine.phase(), Phase::Crashed { failed: Some(why) } if why == "the disk is full"));
        assert_eq!(machine.observe(Observation::BackoffOver), [Effect::Spawn]);
    }
    machine.observe(full());
    assert!(
        matches!(machine.phase(), Phase::Error { reason, .. } if reason.contains("could not be started 4 times"))
    );
    assert_eq!(machine.policy().total, 0, "none of them was a crash");

    // Once it has run, the ladder goes on from where it was.
    let mut machine = in_phase(Phase::Running { silent: None });
    machine.observe(Observation::Exited(ended(1)));
    machine.observe(Observation::BackoffOver);
    assert!(machine.observe(full()).contains(&Effect::ArmBackoff(Duration::from_secs(60))));
    machine.observe(Observation::BackoffOver);
    machine.observe(Observation::Spawned);
    machine.observe(Observation::Exited(ended(40)));
    assert_eq!((machine.policy().ladder, machine.policy().spent), (1, 3));

    // An installation on the way is part of it.
    let mut machine = machine_without_files();
    machine.start_by_itself().unwrap();
    let effects = machine.observe(Observation::InstallFailed("nobody answers".to_owned()));
    assert!(effects.contains(&Effect::ArmBackoff(Duration::from_secs(30))), "{effects:?}");

    // Whoever asks is told, and decides.
    machine.command(Command::Start).unwrap();
    machine.observe(Observation::InstallFailed("nobody answers".to_owned()));
    assert_eq!(machine.state(), State::Error);
}

fn machine_without_files() -> Machine {
    Machine::new(true, false, Policy::default(), Limits::default())
}

/// What really exists, driven by the machine's effects alone.
#[derive(Debug, Default)]
struct World {
    process: bool,
    installing: bool,
    backoff: bool,
    readiness: bool,
    stop_asked: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    Maintenance(bool),
    InstallEnds(u8),
    SpawnEnds(bool),
    ProcessEnds { intended: bool, uptime: u64, ready_for: u64 },
    Answers,
    Silent,
    ReadinessOver,
    BackoffOver,
}

/// At the limits and anywhere.
fn seconds() -> impl Strategy<Value = u64> {
    prop_oneof![prop::sample::select(vec![0, 29, 30, 31, 299, 300, 301]), 0_u64..400]
}

/// What is promised of restarts, in as few words as there are: written anew, not asked of the policy.
#[derive(Debug, Default)]
struct Promise {
    /// Restarts in a row.
    row: usize,
    /// Crashes without a stable period.
    unstable: usize,
}

impl Promise {
    /// `crash`: of a process that lived and was ready for so many seconds; none, when a start failed.
    fn keeps(&mut self, crash: Option<(u64, u64)>, effects: &[Effect]) -> Result<(), TestCaseError> {
        if crash.is_some_and(|(uptime, _)| uptime >= 30) {
            self.row = 0;
        }
        if crash.is_some_and(|(_, ready)| ready >= 300) {
            self.unstable = 0;
        }
        let pause = effects.iter().find_map(|effect| match effect {
            Effect::ArmBackoff(pause) => Some(pause.as_secs()),
            _ => None,
        });
        self.unstable += 1;
        let expected = [30, 60, 120].get(self.row).copied().filter(|_| self.unstable < 5);
        self.row += 1;
        // A start that somebody asked for is not tried again by itself.
        if crash.is_some() || pause.is_some() {
            prop_assert_eq!(pause, expected, "{:?} after {:?}", self, crash);
        }
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(|same| Step::Command(Command::Configure { same })),
        Just(Step::Command(Command::Start)),
        Just(Step::Command(Command::Stop)),
        Just(Step::Command(Command::Restart)),
        any::<bool>().prop_map(Step::Maintenance),
        (0_u8..3).prop_map(Step::InstallEnds),
        any::<bool>().prop_map(Step::SpawnEnds),
        (any::<bool>(), seconds(), seconds()).prop_map(|(intended, uptime, ready)| {
            Step::ProcessEnds { intended, uptime, ready_for: ready.min(uptime) }
        }),
        Just(Step::Answers),
        Just(Step::Silent),
        Just(Step::ReadinessOver),
        Just(Step::BackoffOver),
    ]
}

impl World {
    fn perform(&mut self, effects: &[Effect], pending_spawn: &mut bool) {
        for effect in effects {
            match effect {
                Effect::Install => {
                    assert!(!self.installing, "two installations at once");
                    assert!(!self.process, "an installation under a living process");
                    self.installing = true;
                }
                Effect::CancelInstall => assert!(self.installing, "nothing to cancel"),
                Effect::Spawn => {
                    assert!(!self.process && !*pending_spawn, "a second instance");
                    assert!(!self.installing, "a start during an installation");
                    *pending_spawn = true;
                    self.stop_asked = false;
                }
                Effect::Stop => self.stop_asked = true,
                Effect::ArmBackoff(_) => {
                    assert!(!self.process, "a restart is planned for what still runs");
                    self.backoff = true;
                }
                Effect::DisarmBackoff => self.backoff = false,
                Effect::ArmReadiness => {
                    assert!(self.process);
                    self.readiness = true;
                }
                Effect::DisarmReadiness => self.readiness = false,
                Effect::Probe | Effect::Succeeded | Effect::Failed(_) | Effect::Cancelled => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens in whatever order: at most one process, no timer without its
    /// state, a state that agrees with the world, and a stop that is always accepted.
    #[test]
    fn the_machine_agrees_with_the_world(configured in any::<bool>(), installed in any::<bool>(), steps in prop::collection::vec(step(), 1..60)) {
        let mut machine = Machine::new(configured, installed && configured, Policy::default(), Limits::default());
        let mut world = World::default();
        let mut pending_spawn = false;
        let mut held = false;
        let mut promise = Promise::default();
        for step in steps {
            let before = machine.phase().clone();
            let effects = match step.clone() {
                Step::Maintenance(on) => {
                    held = on;
                    machine.set_held(on);
                    vec![]
                }
                Step::Command(command) => match machine.command(command) {
                    Ok(Admission::Accepted(effects)) => effects,
                    Ok(Admission::AlreadySo) => vec![],
                    Err(refusal) => {
                        prop_assert_ne!(command, Command::Stop, "a stop was refused: {:?}", refusal);
                        vec![]
                    }
                },
                Step::InstallEnds(how) if world.installing => {
                    world.installing = false;
                    machine.observe(match how {
                        0 => Observation::Installed,
                        1 => Observation::InstallFailed("x".to_owned()),
                        _ => Observation::InstallCancelled,
                    })
                }
                Step::SpawnEnds(ok) if pending_spawn => {
                    pending_spawn = false;
                    world.process = ok;
                    machine.observe(if ok { Observation::Spawned } else { Observation::SpawnFailed("x".to_owned()) })
                }
                Step::ProcessEnds { intended, uptime, ready_for } if world.process => {
                    world.process = false;
                    let ready_for = Duration::from_secs(ready_for);
                    let intended = intended || world.stop_asked;
                    let effects = machine.observe(Observation::Exited(Ended { intended, ready_for, ..ended(uptime) }));
                    if !intended {
                        promise.keeps(Some((uptime, ready_for.as_secs())), &effects)?;
                    }
                    effects
                }
                // In maintenance the driver does not tell it.
                Step::BackoffOver if world.backoff && !held => {
                    world.backoff = false;
                    machine.observe(Observation::BackoffOver)
                }
                Step::ReadinessOver if world.readiness => {
                    world.readiness = false;
                    machine.observe(Observation::ReadinessTimedOut("x".to_owned()))
                }
                Step::Answers => machine.observe(Observation::Answers),
                Step::Silent => machine.observe(Observation::Silent("x".to_owned())),
                _ => vec![],
            };
            match (&step, &before) {
                // Whoever acts forgives, once what runs has ended as asked.
                (Step::Command(_), _) if !effects.is_empty() && !matches!(machine.phase(), Phase::Stopping { .. }) => {
                    promise = Promise::default();
                }
                (_, Phase::Stopping { .. }) if !matches!(machine.phase(), Phase::Stopping { .. }) => {
                    promise = Promise::default();
                }
                (Step::SpawnEnds(false) | Step::InstallEnds(1), _) if !effects.is_empty() => {
                    promise.keeps(None, &effects)?;
                }
                _ => {}
            }
            prop_assert!(!held || !effects.iter().any(|e| matches!(e, Effect::Spawn | Effect::Install)));
            world.perform(&effects, &mut pending_spawn);

            match machine.phase() {
                Phase::Idle | Phase::Crashed { .. } | Phase::Error { alive: false, .. } => {
                    prop_assert!(!world.process && !world.installing && !pending_spawn);
                }
                Phase::Installing { .. } => prop_assert!(world.installing && !world.process),
                Phase::Spawning => prop_assert!(pending_spawn && !world.process),
                Phase::Starting | Phase::Running { .. } | Phase::Error { alive: true, .. } => prop_assert!(world.process),
                Phase::Stopping { .. } => {
                    prop_assert!(world.process || pending_spawn);
                    prop_assert!(world.stop_asked, "stopping, and nobody told the workload");
                }
            }
            prop_assert_eq!(world.backoff, matches!(machine.phase(), Phase::Crashed { .. }));
            if world.readiness {
                prop_assert_eq!(machine.phase(), &Phase::Starting);
            }
        }
    }
}
