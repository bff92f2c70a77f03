//! Slow computations that need nothing of the image: they run while the image is copied, and not in
//! a VM that may have to do without KVM.

use std::thread::JoinHandle;

use snf_image::passwords::{self, PasswordError};
use snf_image::plan::{Password, Plan};
use snf_image::prepare::{Prepared, prepare};
use snf_image::random::Entropy;
use snf_image::rules::Rules;

use super::error::CreateError;
use super::request::entropy;
use crate::node::env::Environment;

/// The results: fresh host keys, and hashes of the password, which itself stays here unless the
/// guest is a Windows.
struct Results {
    prepared: Prepared,
    plan: Plan,
}

/// A preparation that may still be at work.
pub(super) struct Preparation {
    plan: Plan,
    hostname: String,
    entropy: Entropy,
    thread: Option<JoinHandle<Result<Results, PasswordError>>>,
}

impl Preparation {
    /// Begins, in a thread where the system gives one.
    pub(super) fn start(plan: &Plan, env: &Environment) -> Result<Self, CreateError> {
        let (plan, hostname) = (plan.clone(), env.instance_name()?.to_owned());
        let entropy = entropy()?;
        let (for_thread, name, stream) = (plan.clone(), hostname.clone(), entropy.derive("thread"));
        let thread = std::thread::Builder::new().name("preparation".into());
        let thread = thread.spawn(move || compute(for_thread, &name, &stream)).ok();
        Ok(Self { plan, hostname, entropy, thread })
    }

    /// Whether all is done.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Writes the results into the rules, when they are there.
    pub(super) fn write(self, rules: &mut Rules) -> Result<(), CreateError> {
        let results = match self.thread.map(JoinHandle::join) {
            Some(Ok(results)) => results,
            // There was no thread, or it broke off.
            Some(Err(_)) | None => compute(self.plan, &self.hostname, &self.entropy),
        }?;
        results.prepared.write(rules)?;
        for (_, password) in &results.plan.passwords {
            if let Password::Hashes(hashes) = password {
                rules.set_hashes(hashes)?;
            }
        }
        Ok(())
    }
}

fn compute(mut plan: Plan, hostname: &str, entropy: &Entropy) -> Result<Results, PasswordError> {
    passwords::hash(&mut plan, entropy)?;
    let prepared = prepare(&plan, hostname, entropy);
    Ok(Results { prepared, plan })
}
