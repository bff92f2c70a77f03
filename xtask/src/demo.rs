//! `cargo xtask demo`: the main job on a real Debian image, through both doors.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::stage::{Stage, stage};
use crate::util::{Result, command, shell, text};

/// The variables that Ganeti gives to `create` for one disk.
fn ganeti(disk: &str, image: &str) -> Vec<(&'static str, String)> {
    let fixed = [
        ("OS_API_VERSION", "20"),
        ("OS_NAME", "snf-image"),
        ("OS_VARIANT", "default"),
        ("INSTANCE_NAME", "vm1.example.test"),
        ("INSTANCE_OS", "snf-image+default"),
        ("HYPERVISOR", "kvm"),
        ("DEBUG_LEVEL", "0"),
        ("NIC_COUNT", "0"),
        ("DISK_COUNT", "1"),
        ("DISK_0_ACCESS", "rw"),
        ("DISK_0_FRONTEND_TYPE", "paravirtual"),
        ("DISK_0_BACKEND_TYPE", "file:loop"),
        ("OSP_IMG_FORMAT", "diskdump"),
        ("OSP_IMG_PASSWD", "demo"),
        (
            "OSP_AUTH_KEYS",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2bLbRL0fQkzq3o3TRgEZHJqUGzUMfhC5e0LhbHnVqS demo@example.test",
        ),
        (
            "OSP_IMG_PERSONALITY",
            // "Deployed by snf-image.\n"
            r#"[{"path":"/etc/motd","contents":"RGVwbG95ZWQgYnkgc25mLWltYWdlLgo=","mode":420}]"#,
        ),
    ];
    let mut all: Vec<(&str, String)> =
        fixed.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    all.push(("DISK_0_PATH", disk.to_owned()));
    all.push(("OSP_IMG_ID", image.to_owned()));
    all
}

/// Deploys one image through `create` and customizes another offline.
pub fn demo() -> Result<()> {
    heading("Getting ready (slow only the first time)");
    let image = crate::setup()?;
    let stage = stage()?;
    let work = crate::setup::cache()?.join("demo");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).map_err(|e| format!("cannot make {}: {e}", work.display()))?;

    heading(
        "1. Ganeti's way: a 2 GiB Debian image onto an empty 4 GiB disk, customized in a helper VM",
    );
    let disk = work.join("vm1.raw");
    let file = fs::File::create(&disk).map_err(|e| format!("cannot make the disk: {e}"))?;
    file.set_len(4 << 30).map_err(|e| format!("cannot size the disk: {e}"))?;
    create(&image, &stage, &work, &disk)?;

    heading("2. Offline: the same kind of edit on a disk file, no VM, no mount, as user nobody");
    let offline = work.join("vm2.raw");
    shell(
        "cp --sparse=always --reflink=auto \"$1\" \"$2\"; echo offline > \"$3/password\"; chmod 600 \"$3/password\"; chown nobody \"$2\" \"$3/password\"; chmod 755 \"$3\"",
        &[&text(&image), &text(&offline), &text(&work)],
    )?;
    customize(&stage, &work, &offline)?;

    heading("3. What the disks say of themselves");
    let mut inspect = command(&text(&stage.customize), ["inspect", &text(&disk)]);
    show(&mut inspect)?;

    println!();
    println!("Boot them (serial console; root's passwords are `demo` and `offline`):");
    for disk in [&disk, &offline] {
        println!(
            "  qemu-system-x86_64 -m 512 -nographic -nic none -drive file={},format=raw,if=virtio",
            disk.display()
        );
    }
    Ok(())
}

/// The `create` script of the stage with the environment that Ganeti gives, and a configuration
/// (in `work`) that finds the image and the helper; `more` goes to its end.
pub fn create_command(
    image: &Path,
    stage: &Stage,
    work: &Path,
    disk: &Path,
    more: &str,
) -> Result<Command> {
    let config = work.join("snf-image.conf");
    fs::write(
        &config,
        format!(
            "IMAGE_DIR=\"{}\"\nHELPER_DIR=\"{}\"\n{more}",
            image.parent().unwrap_or(Path::new("/")).display(),
            stage.helper.display()
        ),
    )
    .map_err(|e| format!("cannot write the configuration: {e}"))?;
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let script = text(&stage.os.join("create"));
    let mut create = command("sh", ["-c", "exec \"$0\" 2>&1", &script]);
    create.current_dir(&stage.os).env_clear();
    create.env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin").env("SNF_IMAGE_CONFIG", &config);
    create.envs(ganeti(&text(disk), &name));
    Ok(create)
}

fn create(image: &Path, stage: &Stage, work: &Path, disk: &Path) -> Result<()> {
    let mut create = create_command(image, stage, work, disk, "")?;
    println!(
        "$ {}   # with the environment that Ganeti gives\n",
        stage.os.join("create").display()
    );
    let start = Instant::now();
    let mut child =
        create.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot start create: {e}"))?;
    // Ganeti's log has the JSON of the progress monitor as well; a person has seen enough of it.
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
            if !line.starts_with("[MONITOR] ") {
                println!("{line}");
            }
        }
    }
    let status = child.wait().map_err(|e| format!("cannot wait for create: {e}"))?;
    if !status.success() {
        return Err(format!("create failed ({status})"));
    }
    println!("\n   -> {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn customize(stage: &Stage, work: &Path, disk: &Path) -> Result<()> {
    let binary = work.join("snf-customize");
    fs::copy(&stage.customize, &binary).map_err(|e| format!("cannot copy snf-customize: {e}"))?;
    let arguments = [
        "apply".to_owned(),
        text(disk),
        "--hostname=vm2.example.test".to_owned(),
        format!("--root-password=file:{}", work.join("password").display()),
        "--machine-id=new".to_owned(),
        "--host-keys=new".to_owned(),
        "--write=/etc/motd:file:/etc/hostname:mode=0644".to_owned(),
    ];
    println!("$ snf-customize {}\n", arguments.join(" "));
    let mut apply = command("setpriv", ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    apply.arg(&binary).args(arguments).current_dir("/");
    show(&mut apply)
}

fn heading(text: &str) {
    println!("\n== {text}\n");
    let _ = std::io::stdout().flush();
}

/// Runs a command with its output on the terminal and says how long it took.
fn show(command: &mut Command) -> Result<()> {
    let start = Instant::now();
    crate::util::run_visible(command)?;
    println!("\n   -> {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
