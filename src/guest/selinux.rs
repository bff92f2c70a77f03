//! The guest's SELinux policy, as far as it says which label a file has: new files get theirs at
//! once, so that the guest need not relabel everything at its first boot.

use std::sync::OnceLock;

use regex_lite::{Regex, RegexBuilder};
use snf_fs::{FileType, Result, Tree};

use super::distro;
use crate::limits::{
    CONFIG_BYTES, POLICY_LINES, POLICY_PATTERN_BYTES, POLICY_PATTERN_STEPS, POLICY_STEPS,
};

/// The extended attribute of a label.
pub const XATTR: &[u8] = b"security.selinux";
const CONFIG: &str = "/etc/selinux/config";

/// The setting in `/etc/selinux/config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no SELinux, or it is switched off.
    Off,
    /// It is on, with the policy of this name.
    On(String),
}

/// Whether the guest uses SELinux.
pub fn state(tree: &Tree) -> Result<State> {
    let Some(text) = tree.read_optional(CONFIG, 1 << 20)? else { return Ok(State::Off) };
    let text = String::from_utf8_lossy(&text);
    let mode = distro::value(&text, "SELINUX").unwrap_or_default().to_ascii_lowercase();
    if mode != "enforcing" && mode != "permissive" {
        return Ok(State::Off);
    }
    let name = distro::value(&text, "SELINUXTYPE").filter(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    });
    Ok(State::On(name.unwrap_or_else(|| "targeted".into())))
}

/// The label of each path.
#[derive(Clone, Debug, Default)]
pub struct FileContexts {
    /// In the order of the policy: of those that match, the last one counts.
    entries: Vec<Entry>,
    /// Paths that are labelled as if they were others (`/run` as `/var/run`).
    substitutes: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct Entry {
    pattern: String,
    /// The pattern compiled, when a path was first compared with it; `None` inside where it is none.
    compiled: OnceLock<Option<Regex>>,
    /// The most steps that one character of a path costs ([`steps`]).
    steps: u64,
    /// The prefix that a path must have, so that few patterns are ever compiled.
    prefix: String,
    /// A path without any pattern character: it counts more than all patterns.
    literal: bool,
    file_type: Option<FileType>,
    /// `None` for `<<none>>`: such files have no label.
    context: Option<String>,
}

impl FileContexts {
    /// Reads the policy's files; `None` when the image does not have them, or they are so large
    /// that they are no policy.
    pub fn read(tree: &Tree, policy: &str) -> Result<Option<Self>> {
        let base = format!("/etc/selinux/{policy}/contexts/files/file_contexts");
        let Some(text) = tree.read_optional(&base, CONFIG_BYTES)? else { return Ok(None) };
        let mut contexts = Self::default();
        contexts.add(&String::from_utf8_lossy(&text));
        for suffix in ["homedirs", "local"] {
            let text = tree.read_optional(format!("{base}.{suffix}"), CONFIG_BYTES)?;
            contexts.add(&String::from_utf8_lossy(&text.unwrap_or_default()));
        }
        for suffix in ["subs", "subs_dist"] {
            let text = tree.read_optional(format!("{base}.{suffix}"), 1 << 20)?;
            contexts.add_substitutes(&String::from_utf8_lossy(&text.unwrap_or_default()));
        }
        let steps = contexts.entries.iter().fold(0u64, |all, e| all.saturating_add(e.steps));
        if contexts.entries.is_empty()
            || contexts.entries.len() > POLICY_LINES
            || steps > POLICY_STEPS
        {
            return Ok(None);
        }
        Ok(Some(contexts))
    }

    fn add(&mut self, text: &str) {
        // One more than the limit is enough to know that there are too many.
        let room = (POLICY_LINES + 1).saturating_sub(self.entries.len());
        self.entries.extend(text.lines().filter_map(entry).take(room));
    }

    fn add_substitutes(&mut self, text: &str) {
        for line in text.lines().take(1000) {
            let mut words = line.split_whitespace();
            if let (Some(from), Some(to)) = (words.next(), words.next())
                && from.starts_with('/')
                && to.starts_with('/')
            {
                let cut = |path: &str| path.trim_end_matches('/').to_owned();
                self.substitutes.push((cut(from), cut(to)));
            }
        }
    }

    /// The label of a path, as the extended attribute holds it; `None` when the policy has none.
    pub fn label(&self, path: &str, file_type: FileType) -> Option<Vec<u8>> {
        let mut path = path.to_owned();
        for (from, to) in &self.substitutes {
            let rest = path.strip_prefix(from.as_str());
            if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
                path = format!("{to}{rest}");
                break;
            }
        }
        let fits = |entry: &&Entry| {
            entry.file_type.is_none_or(|wanted| wanted == file_type)
                && path.starts_with(&entry.prefix)
        };
        let candidates = || self.entries.iter().rev().filter(fits);
        let found =
            candidates().find(|entry| entry.literal && entry.prefix == path).or_else(|| {
                candidates().filter(|entry| !entry.literal).find(|entry| entry.matches(&path))
            })?;
        found.context.as_ref().map(|context| format!("{context}\0").into_bytes())
    }
}

