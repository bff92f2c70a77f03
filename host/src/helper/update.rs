//! `snf-image-update-helper`: builds the helper from an installed kernel and our own init. All
//! happens in process; HELPER_DIR changes by renames only, so a `create` that runs meanwhile sees
//! the old helper or the new one, never half of each.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use snf_image::wire::{INITRAMFS_END, PROTOCOL_VERSION};
use tempfile::NamedTempFile;

use super::image::{DESCRIPTION, Description, FileSystems, ParameterDisk};
use super::init_file::{InitProblem, init_problem};
use super::kernel::{self, BzImage, Kernel, KernelError};
use super::modules::{Module, ModuleTree, ModulesError, without_signature};
use super::snapshot;
use super::trial;
use super::{Acceleration, HelperConfig, HelperError};
use crate::helper::cpio::{CpioWriter, TooLarge};
use crate::node::cancel::Cancel;
use crate::node::log;

/// The text of `--help`.
pub const USAGE: &str = "\
usage: snf-image-update-helper [OPTION]...
Builds the helper VM (kernel, initramfs, helper.json) from an installed kernel.

  --dir DIR              where it goes (default: HELPER_DIR of the configuration)
  --root DIR             look for kernels under DIR instead of /
  --kernel FILE          use this kernel image instead of the newest installed
  --modules DIR          its modules (default: /lib/modules/VERSION under the root)
  --init FILE            the helper's init (default: snf-helper-init beside this program
                         or in its lib directory)
  --parameter-disk KIND  auto, floppy or virtio: how parameters reach the helper
  --engines-only         without the kernel's drivers for xfs and btrfs: guests on those are refused
  --no-snapshot          do not boot it once to save the VM that others go on from (without KVM)
  --help                 this text";

/// Drivers that no helper can do without.
const REQUIRED: [&str; 3] = ["virtio_blk", "virtio_rng", "virtio_pci"];
/// The driver of a true floppy.
const FLOPPY: &str = "floppy";
/// File systems that are left to the kernel's drivers, which are in an initramfs of their own.
const FILE_SYSTEMS: [&str; 2] = ["xfs", "btrfs"];
/// Checksums of theirs: their drivers ask for them by an alias, which nobody in the initramfs could
/// resolve, so they are loaded beforehand, where the kernel has them as modules.
const CHECKSUMS: [&str; 4] =
    ["crc32c_generic", "xxhash_generic", "sha256_generic", "blake2b_generic"];
/// The driver of the serial lines; built into every usual kernel.
const SERIAL: &str = "8250";

/// Why the helper was not built. The old one, if any, is as it was.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// A wrong command line.
    #[error("{0}\n{USAGE}")]
    Usage(String),
    /// No kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No modules.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// Our init is not there.
    #[error(
        "the helper's init was not found: looked for {0}; build it (cargo build -p snf-helper-init \
         --target x86_64-unknown-linux-musl --profile helper) and use --init FILE"
    )]
    NoInit(String),
    /// The init would not run.
    #[error("{path} cannot be the helper's init")]
    BadInit {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        problem: InitProblem,
    },
    /// The new helper was tried and does not work.
    #[error("the new helper does not work, and the one before it stays")]
    Trial(#[source] HelperError),
    /// A file too large for the archive.
    #[error(transparent)]
    Cpio(#[from] TooLarge),
    /// Reading or writing failed.
    #[error("cannot {action}")]
    Io {
        /// The step that failed.
        action: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

fn io_error(action: String) -> impl FnOnce(io::Error) -> UpdateError {
    move |source| UpdateError::Io { action, source }
}

/// The sources of a build.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// HELPER_DIR.
    pub directory: PathBuf,
    /// Kernels are looked for under this directory; `None` is `/`.
    pub root: Option<PathBuf>,
    /// This kernel image.
    pub kernel: Option<PathBuf>,
    /// Its modules.
    pub modules: Option<PathBuf>,
    /// The helper's init.
    pub init: Option<PathBuf>,
    /// How parameters reach the helper; `None` chooses.
    pub parameter_disk: Option<ParameterDisk>,
    /// Leaves out the kernel's drivers for file systems that our engines do not know.
    pub engines_only: bool,
    /// Leaves out the snapshot; see [`command`].
    pub no_snapshot: bool,
}

/// The result of a build.
#[derive(Clone, Debug)]
pub struct Built {
    /// As written to `helper.json`.
    pub description: Description,
    /// Size of the kernel in bytes.
    pub kernel_size: usize,
    /// Size of the initramfs in bytes.
    pub initramfs_size: usize,
    /// Size of the initramfs with the drivers of file systems, in bytes; 0 when there is none.
    pub file_systems_size: usize,
    /// Why the parameter disk is what it is.
    pub parameter_disk_reason: &'static str,
}

impl Options {
    /// Reads the command line; `None` means that help was asked for.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        default_directory: &Path,
    ) -> Result<Option<Self>, UpdateError> {
        let mut options = Self { directory: default_directory.to_owned(), ..Self::default() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy().into_owned();
            let (name, inline) = match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
                None => (text, None),
            };
            if matches!(name.as_str(), "--help" | "-h") {
                return Ok(None);
            }
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| arguments.next())
                    .ok_or_else(|| UpdateError::Usage(format!("{name} needs a value")))
            };
            match name.as_str() {
                "--dir" => options.directory = value()?.into(),
                "--root" => options.root = Some(value()?.into()),
                "--kernel" => options.kernel = Some(value()?.into()),
                "--modules" => options.modules = Some(value()?.into()),
                "--init" => options.init = Some(value()?.into()),
                "--engines-only" if inline.is_none() => options.engines_only = true,
                "--no-snapshot" if inline.is_none() => options.no_snapshot = true,
                "--parameter-disk" => {
                    options.parameter_disk = match value()?.to_str() {
                        Some("auto") => None,
                        Some("floppy") => Some(ParameterDisk::Floppy),
                        Some("virtio") => Some(ParameterDisk::Virtio),
                        _ => {
                            let problem = "--parameter-disk takes auto, floppy or virtio";
                            return Err(UpdateError::Usage(problem.to_owned()));
                        }
                    }
                }
                _ => return Err(UpdateError::Usage(format!("unknown argument {name:?}"))),
            }
        }
        Ok(Some(options))
    }
}

