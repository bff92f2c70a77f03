//! The ext engine beside e2fsprogs and the kernel: what an edit costs, whether the size of the disk
//! matters, growing, reading everything.

use std::cell::Cell;
use std::process::{Command, Stdio};

use super::{Bench, Way, copy_image, goal, head, medians, row};
use crate::util::{Result, checkout, command, output, run, run_visible, shell, target_dir, text};

/// Blocks of 4 KiB that opening the Debian image and replacing /etc/shadow may read: about what a
/// kernel mount alone reads.
const MOST_READ: u64 = 300;
/// Blocks that it may write, the journal's included.
const MOST_WRITTEN: u64 = 60;

/// The first byte of the image's second partition.
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
    // Once each before the clock runs: a time without the work is worth nothing.
    let mut theirs = || run(&mut command("debugfs", ["-w", "-f", &script, &offset]));
    let mut ours = || run(&mut replace_shadow(tools, &disk, &shadow));
    for (by, way) in [("debugfs", &mut theirs as Way<'_>), ("snf-customize", &mut ours)] {
        fresh()?;
        way()?;
        check_shadow(&offset, by)?;
    }
    let work = text(&bench.work);
    let mut mount = || {
        let script = r#"
            loop=$(losetup -f --show -o "$4" "$1"); mkdir -p "$2/mnt"; mount "$loop" "$2/mnt"
            cat "$3" > "$2/mnt/etc/shadow"
            umount "$2/mnt"; losetup -d "$loop"; sync "$1""#;
        shell(script, &[&disk, &work, &shadow, &ROOT_START.to_string()]).map(|_| ())
    };
    let [debugfs, ours, mount] = medians(&fresh, [&mut theirs, &mut ours, &mut mount])?;
    row("debugfs -w, no journal, owner and mode lost", debugfs, debugfs);
    row("snf-customize apply", ours, debugfs);
    row("loop mount, cat, umount, as root", mount, debugfs);
    goal("snf-customize, of debugfs -w", ours / debugfs, 2.0);
    Ok(())
}

/// Whether the work was done.
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
    let round = Cell::new(20_000);
    let apply = |disk: &str| {
        // Other bytes each time, so that there is something to do.
        round.set(round.get() + 1);
        let shadow = bench.file("shadow", &format!("root:*:{}:0:99999:7:::\n", round.get()))?;
        let mut apply = replace_shadow(tools, disk, &shadow);
        run(apply.args(["--hostname", &format!("bench-{}", round.get())]))
    };
    let [base, sparse] = medians(&|| Ok(()), [&mut || apply(&small), &mut || apply(&large)])?;
    row("2 GiB disk", base, base);
    row("2 TiB disk, sparse", sparse, base);
    goal("2 TiB, of 2 GiB", sparse / base, 1.5);
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
            shell(script, &[&base, &image]).map(|_| ())
        };
        head(&format!("growing 1 GiB to 100 GiB, {what}"));
        let [checked, alone, ours] = medians(
            &fresh,
            [
                &mut || {
                    run(&mut command("e2fsck", ["-f", "-y", &image]))?;
                    run(&mut command("resize2fs", [&image]))
                },
                &mut || run(&mut command("resize2fs", ["-f", &image])),
                &mut || run(&mut command(&tools.engine, ["grow", &image])),
            ],
        )?;
        row("resize2fs -f alone", alone, alone);
        row("e2fsck -f, then resize2fs", checked, alone);
        row("the engine, with its journal", ours, alone);
        goal("the engine, of resize2fs alone", ours / alone, 1.0);
        println!("  what people run today takes {:.1} times as long", checked / ours);
        // A quick growth that e2fsck must mend would be no growth.
        run(&mut command("e2fsck", ["-f", "-n", &image]))?;
        if fill.is_empty() {
            growth_by_size(tools, &base, &image)?;
        }
    }
    shell("rm -rf \"$1\"", &[&tree]).map(|_| ())
}

/// Time and bytes follow the number of new groups.
fn growth_by_size(tools: &Tools, base: &str, image: &str) -> Result<()> {
    head("growing 1 GiB, empty");
    for size in ["10G", "100G", "1T", "8T"] {
        let fresh = || {
            let script = "cp --sparse=always \"$1\" \"$2\"; truncate -s \"$3\" \"$2\"; sync \"$2\"";
            shell(script, &[base, image, size]).map(|_| ())
        };
        let mut said = String::new();
        let [theirs, ours] = medians(
            &fresh,
            [&mut || run(&mut command("resize2fs", ["-f", image])), &mut || {
                said = output(&mut command(&tools.engine, ["grow", image]))?;
                Ok(())
            }],
        )?;
        row(&format!("to {size}: resize2fs -f"), theirs, theirs);
        row(&format!("to {size}: the engine; {}", said.lines().next().unwrap_or("")), ours, theirs);
    }
    Ok(())
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
    // To memory, so that only debugfs itself is measured.
    let out = shell(
        "mktemp -d -p \"$([ -w /dev/shm ] && echo /dev/shm || echo \"$1\")\"",
        &[&text(&bench.work)],
    )?;
    let out = out.trim();
    let clear = || shell("rm -rf \"$1\"; mkdir \"$1\"", &[out]).map(|_| ());
    let dump = format!("rdump / {out}");
    let offset = format!("{image}?offset={start}");
    let mut kernel = || run(&mut command(&tools.engine, ["tree", mount]));
    let mut ours = || run(&mut command(&tools.engine, ["walk", &image, &start]));
    let mut debugfs = || run(command("debugfs", ["-R", &dump, &offset]).stderr(Stdio::null()));
    // Everything into the page cache first.
    kernel()?;
    ours()?;
    let times = medians(&clear, [&mut kernel, &mut ours, &mut debugfs]);
    shell("rm -rf \"$1\"", &[out])?;
    let [kernel, ours, debugfs] = times?;
    row("loop mount, same hash", kernel, kernel);
    row("the engine", ours, kernel);
    row("debugfs rdump", debugfs, kernel);
    goal("the engine, of the loop mount", ours / kernel, 2.0);
    goal("the engine, of debugfs rdump", ours / debugfs, 1.0);
    Ok(())
}
