//! How long SSH host keys and password hashes take, with ssh-keygen in the same run for scale.
//! Run with `cargo bench --bench keys`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;
use std::time::{Duration, Instant};

use snf_image::crypt::{Method, hash};
use snf_image::random::Entropy;
use snf_image::secret::Secret;
use snf_image::sshkey::{KeyType, generate};

/// Runs something `times` times: mean and longest.
fn measure(times: u32, mut run: impl FnMut()) -> (Duration, Duration) {
    let mut longest = Duration::ZERO;
    let started = Instant::now();
    for _ in 0..times {
        let one = Instant::now();
        run();
        longest = longest.max(one.elapsed());
    }
    (started.elapsed() / times, longest)
}

fn show(what: &str, (mean, longest): (Duration, Duration)) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{what:<28} mean {:8.2} ms  longest {:8.2} ms",
        milliseconds(mean),
        milliseconds(longest)
    );
}

fn main() {
    // `cargo test` runs benches too, with this argument missing: then one round is enough.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 20 } else { 1 };
    let mut entropy = Entropy::seeded(1);
    for key_type in KeyType::ALL {
        let time = measure(rounds, || {
            generate(key_type, "root@bench", &mut entropy).unwrap();
        });
        show(&format!("{} {}", key_type.label(), key_type.bits()), time);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let time = measure(rounds, || {
        let _ = std::fs::remove_file(&file);
        let _ = Command::new("ssh-keygen")
            .args(["-q", "-t", "rsa", "-b", "3072", "-N", "", "-f"])
            .arg(&file)
            .status();
    });
    show("ssh-keygen -t rsa -b 3072", time);
    for method in Method::ALL {
        let password = Secret::new("correct horse battery staple");
        let time = measure(rounds, || {
            hash(method, &password, &mut entropy).unwrap();
        });
        show(method.name(), time);
    }
}
