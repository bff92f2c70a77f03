//! `snf-customize` beside a root loop mount that does the same by hand.

use super::{Bench, copy_image, head, median, row};
use crate::stage::Stage;
use crate::util::{Result, command, output, run, shell, text};

pub fn bench(bench: &Bench) -> Result<()> {
    let stage = bench.stage()?;
    let copy = bench.path("disk.img");
    let fresh = || copy_image(&bench.image, &copy);
    let password = bench.file("password", "bench-password\n")?;
    let file = bench.file("file", "a file\n")?;
    let keys = bench.file(
        "keys",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2bLbRL0fQkzq3o3TRgEZHJqUGzUMfhC5e0LhbHnVqS a\n",
    )?;

    head("customizing the 2 GiB Debian image");
    for with_keys in [false, true] {
        let mount = median(&fresh, || {
            // The way by hand: root, a loop device, a mount, an edit.
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
            shell(script, &[&copy, &text(&bench.work), &with_keys.to_string()]).map(|_| ())
        })?;
        let ours = median(&fresh, || {
            let mut customize = command(&text(&stage.customize), ["apply", &copy]);
            customize.args(["--hostname", "bench", "--root-password"]);
            customize.arg(format!("file:{password}"));
            for _ in 0..3 {
                customize.arg("--ssh-key").arg(format!("root:file:{keys}"));
            }
            for n in 1..=3 {
                customize.arg("--write").arg(format!("/srv/file{n}:file:{file}"));
            }
            customize.args(["--host-keys", if with_keys { "new" } else { "keep" }]);
            run(&mut customize)
        })?;
        let what = if with_keys { "with new SSH host keys" } else { "no key generation" };
        row(&format!("root loop mount, {what}"), mount, mount);
        row(&format!("snf-customize, {what}"), ours, mount);
    }
    peak_memory(stage, &copy, &password, fresh)?;
    Ok(())
}

fn peak_memory<T>(
    stage: &Stage,
    copy: &str,
    password: &str,
    fresh: impl Fn() -> Result<T>,
) -> Result<()> {
    fresh()?;
    let script = "import resource, subprocess, sys\n\
        subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE)\n\
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
