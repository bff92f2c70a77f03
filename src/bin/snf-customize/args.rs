//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use snf_image::properties::Properties;
use snf_storage::foreign::Foreign;

use crate::document::{Order, Planned};
use crate::edits::EditArgs;
use crate::exit::Exit;
use crate::look::Look;
use crate::resize::DiskSize;

/// Customizes a disk image in place: passwords, SSH keys, host name, files. Needs no root, no VM
/// (but can use one) and no mount; nothing is written before everything is known to work.
#[derive(Debug, Parser)]
#[command(
    name = "snf-customize",
    version,
    after_help = Exit::help(),
    arg_required_else_help = true,
    max_term_width = 80
)]
pub(crate) struct Cli {
    /// Say less: no summary and no progress. Warnings, errors and passwords that were made are told.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more: each task as it begins, and what it found.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,

    /// List the tasks by number and name, and end.
    #[arg(long, exclusive = true)]
    pub(crate) list_tasks: bool,

    /// List the exit codes as JSON, and end.
    #[arg(long, exclusive = true)]
    pub(crate) list_exit_codes: bool,

    /// List the operations of sysprep (* marks the defaults), and end.
    #[arg(long, exclusive = true)]
    pub(crate) list_operations: bool,

    /// Print the JSON schema of the documents that --file takes, and end.
    #[arg(long, exclusive = true)]
    pub(crate) plan_schema: bool,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Change the image.
    #[command(after_help = Exit::help(), after_long_help = apply_help())]
    Apply(Box<Apply>),
    /// Prepare a guest to be cloned: remove logs, keys, leases, its number and whatever else two machines
    /// must not share. All options of apply can be given, too; they come after.
    #[command(after_help = Exit::help())]
    Sysprep(Box<Sysprep>),
    /// Put an image onto a new file or a block device, make it larger and change it: what apply
    /// does, with a source. The image is a file or a URL (http, https), raw, qcow2, vmdk, vhdx, vhd or
    /// vdi, also in gz, xz, zst or bz2, with #sha256=... after it if you like.
    #[command(after_help = Exit::help())]
    Deploy(Box<Deploy>),
    /// Tell what is on the disk: partitions, volume groups, file systems, operating system, users,
    /// keys.
    #[command(after_help = Exit::help())]
    Inspect(Inspect),
    /// Look for damage in the file systems on the disk (NTFS, ext2/3/4, btrfs, XFS, FAT) and change
    /// nothing.
    #[command(after_help = Exit::help())]
    Check(Check),
    #[command(flatten)]
    Look(Look),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// The options of `sysprep`.
#[derive(Args, Debug)]
#[command(mut_arg("sysprep", |arg| arg.hide(true)))]
pub(crate) struct Sysprep {
    /// The operations: names with commas between; defaults and all stand for several, and -NAME
    /// takes one out. snf-customize --list-operations lists them.
    #[arg(
        long,
        value_name = "LIST",
        default_value = "defaults",
        allow_hyphen_values = true,
        help_heading = "What to change"
    )]
    pub(crate) operations: String,

    #[command(flatten)]
    pub(crate) apply: Apply,
}

