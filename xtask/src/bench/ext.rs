//! The ext engine beside e2fsprogs and the kernel: what an edit costs, whether the size of the disk
//! matters, growing, reading everything.

use std::process::{Command, Stdio};

use super::{Bench, copy_image, head, median, row};
use crate::util::{Result, checkout, command, output, run, run_visible, shell, target_dir, text};

/// Blocks of 4 KiB that opening the Debian image and replacing /etc/shadow may read: about what a
/// kernel mount alone reads.
const MOST_READ: u64 = 300;
/// Blocks that it may write, the journal's included.
const MOST_WRITTEN: u64 = 60;

/// Where the image's second partition begins.
const ROOT_START: u64 = 2 << 20;

struct Tools {
    /// `fs/examples/ext_bench.rs`.
    engine: String,
    customize: String,
}

pub fn bench(bench: &Bench) -> Result<()> {
    let tools = build()?;
    edit_counts(bench, &tools)?;
    edit_time(bench, &tools)?;
    disk_size(bench, &tools)?;
    growth(bench, &tools)?;
    reading(bench, &tools)
}

/// Only what is measured here: the whole stage takes minutes.
fn build() -> Result<Tools> {
    for arguments in
        [["-p", "snf-fs", "--example", "ext_bench"], ["-p", "snf-image", "--bin", "snf-customize"]]
    {
        let mut cargo = command(env!("CARGO"), ["build", "--quiet", "--release"]);
        run_visible(cargo.args(arguments).current_dir(checkout()))?;
    }
    let release = checkout().join(target_dir()).join("release");
    Ok(Tools {
        engine: text(&release.join("examples/ext_bench")),
        customize: text(&release.join("snf-customize")),
    })
}

fn edit_counts(bench: &Bench, tools: &Tools) -> Result<()> {
    let start = ROOT_START.to_string();
    let said = output(&mut command(&tools.engine, ["edit", &text(&bench.image), &start]))?;
    println!("\nopen the 2 GiB Debian image, replace /etc/shadow, commit:\n  {}", said.trim());
    let blocks = |what: &str| {
        let before = said.split(what).next().unwrap_or("");
        let number = before.trim().rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
        number.ok_or_else(|| format!("ext_bench did not tell the {what}: {said}"))
    };
    let (read, written) = (blocks("blocks read")?, blocks("blocks written")?);
    if read > MOST_READ || written > MOST_WRITTEN {
        return Err(format!(
            "replacing /etc/shadow read {read} and wrote {written} blocks; \
             {MOST_READ} and {MOST_WRITTEN} are the most it may"
        ));
    }
    Ok(())
}

/// Replaces /etc/shadow of a disk in one process of ours.
fn replace_shadow(tools: &Tools, disk: &str, shadow: &str) -> Command {
    let mut customize = command(&tools.customize, ["apply", disk, "--write"]);
    customize.arg(format!("/etc/shadow:file:{shadow}"));
    customize.args(["--host-keys", "keep", "--machine-id", "keep"]);
    customize
}

fn edit_time(bench: &Bench, tools: &Tools) -> Result<()> {
    let disk = bench.path("disk.img");
    let shadow = bench.file("shadow", "root:*:20000:0:99999:7:::\n")?;
    // A fresh copy each time: the same bytes again would be no work.
    let fresh = || copy_image(&bench.image, &disk);
    head("replacing /etc/shadow, the whole process");
    let script = bench.file("script", &format!("cd /etc\nrm shadow\nwrite {shadow} shadow\n"))?;
    let offset = format!("{disk}?offset={ROOT_START}");
    let debugfs = median(&fresh, || run(&mut command("debugfs", ["-w", "-f", &script, &offset])))?;
    check_shadow(&offset, "debugfs")?;
    row("debugfs -w, no journal, owner and mode lost", debugfs, debugfs);
    let ours = median(&fresh, || run(&mut replace_shadow(tools, &disk, &shadow)))?;
    check_shadow(&offset, "snf-customize")?;
    row("snf-customize apply", ours, debugfs);
    let work = text(&bench.work);
    let mount = median(&fresh, || {
        let script = r#"
            loop=$(losetup -f --show -o "$4" "$1"); mkdir -p "$2/mnt"; mount "$loop" "$2/mnt"
            cat "$3" > "$2/mnt/etc/shadow"
            umount "$2/mnt"; losetup -d "$loop"; sync "$1""#;
        shell(script, &[&disk, &work, &shadow, &ROOT_START.to_string()]).map(|_| ())
    })?;
    row("loop mount, cat, umount, as root", mount, debugfs);
    Ok(())
}

/// A time without the work is worth nothing.
fn check_shadow(image: &str, by: &str) -> Result<()> {
    let said = output(&mut command("debugfs", ["-R", "cat /etc/shadow", image]))?;
    if said.contains("root:*:20000:") {
        return Ok(());
    }
    Err(format!("{by} did not replace /etc/shadow of {image}"))
}

