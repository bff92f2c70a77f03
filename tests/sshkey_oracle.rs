//! Our SSH keys as OpenSSH sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use snf_image::random::Entropy;
use snf_image::sshkey::{KeyPair, KeyType, generate};

fn keygen(args: &[&str], dir: &Path) -> Output {
    let output = Command::new("ssh-keygen")
        .args(args)
        .current_dir(dir)
        .output()
        .expect("this test needs ssh-keygen (openssh-client)");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn write(key: &KeyPair, dir: &Path) {
    fs::write(dir.join("key"), key.private.expose()).unwrap();
    fs::set_permissions(dir.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("key.pub"), &key.public).unwrap();
}

#[test]
fn openssh_reads_signs_and_agrees_on_the_fingerprint() {
    let mut entropy = Entropy::from_os().unwrap();
    for key_type in KeyType::ALL {
        let dir = tempfile::tempdir().unwrap();
        let key = generate(key_type, "root@vm1.example.test", &mut entropy).unwrap();
        write(&key, dir.path());

        let public = String::from_utf8(keygen(&["-y", "-f", "key"], dir.path()).stdout).unwrap();
        assert_eq!(public, key.public);

        let listed = format!(
            "{} {} root@vm1.example.test ({})\n",
            key_type.bits(),
            key.fingerprint,
            key_type.label()
        );
        for file in ["key", "key.pub"] {
            let output = keygen(&["-l", "-f", file], dir.path());
            assert_eq!(String::from_utf8(output.stdout).unwrap(), listed);
        }

        fs::write(dir.path().join("message"), "hello").unwrap();
        keygen(&["-q", "-Y", "sign", "-n", "test", "-f", "key", "message"], dir.path());
        fs::write(dir.path().join("allowed"), format!("me {}", key.public)).unwrap();
        let verify = "ssh-keygen -Y verify -f allowed -I me -n test -s message.sig < message";
        let status =
            Command::new("sh").args(["-c", verify]).current_dir(dir.path()).status().unwrap();
        assert!(status.success(), "{}", key_type.name());
    }
}

/// dropbear's own tool reads what we write for it, and finds the same public key.
#[test]
fn dropbear_reads_its_keys() {
    let mut entropy = Entropy::from_os().unwrap();
    // A number with a high bit, or with leading zeros, is written otherwise: several keys of each.
    for key_type in KeyType::ALL {
        for _ in 0..(if key_type == KeyType::Rsa { 1 } else { 40 }) {
            let dir = tempfile::tempdir().unwrap();
            let key = generate(key_type, "root@vm1", &mut entropy).unwrap();
            let content = key.dropbear().unwrap();
            assert_eq!(snf_image::sshkey::dropbear_kind(content.expose()), Some(key_type));
            fs::write(dir.path().join("key"), content.expose()).unwrap();
            let output = Command::new("dropbearkey")
                .args(["-y", "-f", "key"])
                .current_dir(dir.path())
                .output()
                .expect("this test needs dropbearkey (dropbear-bin)");
            let text = String::from_utf8(output.stdout).unwrap();
            let words =
                |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
            let theirs = text.lines().find(|line| line.starts_with(key_type.algorithm()));
            assert_eq!(theirs.map(words), Some(words(&key.public)), "{text}");
            assert!(text.contains(&key.fingerprint), "{text}");
        }
    }
}

/// OpenSSL's own check of an RSA key: primes, and every number derived from them.
#[test]
fn openssl_finds_rsa_keys_consistent() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let key = generate(KeyType::Rsa, "", &mut Entropy::seeded(seed)).unwrap();
        write(&key, dir.path());
        keygen(&["-q", "-p", "-N", "", "-m", "PEM", "-f", "key"], dir.path());
        let output = Command::new("openssl")
            .args(["rsa", "-check", "-noout", "-text", "-in", "key"])
            .current_dir(dir.path())
            .output()
            .expect("this test needs openssl");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("RSA key ok"), "{text}");
        assert!(text.contains("Private-Key: (3072 bit"), "{text}");
    }
}

/// OpenSSH writes the scalar without leading zeros, `ssh-key` in 32 bytes: one key of 256 differs.
#[test]
fn openssh_reads_an_ecdsa_key_whose_number_begins_with_zero() {
    // The scalar is what the stream gives first.
    let seed = (0..).find(|&seed| Entropy::seeded(seed).bytes::<32>()[0] == 0).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key = generate(KeyType::Ecdsa, "zero", &mut Entropy::seeded(seed)).unwrap();
    write(&key, dir.path());
    let public = String::from_utf8(keygen(&["-y", "-f", "key"], dir.path()).stdout).unwrap();
    assert_eq!(public, key.public);
    keygen(&["-q", "-p", "-N", "secret", "-f", "key"], dir.path());
}

/// A line that we take is one that ssh-keygen takes, and the other way round.
#[test]
fn lines_of_keys_are_judged_as_by_ssh_keygen() {
    use snf_image::sshkey::check_line;
    let dir = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for (number, kind) in [
        ("ed25519", ""),
        ("rsa", "1024"),
        ("rsa", "3072"),
        ("ecdsa", "256"),
        ("ecdsa", "384"),
        ("ecdsa", "521"),
    ]
    .iter()
    .enumerate()
    {
        let file = format!("k{number}");
        let mut args = vec!["-q", "-N", "", "-C", "me@home", "-f", &file, "-t", kind.0];
        if !kind.1.is_empty() {
            args.extend(["-b", kind.1]);
        }
        keygen(&args, dir.path());
        lines.push(
            fs::read_to_string(dir.path().join(format!("{file}.pub"))).unwrap().trim().to_owned(),
        );
    }
    keygen(&["-q", "-s", "k0", "-I", "id", "k3.pub"], dir.path());
    lines.push(fs::read_to_string(dir.path().join("k3-cert.pub")).unwrap().trim().to_owned());
    let whole = lines.clone();
    for line in &whole {
        let words: Vec<&str> = line.split(' ').collect();
        let (kind, key) = (words[0], words[1]);
        let short = key.len() - 4;
        lines.push(format!("no-pty,command=\"echo \\\"a b\\\"\" {line}"));
        lines.push(format!("{kind} {key}"));
        // Certificates are looked at by their kind alone.
        if !kind.contains("cert") {
            lines.push(format!("{kind} {} cut", &key[..short]));
            lines.push(format!("{kind} {}", &key[..short - 1]));
        }
        lines.push(format!("ssh-ed25518 {key}"));
        lines.push(kind.to_owned());
        lines.push(key.to_owned());
        lines.push(format!("{kind} !{key}"));
    }
    lines.push(whole[0].replace("ssh-ed25519", "ssh-rsa"));
    lines.push(whole[1].replace("ssh-rsa", "ssh-ed25519"));
    lines.extend(
        ["hello", "ssh-ed25519 AAAA me", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB me"].map(str::to_owned),
    );
    for line in lines {
        let path = dir.path().join("line");
        fs::write(&path, format!("{line}\n")).unwrap();
        let output = Command::new("ssh-keygen").args(["-l", "-f"]).arg(&path).output().unwrap();
        let ours = check_line(&line);
        assert_eq!(
            ours.is_ok(),
            output.status.success(),
            "{line}: {ours:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
