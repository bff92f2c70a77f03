//! Writer and parser of the parameter file against a real bash, in both directions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use snf_image::random::Entropy;
use snf_image::rules::Rules;

/// Strings without NUL: half of them full of what a shell cares about, text and bytes.
fn samples(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut entropy = Entropy::seeded(seed);
    let special = b"'\"\\$`!~#\n\t {}()[]*?;&|<>=^%,:-+x0";
    let mut samples: Vec<Vec<u8>> = (0..count)
        .map(|number| {
            let length = entropy.below(30);
            (0..length)
                .map(|_| match (number % 3, entropy.below(2)) {
                    (0, _) | (1, 0) => special[entropy.below(special.len() as u32) as usize],
                    (1, _) => b'a' + entropy.below(26) as u8,
                    _ => entropy.below(255) as u8 + 1,
                })
                .collect()
        })
        .collect();
    samples.extend([
        b"".to_vec(),
        b"~".to_vec(),
        b"-n".to_vec(),
        "\u{20ac}\u{e9} gr\u{fc}n".into(),
        "\u{85}\u{7f}".into(),
    ]);
    samples
}

fn bash(script: &str, locale: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["--noprofile", "--norc", "-c", script]).env_clear().env("LC_ALL", locale);
    command
}

#[test]
fn bash_reads_what_we_write() {
    let samples = samples(1, 400);
    let mut rules = Rules::default();
    for (index, sample) in samples.iter().enumerate() {
        rules.set(&format!("X{index}"), sample.clone()).unwrap();
    }
    rules.set_array("DEV", samples.clone()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules");
    std::fs::write(&file, rules.write().expose()).unwrap();
    let count = samples.len();
    let script = format!(
        "source \"$0\"; for ((i=0; i<{count}; i++)); do n=SNF_IMAGE_X$i; \
         printf '%s\\0' \"${{!n}}\" \"${{SNF_IMAGE_DEV[i]}}\"; done; echo \"${{#SNF_IMAGE_DEV[@]}}\""
    );
    for locale in ["C", "C.UTF-8"] {
        let output = bash(&script, locale).arg(&file).output().expect("this test needs bash");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let mut fields: Vec<&[u8]> = output.stdout.split(|&byte| byte == 0).collect();
        assert_eq!(fields.pop(), Some(format!("{count}\n").as_bytes()));
        assert_eq!(fields.len(), 2 * count);
        for (pair, sample) in fields.chunks(2).zip(&samples) {
            assert_eq!(pair, [sample.as_slice(), sample.as_slice()], "{locale}");
        }
    }
}

#[test]
fn we_read_what_bash_writes() {
    let samples = samples(2, 400);
    for locale in ["C", "C.UTF-8"] {
        for print in ["export -p", "set", "declare -p ${!SNF_IMAGE_@}"] {
            let array = "SNF_IMAGE_DEV=(\"$@\"); export SNF_IMAGE_DEV; ";
            let script = format!("{array}{print}");
            let mut command = bash(&script, locale);
            command.arg("bash").args(samples.iter().map(|sample| OsStr::from_bytes(sample)));
            for (index, sample) in samples.iter().enumerate() {
                command.env(format!("SNF_IMAGE_X{index}"), OsStr::from_bytes(sample));
            }
            let output = command.output().expect("this test needs bash");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let rules =
                Rules::parse(&output.stdout).unwrap_or_else(|error| panic!("{print}: {error}"));
            for (index, sample) in samples.iter().enumerate() {
                let found = rules.get(&format!("X{index}")).unwrap();
                assert_eq!(found.expose(), sample, "{print} in {locale}");
                let found = rules.array("DEV");
                // `export -p` of this bash leaves arrays out.
                if print != "export -p" {
                    assert_eq!(found[&(index as u32)].expose(), sample, "{print} in {locale}");
                }
            }
        }
    }
}