/// The options of `apply`.
#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// The disk: a file or block device that holds a whole disk or a bare file system.
    pub(crate) disk: PathBuf,

    #[command(flatten)]
    pub(crate) domain: Domain,

    /// Whether the disk is used whole without being asked for.
    #[arg(skip)]
    pub(crate) fill: bool,

    /// Whether the disk has just been laid: nothing else need be asked for.
    #[arg(skip)]
    pub(crate) laid: bool,

    /// The places of the options that a secret comes from.
    #[arg(skip)]
    pub(crate) order: Order,

    /// The content of documents (`--file`).
    #[arg(skip)]
    pub(crate) planned: Planned,

    #[command(flatten)]
    pub(crate) wrapping: Wrapping,

    #[command(flatten)]
    pub(crate) stack: Stack,

    /// Take options and edits from a TOML or JSON document, too (- is standard input); may be given
    /// more than once. Its keys are the names of these options, its list edits holds the edits. What
    /// it says comes before what the command line says. --print-plan writes one,
    /// and snf-customize --plan-schema describes it.
    #[arg(long, value_name = "PLAN", help_heading = "Documents")]
    pub(crate) file: Vec<PathBuf>,

    /// Print all that was asked for as a document for --file (TOML, or JSON with --json), and
    /// open no disk.
    #[arg(long, help_heading = "Documents")]
    pub(crate) print_plan: bool,

    /// Make the disk this large, and give the room to the root: 20G, 512M, or +5G for 5 GiB more
    /// than it has. For files; a disk is never made smaller.
    #[arg(long, value_name = "SIZE", help_heading = "Room")]
    pub(crate) size: Option<DiskSize>,

    /// Give the free room of the disk to the root, or to this partition (its number) or logical volume
    /// (GROUP/NAME). A volume group gives all that is free in it. Swap and
    /// partitions of up to 4 GiB that are after it move to the end of the disk.
    #[arg(
        long,
        value_name = "VOLUME",
        help_heading = "Room",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "root"
    )]
    pub(crate) grow: Option<GrowArg>,

    /// Move no partition: what is after the one that grows stays where it is.
    #[arg(long, help_heading = "Room")]
    pub(crate) no_move: bool,

    /// Set root's password.
    #[arg(long, value_name = "SELECTOR", help_heading = "What to change")]
    pub(crate) root_password: Option<String>,

    /// Set a user's password; may be given more than once.
    #[arg(long, value_name = "NAME:SELECTOR", help_heading = "What to change")]
    pub(crate) user_password: Vec<String>,

    /// Add the public keys in a file to a user's authorized keys; may be given more than once.
    #[arg(long, value_name = "USER:file:PATH", help_heading = "What to change")]
    pub(crate) ssh_key: Vec<String>,

    /// Prepare the guest to be cloned, before everything else: defaults, or a list as sysprep's
    /// --operations.
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, help_heading = "What to change")]
    pub(crate) sysprep: Option<String>,

    /// Set the host name.
    #[arg(long, value_name = "NAME", help_heading = "What to change")]
    pub(crate) hostname: Option<String>,

    /// Write the files of an OpenStack personality: a JSON list of {path, contents (base64),
    /// owner, group, mode (decimal)}.
    #[arg(long, value_name = "FILE.json", help_heading = "What to change")]
    pub(crate) personality: Option<PathBuf>,

    /// The machine id in /etc/machine-id: new, empty or uninitialized (made at the next boot, which
    /// with the latter counts as the first), keep, or an id of 32 hexadecimal digits.
    #[arg(long, value_name = "new|empty|uninitialized|keep|ID", help_heading = "What to change")]
    pub(crate) machine_id: Option<String>,

    /// The treatment of the SSH host keys.
    #[arg(long, value_enum, help_heading = "What to change")]
    pub(crate) host_keys: Option<HostKeysArg>,

    /// Windows: put this answer file (unattend.xml, sysprep.inf) in place of the image's own.
    #[arg(long, value_name = "FILE", help_heading = "What to change")]
    pub(crate) answer_file: Option<PathBuf>,

    /// Windows: set the product key. SELECTOR is file:PATH, stdin or prompt.
    #[arg(long, value_name = "SELECTOR", help_heading = "What to change")]
    pub(crate) product_key: Option<String>,

    /// Windows: set the time zone, by the name that Windows has for it.
    #[arg(long, value_name = "NAME", help_heading = "What to change")]
    pub(crate) time_zone: Option<String>,

    /// Give cloud-init a seed (NoCloud) in the image, so that it takes its data from there:
    /// user-data=FILE, meta-data=FILE, network-config=FILE, vendor-data=FILE, with commas between
    /// them. What is not given is made: an instance-id, the name of --hostname, the network of --nic.
    #[arg(long, value_name = "user-data=FILE[,...]", help_heading = "What to change")]
    pub(crate) cloud_init: Option<String>,

    /// The user whom cloud-init makes at the first boot, in place of the image's own default user.
    /// --user-password and --ssh-key may name the user.
    #[arg(long, value_name = "NAME", help_heading = "What to change")]
    pub(crate) cloud_user: Option<String>,

    /// Configure a network interface, the way this guest configures its network:
    /// MAC=aa:00:00:12:34:56 with dhcp or ip=ADDRESS/PREFIX, ip6=ADDRESS/PREFIX (or auto, auto+dhcp,
    /// dhcp), gw=ROUTER, dns=SERVER[+SERVER], mtu=N. Once for each interface.
    #[arg(long, value_name = "MAC=...[,...]", help_heading = "What to change")]
    pub(crate) nic: Vec<String>,

    #[command(flatten)]
    pub(crate) edits: EditArgs,

    /// Windows that is not generalized (sysprep): set the passwords in its registry, where its own
    /// setup will not.
    #[arg(long, help_heading = "How")]
    pub(crate) offline_password: bool,

    /// Image properties as a JSON object (OSFAMILY, ROOT_PARTITION, PASSWD_HASHING_METHOD,
    /// EXCLUDE_TASK_..., ...).
    #[arg(long, value_name = "JSON", help_heading = "How")]
    pub(crate) properties: Option<String>,

    /// The root, when it cannot be found: the number of its partition, GROUP/NAME of its logical
    /// volume, or the UUID of its LUKS container.
    #[arg(long, value_name = "VOLUME", help_heading = "How")]
    pub(crate) root_partition: Option<VolumeArg>,

    /// Show what would change and write nothing.
    #[arg(long, help_heading = "How")]
    pub(crate) dry_run: bool,

    /// Show what changes, line by line, as diff -u does; with --dry-run, what would change. Secrets are
    /// masked.
    #[arg(long, help_heading = "How")]
    pub(crate) diff: bool,

    /// Do it inside the helper VM: for images that are not to be trusted, and for the kinds of XFS and
    /// btrfs that only a kernel knows. Needs QEMU, a built helper and snf-image-host, and no root.
    #[arg(long, help_heading = "How")]
    pub(crate) vm: bool,

    /// The directory of the built helper (default: HELPER_DIR of /etc/default/snf-image, or
    /// /var/lib/snf-image/helper).
    #[arg(long, value_name = "DIR", help_heading = "How", requires = "vm")]
    pub(crate) helper: Option<PathBuf>,

    /// Print one JSON document on standard output.
    #[arg(long, help_heading = "How")]
    pub(crate) json: bool,

    /// Draw everything random from this number, so that the same run gives the same bytes (with
    /// SOURCE_DATE_EPOCH for the time). Not for keys that matter.
    #[arg(long, value_name = "N", help_heading = "How")]
    pub(crate) seed: Option<u64>,
}

