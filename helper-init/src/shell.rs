//! The commands of the shell that HELPER_DEBUG brings: it looks, it changes nothing. All that it
//! prints is printable text, whatever the image has in names and files.

use std::io::{self, Write};
use std::sync::Arc;

use snf_fs::error::display_name;
use snf_fs::{BlockDevice, FileType, Stat, Tree};
use snf_image::failure::sentence;
use snf_image::guest::disk::{Content, Disk};
use snf_image::guest::stack::StackError;
use snf_image::random::{Clock, Entropy};

use crate::disks::Disks;
use crate::kernel_log::KernelLog;

const HELP: &str = "\
disks            the disks of this VM
partitions       what is on them; each has a name such as vda1
use NAME         look into this partition (or disk, where it has no table)
ls [PATH]        what a directory has
cat PATH         what a file has, as text
stat PATH        what a file is
dmesg            the kernel's log
result           why the run failed
poweroff         ends the VM
Nothing here writes to a disk.
";

/// Largest file that `cat` shows.
const FILE_LIMIT: u64 = 1 << 20;
/// Most entries that `ls` shows.
const ENTRIES_LIMIT: usize = 5000;

/// Whether to read the next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Go {
    On,
    PowerOff,
}

/// The state that the commands work on.
pub(crate) struct Shell {
    disks: Disks,
    failure: String,
    kernel_log: Option<KernelLog>,
    current: Option<(String, Tree)>,
}