/// The program: builds the helper, saves one that has booted as `config` says, and returns what to
/// tell the person.
pub fn command(
    arguments: impl IntoIterator<Item = OsString>,
    config: &HelperConfig,
) -> Result<String, UpdateError> {
    let Some(options) = Options::parse(arguments, &config.directory)? else {
        return Ok(USAGE.to_owned());
    };
    let (built, trial) = build_and_try(&options, config)?;
    let mut text = String::new();
    let d = &built.description;
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "helper built in {}", options.directory.display());
    let _ = writeln!(
        text,
        "  kernel:         {} ({:.1} MiB, {})",
        d.kernel_release,
        mib(built.kernel_size),
        if d.pvh { "unpacked, starts over PVH" } else { "bzImage: it has no PVH entry" }
    );
    let _ = writeln!(
        text,
        "  initramfs:      {:.2} MiB (init and {} modules: {})",
        mib(built.initramfs_size),
        d.modules.len(),
        if d.modules.is_empty() { "none needed".to_owned() } else { d.modules.join(" ") }
    );
    let _ = match &d.file_systems {
        Some(other) => writeln!(
            text,
            "  file systems:   {} through the kernel, from a second initramfs of {:.2} MiB",
            other.kinds.join(" and "),
            mib(built.file_systems_size)
        ),
        None if options.engines_only => {
            writeln!(text, "  file systems:   ext2/3/4, NTFS and FAT only, as asked for")
        }
        None => writeln!(text, "  file systems:   the kernel has no driver for xfs nor btrfs"),
    };
    let _ = writeln!(
        text,
        "  parameter disk: {} ({})",
        match d.parameter_disk {
            ParameterDisk::Floppy => "floppy drive",
            ParameterDisk::Virtio => "read-only virtio disk",
        },
        built.parameter_disk_reason
    );
    let _ = writeln!(text, "  trial:          {trial}");
    let _ = write!(text, "  snapshot:       {}", take_snapshot(&options, config));
    Ok(text)
}

