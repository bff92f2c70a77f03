//! Machine types: what is measured on each, and a QEMU that has it.
//!
//! `run_helper` asks for the machine `pc`. The others are made of its arguments by a script that is
//! QEMU's place in the configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use snf_image_host::helper::HelperConfig;

use crate::tiny::{Ending, ending_initramfs, ending_kernel};
use crate::variants::{Kind, Variant};
use crate::{Place, Result, during};

/// The arms of the script's `case` for each machine type.
///
/// microvm: Debian's kernels have no timer there with ACPI (it says that the hardware is reduced,
/// so the kernel takes neither PIT nor PIC, and TCG's local APIC has no frequency that it could
/// read). Without ACPI it takes both, but the firmware leaves the local APIC closed for the PIC:
/// so there is none. Devices are of the MMIO kind.
const MACHINES: [(&str, &str); 3] = [
    ("pc", ""),
    ("q35", "pc,*) a=q35,sata=off,${a#pc,} ;;"),
    (
        "microvm",
        "pc,*) a=microvm,acpi=off,rtc=on,dump-guest-core=off ;;
        qemu64) a=qemu64,-apic ;;
        virtio-rng-pci,*) a=virtio-rng-device,rng=rng0 ;;
        virtio-blk-pci,*) a=${a/pci/device}; a=${a%%,addr=*} ;;",
    ),
];

/// Why there is no full run on microvm.
pub(crate) const NO_MICROVM: &str = "microvm has no full run: under TCG Debian's kernels boot there \
     only without ACPI, where they find no disks\n(VIRTIO_MMIO_CMDLINE_DEVICES is not set) and \
     cannot power off (the init restarts, which ends QEMU too)";

/// The measures of one helper.
pub(crate) fn variants(place: &Place, name: &str, helper: &Path) -> Result<Vec<Variant>> {
    let floppy = description(helper)?["parameter_disk"] == "floppy";
    let copy = |what: &str| place.work.join(format!("{name}-{what}"));
    let kernel = file_of(helper, "kernel")?;
    let kernel = fs::read(&kernel).map_err(during(format!("read {}", kernel.display())))?;
    let firmware = copy("firmware");
    let ending_kernel = ending_kernel(&kernel);
    match &ending_kernel {
        Some(kernel) => copy_helper(helper, &firmware, "kernel", kernel)?,
        None => println!("{name}: the kernel has no PVH entry, so no firmware alone"),
    }
    let mut variants = Vec::new();
    for (machine, arms) in MACHINES {
        // Nobody but pc has a floppy controller.
        if floppy && machine != "pc" {
            continue;
        }
        let qemu = qemu(place, machine, arms)?;
        let mut add = |kind: Kind, directory: &Path| {
            let name = format!("{name}, {machine}, {}", kind.name());
            if place.wants(&name) {
                variants.push(Variant::new(name, kind, directory, &qemu));
            }
        };
        if ending_kernel.is_some() {
            add(Kind::Firmware, &firmware);
        }
        let ending = if machine == "microvm" { Ending::Restart } else { Ending::PowerOff };
        let off = copy(&format!("off-{ending:?}"));
        copy_helper(helper, &off, "initramfs", &ending_initramfs(ending)?)?;
        if ending == Ending::Restart {
            without_acpi(&off)?;
        }
        add(Kind::Off, &off);
        if machine != "microvm" {
            add(Kind::Full, helper);
        }
        let name = format!("{name}, {machine}, {}", Kind::Snapshot.name());
        if machine == "pc" && place.wants(&name) {
            // A snapshot fits the machine that it was made of, which no script has a part in.
            let qemu = HelperConfig::default().qemu;
            variants.push(Variant::new(name, Kind::Snapshot, helper, &qemu));
        }
    }
    Ok(variants)
}

/// A script that starts QEMU with another machine, with the word on the kernel's command line by
/// which our init logs its times, and with the device that lets a kernel end QEMU.
fn qemu(place: &Place, machine: &str, arms: &str) -> Result<PathBuf> {
    let path = place.work.join(format!("qemu-{machine}"));
    let script = format!(
        r#"#!/bin/bash
all=()
for a in "$@"; do
    case $a in
        *snf_image_activate_helper*) a="$a snf_image_times" ;;
        {arms}
    esac
    all+=("$a")
done
exec qemu-system-x86_64 "${{all[@]}}" -device isa-debug-exit,iobase=0xf4
"#
    );
    let action = || during(format!("write {}", path.display()));
    fs::write(&path, script).map_err(action())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(action())?;
    Ok(path)
}

/// The kernel boots without ACPI, and restarts by a triple fault.
fn without_acpi(directory: &Path) -> Result<()> {
    let mut description = description(directory)?;
    let line = description["command_line"].as_str().unwrap_or_default();
    let line = line.replace("pci=noacpi", "acpi=off reboot=t");
    description["command_line"] = line.into();
    let path = directory.join("helper.json");
    fs::write(&path, description.to_string()).map_err(during(format!("write {}", path.display())))
}

fn description(directory: &Path) -> Result<Value> {
    let path = directory.join("helper.json");
    let text = fs::read(&path).map_err(during(format!("read {}", path.display())))?;
    serde_json::from_slice(&text).map_err(during(format!("read {}", path.display())))
}

/// The file that a helper's description names by `key`.
pub(crate) fn file_of(directory: &Path, key: &str) -> Result<PathBuf> {
    match description(directory)?[key].as_str() {
        Some(name) => Ok(directory.join(name)),
        None => Err(format!("{}/helper.json names no {key}", directory.display())),
    }
}

/// A helper with one file replaced.
fn copy_helper(from: &Path, to: &Path, replaced: &str, content: &[u8]) -> Result<()> {
    fs::create_dir_all(to).map_err(during(format!("make {}", to.display())))?;
    let copy = |name: &str| {
        let (source, target) = (from.join(name), to.join(name));
        let _ = fs::remove_file(&target);
        // Nobody writes to them: a second name will do, where one can be had.
        fs::hard_link(&source, &target)
            .or_else(|_| fs::copy(&source, &target).map(|_| ()))
            .map_err(during(format!("copy {}", source.display())))
    };
    let description = description(from)?;
    let other = &description["file_systems"]["initramfs"];
    // The one for file systems that only the kernel knows is never started here, but must be there.
    for (key, name) in
        [("kernel", &description["kernel"]), ("initramfs", &description["initramfs"]), ("", other)]
    {
        let Some(name) = name.as_str() else { continue };
        if key == replaced {
            let target = to.join(name);
            let _ = fs::remove_file(&target);
            fs::write(&target, content).map_err(during(format!("write {}", target.display())))?;
        } else {
            copy(name)?;
        }
    }
    let target = to.join("helper.json");
    fs::copy(from.join("helper.json"), &target)
        .map(|_| ())
        .map_err(during(format!("write {}", target.display())))
}
