//! One attempt at a run: a VM from its start to its result, in named phases. All time limits are
//! kept here, by the node's clock: the VM's own clock may run far too fast or too slow.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::debug::DEBUG_LIMIT;
use super::image::HelperImage;
use super::protocol::VmResult;
use super::qmp::Qmp;
use super::start::{Way, start};
use super::vm::Vm;
use super::{Acceleration, HelperConfig, HelperError, HelperReport, HelperSink, VmRequest};
use crate::node::cancel::Cancel;
use crate::node::log;

/// How long a helper under KVM may take to announce itself. A working one needs some hundred
/// milliseconds; where KVM only seems to work it never speaks.
const KVM_PATIENCE: Duration = Duration::from_secs(4);
/// How long a helper that goes on from a snapshot may take to announce itself. It needs hundredths of
/// a second.
const WAKE_PATIENCE: Duration = Duration::from_secs(20);
/// A customization that has at least this long is told to stop a tenth earlier, so that it can
/// say what it was doing.
const WORTH_ASKING: Duration = Duration::from_secs(10);

/// How an attempt that is not an error ended.
pub(super) enum Outcome {
    /// SUCCESS.
    Done(HelperReport),
    /// Nothing was done: the drivers of more file systems are needed.
    NeedsFileSystems,
    /// The helper never came to life with KVM, or from its snapshot; no disk was opened in there.
    Unusable(String),
}

/// The phases of a run. Each has a time at which something else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The init has not said hello. If KVM or a snapshot may be unusable, it has until then.
    Waking {
        /// When patience ends.
        until: Option<Instant>,
    },
    /// The init is at work.
    Running,
    /// The init was told that the time is up.
    Stopping,
    /// The run has failed, and a person may look at the VM until then.
    DebugWait {
        /// When the VM is ended.
        until: Instant,
    },
    /// QEMU was sent SIGTERM and has until then.
    Terminating {
        /// When QEMU is killed.
        until: Instant,
    },
}

/// The next step after a look at the time.
enum Step {
    /// Go on listening.
    Listen,
    /// End the VM: it never came to life.
    GiveUp(String),
    /// End the VM: it ignored SIGTERM.
    Kill,
}

/// An attempt under way.
struct Attempt<'a> {
    config: &'a HelperConfig,
    acceleration: Acceleration,
    vm: Vm,
    phase: Phase,
    /// How long the helper may take to say hello, where that is limited.
    patience: Option<Duration>,
    /// KVM is watched as long as it has not shown that it works.
    watch: Option<Qmp<'a>>,
    /// SIGTERM was sent because the soft limit had passed.
    overdue: bool,
}

/// Runs one VM.
pub(super) fn attempt(
    config: &HelperConfig,
    helper: &HelperImage,
    request: &VmRequest,
    acceleration: Acceleration,
    way: Way,
    cancel: &Cancel,
    sink: &mut dyn HelperSink,
) -> Result<Outcome, HelperError> {
    let mut vm = start(config, helper, request, acceleration, way)?;
    let mut watch = None;
    if vm.resumes {
        if let Err(reason) = vm.wake(cancel) {
            vm.kill(sink)?;
            cancel.check()?;
            let qemu = vm.lines.stderr_text();
            return Ok(Outcome::Unusable(format!("{}; QEMU: {qemu}", log::chain(&reason))));
        }
    } else if let Some(monitor) = vm.monitor.take() {
        // A QEMU that ends at once has no monitor; its status is heard below.
        watch = Qmp::open(monitor, vm.started + KVM_PATIENCE, cancel).ok();
    }
    let patience = match acceleration {
        Acceleration::Kvm => Some(KVM_PATIENCE),
        _ => vm.resumes.then_some(WAKE_PATIENCE),
    };
    let until = patience.map(|patience| Instant::now() + patience);
    let phase = Phase::Waking { until };
    let mut attempt = Attempt { config, acceleration, vm, phase, patience, watch, overdue: false };
    attempt.run(cancel, sink)
}

