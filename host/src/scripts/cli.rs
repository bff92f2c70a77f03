//! The multi-call program: what it does follows from the name it is called by.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::helper::update;
use crate::node::cancel::Cancel;
use crate::node::config::{self, Config};
use crate::node::env::{EnvError, Environment};
use crate::node::harden::harden;
use crate::node::log;
use crate::scripts::check;
use crate::scripts::create::{self, Qemu};
use crate::scripts::customize_vm;
use crate::scripts::install_os;
use crate::scripts::rename;
use crate::scripts::transfer;
use crate::scripts::verify;

const USAGE: &str = "\
usage: snf-image-host COMMAND [ARGUMENT]...
The Ganeti OS provider snf-image. Ganeti calls it by its links in the OS directory.

  install-os DIR [VARIANT]...   lay out DIR as a Ganeti OS directory (variant: default)
  update-helper [OPTION]...     build the helper VM (the same as snf-image-update-helper)
  customize-vm [OPTION]...      run a request of snf-customize --vm (it calls this itself)
  check                         say what is missing on this node, and how to mend it
  create, export, import, rename, verify parameters
                                what Ganeti runs, with its environment
  version                       print the version
  help                          this text

Configuration: /etc/default/snf-image (or what SNF_IMAGE_CONFIG names).";

/// Why the program fails, as a sentence that was not written yet.
type Failure = Box<dyn std::error::Error>;

/// Runs the program. The result is the exit status: 0, or 1 after one line that says why.
pub fn run(mut args: impl Iterator<Item = OsString>) -> u8 {
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args: Vec<OsString> = args.collect();
    match dispatch(&name, args) {
        Ok(()) => 0,
        Err(error) => {
            log::error(&log::chain(error.as_ref()));
            1
        }
    }
}

fn dispatch(name: &str, mut args: Vec<OsString>) -> Result<(), Failure> {
    match name {
        "create" => script(args, create),
        "rename" => script(args, rename),
        "export" => script(args, export),
        "import" => script(args, import),
        "verify" => verify(&args),
        "snf-image-update-helper" | "update-helper" => update_helper(args),
        _ if args.is_empty() => Err("no command given; see snf-image-host help".into()),
        _ => {
            let command = args.remove(0).to_string_lossy().into_owned();
            match command.as_str() {
                "create" | "rename" | "export" | "import" | "verify" | "update-helper" => {
                    dispatch(&command, args)
                }
                "install-os" => install(args),
                "customize-vm" => Ok(customize_vm::run(args)?),
                "check" => check(),
                "version" | "--version" | "-V" => {
                    print(concat!("snf-image ", env!("CARGO_PKG_VERSION")))
                }
                "help" | "--help" | "-h" => print(USAGE),
                _ => Err(format!("unknown command {command:?}; see snf-image-host help").into()),
            }
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// What a script of Ganeti's gets.
struct Node {
    env: Environment,
    config: Config,
    cancel: Cancel,
}

/// Runs one of Ganeti's scripts that take no arguments.
fn script(
    args: Vec<OsString>,
    action: impl FnOnce(&Node) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if let Some(argument) = args.first() {
        return Err(format!("unexpected argument {argument:?}: Ganeti passes none").into());
    }
    harden();
    let env = Environment::take();
    let cancel = Cancel::on_signals()?;
    let config = config::of_process(env.variant()?)?;
    log::set_debug(config.image_debug || env.debug_level()? > 0);
    for warning in &config.warnings {
        log::warning(warning);
    }
    action(&Node { env, config, cancel })
}

fn create(node: &Node) -> Result<(), Failure> {
    Ok(create::create(&node.env, &node.config, &node.cancel, &mut Qemu)?)
}

fn rename(node: &Node) -> Result<(), Failure> {
    Ok(rename::rename(&node.env, &node.config, &node.cancel, &mut Qemu)?)
}

fn export(node: &Node) -> Result<(), Failure> {
    let mut output = transfer::standard_output()?;
    Ok(transfer::export(&node.env, &node.config, &node.cancel, &mut output)?)
}

fn import(node: &Node) -> Result<(), Failure> {
    let input = transfer::standard_input()?;
    Ok(transfer::import(&node.env, &node.config, &node.cancel, Box::new(input))?)
}

fn verify(args: &[OsString]) -> Result<(), Failure> {
    harden();
    if let Some(other) = args.iter().find(|arg| arg.as_bytes() != b"parameters") {
        return Err(format!("verify can check \"parameters\", not {other:?}").into());
    }
    let env = Environment::take();
    env.check_api_version()?;
    let cancel = Cancel::on_signals()?;
    let problems = verify::problems(&env, &cancel);
    let Some((last, first)) = problems.split_last() else { return Ok(()) };
    for problem in first {
        log::error(&problem.to_string());
    }
    Err(Box::new(last.clone()))
}

fn update_helper(args: Vec<OsString>) -> Result<(), Failure> {
    let text = update::command(args, &create::helper_config(&config::of_process(None)?))?;
    print(&text)
}

fn check() -> Result<(), Failure> {
    harden();
    let cancel = Cancel::on_signals()?;
    let findings = check::check(config::of_process(None), &cancel);
    let mut missing = 0;
    for finding in &findings {
        print(&finding.to_string())?;
        missing += usize::from(matches!(finding, check::Finding::Missing(_)));
    }
    match missing {
        0 => Ok(()),
        n => Err(format!("{n} of {} things are missing on this node", findings.len()).into()),
    }
}

fn install(args: Vec<OsString>) -> Result<(), Failure> {
    let mut args = args.into_iter();
    let dir =
        PathBuf::from(args.next().ok_or("install-os needs a directory; see snf-image-host help")?);
    let mut variants = Vec::new();
    for variant in args {
        let text = variant.to_str().ok_or_else(|| EnvError::Wrong {
            name: "VARIANT".into(),
            problem: "it is not text".into(),
        })?;
        variants.push(text.to_owned());
    }
    if variants.is_empty() {
        variants.push("default".into());
    }
    let program = std::env::current_exe()?;
    install_os::install(&dir, &program, &variants)?;
    print(&format!("{} is a Ganeti OS directory now; see gnt-os diagnose", dir.display()))
}