/// Builds a helper beside the one that is in use, boots it once, and puts it in its place. Says what
/// came of the trial.
fn build_and_try(options: &Options, config: &HelperConfig) -> Result<(Built, String), UpdateError> {
    let directory = &options.directory;
    fs::create_dir_all(directory)
        .map_err(io_error(format!("make the directory {}", directory.display())))?;
    let new = tempfile::Builder::new()
        .prefix(".new-")
        .tempdir_in(directory)
        .map_err(io_error(format!("make a directory in {}", directory.display())))?;
    let built = build(&Options { directory: new.path().to_owned(), ..options.clone() })?;
    let config = HelperConfig { directory: new.path().to_owned(), ..config.clone() };
    let trial = match trial::run(&config) {
        Ok(text) => text,
        // Such as where a package is made: the node finds out.
        Err(error @ HelperError::QemuMissing { .. }) => {
            format!("not booted: {}", log::chain(&error))
        }
        Err(error) => return Err(UpdateError::Trial(error)),
    };
    let description = &built.description;
    let other = description.file_systems.as_ref().map(|other| other.initramfs.as_str());
    let files = [description.kernel.as_str(), description.initramfs.as_str()];
    // The description last: from then on the new files are the ones in use.
    for name in files.into_iter().chain(other).chain([DESCRIPTION]) {
        fs::rename(new.path().join(name), directory.join(name))
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(io_error(format!("move {name} to {}", directory.display())))?;
    }
    remove_old(directory, description);
    Ok((built, trial))
}

/// Boots the helper that was just built and saves it, where that is of use, and says what came of it.
/// Without a snapshot each run boots, so a failure here is none of the whole.
fn take_snapshot(options: &Options, config: &HelperConfig) -> String {
    if options.no_snapshot || !config.snapshot {
        return "none, as asked for".to_owned();
    }
    if config.acceleration == Acceleration::Kvm {
        return "none: it is for TCG, and HELPER_ACCEL is kvm".to_owned();
    }
    let config = HelperConfig { directory: options.directory.clone(), ..config.clone() };
    match snapshot::make(&config, &Cancel::new()) {
        Ok(size) => {
            format!(
                "{:.0} MiB; runs without KVM go on from there",
                size as f64 / f64::from(1 << 20)
            )
        }
        Err(error) => format!("none, so runs without KVM boot: {}", log::chain(&error)),
    }
}

/// Builds the helper.
pub fn build(options: &Options) -> Result<Built, UpdateError> {
    let (kernel, image) = find_kernel(options)?;
    let tree = ModuleTree::open(&kernel.modules, &kernel.release)?;

    let (parameter_disk, parameter_disk_reason) = match options.parameter_disk {
        Some(kind) => (kind, "as asked for"),
        None if tree.has(FLOPPY) => (ParameterDisk::Floppy, "the kernel has the floppy driver"),
        None => (ParameterDisk::Virtio, "the kernel has no floppy driver"),
    };
    let mut wanted = REQUIRED.to_vec();
    if parameter_disk == ParameterDisk::Floppy {
        wanted.push(FLOPPY);
    }
    // A kernel whose lists do not mention the serial driver at all has it built in.
    if tree.has(SERIAL) {
        wanted.insert(0, SERIAL);
    }
    let signed_only = enforces_signatures(&kernel);
    let closure = |wanted: &[&str]| -> Result<Vec<Module>, UpdateError> {
        let mut modules = tree.closure(wanted)?;
        if !signed_only {
            for module in &mut modules {
                module.content = without_signature(std::mem::take(&mut module.content));
            }
        }
        Ok(modules)
    };
    let modules = closure(&wanted)?;
    let init = read_init(options)?;
    let kinds = FILE_SYSTEMS.into_iter().filter(|kind| !options.engines_only && tree.has(kind));
    let drivers: Vec<(&str, Vec<Module>)> = kinds
        .map(|kind| {
            let mut wanted: Vec<&str> =
                CHECKSUMS.into_iter().filter(|name| tree.has(name)).collect();
            wanted.push(kind);
            Ok((kind, closure(&wanted)?))
        })
        .collect::<Result<_, UpdateError>>()?;
    let large = match drivers.is_empty() {
        true => None,
        false => Some(packed(&kernel, initramfs(&init, &modules, &drivers)?)?),
    };
    let initramfs = initramfs(&init, &modules, &[])?;
    let elf = image.unpack()?;
    let pvh = kernel::has_pvh_entry(&elf);
    let kernel_bytes = if pvh { &elf } else { image.bytes() };

    let directory = &options.directory;
    fs::create_dir_all(directory)
        .map_err(io_error(format!("make the directory {}", directory.display())))?;
    // Each build has its own names, so that kernel and initramfs always belong together.
    let more = large.as_deref().unwrap_or_default();
    let stamp = format!("{:08x}", crc32(&[kernel_bytes, &initramfs, more]));
    let description = Description {
        protocol: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: kernel.release.clone(),
        kernel: format!("{}-{stamp}", if pvh { "vmlinux" } else { "vmlinuz" }),
        initramfs: format!("initramfs-{stamp}"),
        parameter_disk,
        pvh,
        modules: modules.iter().map(|m| m.name.clone()).collect(),
        command_line: command_line(signed_only),
        file_systems: large.as_ref().map(|_| FileSystems {
            initramfs: format!("initramfs-filesystems-{stamp}"),
            kinds: drivers.iter().map(|(kind, _)| (*kind).to_owned()).collect(),
        }),
    };
    let json = serde_json::to_string_pretty(&description)
        .map_err(|e| io_error("describe the helper".to_owned())(e.into()))?;
    write_file(directory, &description.kernel, kernel_bytes)?;
    write_file(directory, &description.initramfs, &initramfs)?;
    if let (Some(large), Some(other)) = (&large, &description.file_systems) {
        write_file(directory, &other.initramfs, large)?;
    }
    write_file(directory, DESCRIPTION, format!("{json}\n").as_bytes())?;
    remove_old(directory, &description);
    Ok(Built {
        kernel_size: kernel_bytes.len(),
        initramfs_size: initramfs.len(),
        file_systems_size: large.as_ref().map_or(0, Vec::len),
        description,
        parameter_disk_reason,
    })
}

