//! `create`, from image to customized disk.

use std::path::Path;

use super::{Bench, head, median, row};
use crate::demo::create_command;
use crate::util::{Result, run, shell};

pub fn bench(bench: &Bench) -> Result<()> {
    let stage = bench.stage()?;
    head("create");
    let target = bench.path("target.img");
    let empty = || shell("rm -f \"$1\"; truncate -s 4G \"$1\"", &[&target]).map(drop);
    let create = median(&empty, || {
        let target = Path::new(&target);
        run(&mut create_command(
            &bench.image,
            stage,
            &bench.work,
            target,
            "HELPER_ACCEL=\"tcg\"\n",
        )?)
    })?;
    row("create, 2 GiB Debian onto a 4 GiB file, TCG", create, create);
    println!("(for scale: the original took 70 s for the same on a machine of this kind)");
    Ok(())
}
