//! One more than each bound allows is refused, with a sentence or by leaving it out.

use snf_fs::{Attributes, FileType, MemoryFs, Tree};

use super::*;
use crate::craft::sentence::sentence;
use crate::guest::selinux::FileContexts;
use crate::guest::sshd::{SshdConfig, Who};
use crate::guest::windows::hives::{self, RegistryError};
use crate::guest::windows::registry::FileTime;
use crate::rules::Rules;

const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const POLICY: &str = "/etc/selinux/targeted/contexts/files/file_contexts";

fn tree() -> Tree {
    let mut tree = Tree::new(Box::new(MemoryFs::new()));
    tree.mkdir_all("/etc/ssh/many", FILE).unwrap();
    tree.mkdir_all("/etc/selinux/targeted/contexts/files", FILE).unwrap();
    tree
}

/// The settings of sshd_config, or the sentence that refuses it.
fn sshd(text: &str, more: &[(String, String)]) -> Result<SshdConfig, String> {
    let mut tree = tree();
    tree.write(SSHD_CONFIG, text.as_bytes(), FILE).unwrap();
    for (path, text) in more {
        tree.write(path, text.as_bytes(), FILE).unwrap();
    }
    SshdConfig::read(&tree).map_err(|error| error.to_string())
}

/// Whether a policy is taken.
fn policy(text: &str) -> bool {
    let mut tree = tree();
    tree.write(POLICY, text.as_bytes(), FILE).unwrap();
    FileContexts::read(&tree, "targeted").unwrap().is_some()
}

fn xml(text: String) -> bool {
    crate::answer::xml::Document::parse(text).is_ok()
}

/// Whether `amount` of what the limit bounds is taken.
fn takes(limit: &Limit, amount: u64) -> bool {
    let many = usize::try_from(amount).unwrap();
    match limit.of {
        "path of AuthorizedKeysFile" => {
            // Half of it is what %h stands for, so that it is the expanded path that counts.
            let pattern = format!("AuthorizedKeysFile %h/{}\n", "a".repeat(many - 2001));
            let home = [b"/".as_slice(), &[b'h'; 1999]].concat();
            let settings = sshd(&pattern, &[]).unwrap().settings(&Who::default(), false);
            settings.keys_path(b"ann", 1, &home).is_ok()
        }
        "configuration file" => sshd(&"#".repeat(many), &[]).is_ok(),
        "SSH host keys" => {
            let lines: String = (0..many).map(|n| format!("HostKey /k/{n}\n")).collect();
            sshd(&lines, &[]).is_ok()
        }
        "files of sshd_config" => {
            // The first file is one of them.
            let files: Vec<_> =
                (1..many).map(|n| (format!("/etc/ssh/many/{n}"), String::new())).collect();
            sshd("Include many/*\n", &files).is_ok()
        }
        "levels of Include" => {
            let files: Vec<_> = (1..many)
                .map(|n| {
                    let next =
                        if n + 1 < many { format!("Include many/{}\n", n + 1) } else { "".into() };
                    (format!("/etc/ssh/many/{n}"), next)
                })
                .collect();
            sshd("Include many/1\n", &files).is_ok()
        }
        "files of a pattern" => {
            let mut tree = tree();
            for n in 0..many {
                tree.write(format!("/etc/ssh/many/{n}"), b"", FILE).unwrap();
            }
            crate::guest::glob::expand(&tree, b"/etc/ssh/many/*").is_ok()
        }
        "lines of file_contexts" => policy(&"/x a:b:c\n".repeat(many)),
        "patterns of file_contexts" => {
            let (whole, rest) = (many / 1024, many % 1024);
            let line = |length: usize| format!("/{} a:b:c\n", "x".repeat(length - 1));
            let last = if rest > 0 { line(rest) } else { String::new() };
            policy(&format!("{}{last}", line(1024).repeat(whole)))
        }
        "a pattern of file_contexts" => {
            let mut tree = tree();
            let pattern = format!("/{}.*", "y?".repeat(many / 2 - 2));
            let pattern =
                format!("{pattern}{}", "z?".repeat(many)[..many - pattern.len()].to_owned());
            tree.write(POLICY, format!("{pattern} a:b:c\n").as_bytes(), FILE).unwrap();
            let contexts = FileContexts::read(&tree, "targeted").unwrap().unwrap();
            contexts.label("/yyz", FileType::Regular).is_some()
        }
        "levels of XML" => xml(format!("{}{}", "<a>".repeat(many), "</a>".repeat(many))),
        "elements of XML" => xml(format!("<a>{}</a>", "<b/>".repeat(many - 1))),
        "users" => {
            let mut properties = crate::properties::Properties::default();
            properties.set("USERS", "u ".repeat(many));
            properties.users().is_ok()
        }
        "levels of JSON" => {
            // The list of files, or the object of parameters, is a level itself.
            let deep = |many: usize| format!("{}{}", "[".repeat(many), "]".repeat(many));
            let texts = [
                crate::personality::parse(&deep(many), "x").map_err(|error| sentence(&error)).err(),
                crate::params::OsParameters::from_json(&format!("{{\"x\": {}}}", deep(many - 1)))
                    .err()
                    .map(|problems| format!("{problems:?}")),
            ];
            let taken = texts.map(|text| !text.unwrap_or_default().contains("recursion limit"));
            assert_eq!(taken[0], taken[1], "personality and parameters differ");
            taken[0]
        }
        "path of a personality file" => {
            let path = format!("/{}", "a/".repeat(many)[..many - 1].trim_end_matches('/'));
            let path = format!("{path}{}", "b".repeat(many - path.len()));
            let text = format!("[{{\"path\": {path:?}, \"contents\": \"\"}}]");
            crate::personality::parse(&text, "x").is_ok()
        }
        "registry hive" | "log of a registry hive" => {
            let mut tree = tree();
            let config = "/Windows/System32/config";
            tree.mkdir_all(config, FILE).unwrap();
            let mut dirty = vec![0; 4096];
            dirty[..4].copy_from_slice(b"regf");
            if limit.of == "registry hive" {
                dirty.resize(many, 0);
            } else {
                tree.write(format!("{config}/SYSTEM.LOG1"), &vec![0; many], FILE).unwrap();
            }
            tree.write(format!("{config}/SYSTEM"), &dirty, FILE).unwrap();
            let error = hives::open(&tree, "/Windows", "SYSTEM", FileTime(0)).unwrap_err();
            // It is no whole hive, which is seen when it has been read.
            match &error {
                RegistryError::Hive { .. } => true,
                RegistryError::Fs(error) => {
                    assert!(error.to_string().contains("bytes"), "{error}");
                    false
                }
                other => panic!("{other}"),
            }
        }
        "rules" => Rules::parse(&vec![b'\n'; many]).is_ok(),
        other => panic!("no case for the limit of {other}"),
    }
}

#[test]
fn each_bound_holds_and_is_no_lower() {
    for limit in LIMITS {
        assert!(takes(limit, limit.most), "{}: {} {}", limit.of, limit.most, limit.unit);
        assert!(!takes(limit, limit.most + 1), "{}: one more than {}", limit.of, limit.most);
        assert!(!limit.why.is_empty() && !limit.unit.is_empty());
    }
}
