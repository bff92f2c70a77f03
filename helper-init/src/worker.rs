//! The worker: opens the devices, gives up every right, then reads what comes from outside (the
//! rules, the image) and runs the library. If it crashes, PID 1 is there to say so, and the disk
//! is as it was, because the library writes only when all is decided.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use snf_fs::BlockDevice;
use snf_image::failure::sentence;

use crate::confine::confine;
use crate::disks::{Disks, open, open_disks};
use crate::error::InitError;
use crate::faults::Fault;
use crate::job;
use crate::report::{Message, Reporter};

/// First argument of a worker.
pub(crate) const ARGUMENT: &str = "worker";

/// Runs the worker and returns its exit status.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut reporter = Reporter(io::stdout());
    let rules_dev = arguments.next().unwrap_or_default();
    let mut report = Vec::new();
    let fault = Fault::asked_for();
    let result = prepare(&rules_dev).and_then(|(parameters, disks)| {
        fault.in_worker();
        let broker = io::stdin().as_fd().try_clone_to_owned().ok();
        Ok(job::run(parameters, &disks, broker, &mut reporter, &mut report)?)
    });
    reporter.report(&report);
    match result {
        Ok(()) => {
            reporter.send(&Message::Done);
            ExitCode::SUCCESS
        }
        Err(error) => {
            reporter.send(&Message::Failed(sentence(&error)));
            ExitCode::FAILURE
        }
    }
}

fn prepare(rules_dev: &str) -> Result<(Arc<dyn BlockDevice>, Disks), InitError> {
    let parameters = open(rules_dev, false)
        .map_err(|source| InitError::Parameters { path: rules_dev.to_owned(), source })?;
    let disks = open_disks(rules_dev, true)?;
    confine()?;
    Ok((parameters, disks))
}