/// The same system on 2 GiB and on 2 TiB, enlarged by resize2fs.
fn disk_size(bench: &Bench, tools: &Tools) -> Result<()> {
    let (small, large) = (bench.path("small.img"), bench.path("large.img"));
    copy_image(&bench.image, &small)?;
    copy_image(&bench.image, &large)?;
    let enlarge = r#"
        truncate -s 2T "$1"
        sgdisk -e -d 2 -n "2:$(($2 / 512)):0" -t 2:8300 -c 2:root "$1" > /dev/null
        sectors=$(sfdisk -d "$1" | sed -n 's/.*2 : start=.*size= *\([0-9]*\),.*/\1/p')
        loop=$(losetup -f --show -o "$2" --sizelimit "$((sectors * 512))" "$1")
        trap 'losetup -d "$loop"' EXIT
        e2fsck -f -y "$loop" > /dev/null 2>&1 || [ $? -le 1 ]
        resize2fs "$loop" > /dev/null 2>&1; sync "$1""#;
    shell(enlarge, &[&large, &ROOT_START.to_string()])?;
    head("replacing /etc/shadow and the host name");
    let mut base = None;
    for (name, disk) in [("2 GiB disk", &small), ("2 TiB disk, sparse", &large)] {
        let mut round = 0;
        let seconds = median(&|| Ok(()), || {
            // Other bytes each time, so that there is something to do.
            round += 1;
            let shadow =
                bench.file("shadow", &format!("root:*:{}:0:99999:7:::\n", 20_000 + round))?;
            let mut apply = replace_shadow(tools, disk, &shadow);
            run(apply.args(["--hostname", &format!("bench-{round}")]))
        })?;
        row(name, seconds, *base.get_or_insert(seconds));
    }
    Ok(())
}

/// 1 GiB to 100 GiB: an empty file system, and one with the Debian tree.
fn growth(bench: &Bench, tools: &Tools) -> Result<()> {
    let tree = bench.path("tree");
    shell(
        "mkdir \"$1\"; debugfs -R \"rdump / $1\" \"$2?offset=$3\" > /dev/null 2>&1",
        &[&tree, &text(&bench.image), &ROOT_START.to_string()],
    )?;
    for (what, fill) in [("an empty file system", ""), ("the Debian tree", tree.as_str())] {
        let (base, image) = (bench.path("base.img"), bench.path("grow.img"));
        let make = "rm -f \"$1\"; set -- \"$1\" ${2:+-d \"$2\"}; f=$1; shift
                    mke2fs -q -t ext4 \"$@\" \"$f\" 1G";
        shell(make, &[&base, fill])?;
        let fresh = || {
            let script = "cp --sparse=always \"$1\" \"$2\"; truncate -s 100G \"$2\"; sync \"$2\"";
            shell(script, &[&base, &image])
        };
        head(&format!("growing 1 GiB to 100 GiB, {what}"));
        let alone = median(&fresh, || run(&mut command("resize2fs", ["-f", &image])))?;
        row("resize2fs -f alone", alone, alone);
        let checked = median(&fresh, || {
            run(&mut command("e2fsck", ["-f", "-y", &image]))?;
            run(&mut command("resize2fs", [&image]))
        })?;
        row("e2fsck -f, then resize2fs", checked, alone);
        let ours = median(&fresh, || run(&mut command(&tools.engine, ["grow", &image])))?;
        row("the engine, with its journal", ours, alone);
        // A quick growth that e2fsck must mend would be no growth.
        run(&mut command("e2fsck", ["-f", "-n", &image]))?;
    }
    shell("rm -rf \"$1\"", &[&tree]).map(|_| ())
}

/// Walk, read and hash every file, all caches warm.
fn reading(bench: &Bench, tools: &Tools) -> Result<()> {
    let image = text(&bench.image);
    let start = ROOT_START.to_string();
    let mount = bench.path("mnt");
    let begin = r#"mkdir -p "$1"; loop=$(losetup -f --show -r -o "$2" "$3")
        mount -o ro,noload "$loop" "$1" || { losetup -d "$loop"; exit 1; }; echo "$loop""#;
    let device = shell(begin, &[&mount, &start, &image])?;
    let result = compare_reading(bench, tools, &mount);
    shell("umount \"$1\"; losetup -d \"$2\"", &[&mount, device.trim()])?;
    result
}

fn compare_reading(bench: &Bench, tools: &Tools, mount: &str) -> Result<()> {
    let image = text(&bench.image);
    let start = ROOT_START.to_string();
    head("walk and read every file of the Debian image");
    let warm = |action: &mut dyn FnMut() -> Result<()>| {
        action()?;
        median(&|| Ok(()), action)
    };
    let kernel = warm(&mut || run(&mut command(&tools.engine, ["tree", mount])))?;
    row("loop mount, same hash", kernel, kernel);
    let ours = warm(&mut || run(&mut command(&tools.engine, ["walk", &image, &start])))?;
    row("the engine", ours, kernel);
    // To memory, so that only debugfs itself is measured.
    let out = shell(
        "mktemp -d -p \"$([ -w /dev/shm ] && echo /dev/shm || echo \"$1\")\"",
        &[&text(&bench.work)],
    )?;
    let out = out.trim();
    let clear = || shell("rm -rf \"$1\"; mkdir \"$1\"", &[out]);
    let dump = format!("rdump / {out}");
    let offset = format!("{image}?offset={start}");
    let mut rdump = command("debugfs", ["-R", &dump, &offset]);
    rdump.stderr(Stdio::null());
    let debugfs = median(&clear, || run(&mut rdump));
    shell("rm -rf \"$1\"", &[out])?;
    row("debugfs rdump", debugfs?, kernel);
    Ok(())
}