/// Options that make the kernel quicker at becoming our init; docs/helper.md has the figures.
fn command_line(enforces_signatures: bool) -> String {
    // Subsystems that a machine with a disk, an entropy source and serial lines never uses. A
    // name that a kernel does not know does nothing.
    let mut skipped = vec![
        "acpi_thermal_init",
        "apparmor_nf_ip_init",
        "cacheinfo_sysfs_init",
        "crypto_kdf108_init",
        "cubictcp_register",
        "i8042_init",
        "init_encrypted",
        "init_kprobe_trace",
        "init_trace_printk_function_export",
        "packet_init",
        "snapshot_device_init",
    ];
    // A kernel that stumbled over a hostile file system does not go on: it ends the VM (`oops=panic`,
    // `panic=-1` and QEMU's -no-reboot).
    // Without its certificates the kernel loads modules unchecked: they come from our initramfs,
    // as the init does that could load anything.
    if !enforces_signatures {
        skipped.push("load_system_certificate_list");
    }
    // A kernel that zeroes every page before it hands it out does so in software here, for one program
    // that trusts itself (init_on_alloc=0).
    format!(
        "oops=panic lsm= audit=0 pci=noacpi ipv6.disable=1 8250.nr_uarts=4 no_timer_check tsc=reliable \
         random.trust_cpu=off random.trust_bootloader=off rcupdate.rcu_expedited=1 \
         cryptomgr.notests noresume init_on_alloc=0 initcall_blacklist={}",
        skipped.join(",")
    )
}

/// Whether the kernel loads signed modules only.
fn enforces_signatures(kernel: &Kernel) -> bool {
    has_option(kernel, "CONFIG_MODULE_SIG_FORCE=y")
}

/// Whether a line stands in the kernel's configuration, where that lies beside it.
fn has_option(kernel: &Kernel, option: &str) -> bool {
    let beside = kernel.image.with_file_name(format!("config-{}", kernel.release));
    [beside, kernel.modules.join("config")].iter().any(|path| {
        fs::read_to_string(path).is_ok_and(|config| config.lines().any(|line| line == option))
    })
}

/// The large initramfs as the kernel can unpack it: the drivers shrink to a fifth.
fn packed(kernel: &Kernel, initramfs: Vec<u8>) -> Result<Vec<u8>, UpdateError> {
    const LEVEL: i32 = 9;
    if !has_option(kernel, "CONFIG_RD_ZSTD=y") {
        return Ok(initramfs);
    }
    zstd::encode_all(&*initramfs, LEVEL).map_err(io_error("compress the initramfs".to_owned()))
}

fn find_kernel(options: &Options) -> Result<(Kernel, BzImage), UpdateError> {
    let root = options.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let Some(path) = &options.kernel else {
        let mut kernel = kernel::newest(&root)?;
        if let Some(modules) = &options.modules {
            kernel.modules.clone_from(modules);
        }
        let image = BzImage::read(&kernel.image)?;
        return Ok((kernel, image));
    };
    let image = BzImage::read(path)?;
    let release = image.release().ok_or_else(|| KernelError::NotAKernel {
        path: path.clone(),
        problem: "its header does not say its version".to_owned(),
    })?;
    let modules =
        options.modules.clone().unwrap_or_else(|| kernel::modules_directory(&root, &release));
    Ok((Kernel { release, image: path.clone(), modules }, image))
}