/// Why a command has no output.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no command {0}; `help` lists them")]
    Command(String),
    #[error("{0} needs a path")]
    NoPath(String),
    #[error("{0} has no file system that can be read")]
    NotFiles(String),
    #[error("no partition has a file system that can be read")]
    NoFiles,
    #[error("use needs the name of a partition")]
    NoName,
    #[error("no partition {wanted}; there is {known}")]
    NoPartition { wanted: String, known: String },
    #[error("cannot read the partition table")]
    Table(#[source] StackError),
    #[error("the kernel's log cannot be read")]
    NoLog,
    #[error(transparent)]
    Fs(#[from] snf_fs::Error),
}

/// The output of a command, or why there is none.
type Answer = Result<String, NoAnswer>;

impl Shell {
    pub(crate) fn new(disks: Disks, failure: String, kernel_log: Option<KernelLog>) -> Self {
        Self { disks, failure, kernel_log, current: None }
    }

    /// The first words.
    pub(crate) fn greet(&self, out: &mut dyn Write) -> io::Result<()> {
        let failure = display_name(self.failure.as_bytes());
        write!(out, "The run failed: {failure}\n`help` lists the commands.\n> ")?;
        out.flush()
    }

    /// Does one line.
    pub(crate) fn command(&mut self, line: &str, out: &mut dyn Write) -> io::Result<Go> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim();
        let answer = match verb {
            "" => Ok(String::new()),
            "help" | "?" => Ok(HELP.to_owned()),
            "result" => Ok(display_name(self.failure.as_bytes()) + "\n"),
            "disks" => Ok(self.list_disks()),
            "partitions" => Ok(self.list_partitions()),
            "use" => self.choose(argument),
            "ls" => self.list(if argument.is_empty() { "/" } else { argument }),
            "cat" | "stat" if argument.is_empty() => Err(NoAnswer::NoPath(verb.to_owned())),
            "cat" => self.show(argument),
            "stat" => self.describe(argument),
            "dmesg" => self.kernel_log(),
            "poweroff" => {
                out.write_all(b"power off\n")?;
                return Ok(Go::PowerOff);
            }
            _ => Err(NoAnswer::Command(display_name(verb.as_bytes()))),
        };
        match answer {
            Ok(text) => out.write_all(text.as_bytes())?,
            Err(error) => writeln!(out, "error: {}", sentence(&error))?,
        }
        out.write_all(b"> ")?;
        out.flush()?;
        Ok(Go::On)
    }

    fn list_disks(&self) -> String {
        if self.disks.is_empty() {
            return "none\n".to_owned();
        }
        let line = |(path, disk): (&String, &Arc<dyn BlockDevice>)| {
            format!("{:<8} {:>16} bytes\n", short(path), disk.len())
        };
        self.disks.iter().map(line).collect()
    }

    fn list_partitions(&self) -> String {
        let mut out = String::new();
        for (path, device) in &self.disks {
            let disk = match open(device) {
                Ok(disk) => disk,
                Err(error) => {
                    out.push_str(&format!("{}: {}\n", short(path), sentence(&error)));
                    continue;
                }
            };
            let table = disk.table.as_deref().unwrap_or("no partition table");
            out.push_str(&format!("{}: {table}, {} bytes\n", short(path), disk.size));
            for warning in &disk.warnings {
                out.push_str(&format!("  warning: {}\n", display_name(warning.as_bytes())));
            }
            for volume in &disk.volumes {
                let problem = match &volume.content {
                    Content::Broken(problem) => {
                        format!(": {}", display_name(problem.to_string().as_bytes()))
                    }
                    _ => String::new(),
                };
                out.push_str(&format!(
                    "  {:<8} at {:>14}, {:>14} bytes, {}{}{problem}\n",
                    name(path, volume.number),
                    volume.start,
                    volume.size,
                    if volume.partition_type.is_empty() {
                        String::new()
                    } else {
                        format!("{}: ", display_name(volume.partition_type.as_bytes()))
                    },
                    volume.describe(),
                ));
            }
        }
        out
    }

    /// Opens the partition of a name; without a name, the first that has files.
    fn choose(&mut self, wanted: &str) -> Answer {
        let wanted = short(wanted);
        let mut known = Vec::new();
        for (path, device) in &self.disks {
            let Ok(disk) = open(device) else { continue };
            for volume in disk.volumes {
                let name = name(path, volume.number);
                match volume.content {
                    Content::Open(fs) if wanted.is_empty() || wanted == name => {
                        self.current = Some((name.clone(), Tree::new(fs)));
                        return Ok(format!("looking into {name}\n"));
                    }
                    Content::Open(_) => known.push(name),
                    _ if wanted == name => {
                        return Err(NoAnswer::NotFiles(name));
                    }
                    _ => {}
                }
            }
        }
        let wanted = display_name(wanted.as_bytes());
        Err(match (wanted.is_empty(), known.is_empty()) {
            (_, true) => NoAnswer::NoFiles,
            (true, false) => NoAnswer::NoName,
            (false, false) => NoAnswer::NoPartition { wanted, known: known.join(", ") },
        })
    }

    fn tree(&mut self) -> Result<&Tree, NoAnswer> {
        if self.current.is_none() {
            self.choose("")?;
        }
        self.current.as_ref().map(|(_, tree)| tree).ok_or(NoAnswer::NoFiles)
    }

    fn list(&mut self, path: &str) -> Answer {
        let tree = self.tree()?;
        let stat = tree.lstat(path)?;
        if !matches!(stat.file_type, FileType::Directory | FileType::Symlink)
            || stat.file_type == FileType::Symlink && !tree.is_dir(path).unwrap_or(false)
        {
            return Ok(line(tree, path, path.as_bytes(), &stat));
        }
        let entries = tree.read_dir(path)?;
        let mut out = String::new();
        for entry in entries.iter().take(ENTRIES_LIMIT) {
            let mut full = path.as_bytes().to_vec();
            full.push(b'/');
            full.extend_from_slice(&entry.name);
            match tree.lstat(&full) {
                Ok(stat) => out.push_str(&line(tree, &full, &entry.name, &stat)),
                Err(error) => {
                    let why = sentence(&error);
                    out.push_str(&format!("{}: {why}\n", display_name(&entry.name)));
                }
            }
        }
        if entries.len() > ENTRIES_LIMIT {
            out.push_str(&format!("and {} more\n", entries.len() - ENTRIES_LIMIT));
        }
        Ok(out)
    }

    fn show(&mut self, path: &str) -> Answer {
        let content = self.tree()?.read(path, FILE_LIMIT)?;
        let mut out = String::new();
        for line in content.split_inclusive(|&byte| byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let pieces: Vec<String> = text.split(|&byte| byte == b'\t').map(display_name).collect();
            out.push_str(&pieces.join("\t"));
            out.push('\n');
        }
        Ok(out)
    }

    fn describe(&mut self, path: &str) -> Answer {
        let tree = self.tree()?;
        let stat = tree.lstat(path)?;
        let mut out = line(tree, path, path.as_bytes(), &stat);
        out.push_str(&format!("node {}, {} blocks of 512 bytes\n", stat.node.0, stat.blocks));
        for (name, time) in [("atime", stat.atime), ("mtime", stat.mtime), ("ctime", stat.ctime)] {
            out.push_str(&format!("{name} {}.{:09}\n", time.seconds, time.nanoseconds));
        }
        for (name, value) in tree.xattrs(path)? {
            out.push_str(&format!("{}={}\n", display_name(&name), display_name(&value)));
        }
        Ok(out)
    }

    fn kernel_log(&mut self) -> Answer {
        let log = self.kernel_log.as_mut().ok_or(NoAnswer::NoLog)?;
        Ok(log.read().iter().map(|line| display_name(line.as_bytes()) + "\n").collect())
    }
}

