//! Builds everything and lays it out as an installed system would have it: the OS directory for
//! Ganeti, the command line tool, and a helper built from Debian's kernel.

use std::fs;
use std::path::{Path, PathBuf};

use crate::setup::{StaticTarget, kernel, static_target};
use crate::util::{Result, checkout, command, run, run_visible, step, target_dir, text};

/// The places of the pieces of an installed snf-image.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The directory that holds it all.
    pub root: PathBuf,
    /// `snf-customize`.
    pub customize: PathBuf,
    /// The OS directory with `create` and its siblings.
    pub os: PathBuf,
    /// HELPER_DIR built from Debian's cloud kernel.
    pub helper: PathBuf,
}

/// Builds and lays out.
pub fn stage() -> Result<Stage> {
    let static_target = static_target()?;
    step("building snf-customize and the host part", || {
        run_visible(
            command(
                env!("CARGO"),
                ["build", "--quiet", "--release", "-p", "snf-image", "-p", "snf-image-host"],
            )
            .current_dir(checkout()),
        )
    })?;
    let init = step("building the helper, one static binary", || build_init(static_target))?;
    let target = fs::canonicalize(checkout().join(target_dir()))
        .map_err(|e| format!("cannot find the target directory: {e}"))?;
    let root = target.join("stage");
    let stage = Stage {
        customize: root.join("bin/snf-customize"),
        os: root.join("os/snf-image"),
        helper: root.join("helper"),
        root,
    };
    let _ = fs::remove_dir_all(&stage.root);
    for directory in ["bin", "os", "helper"] {
        let path = stage.root.join(directory);
        fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
    }
    let copy = |from: &Path, name: &str| {
        let to = stage.root.join("bin").join(name);
        fs::copy(from, &to).map_err(|e| format!("cannot copy to {}: {e}", to.display()))
    };
    copy(&target.join("release/snf-customize"), "snf-customize")?;
    copy(&target.join("release/snf-image-host"), "snf-image-host")?;
    copy(&init, "snf-helper-init")?;
    let host = text(&stage.root.join("bin/snf-image-host"));
    run(&mut command(&host, ["install-os", &text(&stage.os)]))?;
    let cloud = kernel("cloud-amd64")?;
    step("building the helper VM from Debian's cloud kernel", || {
        run(&mut command(
            &host,
            [
                "update-helper",
                "--dir",
                &text(&stage.helper),
                "--kernel",
                &text(&cloud.image()),
                "--modules",
                &text(&cloud.modules()),
                "--init",
                &text(&stage.root.join("bin/snf-helper-init")),
            ],
        ))
    })?;
    Ok(stage)
}

fn build_init(target: StaticTarget) -> Result<PathBuf> {
    let mut build = command(
        env!("CARGO"),
        ["build", "--quiet", "--profile", "helper", "-p", "snf-helper-init", "--target"],
    );
    let triple = match target {
        StaticTarget::Musl => "x86_64-unknown-linux-musl",
        StaticTarget::Glibc => {
            build.env("RUSTFLAGS", "-C target-feature=+crt-static");
            "x86_64-unknown-linux-gnu"
        }
    };
    build.arg(triple).current_dir(checkout());
    run_visible(&mut build)?;
    Ok(checkout().join(target_dir()).join(triple).join("helper/snf-helper-init"))
}