/// The options of `deploy`. Those that it refuses are not in its help.
#[derive(Args, Debug)]
#[command(
    mut_arg("disk", |arg| arg
        .value_name("TARGET")
        .help("The file to make, or the block device to fill")
        .long_help(None::<&'static str>)),
    mut_arg("format", |arg| arg.hide(true)),
    mut_arg("backing", |arg| arg.hide(true)),
    mut_arg("domain", |arg| arg.hide(true)),
    mut_arg("connect", |arg| arg.hide(true)),
    mut_arg("dry_run", |arg| arg.hide(true))
)]
pub(crate) struct Deploy {
    /// The image: a path or a URL.
    pub(crate) image: String,

    /// The format of a new file. Without it, one whose name ends in .qcow2 is qcow2, and anything
    /// else is raw.
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "The target")]
    pub(crate) target_format: Option<TargetFormat>,

    /// Replace a file that is there. It is replaced in one step, when the new one is whole.
    #[arg(long, help_heading = "The target")]
    pub(crate) overwrite: bool,

    #[command(flatten)]
    pub(crate) apply: Apply,
}

/// The options of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The disk: a file or block device that holds a whole disk or a bare file system.
    pub(crate) disk: PathBuf,

    #[command(flatten)]
    pub(crate) domain: Domain,

    #[command(flatten)]
    pub(crate) wrapping: Wrapping,

    #[command(flatten)]
    pub(crate) stack: Stack,

    /// The root, when it cannot be found: the number of its partition, GROUP/NAME of its logical
    /// volume, or the UUID of its LUKS container.
    #[arg(long, value_name = "VOLUME")]
    pub(crate) root_partition: Option<VolumeArg>,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The disk: a file or block device that holds a whole disk or a bare file system.
    pub(crate) disk: PathBuf,

    #[command(flatten)]
    pub(crate) domain: Domain,

    #[command(flatten)]
    pub(crate) wrapping: Wrapping,

    #[command(flatten)]
    pub(crate) stack: Stack,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The container of the disk.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Wrapping {
    /// The format of the disk. Without it, a file that begins as qcow2, vmdk, vhdx, vhd or vdi does is
    /// that, and anything else is raw. Say it for disks that an untrusted guest has written. All but
    /// raw and qcow2 need qemu-storage-daemon.
    #[arg(long, value_enum, help_heading = "The disk")]
    pub(crate) format: Option<Format>,

    /// Whether the file may be opened, for reading, that a qcow2 image names as its backing file.
    #[arg(long, value_enum, default_value_t = BackingArg::Refuse, help_heading = "The disk")]
    pub(crate) backing: BackingArg,
}

