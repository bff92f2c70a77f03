//! The NTFS engine beside ntfs-3g: reading everything, and what ten new files cost.

use std::path::Path;

use super::{Bench, copy_image, goal, head, median, medians, row};
use crate::util::{Result, checkout, command, output, run, run_visible, shell, target_dir, text};

/// Blocks of 4 KiB that ten new files may write.
const MOST_WRITTEN: u64 = 200;
/// Seconds that they may take.
const MOST_SECONDS: f64 = 0.05;
/// ntfs-3g goes on writing for a moment when umount is back.
const WAIT: &str = r#"while pgrep -x -a ntfs-3g | grep -q -F "$2"; do sleep 0.01; done"#;

pub fn bench(bench: &Bench) -> Result<()> {
    let mut cargo = command(
        env!("CARGO"),
        ["build", "--quiet", "--release", "-p", "snf-fs", "--example", "ext_bench"],
    );
    run_visible(cargo.current_dir(checkout()))?;
    let engine = text(&checkout().join(target_dir()).join("release/examples/ext_bench"));
    let (image, mount) = (bench.path("ntfs.img"), bench.path("mnt"));
    let fill = r#"truncate -s 600M "$1"; mkntfs -q -F -f "$1" > /dev/null 2>&1; mkdir "$2"; ntfs-3g "$1" "$2"
        for d in $(seq 200); do mkdir "$2/d$d"; for f in $(seq 100); do
            printf "%$((f * 97))s" "$d $f" > "$2/d$d/a file of the bench $f.txt"
        done; done; umount "$2""#;
    shell(fill, &[&image, &mount])?;
    shell(WAIT, &[&mount, &image])?;

    head("walk and read 20,000 files");
    shell(r#"ntfs-3g -o ro "$1" "$2""#, &[&image, &mount])?;
    let read = || {
        let (mut theirs, mut ours) = (
            || run(&mut command(&engine, ["tree", &mount])),
            || run(&mut command(&engine, ["walk", &image])),
        );
        // Everything into the page cache first, and both have found the same.
        let seen = |arguments| -> Result<String> {
            let said = output(&mut command(&engine, arguments))?;
            Ok(said.split(" in ").next().unwrap_or_default().to_owned())
        };
        let (a, b) = (seen(["tree", &mount])?, seen(["walk", &image])?);
        if a != b {
            return Err(format!("ntfs-3g's mount has {a}, and the engine found {b}"));
        }
        medians(&|| Ok(()), [&mut theirs, &mut ours])
    };
    let result = read();
    shell(&format!("umount \"$1\"; {WAIT}"), &[&mount, &image])?;
    let [theirs, ours] = result?;
    row("ntfs-3g's mount, same hash", theirs, theirs);
    row("the engine", ours, theirs);
    goal("the engine, of ntfs-3g's mount", ours / theirs, 0.5);

    let said = output(&mut command(&engine, ["inject", &image]))?;
    println!("\nopen, ten files into a directory of 100, commit:\n  {}", said.trim());
    let written = said.split(" blocks written").next().and_then(|before| before.rsplit(' ').next());
    let written = written.and_then(|word| word.parse::<u64>().ok());
    if written.is_none_or(|count| count > MOST_WRITTEN) {
        return Err(format!("ten files may write {MOST_WRITTEN} blocks at most: {said}"));
    }
    let copy = bench.path("copy.img");
    let fresh = || copy_image(Path::new(&image), &copy);
    head("ten files into a directory of 100, the whole process");
    let ours = median(&fresh, || run(&mut command(&engine, ["inject", &copy, "commit"])))?;
    let theirs = median(&fresh, || {
        let script = format!(
            r#"ntfs-3g "$3" "$1"; i=0; while [ $i -lt 10 ]; do
                head -c $((i * 1000)) /dev/zero > "$1/d1/injected $i.conf"; i=$((i + 1)); done
            umount "$1"; {WAIT}; sync "$3""#
        );
        shell(&script, &[&mount, &copy, &copy]).map(|_| ())
    })?;
    row("ntfs-3g: mount, ten files, umount, sync", theirs, theirs);
    row("the engine, with its flushes", ours, theirs);
    goal("seconds for ten files", ours, MOST_SECONDS);
    // A volume that is damaged would be no result.
    run(&mut command("ntfsfix", ["-n", &copy]))
}