/// `/dev/vda` is `vda`.
fn short(path: &str) -> &str {
    path.strip_prefix("/dev/").unwrap_or(path)
}

/// `vda1`, or `vda` for a disk without a table.
fn name(disk: &str, number: Option<u32>) -> String {
    format!("{}{}", short(disk), number.map(|n| n.to_string()).unwrap_or_default())
}

fn open(device: &Arc<dyn BlockDevice>) -> Result<Disk, NoAnswer> {
    // Nothing is written, so neither chance nor time matters.
    Disk::open(device, &Entropy::seeded(0), &Clock::fixed(0)).map_err(NoAnswer::Table)
}

/// One line as `ls -l` has it.
fn line(tree: &Tree, path: impl AsRef<[u8]>, name: &[u8], stat: &Stat) -> String {
    let kind = match stat.file_type {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::CharDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
    };
    let target = match stat.file_type {
        FileType::Symlink => match tree.read_link(path) {
            Ok(target) => format!(" -> {}", display_name(&target)),
            Err(error) => format!(" ({error})"),
        },
        _ => String::new(),
    };
    format!(
        "{kind}{:04o} {:>3} {:>5} {:>5} {:>10} {}{target}\n",
        stat.mode,
        stat.links,
        stat.uid,
        stat.gid,
        stat.size,
        display_name(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::MemoryDevice;
    use snf_fs::ext::mkfs::build_ext2_image;

    fn shell() -> Shell {
        let files: &[(&str, &[u8], u16)] =
            &[("hello", b"one\ttab\n\x1b[2J\xff\nlast", 0o640), ("empty", b"", 0o600)];
        let now = snf_fs::Timestamp { seconds: 5, nanoseconds: 0 };
        let image = build_ext2_image(1440 << 10, files, now, [1; 16], "a label").unwrap();
        let mut disks = Disks::new();
        disks.insert("/dev/vda".into(), Arc::new(MemoryDevice::new(image)));
        disks.insert("/dev/vdb".into(), Arc::new(MemoryDevice::new(vec![0; 1 << 20])));
        Shell::new(disks, "no \u{1b}user".into(), None)
    }

    fn say(shell: &mut Shell, line: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(shell.command(line, &mut out).unwrap(), Go::On);
        let text = String::from_utf8(out).unwrap();
        assert!(!text.chars().any(|c| c.is_control() && !"\n\t".contains(c)), "{text:?}");
        text.strip_suffix("> ").unwrap().to_owned()
    }

    #[test]
    fn it_looks_and_prints_plain_text() {
        let mut shell = shell();
        assert!(say(&mut shell, "help").contains("poweroff"));
        assert!(say(&mut shell, "result").contains("no \\u{1b}user"));
        assert!(say(&mut shell, "disks").contains("vdb"));
        let partitions = say(&mut shell, "partitions");
        assert!(partitions.contains("ext2, label a label"), "{partitions}");
        let list = say(&mut shell, "ls");
        assert!(list.contains("-0640") && list.contains(" hello\n"), "{list}");
        assert_eq!(say(&mut shell, "cat /hello"), "one\ttab\n\\u{1b}[2J\\xff\nlast\n");
        assert!(say(&mut shell, "stat /hello").contains("mtime 5.000000000"));
        assert_eq!(say(&mut shell, "use /dev/vda"), "looking into vda\n");
        let mut out = Vec::new();
        assert_eq!(shell.command("poweroff", &mut out).unwrap(), Go::PowerOff);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let mut shell = shell();
        for (command, words) in [
            ("frob \u{1b}", "no command frob"),
            ("cat", "needs a path"),
            ("cat /nothing", "/nothing"),
            ("cat /", "directory"),
            ("use vdb", "no file system that can be read"),
            ("use vdc7", "no partition vdc7; there is vda"),
            ("dmesg", "cannot be read"),
        ] {
            let text = say(&mut shell, command);
            assert!(text.starts_with("error: ") && text.contains(words), "{command}: {text}");
        }
        let mut none = Shell::new(Disks::new(), String::new(), None);
        assert!(say(&mut none, "ls").contains("no partition has a file system"));
    }
}
