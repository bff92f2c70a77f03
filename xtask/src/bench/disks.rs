//! Disks as people have them: a compressed qcow2 changed in place, and a cloud image deployed, grown
//! and changed; beside raw, beside the steps that people take, and beside libguestfs where it is
//! installed (`apt-get install libguestfs-tools`).

use std::path::Path;
use std::time::Instant;

use super::{Bench, copy_image, goal, head, medians, row};
use crate::util::{Result, command, have, output, run, shell, text};

/// All that a run may take: 64 MiB and its cache.
const MEMORY_MIB: f64 = 96.0;

pub fn bench(bench: &Bench) -> Result<()> {
    bench.stage()?;
    let packed = bench.work.join("packed.qcow2");
    let script = "qemu-img convert -f raw -O qcow2 -c \"$1\" \"$2\"; sync \"$2\"";
    shell(script, &[&text(&bench.image), &text(&packed)])?;
    in_place(bench, &packed)?;
    deployed(bench, &packed)?;
    grown(bench)
}

/// The same edit on raw and on the compressed image.
fn in_place(bench: &Bench, packed: &Path) -> Result<()> {
    let program = text(&bench.stage()?.customize);
    let (raw, qcow2) = (bench.path("disk.raw"), bench.path("disk.qcow2"));
    let file = bench.file("file", "a file\n")?;
    let edit = |disk: &str| {
        let mut apply = command(&program, ["apply", disk, "--hostname", "bench"]);
        apply.args(["--machine-id", "new", "--write", &format!("/srv/file:file:{file}")]);
        apply
    };
    let fresh = || copy_image(&bench.image, &raw).and_then(|()| copy_image(packed, &qcow2));
    head("changing the 2 GiB Debian image in place");
    let [on_raw, on_qcow2] =
        medians(&fresh, [&mut || run(&mut edit(&raw)), &mut || run(&mut edit(&qcow2))])?;
    row("snf-customize, raw", on_raw, on_raw);
    row("snf-customize, compressed qcow2", on_qcow2, on_raw);
    goal("compressed qcow2 beside raw", on_qcow2 / on_raw, 2.0);
    if have("virt-customize") {
        fresh()?;
        let start = Instant::now();
        let mut peer = command("virt-customize", ["-q", "-a", &qcow2, "--hostname", "bench"]);
        peer.args(["--upload", &format!("{file}:/srv/file")]);
        run(peer.env("LIBGUESTFS_BACKEND", "direct"))?;
        let seconds = start.elapsed().as_secs_f64();
        row("virt-customize, compressed qcow2 (once)", seconds, on_raw);
        goal("compressed qcow2 beside virt-customize", on_qcow2 / seconds, 1.0 / 300.0);
    } else {
        println!("  virt-customize is not installed: not measured");
    }
    fresh()?;
    memory("snf-customize apply, compressed qcow2", &program, &["apply", &qcow2, "--hostname", "b"])
}

/// The image onto a raw file of 20 GiB whose root fills it.
fn deployed(bench: &Bench, packed: &Path) -> Result<()> {
    let program = text(&bench.stage()?.customize);
    let (ours, theirs) = (bench.path("ours.raw"), bench.path("theirs.raw"));
    let image = text(packed);
    let words = ["deploy", &image, &ours, "--size", "20G", "--hostname", "bench"];
    let none = || shell("rm -f \"$1\" \"$2\"", &[&ours, &theirs]).map(drop);
    let by_hand = r#"
        qemu-img convert -f qcow2 -O raw "$1" "$2"
        truncate -s 20G "$2"
        sgdisk -e "$2" >/dev/null
        echo ', +' | sfdisk -q --no-reread -N 2 "$2"
        start=$(sfdisk -d "$2" | sed -n 's/.*raw2 : start= *\([0-9]*\).*/\1/p')
        loop=$(losetup -f --show -o $((start * 512)) "$2")
        e2fsck -fp "$loop" >/dev/null
        resize2fs "$loop" >/dev/null 2>&1
        losetup -d "$loop"
        sync "$2""#;
    head("a compressed qcow2 onto a raw file of 20 GiB, grown");
    let [hand, deploy] = medians(
        &none,
        [&mut || shell(by_hand, &[&image, &theirs]).map(drop), &mut || {
            run(&mut command(&program, words))
        }],
    )?;
    row("qemu-img convert, truncate, sfdisk, e2fsck, resize2fs", hand, hand);
    row("snf-customize deploy, with a host name", deploy, hand);
    goal("deploy beside the steps by hand", deploy / hand, 1.0);
    if have("virt-resize") {
        none()?;
        let start = Instant::now();
        let script = r#"truncate -s 20G "$2"
            LIBGUESTFS_BACKEND=direct virt-resize -q --expand /dev/sda2 "$1" "$2"; sync "$2""#;
        shell(script, &[&image, &theirs])?;
        let seconds = start.elapsed().as_secs_f64();
        row("virt-resize --expand (once)", seconds, hand);
        goal("deploy beside virt-resize", deploy / seconds, 1.0 / 40.0);
    } else {
        println!("  virt-resize is not installed: not measured");
    }
    none()?;
    memory("snf-customize deploy and what it starts", &program, &words)
}

/// The hardest growth: 64 MiB to 1 TiB in blocks of 1 KiB.
fn grown(bench: &Bench) -> Result<()> {
    let (disk, tree) = (bench.path("small.ext4"), bench.path("tree"));
    let script = "mkdir -p \"$2/etc\"; mke2fs -q -F -t ext4 -b 1024 -d \"$2\" \"$1\" 64M";
    shell(script, &[&disk, &tree])?;
    println!();
    let program = text(&bench.stage()?.customize);
    memory("ext4 of 1 KiB blocks, 64 MiB to 1 TiB", &program, &["apply", &disk, "--size", "1T"])
}

/// The largest memory of a program and its children.
fn memory(what: &str, program: &str, words: &[&str]) -> Result<()> {
    let script = "import resource, subprocess, sys\n\
        subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE)\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let mut python = command("python3", ["-c", script, program]);
    let said = output(python.args(words))?;
    let kib: f64 = said.trim().parse().map_err(|_| format!("odd answer: {said}"))?;
    println!("{what:<58} {:>6.1} MiB", kib / 1024.0);
    goal("MiB of memory", kib / 1024.0, MEMORY_MIB);
    Ok(())
}
