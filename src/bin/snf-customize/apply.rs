//! `snf-customize apply`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snf_fs::Tree;
use snf_image::customize::{CustomizeError, Instance, Mode, Report, customize_seen};
use snf_image::diff::diff;
use snf_image::failure::{Family, sentence};
use snf_image::files;
use snf_image::guest::probe::unwrapping;
use snf_image::guest::storage::StorageError;
use snf_image::inspect::inspect;
use snf_image::passwords;
use snf_image::plan::{Password, Plan, Tasks};
use snf_image::random::{Clock, Entropy};
use snf_image::secret::Secret;

use crate::args::{Apply, BackingArg, Format};
use crate::disk::{self, Access, Disks, OpenDisk};
use crate::exit::{Exit, Failure};
use crate::output::{self, Document, Listener, count, size, table};
use crate::request::{MadePassword, Parsed};
use crate::resize;
use crate::signals::{self, Progress};
use crate::spinner::Spinner;
use crate::vm;

/// The result of a run that went well.
struct Outcome {
    report: Report,
    format: Format,
    made: Vec<MadePassword>,
    /// The size of the disk, before and after.
    sizes: Option<(u64, u64)>,
    took: Duration,
    /// The changes, line by line, if they were asked for.
    diff: Option<String>,
}

/// The source of a run's disk.
pub(crate) trait Origin {
    /// The command.
    fn command(&self) -> &'static str;

    /// Tells what became of the disk when a signal comes before the first write, and cleans up.
    fn untouched(&self) -> Box<dyn FnOnce() -> String + Send>;

    /// Opens the disk, once the request is known to be right.
    fn open(&mut self, access: Access, progress: &Progress) -> Result<OpenDisk, Failure>;

    /// Whether nothing of the disk is left when the run fails.
    fn is_new(&self) -> bool {
        false
    }

    /// Does what is left when everything is written.
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// The failure in the words of the command.
    fn failed(&self, failure: Failure) -> Failure {
        failure
    }

    /// The source of the disk's content, for the last line.
    fn done(&self) -> Option<String> {
        None
    }
}

/// A disk that is there.
struct InPlace(PathBuf);

impl Origin for InPlace {
    fn command(&self) -> &'static str {
        "apply"
    }

    fn untouched(&self) -> Box<dyn FnOnce() -> String + Send> {
        let disk = self.0.display().to_string();
        Box::new(move || format!("{disk} is as it was"))
    }

    fn open(&mut self, access: Access, _: &Progress) -> Result<OpenDisk, Failure> {
        disk::open_file(&self.0, access)
    }
}

/// Does it and tells about it.
pub(crate) fn run(args: &Apply) -> Exit {
    run_on(args, &mut InPlace(args.disk.clone()))
}

/// The same for a disk of any origin.
pub(crate) fn run_on(args: &Apply, origin: &mut dyn Origin) -> Exit {
    if args.print_plan {
        return match Parsed::new(args).and_then(|parsed| parsed.print(args)) {
            Ok(plan) => {
                output::print_exactly(&plan);
                Exit::Done
            }
            Err(failure) => output::fail(&failure),
        };
    }
    let mut listener = Listener::default();
    let progress = Progress::default();
    let (disk, json, command) = (args.disk.clone(), args.json, origin.command());
    let untouched = origin.untouched();
    signals::heed(&progress, move || {
        let message = format!("interrupted; {}", untouched());
        if json {
            Document::new(command, &disk).finish(Exit::Interrupted, &message);
        }
        output::error_line(&message);
    });
    let outcome = attempt(args, origin, &mut listener, &progress)
        .and_then(|outcome| origin.finish().map(|()| outcome))
        .map_err(|failure| origin.failed(failure));
    let (exit, message) = match &outcome {
        Ok(outcome) => (Exit::Done, last_line(args, outcome, origin.done())),
        Err(failure) => (failure.exit, failure.message.clone()),
    };
    if args.json {
        let mut document = Document::new(command, &args.disk);
        document.set("dry_run", args.dry_run);
        document.set("warnings", listener.warnings);
        let format = outcome.as_ref().ok().map(|outcome| outcome.format.name());
        document.set("format", format);
        let (report, made, seconds) = match &outcome {
            Ok(outcome) => (
                report_value(args, &outcome.report),
                passwords(args, &outcome.made),
                json!(outcome.took.as_secs_f64()),
            ),
            Err(_) => (Value::Null, json!([]), Value::Null),
        };
        document.set("report", report);
        document.set("diff", outcome.as_ref().ok().and_then(|outcome| outcome.diff.clone()));
        document.set("passwords", made);
        document.set("seconds", seconds);
        document.finish(exit, &message);
    } else if let Ok(outcome) = &outcome {
        if !output::is_quiet() {
            output::print(&summary(args, outcome));
        }
        if let Some(diff) = &outcome.diff {
            output::print_texts(diff);
        }
        let made = keys_and_passwords(args, outcome);
        match output::is_quiet() {
            true => output::print(&made),
            false => output::print(&format!("{made}{message}\n")),
        }
    }
    if outcome.is_err() {
        output::error_line(&message);
    }
    exit
}

