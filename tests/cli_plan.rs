//! `snf-customize --file`, `--print-plan` and `--diff` on small guests.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cli_support::{Guest, snf_customize};

/// Runs with a text on standard input: exit code, standard output, standard error.
fn run(words: &[&str], input: &str) -> (i32, String, String) {
    let mut child = snf_customize()
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing has something else to say.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_plan_does_what_the_options_do() {
    let (one, two) = (Guest::debian(), Guest::debian());
    let options = [
        "--hostname=web1",
        "--mkdir=/srv/a b:owner=ann,mode=2770",
        "--write=/etc/motd:text:hello\n",
        "--no-follow",
        "--symlink=../x:/etc/y",
        "--lock-user=ann",
    ];
    let disk = one.image.to_str().unwrap().to_owned();
    let common = ["apply", &disk, "--seed=1"];
    for json in [false, true] {
        let mut words = [&common[..], &options].concat();
        words.push("--print-plan");
        if json {
            words.push("--json");
        }
        let before = one.bytes();
        let (code, plan, errors) = run(&words, "");
        assert_eq!((code, errors.as_str()), (0, ""), "{plan}");
        assert!(before == one.bytes());
        let target = if json { &one } else { &two };
        let image = target.image.to_str().unwrap();
        let (code, _, errors) = run(&["apply", image, "--file", "-"], &plan);
        assert_eq!(code, 0, "{plan}\n{errors}");
        target.check();
        assert_eq!(target.cat("/etc/motd"), "hello\n");
        assert_eq!(target.cat("/etc/hostname"), "web1\n");
    }
    let (code, _, errors) =
        run(&["apply", &disk, "--file", "-"], "hostname = 'x'\n[[edits]]\nmkdir = {path = 'srv'}");
    assert_eq!(code, 8);
    assert!(
        errors.contains("standard input: line 3, column 17") && errors.contains("srv"),
        "{errors}"
    );
    let (code, _, errors) =
        run(&["apply", &disk, "--file", "-", "--root-password", "stdin"], "hostname = 'x'");
    assert!(code == 2 && errors.contains("standard input is the plan"), "{errors}");
    let (code, out, _) = run(&["--plan-schema"], "");
    assert!(code == 0 && out.contains("\"copy-in\""));
}

#[test]
fn a_diff_can_be_applied_and_hides_secrets() {
    let guest = Guest::debian();
    let disk = guest.image.to_str().unwrap();
    let words = [
        "apply",
        disk,
        "--dry-run",
        "--diff",
        "--hostname=web1",
        "--root-password=stdin",
        "--host-keys=new",
        "--chmod=0600:/etc/motd",
        "--edit=/etc/motd:s/welcome/good day/",
    ];
    let before = guest.bytes();
    let (code, out, errors) = run(&words, "correct horse\n");
    assert_eq!(code, 0, "{errors}");
    assert!(before == guest.bytes());
    assert!(
        out.contains("--- a/etc/motd\n+++ b/etc/motd\n@@ -1 +1 @@\n-welcome\n+good day\n"),
        "{out}"
    );
    assert!(out.contains("/etc/motd: mode 0644 -> 0600") && out.contains("-root:[secret"), "{out}");
    assert!(!out.contains("saltsalt") && !out.contains("correct horse"), "{out}");
    // Keys of a dry run will never be: no fingerprints of them, unless they come from a number.
    assert!(out.contains("made by the run that writes") && !out.contains("SHA256:"), "{out}");
    let (_, out, _) = run(&[&words[..], &["--json"]].concat(), "correct horse\n");
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(document["diff"].as_str().unwrap().contains("+web1"));
    assert!(document["report"]["fingerprints"][0]["fingerprint"].is_null(), "{out}");
    let (_, out, _) = run(&[&words[..], &["--seed=1"]].concat(), "correct horse\n");
    assert!(out.contains("SHA256:"), "{out}");

    // The real run shows the same as the dry one, and patch makes the same texts of the old ones.
    // A password that is a word of many texts is masked in its own field only.
    let (code, out, errors) = run(&words, "root\n");
    assert_eq!(code, 0, "{errors}");
    assert!(out.contains("+root:[secret ") && !out.contains("]:[secret"), "{out}");

    let words = ["apply", disk, "--diff", "--hostname=web1", "--write=/etc/new:text:a\nb"];
    let dir = tempfile::tempdir().unwrap();
    for path in ["/etc/hostname", "/etc/hosts"] {
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join(&path[1..]), guest.cat(path)).unwrap();
    }
    let (code, out, errors) = run(&words, "");
    assert_eq!(code, 0, "{errors}");
    let mut patch = Command::new("patch")
        .args(["-p1", "--batch"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs patch");
    patch.stdin.take().unwrap().write_all(out.as_bytes()).unwrap();
    let patched = patch.wait_with_output().unwrap();
    assert!(patched.status.success(), "{out}\n{}", text(patched.stdout));
    for path in ["/etc/hostname", "/etc/hosts", "/etc/new"] {
        let local = std::fs::read_to_string(dir.path().join(&path[1..])).unwrap();
        assert_eq!(local, guest.cat(path), "{path}");
    }
    guest.check();
}