impl Entry {
    fn matches(&self, path: &str) -> bool {
        let compile = || {
            if self.steps > POLICY_PATTERN_STEPS {
                return None;
            }
            RegexBuilder::new(&format!("^(?:{})$", self.pattern))
                .size_limit(POLICY_PATTERN_BYTES)
                .build()
                .ok()
        };
        self.compiled.get_or_init(compile).as_ref().is_some_and(|regex| regex.is_match(path))
    }
}

/// An upper bound of what a matcher does for one character of a path: it looks at each part of the
/// pattern once, and a part that is repeated by number counts that many times.
fn steps(pattern: &str) -> u64 {
    let repeated = pattern.split('{').skip(1).map(|rest| {
        let numbers = rest.split('}').next().unwrap_or_default().split(',');
        numbers.map(|number| number.trim().parse().unwrap_or(1)).max().unwrap_or(1).max(1)
    });
    let length = u64::try_from(pattern.len()).unwrap_or(u64::MAX);
    repeated.fold(length, |all: u64, times: u64| all.saturating_mul(times))
}

/// A line: pattern, perhaps a file type, context.
fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let pattern = words.next().filter(|pattern| !pattern.starts_with('#'))?.to_owned();
    let (second, third) = (words.next()?, words.next());
    let (file_type, context) = match third {
        Some(context) => (Some(file_type(second)?), context),
        None => (None, second),
    };
    let (prefix, literal) = prefix(&pattern);
    let context = match context {
        "<<none>>" => None,
        context if context.len() <= 255 && context.matches(':').count() >= 2 => {
            Some(context.to_owned())
        }
        _ => return None,
    };
    let steps = steps(&pattern);
    Some(Entry { pattern, compiled: OnceLock::new(), steps, prefix, literal, file_type, context })
}

fn file_type(flag: &str) -> Option<FileType> {
    Some(match flag {
        "--" => FileType::Regular,
        "-d" => FileType::Directory,
        "-l" => FileType::Symlink,
        "-c" => FileType::CharDevice,
        "-b" => FileType::BlockDevice,
        "-p" => FileType::Fifo,
        "-s" => FileType::Socket,
        _ => return None,
    })
}