fn attempt(
    args: &Apply,
    origin: &mut dyn Origin,
    listener: &mut Listener,
    progress: &Progress,
) -> Result<Outcome, Failure> {
    let parsed = Parsed::new(args)?;
    let epoch = std::env::var_os("SOURCE_DATE_EPOCH");
    let epoch = epoch.map(|value| value.to_string_lossy().into_owned());
    let clock = Clock::from_source_date_epoch(epoch.as_deref())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let mut entropy = match args.seed {
        Some(seed) => Entropy::seeded(seed),
        None => Entropy::from_os().map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("the operating system gives no random numbers: {error}"),
            )
        })?,
    };
    let request = parsed.read(args, &entropy)?;
    for warning in request.warnings.into_iter().chain(args.stack.notes.iter().cloned()) {
        listener.warn(warning);
    }

    let started = Instant::now();
    let spinner = Spinner::start(
        format!("opening {}", args.disk.display()),
        !args.json && !output::is_quiet(),
    );
    let access = if args.dry_run { Access::Read } else { Access::Write };
    let mode = if args.dry_run { Mode::DryRun } else { Mode::Commit };
    if args.vm && args.diff {
        return Err(Failure::usage(
            "--diff and --vm exclude each other: the files stay in the helper VM",
        ));
    }
    if args.vm
        && !args.stack.more.is_empty()
        && let Some(domain) = &args.domain.name
    {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "-d {domain}: the domain has several disks, and --vm takes one: leave out --vm, or name \
                 the disk"
            ),
        ));
    }
    if args.vm && !args.stack.more.is_empty() {
        return Err(Failure::usage(
            "--disk and --vm exclude each other: the helper VM gets one disk",
        ));
    }
    disk::distinct(&args.disk, &args.stack.more)?;
    let disk = origin.open(access, progress)?;
    if args.vm {
        let format = disk::format(&args.disk, &disk, args.wrapping)?;
        if format != Format::Raw {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} is a {} image, and --vm takes raw disks only: leave out --vm, or convert \
                     it with qemu-img convert -O raw",
                    args.disk.display(),
                    format.name()
                ),
            ));
        }
        let mut plan = request.plan;
        passwords::hash(&mut plan, &entropy).map_err(|error| Failure::input(sentence(&error)))?;
        let wanted = snf_image::request::Request { plan, mode, seed: args.seed, clock };
        let sizes = lengthen_for_vm(args, &disk, progress)?;
        let result = vm::customize(args, &wanted, &disk.file, listener, progress);
        if let (Err(failure), Some((before, _))) = (&result, sizes)
            && failure.exit != Exit::Commit
        {
            // It was as long as this before; a file that stays longer does no harm.
            let _ = disk.file.set_len(before);
        }
        let (report, took) = (result?, started.elapsed());
        return Ok(Outcome { report, format, made: request.made, sizes, took, diff: None });
    }
    let disks = disk::open_all_sized(
        &args.disk,
        disk,
        &args.stack,
        args.wrapping,
        access,
        args.size,
        progress,
    )?;
    let format = disks.format();
    if args.wrapping.backing == BackingArg::Allow && !disks.any(Format::Qcow2) {
        let disk = args.disk.display();
        listener.warn(format!("--backing allow has no effect: {disk} is no qcow2 image"));
    }
    if args.laid
        && !changes_files(&request.plan)
        && let Some(problem) = no_disk(&disks, &request.plan)
    {
        listener.warn(problem);
    }
    let mut devices = disks.devices();
    let members = devices.split_off(1);
    let disk = devices.remove(0);
    let instance = Instance { disk, members, others: Vec::new(), mounter: None };
    let mut shown = None;
    let all = disks.devices();
    let mut look = |tree: &Tree| {
        if args.diff {
            let plan = &request.plan;
            let old = files::open_beside(&all, &plan.luks_keys, &plan.properties)?;
            let text = diff(&old.tree, tree, &secrets(plan)).map_err(CustomizeError::Diff)?;
            shown = Some(text);
        }
        Ok(())
    };
    let report =
        customize_seen(instance, &request.plan, &mut entropy, &clock, listener, mode, &mut look)
            .map_err(|error| failure(&error, args, &disks, origin, progress))?;
    if mode == Mode::Commit {
        // A container holds its changed tables until it is told to write them.
        disks.flush().map_err(|error| {
            failure(&StorageError::from(error).into(), args, &disks, origin, progress)
        })?;
    }
    drop(spinner);
    let sizes = disks.sizes();
    let took = started.elapsed();
    // Growth alone looks at no file.
    let diff = args.diff.then(|| shown.unwrap_or_default());
    Ok(Outcome { report, format, made: request.made, sizes, took, diff })
}

