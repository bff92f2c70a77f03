//! The OS scripts, run as Ganeti runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{debian, stage};

/// Runs a script of the OS directory with exactly the environment that Ganeti gives.
pub fn script(name: &str, config: &Path, disk: &Path, extra: &[(&str, &str)]) -> Output {
    let os = stage().join("os/snf-image");
    let mut command = Command::new(os.join(name));
    command
        .current_dir(&os)
        .env_clear()
        .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
        .env("SNF_IMAGE_CONFIG", config)
        .env("DEBUG_LEVEL", "0")
        .env("DISK_COUNT", "1")
        .env("DISK_0_PATH", disk)
        .env("DISK_0_ACCESS", "rw")
        .env("DISK_0_BACKEND_TYPE", "file:loop")
        .env("DISK_0_FRONTEND_TYPE", "paravirtual")
        .env("DISK_0_UUID", "598fb35f-0000-4000-8000-000000000000")
        .env("HYPERVISOR", "kvm")
        .env("INSTANCE_NAME", "vm1.example.test")
        .env("INSTANCE_OS", "snf-image+default")
        .env("NIC_COUNT", "0")
        .env("OS_API_VERSION", "20")
        .env("OS_NAME", "snf-image")
        .env("OS_VARIANT", "default");
    for (name, value) in extra {
        command.env(name, value);
    }
    command.output().expect("the script starts")
}

/// A configuration for the staged helper, without KVM.
pub fn config(directory: &Path) -> PathBuf {
    let path = directory.join("snf-image.conf");
    let image_dir = debian().parent().unwrap().to_owned();
    fs::write(
        &path,
        format!(
            "IMAGE_DIR=\"{}\"\nHELPER_DIR=\"{}\"\nHELPER_ACCEL=\"tcg\"\nIMAGE_FILES=\"/\"\n",
            image_dir.display(),
            stage().join("helper").display()
        ),
    )
    .unwrap();
    path
}

/// All that a program has said.
pub fn log_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8"),
        String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
    )
}