/// Further disks, and keys.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Stack {
    /// A further disk of the same guest, such as one with another physical volume of its volume
    /// group; may be given more than once. --format and --backing are for it, too.
    #[arg(long = "disk", value_name = "DISK", help_heading = "The disk")]
    pub(crate) more: Vec<PathBuf>,

    /// The key of a LUKS container; may be given more than once. The container is named by its
    /// UUID, by the number of the partition that holds it, or by the logical volume (VG/LV) that
    /// does. SELECTOR is file:PATH, stdin, prompt, or key-file:PATH for a key file, whose every
    /// byte counts.
    #[arg(long, value_name = "CONTAINER:SELECTOR", help_heading = "The disk")]
    pub(crate) luks_key: Vec<String>,

    /// The formats of the first of the further disks, where libvirt has said them.
    #[arg(skip)]
    pub(crate) formats: Vec<Format>,

    /// Warnings about disks of a domain that are left out.
    #[arg(skip)]
    pub(crate) notes: Vec<String>,
}

/// The disks of a libvirt domain in place of DISK.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Domain {
    /// In place of DISK: all disks of this libvirt domain (its name, UUID or number), which is shut
    /// off. Needs virsh.
    #[arg(
        id = "domain",
        short = 'd',
        long = "domain",
        value_name = "DOMAIN",
        help_heading = "The disk"
    )]
    pub(crate) name: Option<String>,

    /// The libvirt that knows the domain, as virsh --connect takes it; a system of this machine.
    #[arg(long, value_name = "URI", requires = "domain", help_heading = "The disk")]
    pub(crate) connect: Option<String>,
}

/// A volume by the number of its partition or by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeArg(pub(crate) String);