/// Whether the guest's files are looked at, which tells by itself that there are none.
fn changes_files(plan: &Plan) -> bool {
    match &plan.tasks {
        Tasks::All => true,
        Tasks::Only(tasks) => tasks.keys().any(|task| task.needs_mount() && !task.resizes()),
    }
}

/// Why what was laid is likely to be no disk. Nobody else looks at it when no file of it is changed.
fn no_disk(disks: &Disks, plan: &Plan) -> Option<String> {
    let found = inspect(&disks.devices(), &plan.luks_keys, &plan.properties).ok()?;
    let [volume] = found.volumes.as_slice() else { return None };
    if found.table.is_some() {
        return None;
    }
    let what = match volume.kind.as_deref() {
        None => "has no partition table and no file system that is known here in it".to_owned(),
        Some(kind) => format!("is a {kind} file, taken as it is: {}", unwrapping(kind)?),
    };
    Some(format!("the image {what}; look whether it is the right file, and of the right format"))
}

/// The passwords of a request, which no diff shows.
fn secrets(plan: &Plan) -> Vec<Secret> {
    let of = |password: &Password| match password {
        Password::Clear(secret) | Password::Hash(secret) => vec![secret.clone()],
        Password::Hashes(secrets) => secrets.clone(),
    };
    let passwords = plan.passwords.iter().flat_map(|(_, password)| of(password));
    passwords.chain(plan.windows.product_key.clone()).collect()
}

/// Makes the file longer before the helper VM sees it.
fn lengthen_for_vm(
    args: &Apply,
    disk: &disk::OpenDisk,
    progress: &Progress,
) -> Result<Option<(u64, u64)>, Failure> {
    let Some(wanted) = args.size else { return Ok(None) };
    if args.dry_run {
        return Err(Failure::usage(
            "--size cannot be shown with --vm and --dry-run: the helper VM sees the disk as it is",
        ));
    }
    resize::refuse_block(&args.disk, disk.block)?;
    let after = wanted.of(&args.disk, disk.size)?;
    if after == disk.size {
        return Ok(None);
    }
    resize::lengthen(&disk.file, after, progress).map_err(|error| {
        Failure::new(Exit::Device, format!("{}: {}", args.disk.display(), sentence(&error)))
    })?;
    Ok(Some((disk.size, after)))
}

/// The code and the sentence for an error of the library.
fn failure(
    error: &CustomizeError,
    args: &Apply,
    disks: &Disks,
    origin: &dyn Origin,
    progress: &Progress,
) -> Failure {
    if progress.wrote() && !origin.is_new() {
        return Failure::new(
            Exit::Commit,
            format!(
                "{}; writing had begun: ext3 and ext4 finish or drop the whole change when they are opened next, other file systems need their own check",
                sentence(error)
            ),
        );
    }
    // An error of the disk names the disk. A new disk has no name but that of its target.
    let of_the_disk = matches!(error, CustomizeError::Stack(_) | CustomizeError::Detect(_));
    let text = match of_the_disk && !origin.is_new() {
        true => format!("{}: {}", args.disk.display(), sentence(error)),
        false => sentence(error),
    };
    Failure::new(disks.judge(Exit::of(error)), text)
}

impl Exit {
    /// The code for an error of the library, the disk being as it was.
    pub(crate) fn of(error: &CustomizeError) -> Self {
        Family::of(error).into()
    }
}

impl From<Family> for Exit {
    fn from(family: Family) -> Self {
        match family {
            Family::Failed => Self::Failed,
            Family::Input => Self::Input,
            Family::Usage => Self::Usage,
            Family::Refused => Self::Refused,
            Family::Corrupt => Self::Corrupt,
            Family::Device => Self::Device,
        }
    }
}

/// Whether random things that a run made are those that will be: a dry run's are not, unless they come from
/// a number.
fn will_be_these(args: &Apply) -> bool {
    !args.dry_run || args.seed.is_some()
}

/// The report for a program, without fingerprints of keys that will never be.
fn report_value(args: &Apply, report: &Report) -> Value {
    // A value made of text and numbers: there is nothing in it that could fail.
    let mut value = serde_json::to_value(report).unwrap_or(Value::Null);
    if !will_be_these(args) {
        for key in value["fingerprints"].as_array_mut().into_iter().flatten() {
            key["fingerprint"] = Value::Null;
        }
    }
    value
}