/// The prefix of everything that a pattern matches, and whether that is all of it.
fn prefix(pattern: &str) -> (String, bool) {
    if pattern.contains('|') && !pattern.contains('(') {
        return (String::new(), false);
    }
    let mut prefix = String::new();
    let mut depth = 0;
    // An alternative outside of parentheses makes the beginning of the pattern worth nothing.
    for c in pattern.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '|' if depth <= 0 => return (String::new(), false),
            _ => {}
        }
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let (literal, c) = match c {
            '\\' => match chars.next() {
                Some(c) if !c.is_ascii_alphanumeric() => (true, c),
                _ => return (prefix, false),
            },
            '.' | '^' | '$' | '?' | '*' | '+' | '|' | '[' | ']' | '(' | ')' | '{' | '}' => {
                (false, c)
            }
            c => (true, c),
        };
        if !literal {
            return (prefix, false);
        }
        // The next character may make this one optional.
        if matches!(chars.peek(), Some('?' | '*' | '{')) {
            return (prefix, false);
        }
        prefix.push(c);
    }
    (prefix, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::{Attributes, MemoryFs};

    const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

    fn contexts() -> FileContexts {
        let mut contexts = FileContexts::default();
        contexts.add(
            "# comment\n\
             /.*\tsystem_u:object_r:default_t:s0\n\
             /etc/.*\tsystem_u:object_r:etc_t:s0\n\
             /etc/shadow.*\t--\tsystem_u:object_r:shadow_t:s0\n\
             /etc/ssh/ssh_host.*_key\t--\tsystem_u:object_r:sshd_key_t:s0\n\
             /var/run/.*\tsystem_u:object_r:var_run_t:s0\n\
             /proc/.*\t<<none>>\n\
             /etc/hostname\t--\tsystem_u:object_r:hostname_etc_t:s0\n\
             /usr/(local/)?lib(64)?/x\tsystem_u:object_r:lib_t:s0\n\
             /opt/colou?r\tsystem_u:object_r:opt_t:s0\n\
             /a\\.b\tsystem_u:object_r:ab_t:s0\n\
             /bad(\tsystem_u:object_r:bad_t:s0\n\
             /short\tlabel\n/flag\t-z\ta:b:c\n",
        );
        contexts.add("/root/\\.ssh(/.*)?\tsystem_u:object_r:ssh_home_t:s0\n");
        contexts.add_substitutes("/run /var/run\n/\nx y\n");
        contexts
    }

    #[test]
    fn the_last_match_counts() {
        let contexts = contexts();
        let label = |path: &str| {
            let label = contexts.label(path, FileType::Regular)?;
            let text = String::from_utf8(label).unwrap();
            assert!(text.ends_with('\0'));
            Some(text.split(':').nth(2).unwrap().to_owned())
        };
        for (path, expected) in [
            ("/etc/motd", Some("etc_t")),
            ("/etc/shadow", Some("shadow_t")),
            ("/etc/hostname", Some("hostname_etc_t")),
            ("/etc/hostname.x", Some("etc_t")),
            ("/etc/ssh/ssh_host_rsa_key", Some("sshd_key_t")),
            ("/etc/ssh/ssh_host_rsa_key.pub", Some("etc_t")),
            ("/root/.ssh/authorized_keys", Some("ssh_home_t")),
            ("/root/.ssh", Some("ssh_home_t")),
            ("/root/xssh", Some("default_t")),
            ("/run/x", Some("var_run_t")),
            ("/runx", Some("default_t")),
            ("/proc/x", None),
            ("/usr/local/lib64/x", Some("lib_t")),
            ("/opt/color", Some("opt_t")),
            ("/a.b", Some("ab_t")),
            ("/axb", Some("default_t")),
            ("/short", Some("default_t")),
        ] {
            assert_eq!(label(path).as_deref(), expected, "{path}");
        }
        let dir = contexts.label("/etc/shadow", FileType::Directory).unwrap();
        assert_eq!(dir, b"system_u:object_r:etc_t:s0\0");
    }

    #[test]
    fn prefixes() {
        for (pattern, expected, literal) in [
            ("/etc/x", "/etc/x", true),
            ("/etc/x?", "/etc/", false),
            ("/etc/x\\.d(/.*)?", "/etc/x.d", false),
            ("/a|/b", "", false),
            ("(/a|/b)", "", false),
            ("/a(b|c)|/d", "", false),
            ("/a\\d", "/a", false),
        ] {
            assert_eq!(prefix(pattern), (expected.into(), literal), "{pattern}");
        }
    }

    #[test]
    fn repeated_parts_count_many_times() {
        for (pattern, expected) in
            [("/a", 2), ("(a?){1000}", 10_000), ("(x{9}){2,10}", 12 * 90), ("x{,}", 4), ("{", 1)]
        {
            assert_eq!(steps(pattern), expected, "{pattern}");
        }
        assert_eq!(steps(&"{99999999999}".repeat(10)), u64::MAX);
        let mut contexts = FileContexts::default();
        contexts.add("/(a?){1000}.*\ta:b:many\n/.*\ta:b:c\n");
        // The pattern that costs too much matches nothing.
        contexts.entries.reverse();
        assert_eq!(contexts.label("/aaa", FileType::Regular).unwrap(), b"a:b:c\0");
    }

    #[test]
    fn configuration() {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        assert_eq!(state(&tree).unwrap(), State::Off);
        tree.mkdir_all("/etc/selinux/strict/contexts/files", FILE).unwrap();
        for (text, expected) in [
            ("SELINUX=disabled\n", State::Off),
            ("#SELINUX=enforcing\n", State::Off),
            ("SELINUX=enforcing\nSELINUXTYPE=../../x\n", State::On("targeted".into())),
            ("SELINUX=permissive # x\nSELINUXTYPE=strict\n", State::On("strict".into())),
        ] {
            tree.write(CONFIG, text.as_bytes(), FILE).unwrap();
            assert_eq!(state(&tree).unwrap(), expected, "{text}");
        }
        assert!(FileContexts::read(&tree, "strict").unwrap().is_none());
        let base = "/etc/selinux/strict/contexts/files/file_contexts";
        tree.write(base, b"/.* a:b:c:d\n", FILE).unwrap();
        tree.write(format!("{base}.local"), b"/x e:f:g:h\n", FILE).unwrap();
        let contexts = FileContexts::read(&tree, "strict").unwrap().unwrap();
        assert_eq!(contexts.label("/x", FileType::Regular).unwrap(), b"e:f:g:h\0");
        let many = "/x a:b:c\n".repeat(POLICY_LINES + 1);
        tree.write(base, many.as_bytes(), FILE).unwrap();
        assert!(FileContexts::read(&tree, "strict").unwrap().is_none());
    }
}
