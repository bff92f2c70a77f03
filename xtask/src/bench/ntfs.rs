//! The NTFS engine beside ntfs-3g: reading everything, and what ten new files cost.

use super::{Bench, head, median, row};
use crate::util::{Result, checkout, command, output, run, run_visible, shell, target_dir, text};

/// Blocks of 4 KiB that ten new files may write.
const MOST_WRITTEN: u64 = 200;

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
        done; done; umount "$2"; while pgrep -f "ntfs-3g $1" > /dev/null; do sleep 0.1; done"#;
    shell(fill, &[&image, &mount])?;

    head("walk and read 20,000 files");
    shell(r#"ntfs-3g -o ro "$1" "$2""#, &[&image, &mount])?;
    let read = || -> Result<(f64, f64)> {
        let warm = |arguments: [&str; 2]| {
            run(&mut command(&engine, arguments))?;
            median(&|| Ok(()), || run(&mut command(&engine, arguments)))
        };
        Ok((warm(["tree", &mount])?, warm(["walk", &image])?))
    };
    let result = read();
    shell(r#"umount "$1""#, &[&mount])?;
    let (theirs, ours) = result?;
    row("ntfs-3g's mount, same hash", theirs, theirs);
    row("the engine", ours, theirs);

    let said = output(&mut command(&engine, ["inject", &image]))?;
    println!("\nopen, ten files into a directory of 100, commit:\n  {}", said.trim());
    let written = said.split(" blocks written").next().and_then(|before| before.rsplit(' ').next());
    let written = written.and_then(|word| word.parse::<u64>().ok());
    match written {
        Some(count) if count <= MOST_WRITTEN => Ok(()),
        _ => Err(format!("ten files may write {MOST_WRITTEN} blocks at most: {said}")),
    }
}
