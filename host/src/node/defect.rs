//! A defect of this program ends it with one sentence and an exit code of its own.

use crate::node::log;

/// The exit code of a defect, as `snf-customize` has it.
pub const EXIT: u8 = 70;

/// From here on a panic, in whichever thread, ends the process. The message of the panic is not
/// shown: it may hold a secret. Programs that were started end with us, and the kernel takes back
/// what the run has: nothing of it needs our destructors.
pub fn catch() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(String::new(), |location| format!(" ({location})"));
        log::error(&format!(
            "this is a defect of snf-image {}{place}; please report it",
            env!("CARGO_PKG_VERSION")
        ));
        std::process::exit(EXIT.into());
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    #[ignore = "run by the next one, in a process of its own"]
    fn a_thread_panics() {
        super::catch();
        let thread = std::thread::spawn(|| panic!("of the password hunter2"));
        let _ = thread.join();
    }

    #[test]
    fn a_panic_is_a_sentence() {
        let name = "node::defect::tests::a_thread_panics";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--ignored", "--nocapture"]).env("RUST_BACKTRACE", "1");
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(super::EXIT)), "{text}");
        assert!(text.starts_with("snf-image: error: this is a defect of snf-image "), "{text}");
        assert!(text.lines().count() == 1 && !text.contains("hunter2"), "{text}");
    }
}
