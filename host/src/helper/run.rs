//! One run of the helper VM. QEMU is started, listened to, and always gone at the end. A run takes
//! more than one attempt where KVM or a snapshot turns out to be unusable, and where the guest needs
//! the kernel's drivers of file systems.

use std::fs::OpenOptions;

use super::attempt::{Outcome, attempt};
use super::image::HelperImage;
use super::start::Way;
use super::{Acceleration, HelperConfig, HelperError, HelperReport, HelperSink, VmRequest};
use crate::node::cancel::Cancel;

/// Memory in MiB that the drivers of file systems and their caches take besides HELPER_MEMORY.
const FILE_SYSTEMS_MIB: u32 = 96;

/// Runs the helper VM on `request` and returns when QEMU has ended. `Ok` means that the helper
/// said `SUCCESS`. On every path QEMU is gone afterwards.
pub fn run_helper(
    config: &HelperConfig,
    request: &VmRequest,
    cancel: &Cancel,
    sink: &mut dyn HelperSink,
) -> Result<HelperReport, HelperError> {
    let helper = HelperImage::open(&config.directory)?;
    if let Some(report) = run_image(config, &helper, request, cancel, sink)? {
        return Ok(report);
    }
    let nothing = || HelperError::Garbage("AGAIN, and there is no other initramfs".to_owned());
    let helper = helper.with_file_systems().ok_or_else(nothing)?;
    sink.console("the disk has a file system that needs the kernel's drivers: starting with them");
    let config = HelperConfig {
        memory_mib: config.memory_mib.saturating_add(FILE_SYSTEMS_MIB),
        ..config.clone()
    };
    run_image(&config, &helper, request, cancel, sink)?.ok_or_else(nothing)
}

/// Runs one helper. `None`: it asks for the drivers that the other initramfs has.
pub(super) fn run_image(
    config: &HelperConfig,
    helper: &HelperImage,
    request: &VmRequest,
    cancel: &Cancel,
    sink: &mut dyn HelperSink,
) -> Result<Option<HelperReport>, HelperError> {
    let mut first = config.acceleration;
    if first != Acceleration::Tcg
        && let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm")
    {
        let reason = format!("/dev/kvm: {error}");
        if first == Acceleration::Kvm {
            return Err(HelperError::Kvm(reason));
        }
        sink.warning(&format!("no KVM ({reason}): the helper VM runs with TCG, which is slower"));
        first = Acceleration::Tcg;
    }
    if first != Acceleration::Tcg {
        match attempt(config, helper, request, Acceleration::Kvm, Way::Boot, cancel, sink)? {
            Outcome::Done(report) => return Ok(Some(report)),
            Outcome::NeedsFileSystems => return Ok(None),
            Outcome::Unusable(reason) if config.acceleration == Acceleration::Kvm => {
                return Err(HelperError::Kvm(reason));
            }
            Outcome::Unusable(reason) => sink.warning(&format!(
                "the helper VM does not boot with KVM here ({reason}): it runs with TCG instead; \
                 HELPER_ACCEL=tcg saves the attempt"
            )),
        }
    }
    let mut way = if config.snapshot { Way::Wake } else { Way::Boot };
    loop {
        match attempt(config, helper, request, Acceleration::Tcg, way, cancel, sink)? {
            Outcome::Done(report) => return Ok(Some(report)),
            Outcome::NeedsFileSystems => return Ok(None),
            // A VM that boots is never found unusable here: this goes round once.
            Outcome::Unusable(reason) if way == Way::Boot => {
                return Err(HelperError::NoResult { last: reason });
            }
            Outcome::Unusable(reason) => sink.warning(&format!(
                "the snapshot of the helper VM cannot be used ({reason}): it boots instead; \
                 snf-image-update-helper makes a new one"
            )),
        }
        way = Way::Boot;
    }
}
