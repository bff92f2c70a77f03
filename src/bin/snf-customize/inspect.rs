//! `snf-customize inspect`.

use serde_json::Value;
use snf_image::failure::sentence;
use snf_image::inspect::{Inspection, inspect};
use snf_image::properties::Properties;

use crate::args::{Format, Inspect};
use crate::disk::{self, Access, Disks};
use crate::exit::{Exit, Failure};
use crate::luks::KeySpec;
use crate::output::{self, Document, size, table};
use crate::selector::Inputs;
use crate::signals::Progress;
use crate::spinner::Spinner;
use crate::tree;

/// The fact beside which the packages are counted.
const PACKAGES: &str = "packages";

/// Looks and tells.
pub(crate) fn run(args: &Inspect) -> Exit {
    let spinner = Spinner::start("reading the disk", !args.json && !output::is_quiet());
    let result = attempt(args);
    drop(spinner);
    let (exit, message) = match &result {
        Ok((disk, inspection)) => match &inspection.problem {
            None => (Exit::Done, String::new()),
            // A disk without a system is a result.
            Some(problem) => {
                let exit = inspection.family.map_or(Exit::Done, Exit::from);
                (disk.judge(exit), problem.clone())
            }
        },
        Err(failure) => (failure.exit, failure.message.clone()),
    };
    if args.json {
        let mut document = Document::new("inspect", &args.disk);
        let ok = result.as_ref().ok();
        document.set("format", ok.map(|(disks, _)| disks.format().name()));
        let inspection = ok.and_then(|(_, found)| serde_json::to_value(found).ok());
        document.set("inspection", inspection.unwrap_or(Value::Null));
        document.finish(exit, &message);
    } else if let Ok((disk, inspection)) = &result {
        output::print(&page(args, disk.format(), inspection));
        if exit == Exit::Done && !message.is_empty() {
            output::print(&format!("{message}\n"));
        }
    }
    if exit != Exit::Done {
        output::error_line(&message);
    }
    exit
}

fn attempt(args: &Inspect) -> Result<(Disks, Inspection), Failure> {
    let mut properties = Properties::default();
    if let Some(volume) = &args.root_partition {
        properties.set("ROOT_PARTITION", &volume.0);
    }
    let mut inputs = Inputs::default();
    let specs = KeySpec::parse_all(&args.stack.luks_key)?;
    let keys = KeySpec::read_all(&specs, &mut inputs)?;
    let progress = Progress::default();
    let disks = disk::open_all(&args.disk, &args.stack, args.wrapping, Access::Read, &progress)?;
    let mut found = inspect(&disks.devices(), &keys, &properties)
        .map_err(|error| Failure::new(disks.judge(Exit::of(&error)), sentence(&error)))?;
    found.warnings.extend(inputs.warnings);
    found.warnings.extend(args.stack.notes.iter().cloned());
    Ok((disks, found))
}

fn page(args: &Inspect, format: Format, found: &Inspection) -> String {
    let mut text = format!("{}: {}", args.disk.display(), size(found.size));
    if format != Format::Raw {
        text.push_str(&format!(", {}", format.name()));
    }
    text.push_str(&tree::table_text(found.table.as_deref(), found.disk_id.as_deref()));
    text.push('\n');
    text.push_str(&tree::page(found));
    if let Some(guest) = &found.guest {
        text.push_str(&guest_page(guest));
    }
    for warning in &found.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn guest_page(guest: &snf_image::inspect::GuestSummary) -> String {
    let mut text =
        format!("\n{}", if guest.system.is_empty() { "a system" } else { &guest.system });
    if guest.root != "the disk" {
        text.push_str(&format!(" on {}", guest.root));
    }
    text.push('\n');
    let hostname = guest.hostname.clone().unwrap_or_else(|| "none".to_owned());
    let mut rows = vec![vec!["host name".to_owned(), hostname]];
    let yes_no = |yes| if yes { "yes" } else { "no" }.to_owned();
    match &guest.windows {
        Some(windows) => {
            let state = windows.generalized.map_or_else(|| "unknown".to_owned(), yes_no);
            rows.push(vec!["version".to_owned(), guest.version.clone()]);
            rows.push(vec!["generalized".to_owned(), state]);
        }
        None => {
            rows.push(vec!["machine id".to_owned(), guest.machine_id.clone()]);
            rows.push(vec!["cloud-init".to_owned(), yes_no(guest.cloud_init)]);
        }
    }
    for (name, fact) in guest.facts.iter().flat_map(|facts| facts.named()) {
        let Some(fact) = fact else { continue };
        let number =
            guest.packages.as_ref().filter(|_| name == PACKAGES).map(|found| match found.unread {
                None => format!(", {} installed", found.installed.len()),
                Some(_) => ", which cannot be listed here".to_owned(),
            });
        let (value, number) = (&fact.value, number.unwrap_or_default());
        rows.push(vec![name.to_owned(), format!("{value}{number} ({})", fact.evidence)]);
    }
    rows.extend(guest.mounts.iter().map(|mount| {
        let free = size(mount.free);
        vec![
            "mount".to_owned(),
            format!("{} ({}, {}, {free} free)", mount.path, mount.kind, size(mount.size)),
        ]
    }));
    rows.extend(guest.users.iter().map(|user| {
        let password = match user.password {
            "set" => "password set",
            "locked" => "no password login",
            "none" => "empty password",
            _ => "password unknown",
        };
        // Users of a Windows have no shell.
        let shell = if user.shell.is_empty() { String::new() } else { format!("{}, ", user.shell) };
        vec!["user".to_owned(), format!("{} ({}), {shell}{password}", user.name, user.uid)]
    }));
    rows.extend(
        guest.host_keys.iter().map(|key| {
            vec!["host key".to_owned(), format!("{} {}", key.algorithm, key.fingerprint)]
        }),
    );
    text.push_str(&table(&rows));
    text
}