fn read_init(options: &Options) -> Result<Vec<u8>, UpdateError> {
    const NAME: &str = "snf-helper-init";
    let path = if let Some(path) = &options.init {
        path.clone()
    } else {
        let mut candidates = Vec::new();
        if let Ok(program) = std::env::current_exe()
            && let Some(directory) = program.parent()
        {
            candidates.push(directory.join(NAME));
            candidates.push(directory.join("../lib/snf-image").join(NAME));
            // A developer's build tree.
            candidates.push(directory.join("../x86_64-unknown-linux-musl/helper").join(NAME));
        }
        candidates.push(Path::new("/usr/lib/snf-image").join(NAME));
        let names: Vec<String> = candidates.iter().map(|c| c.display().to_string()).collect();
        candidates
            .into_iter()
            .find(|c| c.is_file())
            .ok_or_else(|| UpdateError::NoInit(names.join(", ")))?
    };
    let bytes =
        fs::read(&path).map_err(io_error(format!("read the helper's init {}", path.display())))?;
    match init_problem(&bytes) {
        Ok(()) => Ok(bytes),
        Err(problem) => Err(UpdateError::BadInit { path, problem }),
    }
}

fn initramfs(
    init: &[u8],
    modules: &[Module],
    drivers: &[(&str, Vec<Module>)],
) -> Result<Vec<u8>, UpdateError> {
    let mut cpio = CpioWriter::new();
    for name in ["dev", "proc", "sys", "modules"] {
        cpio.directory(name, 0o755);
    }
    cpio.char_device("dev/console", 0o600, 5, 1);
    cpio.file("init", 0o755, init)?;
    // PID 1 loads them in the order of their names.
    for (n, module) in modules.iter().enumerate() {
        cpio.file(&format!("modules/{n:02}-{}.ko", module.name), 0o644, &module.content)?;
    }
    if !drivers.is_empty() {
        cpio.directory("filesystems", 0o755);
    }
    for (kind, modules) in drivers {
        cpio.directory(&format!("filesystems/{kind}"), 0o755);
        for (n, module) in modules.iter().enumerate() {
            let name = format!("filesystems/{kind}/{n:02}-{}.ko", module.name);
            cpio.file(&name, 0o644, &module.content)?;
        }
    }
    cpio.file(INITRAMFS_END, 0o444, b"")?;
    Ok(cpio.finish())
}

/// Writes a file of HELPER_DIR by temporary file, fsync and rename.
fn write_file(directory: &Path, name: &str, content: &[u8]) -> Result<(), UpdateError> {
    let path = directory.join(name);
    let write = || -> io::Result<()> {
        let mut file = new_file(directory)?;
        file.write_all(content)?;
        keep(file, &path)
    };
    write().map_err(io_error(format!("write {}", path.display())))
}

/// A file that is to become one of HELPER_DIR.
pub(super) fn new_file(directory: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".new-").tempfile_in(directory)
}

/// Gives a complete file its name, on stable storage. Anyone may read it: there is nothing secret in a
/// kernel, and QEMU reads it as HELPER_USER.
pub(super) fn keep(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Kernels and initramfs of earlier builds. Failing to remove one does no harm.
fn remove_old(directory: &Path, description: &Description) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let ours = ["vmlinux-", "vmlinuz-", "initramfs-", snapshot::PREFIX, snapshot::DESCRIPTION];
        let ours = ours.iter().any(|p| name.starts_with(p));
        let other = description.file_systems.as_ref().is_some_and(|o| name == o.initramfs);
        if ours && !other && name != description.kernel && name != description.initramfs {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// CRC-32 (as in gzip) over several pieces: a name for a build, not a protection.
fn crc32(pieces: &[&[u8]]) -> u32 {
    let mut crc = flate2::Crc::new();
    for piece in pieces {
        crc.update(piece);
    }
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Option<Options>, UpdateError> {
        Options::parse(arguments.iter().map(OsString::from), Path::new("/default"))
    }

    #[test]
    fn arguments_are_read_or_refused() {
        let options = parse(&["--kernel=/k", "--dir", "/d"]).unwrap().unwrap();
        assert_eq!(options.kernel.as_deref(), Some(Path::new("/k")));
        assert_eq!(options.directory, Path::new("/d"));
        assert_eq!(parse(&[]).unwrap().unwrap().directory, Path::new("/default"));
        assert!(parse(&["--help"]).unwrap().is_none());
        for wrong in [&["--dir"][..], &["--frob"], &["x"], &["--parameter-disk=usb"]] {
            assert!(matches!(parse(wrong), Err(UpdateError::Usage(_))), "{wrong:?}");
        }
    }
}
