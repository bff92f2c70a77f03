//! `snf-customize check`.

use serde_json::Value;
use snf_image::check::{DiskCheck, VolumeCheck, check};
use snf_image::failure::sentence;

use crate::args::{Check, Format};
use crate::disk::{self, Access};
use crate::exit::{Exit, Failure};
use crate::luks::KeySpec;
use crate::output::{self, Document, count};
use crate::selector::Inputs;
use crate::signals::Progress;
use crate::spinner::Spinner;

/// Looks for damage and tells.
pub(crate) fn run(args: &Check) -> Exit {
    let spinner = Spinner::start("reading the disk", !args.json && !output::is_quiet());
    let result = attempt(args);
    drop(spinner);
    let (exit, message) = match &result {
        Ok((_, found)) => verdict(args, found),
        Err(failure) => (failure.exit, failure.message.clone()),
    };
    if args.json {
        let mut document = Document::new("check", &args.disk);
        let ok = result.as_ref().ok();
        document.set("format", ok.map(|(format, _)| format.name()));
        let found = ok.and_then(|(_, found)| serde_json::to_value(found).ok());
        document.set("check", found.unwrap_or(Value::Null));
        document.finish(exit, &message);
    } else if let Ok((_, found)) = &result {
        output::print(&page(found));
        if exit == Exit::Done {
            output::print(&format!("{message}\n"));
        }
    }
    if exit != Exit::Done {
        output::error_line(&message);
    }
    exit
}

fn attempt(args: &Check) -> Result<(Format, DiskCheck), Failure> {
    let mut inputs = Inputs::default();
    let specs = KeySpec::parse_all(&args.stack.luks_key)?;
    let keys = KeySpec::read_all(&specs, &mut inputs)?;
    let progress = Progress::default();
    let disks = disk::open_all(&args.disk, &args.stack, args.wrapping, Access::Read, &progress)?;
    let mut found = check(&disks.devices(), &keys)
        .map_err(|error| Failure::new(disks.judge(Exit::of(&error)), sentence(&error)))?;
    found.warnings.extend(inputs.warnings);
    found.warnings.extend(args.stack.notes.iter().cloned());
    Ok((disks.format(), found))
}

fn verdict(args: &Check, found: &DiskCheck) -> (Exit, String) {
    let shown = args.disk.display();
    let errors: u64 = found.volumes.iter().map(|volume| volume.errors).sum();
    let checked = found.volumes.iter().filter(|volume| volume.checked).count();
    if checked == 0 {
        let text = format!(
            "{shown} holds no file system that can be checked (NTFS, ext2/3/4, btrfs, XFS, FAT)"
        );
        return (Exit::Refused, text);
    }
    let systems = count(checked, "file system");
    if errors > 0 {
        let many = count(usize::try_from(errors).unwrap_or(usize::MAX), "contradiction");
        return (Exit::Corrupt, format!("{shown}: {many} in {systems}"));
    }
    (Exit::Done, format!("{shown}: no damage found in {systems}"))
}

fn page(found: &DiskCheck) -> String {
    let mut text = String::new();
    for volume in &found.volumes {
        text.push_str(&summary(volume));
        for finding in &volume.findings {
            text.push_str(&format!(
                "  {} {}: {}: {}\n",
                finding.severity, finding.code, finding.place, finding.detail
            ));
        }
        let listed = volume.findings.len() as u64;
        let rest = (volume.errors + volume.warnings).saturating_sub(listed);
        if rest > 0 {
            text.push_str(&format!("  and {rest} more\n"));
        }
    }
    for warning in &found.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn summary(volume: &VolumeCheck) -> String {
    let place = &volume.place;
    let kind = volume.kind.as_deref().unwrap_or("nothing that is known");
    if !volume.checked {
        return format!("{place}: {kind}, not checked\n");
    }
    let files = usize::try_from(volume.files).unwrap_or(usize::MAX);
    format!(
        "{place}: {kind}, {}, {}, {}\n",
        count(files, "file"),
        count(usize::try_from(volume.errors).unwrap_or(usize::MAX), "error"),
        count(usize::try_from(volume.warnings).unwrap_or(usize::MAX), "warning"),
    )
}
