//! `cargo xtask bench`: our times beside those of the tools people use today, in one run on one
//! machine. Ratios are what counts.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::demo::create_command;
use crate::stage::{Stage, stage};
use crate::util::{Result, command, output, run, shell, text};

const ROUNDS: usize = 5;

/// Prints a table of times and ratios.
pub fn bench() -> Result<()> {
    let image = crate::setup()?;
    let stage = stage()?;
    let work = crate::setup::cache()?.join("bench");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).map_err(|e| format!("cannot make {}: {e}", work.display()))?;
    let result = measure(&image, &stage, &work);
    let _ = fs::remove_dir_all(&work);
    result
}

fn measure(image: &Path, stage: &Stage, work: &Path) -> Result<()> {
    let copy = text(&work.join("disk.img"));
    let fresh = || {
        shell(
            "cp --sparse=always --reflink=auto \"$1\" \"$2\"; sync \"$2\"",
            &[&text(image), &copy],
        )
    };
    for (name, content) in [("password", "bench-password\n"), ("file", "a file\n")] {
        fs::write(work.join(name), content).map_err(|e| format!("cannot write {name}: {e}"))?;
    }
    fs::write(
        work.join("keys"),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2bLbRL0fQkzq3o3TRgEZHJqUGzUMfhC5e0LhbHnVqS a\n",
    )
    .map_err(|e| format!("cannot write keys: {e}"))?;
    let in_work = |name: &str| text(&work.join(name));

    println!("\n{:<58} {:>9} {:>7}", "median of 5", "seconds", "ratio");
    for with_keys in [false, true] {
        let mount = median(&fresh, || {
            // What people do by hand: root, a loop device, a mount, an edit.
            let script = r#"
                image=$1 work=$2 keys=$3
                start=$(sfdisk -d "$image" | sed -n 's/.*2 : start= *\([0-9]*\).*/\1/p')
                loop=$(losetup -f --show -o $((start * 512)) "$image")
                m="$work/mnt"; mkdir -p "$m"
                mount "$loop" "$m"
                # The guest's own chpasswd: the same yescrypt that ours computes.
                printf 'root:%s\n' bench-password | chroot "$m" chpasswd
                echo bench > "$m/etc/hostname"
                mkdir -p -m 700 "$m/root/.ssh"; cat "$work/keys" "$work/keys" "$work/keys" >> "$m/root/.ssh/authorized_keys"
                for n in 1 2 3; do cp "$work/file" "$m/srv/file$n"; done
                if [ "$keys" = true ]; then rm -f "$m"/etc/ssh/ssh_host_*; ssh-keygen -A -f "$m" >/dev/null; fi
                umount "$m"; losetup -d "$loop"; sync "$image""#;
            shell(script, &[&copy, &text(work), &with_keys.to_string()]).map(|_| ())
        })?;
        let ours = median(&fresh, || {
            let mut customize = command(&text(&stage.customize), ["apply", &copy]);
            customize.args(["--hostname", "bench", "--root-password"]);
            customize.arg(format!("file:{}", in_work("password")));
            for _ in 0..3 {
                customize.arg("--ssh-key").arg(format!("root:file:{}", in_work("keys")));
            }
            for n in 1..=3 {
                customize.arg("--write").arg(format!("/srv/file{n}:file:{}", in_work("file")));
            }
            customize.args(["--host-keys", if with_keys { "new" } else { "keep" }]);
            run(&mut customize)
        })?;
        let what = if with_keys { "with new SSH host keys" } else { "no key generation" };
        row(&format!("root loop mount, {what}"), mount, mount);
        row(&format!("snf-customize, {what}"), ours, mount);
    }
    peak_memory(stage, &copy, &in_work("password"), fresh)?;

    let target = text(&work.join("target.img"));
    let empty = || shell("rm -f \"$1\"; truncate -s 4G \"$1\"", &[&target]);
    let create = median(&empty, || {
        let target = Path::new(&target);
        run(&mut create_command(image, stage, work, target, "HELPER_ACCEL=\"tcg\"\n")?)
    })?;
    row("create, 2 GiB Debian onto a 4 GiB file, TCG", create, create);
    println!("(for scale: the original took 70 s for the same on a machine of this kind)");
    Ok(())
}

fn row(what: &str, seconds: f64, base: f64) {
    println!("{what:<58} {seconds:>9.3} {:>7.2}", seconds / base);
}

fn median<T>(
    prepare: &dyn Fn() -> Result<T>,
    mut action: impl FnMut() -> Result<()>,
) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        prepare()?;
        let start = Instant::now();
        action()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

fn peak_memory<T>(
    stage: &Stage,
    copy: &str,
    password: &str,
    fresh: impl Fn() -> Result<T>,
) -> Result<()> {
    fresh()?;
    let script = "import resource, subprocess, sys\n\
        subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let said = output(&mut command(
        "python3",
        [
            "-c",
            script,
            &text(&stage.customize),
            "apply",
            copy,
            "--hostname",
            "bench",
            "--host-keys",
            "new",
            "--root-password",
            &format!("file:{password}"),
        ],
    ))?;
    let kib: f64 = said.trim().parse().map_err(|_| format!("odd answer: {said}"))?;
    println!("{:<58} {:>6.1} MiB", "snf-customize, peak memory", kib / 1024.0);
    Ok(())
}