fn passwords(args: &Apply, made: &[MadePassword]) -> Value {
    // A password that was not set is of no use to anybody.
    if args.dry_run {
        return json!([]);
    }
    made.iter().map(|made| json!({"user": made.user, "password": *made.password})).collect()
}

fn last_line(args: &Apply, outcome: &Outcome, done: Option<String>) -> String {
    let disk = args.disk.display();
    let changed = outcome.report.changes.len();
    let seconds = outcome.took.as_secs_f64();
    if let Some(done) = done {
        let room = room(outcome).map_or(String::new(), |room| format!("; {room}"));
        let files = match changed {
            0 => String::new(),
            _ => format!("; {} changed", count(changed, "path")),
        };
        return format!("deployed: {done}{room}{files} in {seconds:.2} s");
    }
    if let Some(room) = room(outcome) {
        let files = match changed {
            0 => String::new(),
            _ => format!(", {} changed", count(changed, "path")),
        };
        return match args.dry_run {
            true => format!("dry run: {disk} would change: {room}{files}; nothing was written"),
            false => format!("customized {disk}: {room}{files} in {seconds:.2} s"),
        };
    }
    match (args.dry_run, changed) {
        (true, 0) => format!("dry run: nothing on {disk} would change"),
        (true, _) => format!(
            "dry run: {} of {disk} would change, nothing was written ({seconds:.2} s)",
            count(changed, "path")
        ),
        (false, 0) => format!("{disk} is as it was asked to be: nothing changed in {seconds:.2} s"),
        (false, _) => {
            format!("customized {disk}: {} changed in {seconds:.2} s", count(changed, "path"))
        }
    }
}

/// The growth in a few words, when there was any.
fn room(outcome: &Outcome) -> Option<String> {
    let report = &outcome.report;
    if let Some(grown) = &report.grown {
        let (before, after) = (size(grown.before), size(grown.after));
        return Some(format!("{} ({}) from {before} to {after}", grown.place, grown.what));
    }
    if let Some((before, after)) = outcome.sizes {
        return Some(format!("the disk from {} to {}", size(before), size(after)));
    }
    let stays = |line: &String| line.contains("stays as it is");
    let changed = !report.partition_table.is_empty() && !report.partition_table.iter().all(stays);
    changed.then(|| "the partition table".to_owned())
}

/// The changes, for a person.
fn summary(args: &Apply, outcome: &Outcome) -> String {
    let report = &outcome.report;
    let mut text = String::new();
    if !report.system.is_empty() {
        text.push_str(&report.system);
        if !report.root.is_empty() && report.root != "the disk" {
            text.push_str(&format!(" on {}", report.root));
        }
        text.push('\n');
    }
    if let Some((before, after)) = outcome.sizes {
        text.push_str(&format!("the disk grows from {} to {}\n", size(before), size(after)));
    } else if args.size.is_some() {
        text.push_str("the disk has the size that was asked for already\n");
    }
    for line in &report.partition_table {
        text.push_str(&format!("partition table: {line}\n"));
    }
    for name in &report.excluded {
        text.push_str(&format!("left out, as the properties say: {name}\n"));
    }
    // Line by line: there may be a hundred thousand.
    let width = report.changes.iter().map(|change| change.kind.len()).max().unwrap_or(0);
    for change in &report.changes {
        text.push_str(&format!("  {:<width$}  {}\n", change.kind, change.path));
    }
    text
}

/// The result of the run, for a person.
fn keys_and_passwords(args: &Apply, outcome: &Outcome) -> String {
    let report = &outcome.report;
    let mut text = String::new();
    let rows =
        |cells: Vec<[String; 2]>| table(&cells.into_iter().map(Vec::from).collect::<Vec<_>>());
    if !report.fingerprints.is_empty() && !output::is_quiet() {
        let (title, known) = match will_be_these(args) {
            true => ("new SSH host keys", true),
            false => ("new SSH host keys, made by the run that writes", false),
        };
        text.push_str(&format!("{title}\n"));
        let keys = report.fingerprints.iter();
        text.push_str(&rows(
            keys.map(|key| {
                let shown = if known { &key.fingerprint } else { &key.path };
                [format!("{} {}", key.kind, key.bits), shown.clone()]
            })
            .collect(),
        ));
    }
    if !outcome.made.is_empty() && !args.dry_run {
        text.push_str("new passwords, shown only here\n");
        let made = outcome.made.iter();
        text.push_str(&rows(
            made.map(|made| [made.user.clone(), (*made.password).clone()]).collect(),
        ));
    }
    text
}
