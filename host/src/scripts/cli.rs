//! The multi-call program: what it does follows from the name it is called by.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::helper::update;
use clap::{Parser, Subcommand};

use crate::node::cancel::Cancel;
use crate::node::config::{self, Config};
use crate::node::env::Environment;
use crate::node::harden::harden;
use crate::node::log;
use crate::scripts::check;
use crate::scripts::create::{self, Qemu};
use crate::scripts::customize_vm;
use crate::scripts::install_os;
use crate::scripts::lay_image;
use crate::scripts::rename;
use crate::scripts::transfer;
use crate::scripts::verify;

/// The Ganeti OS provider snf-image. Ganeti calls it by its links in the OS directory.
#[derive(Parser)]
#[command(name = "snf-image-host", version, max_term_width = 100)]
#[command(after_help = "Configuration: /etc/default/snf-image (or what SNF_IMAGE_CONFIG names).")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lay out DIR as a Ganeti OS directory
    InstallOs {
        /// The directory; its name is the name of the OS
        dir: PathBuf,
        /// The variants of the OS
        #[arg(value_name = "VARIANT", default_value = "default")]
        variants: Vec<String>,
    },
    /// Build the helper VM (the same as snf-image-update-helper)
    #[command(disable_help_flag = true)]
    UpdateHelper {
        #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a request of snf-customize --vm (it calls this itself)
    #[command(disable_help_flag = true)]
    CustomizeVm {
        #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Lay an image for snf-customize deploy (it calls this itself)
    #[command(disable_help_flag = true)]
    LayImage {
        #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Say what is missing on this node, and how to mend it
    Check,
    /// Deploy an instance, with the environment that Ganeti gives
    Create,
    /// Write a disk to standard output, with the environment that Ganeti gives
    Export,
    /// Write standard input to a disk, with the environment that Ganeti gives
    Import,
    /// Follow a new name of an instance, with the environment that Ganeti gives
    Rename,
    /// Check OS parameters, with the environment that Ganeti gives
    Verify {
        /// The thing to check
        #[arg(value_parser = ["parameters"], default_value = "parameters")]
        what: Vec<String>,
    },
    /// Print the version
    Version,
}

/// Why the program fails, as a sentence that was not written yet.
type Failure = Box<dyn std::error::Error>;

/// Runs the program. The result is the exit status: 0, or 1 after one line that says why.
pub fn run(mut args: impl Iterator<Item = OsString>) -> u8 {
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args: Vec<OsString> = args.collect();
    let result = dispatch(&name, args);
    if let Err(error) = &result {
        log::error(&log::chain(error.as_ref()));
    }
    u8::from(result.is_err() || log::is_incomplete())
}

fn dispatch(name: &str, args: Vec<OsString>) -> Result<(), Failure> {
    match name {
        "create" => script(args, create),
        "rename" => script(args, rename),
        "export" => script(args, export),
        "import" => script(args, import),
        "verify" => verify(&args),
        "snf-image-update-helper" => update_helper(args),
        _ => command(args),
    }
}

/// The program under its own name.
fn command(args: Vec<OsString>) -> Result<(), Failure> {
    let name = OsString::from("snf-image-host");
    let cli = match Cli::try_parse_from(std::iter::once(name).chain(args)) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            transfer::standard_output().map_err(unwritable)?;
            return error.print().map_err(unwritable);
        }
        // Its first paragraph says what is wrong; the rest is how to call it.
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
            return Err(format!("{}; see snf-image-host --help", first.join(" ")).into());
        }
    };
    match cli.command {
        Command::Create => script(Vec::new(), create),
        Command::Export => script(Vec::new(), export),
        Command::Import => script(Vec::new(), import),
        Command::Rename => script(Vec::new(), rename),
        Command::Verify { .. } => verify(&[]),
        Command::InstallOs { dir, variants } => install(&dir, &variants),
        Command::UpdateHelper { args } => update_helper(args),
        Command::CustomizeVm { args } => Ok(customize_vm::run(args)?),
        Command::LayImage { args } => Ok(lay_image::run(args)?),
        Command::Check => check(),
        Command::Version => print(concat!("snf-image ", env!("CARGO_PKG_VERSION"))),
    }
}

/// Writes a line to standard output; that it cannot be written is an error.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    transfer::standard_output().and_then(|mut out| writeln!(out, "{text}")).map_err(unwritable)
}

fn unwritable(error: std::io::Error) -> Failure {
    format!("cannot write to standard output: {error}").into()
}

/// The arguments of a script of Ganeti's.
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
    let mut output = transfer::standard_output().map_err(unwritable)?;
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

fn install(dir: &Path, variants: &[String]) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    install_os::install(dir, &program, variants)?;
    print(&format!("{} is a Ganeti OS directory now; see gnt-os diagnose", dir.display()))
}
