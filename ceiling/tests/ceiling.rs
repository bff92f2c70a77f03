//! The test binary has a ceiling itself. A case that ends the process runs in a child: the binary
//! runs itself again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use snf_ceiling::{Ceiling, EXIT};

#[global_allocator]
static ALLOCATOR: Ceiling =
    Ceiling::new(256 << 20, "error: ", "; the disk is as it was", "; writing had begun");

/// Runs one of the tests below in a process of its own.
fn child(name: &str, before: &[&str]) -> Output {
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let words: Vec<&str> =
        [before, &[program, "--exact", name, "--ignored", "--nocapture"]].concat();
    let (first, rest) = words.split_first().unwrap();
    Command::new(first).args(rest).env("RUST_BACKTRACE", "1").output().unwrap()
}

fn assert_sentence(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.ends_with('\n'), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
#[ignore = "run by the others, in a process of its own"]
fn takes_too_much() {
    let _all: Vec<Vec<u8>> = (0..100).map(|_| vec![1; 16 << 20]).collect();
}

#[test]
#[ignore = "run by the others, in a process of its own"]
fn grows_too_far() {
    ALLOCATOR.begin_writing();
    let mut all: Vec<u8> = Vec::new();
    loop {
        all.extend_from_slice(&[1; 4096]);
    }
}

#[test]
#[ignore = "run by the others, in a process of its own"]
fn takes_some() {
    let all = vec![1_u8; 128 << 20];
    assert!(all.iter().all(|byte| *byte == 1));
}

#[test]
fn nothing_goes_over_the_ceiling() {
    let output = child("takes_too_much", &[]);
    assert_sentence(
        &output,
        &["error: there is no memory for 16777216 bytes", "268435456 are the most"],
    );
    assert_sentence(&output, &["; the disk is as it was"]);
    assert_sentence(&child("grows_too_far", &[]), &["the most", "; writing had begun"]);
    assert!(child("takes_some", &[]).status.success());
}

#[test]
fn a_system_without_memory() {
    let limit = ["prlimit", "--as=100000000", "--"];
    assert_sentence(&child("takes_some", &limit), &["134217728 bytes", "the system gives no more"]);
}

#[test]
fn what_is_given_back_counts_no_more() {
    let before = ALLOCATOR.used();
    for _ in 0..100 {
        let mut block: Vec<u8> = Vec::with_capacity(64 << 20);
        block.shrink_to(1 << 20);
        let mut zeros = vec![0_u8; 1 << 20];
        zeros.reserve_exact(32 << 20);
    }
    // Other tests run beside this one.
    assert!(ALLOCATOR.used() < before + (1 << 20));
}