impl std::str::FromStr for VolumeArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut properties = Properties::default();
        properties.set("ROOT_PARTITION", text);
        match properties.root_partition() {
            Ok(Some(_)) => Ok(Self(text.to_owned())),
            _ => Err(
                "it is the number of a partition (1, 2, ...), GROUP/NAME of a logical volume, or the \
                     UUID of a LUKS container",
            ),
        }
    }
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The bytes of the disk.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
    /// A format that QEMU's storage daemon opens.
    Foreign(Foreign),
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Raw,
            Self::Qcow2,
            Self::Foreign(Foreign::Vmdk),
            Self::Foreign(Foreign::Vhdx),
            Self::Foreign(Foreign::Vhd),
            Self::Foreign(Foreign::Vdi),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let value = PossibleValue::new(self.name());
        Some(match self {
            Self::Raw => value.help("The bytes of the disk"),
            Self::Qcow2 => value.help("QEMU's format, version 2 or 3"),
            Self::Foreign(Foreign::Vmdk) => value.help("VMware's format, in one file"),
            Self::Foreign(Foreign::Vhdx) => value.help("Hyper-V's format"),
            Self::Foreign(Foreign::Vhd) => {
                value.alias("vpc").help("Virtual PC's format, fixed or dynamic")
            }
            Self::Foreign(Foreign::Vdi) => value.help("VirtualBox's format"),
        })
    }
}

/// `--target-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's format.
    Qcow2,
}

impl From<TargetFormat> for Format {
    fn from(format: TargetFormat) -> Self {
        match format {
            TargetFormat::Raw => Self::Raw,
            TargetFormat::Qcow2 => Self::Qcow2,
        }
    }
}

impl Format {
    /// Its name, as the option has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Foreign(foreign) => foreign.name(),
        }
    }
}

/// A shell that completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
    /// elvish.
    Elvish,
    /// PowerShell.
    Powershell,
}

impl Shell {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Elvish => "elvish",
            Self::Powershell => "powershell",
        }
    }
}

/// `--backing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackingArg {
    /// Open it: what the image says of itself is trusted.
    Allow,
    /// Refuse an image that names one.
    Refuse,
}

/// `--grow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GrowArg {
    /// The root.
    Root,
    /// The partition with this number.
    Partition(u32),
    /// The logical volume of this group and name.
    Logical(String, String),
}

impl std::str::FromStr for GrowArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("root", _) => Ok(Self::Root),
            (_, Ok(number)) if number > 0 => Ok(Self::Partition(number)),
            _ => match text.split_once('/') {
                Some((group, name)) if !group.is_empty() && !name.is_empty() => {
                    Ok(Self::Logical(group.to_owned(), name.to_owned()))
                }
                _ => {
                    Err("it is the number of a partition, GROUP/NAME of a logical volume, or root"
                        .to_owned())
                }
            },
        }
    }
}

/// `--host-keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostKeysArg {
    /// Remove them and write fresh ones of the same kinds.
    New,
    /// Remove them only.
    Remove,
    /// Leave them as they are.
    Keep,
}

fn apply_help() -> String {
    format!(
        "SELECTOR says where a password comes from, so that none stands on the command line:
  file:PATH   the file's text without the newline at its end
  stdin       a line of standard input, one for each selector in the order of the options
  prompt      asked for on the terminal, twice
  random      a strong one is made and shown once at the end
  hash:CRYPT  a crypt(3) hash, set as it is; hash:! locks the account

{}
Examples:
  snf-customize apply disk.raw --root-password prompt --hostname web1
  snf-customize apply disk.raw --ssh-key root:file:id_ed25519.pub \\
      --host-keys new --machine-id new
  snf-customize apply disk.qcow2 --size 20G --hostname web1
  snf-customize apply disk.raw --dry-run \\
      --write /etc/motd:file:motd.txt:owner=root,mode=0644
",
        Exit::help()
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documentation_has_every_option() {
        let page = include_str!("../../../docs/snf-customize.md");
        let command = Cli::command();
        let all = command.get_subcommands().flat_map(|sub| sub.get_arguments());
        for option in all.chain(command.get_arguments()).filter_map(|arg| arg.get_long()) {
            assert!(page.contains(&format!("--{option}")), "--{option}");
        }
    }
}