impl Attempt<'_> {
    fn run(&mut self, cancel: &Cancel, sink: &mut dyn HelperSink) -> Result<Outcome, HelperError> {
        let mut given_up = None;
        let status = loop {
            if self.vm.wait(self.deadline(), sink)? {
                break self.vm.reap(sink)?;
            }
            if let Err(cancelled) = cancel.check() {
                self.vm.kill(sink)?;
                return Err(HelperError::Cancelled(cancelled));
            }
            match self.step(sink) {
                Step::Listen => {}
                Step::GiveUp(reason) => {
                    given_up = Some(reason);
                    break self.vm.kill(sink)?;
                }
                Step::Kill => {
                    self.vm.kill(sink)?;
                    let (soft, hard) = (self.config.soft_timeout, self.config.hard_timeout);
                    return Err(HelperError::HardTimeout(soft, hard));
                }
            }
        };
        let elapsed = self.vm.started.elapsed();
        if let Some(report) = self.vm.lines.result.report() {
            sink.report(report);
        }
        // A result that arrived before the end counts, whatever hurried the end.
        match self.vm.lines.result.result().cloned() {
            Some(result) => self.judge(result, elapsed),
            None => self.explain(status, given_up),
        }
    }

    /// When the soft limit passes.
    fn soft_deadline(&self) -> Instant {
        self.vm.started + self.config.soft_timeout
    }

    /// When the customization is told to stop.
    fn stop_at(&self) -> Instant {
        self.vm.started + ask_after(self.config.soft_timeout)
    }

    /// When the phase has to be looked at again.
    fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Waking { until } => {
                until.map_or(self.soft_deadline(), |until| until.min(self.soft_deadline()))
            }
            Phase::Running => self.stop_at(),
            Phase::Stopping => self.soft_deadline(),
            Phase::DebugWait { until } | Phase::Terminating { until } => until,
        }
    }

    /// Goes on to the next phase where it is time to.
    fn step(&mut self, sink: &mut dyn HelperSink) -> Step {
        if matches!(self.phase, Phase::Waking { .. }) {
            if self.vm.lines.log.heard_hello() {
                self.phase = Phase::Running;
                // QEMU's monitor is closed from here on.
                self.watch = None;
            } else if self.watch.as_mut().is_some_and(Qmp::has_stopped) {
                let qemu = self.vm.lines.stderr_text();
                return Step::GiveUp(format!("QEMU has stopped the VM: {qemu}"));
            }
        }
        if matches!(self.phase, Phase::Running | Phase::Stopping)
            && let (Some(debug), Some(VmResult::Error(_))) =
                (&self.vm.debug, self.vm.lines.result.result())
        {
            sink.warning(&debug.how_to_attach());
            self.phase = Phase::DebugWait { until: Instant::now() + DEBUG_LIMIT };
        }
        let now = Instant::now();
        if now < self.deadline() {
            if matches!(self.phase, Phase::Terminating { .. }) {
                // The first process of a name space hears no signal that it has not set a handler
                // for, and QEMU does that late.
                self.vm.terminate();
            }
            return Step::Listen;
        }
        match self.phase {
            Phase::Waking { .. } if now < self.soft_deadline() => {
                return Step::GiveUp(self.silence());
            }
            Phase::Running if now < self.soft_deadline() => {
                self.vm.lines.stop(ask_after(self.config.soft_timeout));
                self.phase = Phase::Stopping;
            }
            Phase::Waking { .. } | Phase::Running | Phase::Stopping => {
                self.overdue = true;
                self.terminate(now);
            }
            Phase::DebugWait { .. } => self.terminate(now),
            Phase::Terminating { .. } => return Step::Kill,
        }
        Step::Listen
    }

    fn terminate(&mut self, now: Instant) {
        self.vm.terminate();
        self.phase = Phase::Terminating { until: now + self.config.hard_timeout };
    }

    /// Why a VM that has not said hello in time is given up.
    fn silence(&self) -> String {
        let heard = self.vm.lines.log.heard_anything();
        let quiet = if heard { "the helper did not start" } else { "no sign of life" };
        format!("{quiet} within {} s", self.patience.unwrap_or_default().as_secs())
    }

    /// The outcome that a result stands for.
    fn judge(&mut self, result: VmResult, elapsed: Duration) -> Result<Outcome, HelperError> {
        match result {
            VmResult::Success => match self.vm.lines.protocol_error.take() {
                Some(error) => Err(HelperError::Protocol(error)),
                None => Ok(Outcome::Done(HelperReport {
                    acceleration: self.acceleration,
                    resumed: self.vm.resumes,
                    elapsed,
                })),
            },
            VmResult::NeedsFileSystems => Ok(Outcome::NeedsFileSystems),
            VmResult::Error(text) => Err(HelperError::Failed(text)),
            VmResult::Ready => Err(HelperError::Garbage("READY, which nobody asked for".into())),
            VmResult::Garbage(text) => Err(HelperError::Garbage(text)),
        }
    }

    /// Why QEMU has ended without a result.
    fn explain(
        &self,
        status: ExitStatus,
        given_up: Option<String>,
    ) -> Result<Outcome, HelperError> {
        let lines = &self.vm.lines;
        if self.overdue {
            return Err(HelperError::SoftTimeout(self.config.soft_timeout, lines.doing()));
        }
        if let Some(reason) = given_up {
            return Ok(Outcome::Unusable(reason));
        }
        if self.patience.is_some() && !lines.log.heard_hello() && !status.success() {
            let qemu = lines.stderr_text();
            return Ok(Outcome::Unusable(format!("QEMU ended with {}: {qemu}", words(status))));
        }
        if let Some(signal) = status.signal() {
            return Err(HelperError::QemuKilled { signal: format!("signal {signal}") });
        }
        if !status.success() {
            let stderr = lines.stderr_text();
            return Err(HelperError::QemuFailed { status: words(status), stderr });
        }
        Err(HelperError::NoResult { last: lines.last_words() })
    }
}

/// How long a customization has until it is told to stop: a tenth less than the limit, where that
/// is worth the while.
fn ask_after(soft_timeout: Duration) -> Duration {
    if soft_timeout < WORTH_ASKING { soft_timeout } else { soft_timeout - soft_timeout / 10 }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => "an unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_told_a_tenth_earlier() {
        let seconds = Duration::from_secs;
        assert_eq!(ask_after(seconds(120)), seconds(108));
        assert_eq!(ask_after(seconds(10)), seconds(9));
        assert_eq!(ask_after(seconds(9)), seconds(9));
    }
}
