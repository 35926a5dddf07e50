//! The workload's life: launched, running, ended, swept. First the record, then the rest.

use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;

use super::child::{self, Launch};
use super::{
    Holder, LAST_DRAIN, LINGER, LOOK_FOR_SOCKET, Life, SWEEP_PATIENCE, SWEEP_TICK, boot_ms, unix_ms,
};
use crate::ladder::Action;
use crate::proto;
use crate::record::{Exit, ExitRecord, OomCounters};
use crate::spec::StopPlan;

impl Holder {
    pub(super) fn look_after_children(&mut self) {
        if matches!(self.life, Life::Launching) {
            self.hear_launch();
        }
        if matches!(self.life, Life::Running)
            && let Some(exit) = self.held.child.ended()
        {
            self.end(exit);
        }
        // Before the main process is known by name it could be among them.
        if !matches!(self.life, Life::Launching) {
            child::reap_orphans(self.held.child.id());
        }
    }

    pub(super) fn hear_launch(&mut self) {
        if !matches!(self.life, Life::Launching) {
            return;
        }
        let knew = self.held.child.id();
        let launch = self.held.child.hear();
        if self.held.child.id() != knew {
            self.sequence += 1;
            self.held.record.child = self.held.child.id();
            // Without it an agent that comes back still learns the child from the handshake.
            let _ = self.held.record.write(Path::new("."));
        }
        match launch {
            Launch::Pending => {}
            Launch::Running => {
                self.life = Life::Running;
                self.trim_at = Some(Instant::now() + super::TRIM_AFTER);
                self.sequence += 1;
                // The first process of the exec stage ended while nobody was reaped, and no
                // signal tells of it again.
                child::reap_orphans(self.held.child.id());
                if let Some(exit) = self.held.child.ended() {
                    self.end(exit);
                }
            }
            Launch::Failed(exit) => self.end(exit),
        }
    }

    /// The main process has ended. First the record, then everything else.
    fn end(&mut self, exit: Exit) {
        let now = Instant::now();
        let ended_boot_ms = boot_ms();
        let oom_after = self.held.oom.read();
        let mut record = ExitRecord {
            instance: self.held.spec.instance.clone(),
            child: self.held.child.id(),
            exit,
            stop: self.ladder.stage(),
            ended_unix_ms: unix_ms(),
            ended_boot_ms,
            uptime_ms: ended_boot_ms.saturating_sub(self.held.record.started_boot_ms),
            console_start: self.run_start,
            console_end: self.held.log.head(),
            oom: self
                .held
                .record
                .oom_before
                .zip(oom_after)
                .map(|(before, after)| OomCounters { before, after }),
            generation: self.held.record.generation.clone(),
        };
        let here = Path::new(".");
        let recorded = record.write(here, self.held.slot.as_ref()).is_ok();
        let _ = crate::faults::point("exit.recorded");
        self.held.child.signal_all(Signal::KILL);
        self.drain(LAST_DRAIN);
        record.console_end = self.held.log.head();
        self.held.child.reap();
        self.sequence += 1;
        self.life = Life::Sweeping {
            record: Box::new(record),
            recorded,
            empty_looks: 0,
            until: now + SWEEP_PATIENCE,
            next: now,
        };
    }

    /// Two empty looks in a row: a process that forks between them is seen by the next.
    pub(super) fn sweep(&mut self, now: Instant) {
        let Life::Sweeping { empty_looks, until, next, .. } = &mut self.life else { return };
        if now < *next {
            return;
        }
        let left = self.held.child.signal_all(Signal::KILL);
        child::reap_orphans(None);
        *empty_looks = if left == 0 { *empty_looks + 1 } else { 0 };
        *next = now + SWEEP_TICK;
        if *empty_looks < 2 && now < *until {
            return;
        }
        self.drain(LAST_DRAIN);
        self.terminal_open = false;
        let Life::Sweeping { record, recorded, .. } =
            std::mem::replace(&mut self.life, Life::Gone { message: None })
        else {
            return;
        };
        let (mut record, mut recorded) = (record, recorded);
        record.console_end = self.held.log.head();
        // The amended end of the console, and a second chance if the first write failed.
        recorded |= record.write(Path::new("."), self.held.slot.as_ref()).is_ok();
        let _ = crate::faults::point("exit.swept");
        self.sequence += 1;
        self.life = Life::Ended {
            message: proto::ExitMessage::new(&record.exit, record.uptime_ms, recorded),
            until: now + LINGER,
            look: now + LOOK_FOR_SOCKET,
        };
    }

    /// Does what the stop ladder asks for now.
    pub(super) fn climb(&mut self, now: Instant) {
        while matches!(self.life, Life::Launching | Life::Running)
            && let Some(action) = self.ladder.tick(now)
        {
            self.sequence += 1;
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        // A frozen workload cannot obey; a running one does not notice.
        let _ = self.held.child.signal(Signal::CONT);
        match action {
            Action::Warn(line) => {
                // What there is no room for is not said: nobody would read it either.
                self.input.push(line_of(line), true);
                self.write_input();
            }
            Action::Type(line) => {
                self.input.preempt(line_of(line));
                self.write_input();
            }
            Action::Term => {
                let _ = self.held.child.signal(Signal::TERM);
                let _ = self.held.child.signal(Signal::CONT);
            }
            Action::Kill => {
                let _ = self.held.child.signal(Signal::KILL);
                self.held.child.signal_all(Signal::KILL);
            }
        }
    }

    pub(super) fn stop(&mut self, plan: StopPlan) {
        if !matches!(self.life, Life::Launching | Life::Running) {
            return;
        }
        let now = Instant::now();
        self.ladder.begin(plan, now);
        self.sequence += 1;
        self.climb(now);
    }
}

fn line_of(line: String) -> Vec<u8> {
    let mut bytes = line.into_bytes();
    bytes.push(b'\n');
    bytes
}
