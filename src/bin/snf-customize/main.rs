//! `snf-customize`: the door through which a person customizes an image.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod apply;
mod args;
mod check;
mod cloud;
mod complete;
mod container;
mod deploy;
mod disk;
mod document;
mod domain;
mod edits;
mod exit;
mod inspect;
mod look;
mod luks;
mod output;
mod request;
mod resize;
mod selector;
mod signals;
mod spinner;
mod terminal;
mod tree;
mod vm;

use std::process::ExitCode;

use clap::CommandFactory;

use args::{Cli, Command};
use disk::Access;
use document::Ended;
use domain::Places;
use exit::{Exit, Failure};
use snf_ceiling::Ceiling;
use snf_image::limits::MEMORY_BYTES;

/// An image can make this program ask for much memory: there is an end to it, as to the machine's.
#[global_allocator]
static MEMORY: Ceiling = Ceiling::new(
    MEMORY_BYTES,
    "error: ",
    "; the disk is as it was",
    "; writing had begun: ext3 and ext4 finish or drop the whole change when they are opened next, other \
     file systems need their own check",
);

fn main() -> ExitCode {
    catch_defects();
    keep_secrets_out_of_core_dumps();
    complete::answer();
    let mut definition = Cli::command();
    definition.build();
    let words = domain::with_place_for_the_disk(&definition, std::env::args_os().collect());
    let cli = match document::command_line(words) {
        Ok(cli) => cli,
        Err(Ended::Document(failure)) => return output::end(output::fail(&failure)).into(),
        Err(Ended::Clap(error)) => {
            if error.use_stderr() {
                let _ = error.print();
                return Exit::Usage.into();
            }
            // Help and version are no errors.
            return match output::content_output() {
                Ok(out) => {
                    drop(out);
                    output::note(error.print());
                    output::end(Exit::Done).into()
                }
                Err(failure) => output::fail(&failure).into(),
            };
        }
    };
    output::set_level(cli.quiet, cli.verbose);
    let exit = match cli.command {
        Some(Command::Apply(mut args)) => on_disks(&mut args),
        Some(Command::Sysprep(args)) => sysprep(*args),
        Some(Command::Deploy(mut args)) => deploy::run(&mut args),
        Some(Command::Inspect(mut args)) => {
            let places = Places {
                disk: &mut args.disk,
                wrapping: &mut args.wrapping,
                stack: &mut args.stack,
            };
            match domain::settle(&args.domain, Access::Read, places) {
                Ok(()) => inspect::run(&args),
                Err(failure) => domain::tell("inspect", &args.disk, args.json, &failure),
            }
        }
        Some(Command::Check(mut args)) => {
            let places = Places {
                disk: &mut args.disk,
                wrapping: &mut args.wrapping,
                stack: &mut args.stack,
            };
            match domain::settle(&args.domain, Access::Read, places) {
                Ok(()) => check::run(&args),
                Err(failure) => domain::tell("check", &args.disk, args.json, &failure),
            }
        }
        Some(Command::Look(mut look)) => look_at_disks(&mut look),
        Some(Command::Completions { shell }) => completions(shell),
        None if cli.list_tasks => list_tasks(),
        None if cli.list_operations => list_operations(),
        None if cli.plan_schema => plan_schema(),
        None if cli.list_exit_codes => list_exit_codes(),
        None => output::fail(&Failure::usage(
            "nothing to do was named; see snf-customize --help for apply, deploy, inspect and check",
        )),
    };
    output::end(exit).into()
}

/// A defect ends the program with one sentence and a code of its own, in whichever thread it is.
/// The message of the panic is not shown: it may hold a secret.
fn catch_defects() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(String::new(), |location| format!(" ({location})"));
        output::error_line(&format!(
            "this is a defect of snf-customize {}{place}; please report it",
            env!("CARGO_PKG_VERSION")
        ));
        std::process::exit(Exit::Bug.code().into());
    }));
}

/// No core file, and no other process of the same user may read our memory.
fn keep_secrets_out_of_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Failures are ignored: there is no other way.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

fn list_tasks() -> Exit {
    let mut text = String::new();
    for task in snf_image::task::TASKS {
        text.push_str(&format!("{:>2}  {:<26}  {}\n", task.id.number(), task.id, task.summary));
    }
    output::print(&text);
    Exit::Done
}

/// `apply` with operations to begin with.
fn sysprep(args: args::Sysprep) -> Exit {
    let args::Sysprep { operations, mut apply } = args;
    if apply.sysprep.is_some() {
        return output::fail(&Failure::usage(
            "--sysprep is for apply; sysprep itself has --operations",
        ));
    }
    apply.sysprep = Some(operations);
    on_disks(&mut apply)
}

/// `apply` on the disk, or on those of a domain.
fn on_disks(args: &mut args::Apply) -> Exit {
    let access = if args.dry_run { Access::Read } else { Access::Write };
    let places =
        Places { disk: &mut args.disk, wrapping: &mut args.wrapping, stack: &mut args.stack };
    // A plan is for whatever disk.
    let settled = match args.print_plan {
        true => Ok(()),
        false => domain::settle(&args.domain, access, places),
    };
    match settled {
        Ok(()) => apply::run(args),
        Err(failure) => domain::tell("apply", &args.disk, args.json, &failure),
    }
}

/// A reading command on the disk, or on those of a domain.
fn look_at_disks(look: &mut look::Look) -> Exit {
    let settled = look.source().map_or(Ok(()), |source| {
        let places = Places {
            disk: &mut source.disk,
            wrapping: &mut source.place.wrapping,
            stack: &mut source.place.stack,
        };
        domain::settle(&source.domain, Access::Read, places)?;
        source.place.stack.notes.iter().for_each(|note| output::warning_line(note));
        Ok(())
    });
    settled.map_or_else(|failure| output::fail(&failure), |()| look::run(look))
}

fn list_operations() -> Exit {
    let mut text = String::new();
    for operation in snf_image::task::prepare_system::OPERATIONS {
        let mark = if operation.default { '*' } else { ' ' };
        let not = if operation.is_done() { "" } else { " (not done here)" };
        text.push_str(&format!("{mark} {:<24}  {}{not}\n", operation.name, operation.summary));
    }
    output::print(&text);
    Exit::Done
}

fn plan_schema() -> Exit {
    output::print(&format!("{:#}\n", document::schema()));
    Exit::Done
}

fn list_exit_codes() -> Exit {
    let codes = Exit::TABLE.map(|(exit, word, meaning)| {
        serde_json::json!({"code": exit.code(), "word": word, "meaning": meaning})
    });
    output::print(&format!("{:#}\n", serde_json::Value::from(codes.to_vec())));
    Exit::Done
}

/// The script that has the shell ask this program.
fn completions(shell: args::Shell) -> Exit {
    let name = shell.name();
    let mut script = Vec::new();
    let shells = clap_complete::env::Shells::builtins();
    let written = shells.completer(name).map_or(Ok(()), |completer| {
        completer.write_registration(
            "COMPLETE",
            "snf_customize",
            "snf-customize",
            "snf-customize",
            &mut script,
        )
    });
    match written {
        Ok(()) => {
            output::print(&String::from_utf8_lossy(&script));
            Exit::Done
        }
        Err(error) => output::fail(&Failure::new(Exit::Failed, format!("no script: {error}"))),
    }
}
