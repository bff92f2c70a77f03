//! Our hashes against the machine's own crypt(3), through perl: what we make must verify there,
//! and for the same salt both must write the same string.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::process::{Command, Stdio};

use snf_image::crypt::{Method, hash};
use snf_image::random::Entropy;
use snf_image::secret::Secret;

/// crypt(3) of each password with its setting; both travel in hexadecimal.
fn system_crypt(pairs: &[(Vec<u8>, String)]) -> Vec<String> {
    let script = r#"while (<STDIN>) { chomp; my ($p, $s) = split / /;
        my $h = crypt(pack("H*", $p), pack("H*", $s)); print defined $h ? $h : "*0", "\n"; }"#;
    let mut child = Command::new("perl")
        .args(["-e", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs perl");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut stdin = child.stdin.take().unwrap();
    let input: String =
        pairs.iter().map(|(p, s)| format!("{} {}\n", hex(p), hex(s.as_bytes()))).collect();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_system_agrees_on_every_method_and_length() {
    let mut entropy = Entropy::seeded(42);
    let mut pairs = Vec::new();
    for method in Method::ALL {
        // Yescrypt and bcrypt are slow on purpose.
        let lengths: &[usize] = match method {
            Method::Yescrypt | Method::Sha1 => &[1, 8, 65, 511],
            Method::Blowfish => &[1, 8, 71, 72],
            _ => &[1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511],
        };
        for &length in lengths {
            // Every byte but NUL, high bytes too.
            let password: Vec<u8> = (0..length).map(|_| entropy.below(255) as u8 + 1).collect();
            let hash = hash(method, &Secret::new(password.clone()), &mut entropy).unwrap();
            pairs.push((password, String::from_utf8(hash.expose().to_vec()).unwrap()));
        }
    }
    let system = system_crypt(&pairs);
    assert_eq!(system.len(), pairs.len());
    for ((password, ours), theirs) in pairs.iter().zip(&system) {
        assert_eq!(ours, theirs, "password of {} bytes", password.len());
    }
}

#[test]
fn a_wrong_password_does_not_verify() {
    let mut entropy = Entropy::seeded(43);
    for method in Method::ALL {
        let ours = hash(method, &Secret::new("right"), &mut entropy).unwrap();
        let ours = String::from_utf8(ours.expose().to_vec()).unwrap();
        assert_ne!(system_crypt(&[(b"wrong".to_vec(), ours.clone())])[0], ours);
    }
}

#[test]
fn salts_differ_from_one_password_to_the_next() {
    let mut entropy = Entropy::from_os().unwrap();
    for method in [Method::Sha512, Method::Sha256, Method::Md5, Method::Yescrypt] {
        let mut make = || hash(method, &Secret::new("x"), &mut entropy).unwrap();
        assert_ne!(make(), make());
    }
}
