//! Our evaluation of `sshd_config` against `sshd -T -C user=…` of Debian 12, on generated
//! configurations: includes, quotes, conditions of `Match`, lines that keep sshd from starting.
//! Needs root and the tree that `cargo xtask test` prepares.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use snf_fs::{Attributes, MemoryFs, Tree};
use snf_image::guest::passwd::{find_user, groups_of};
use snf_image::guest::sshd::{SshdConfig, Who};
use snf_image::random::Entropy;

use crate::support::{guest_tools, scratch};

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n\
    ann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n";
const GROUP: &str = "root:x:0:\nann:x:1000:\nbob:x:1001:\nsudo:x:27:ann\nadm:x:4:bob,ann\n\
    nogroup:x:65534:\n";
const USERS: [&str; 3] = ["root", "ann", "bob"];
const CONFIGURATIONS: usize = 300;

/// Files of `/etc/ssh`: name and text.
type Files = Vec<(String, String)>;

struct Maker(Entropy);

impl Maker {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.below(of.len() as u32) as usize]
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.0.below(n) == 0
    }

    /// A list of words, now and then in quotes.
    fn words(&mut self, of: &[&str], most: u32) -> String {
        let count = 1 + self.0.below(most);
        let words: Vec<String> = (0..count)
            .map(|_| {
                let word = self.pick(of).to_owned();
                match self.0.below(8) {
                    0 => format!("\"{word}\""),
                    1 => format!("'{word}'"),
                    _ => word,
                }
            })
            .collect();
        words.join(self.pick(&[" ", "  ", "\t"]))
    }

    fn setting(&mut self, under_match: bool) -> String {
        let yes_no = self.pick(&["yes", "no"]);
        let (keyword, value) = match self.0.below(if under_match { 13 } else { 17 }) {
            0 | 1 => {
                let values =
                    ["yes", "no", "prohibit-password", "without-password", "forced-commands-only"];
                ("PermitRootLogin", self.pick(&values).to_owned())
            }
            2 => ("PubkeyAuthentication", yes_no.to_owned()),
            3 => ("PasswordAuthentication", yes_no.to_owned()),
            4 => ("KbdInteractiveAuthentication", yes_no.to_owned()),
            5 => ("ChallengeResponseAuthentication", yes_no.to_owned()),
            6 | 7 => {
                let values =
                    ["none", ".ssh/keys", "%h/k", "/etc/keys/%u", "/etc/all keys", "a\\ b"];
                ("AuthorizedKeysFile", self.words(&values, 3))
            }
            8 => ("AuthorizedKeysCommand", self.pick(&["none", "/bin/true"]).to_owned()),
            9 => {
                let values =
                    ["publickey", "password", "publickey,password", "keyboard-interactive"];
                ("AuthenticationMethods", self.words(&values, 2))
            }
            10 => (
                self.pick(&["AllowUsers", "DenyUsers"]),
                self.words(&["ann", "a*", "bob", "r??t"], 3),
            ),
            11 => {
                (self.pick(&["AllowGroups", "DenyGroups"]), self.words(&["sudo", "a*", "root"], 2))
            }
            12 => ("X11Forwarding", yes_no.to_owned()),
            13 => ("UsePAM", yes_no.to_owned()),
            14 => ("StrictModes", yes_no.to_owned()),
            15 => ("HostKey", self.pick(&["/mnt/k1", "/mnt/k2"]).to_owned()),
            _ => ("LogLevel", "INFO".to_owned()),
        };
        let keyword = match self.0.below(4) {
            0 => keyword.to_ascii_uppercase(),
            1 => keyword.to_ascii_lowercase(),
            _ => keyword.to_owned(),
        };
        let start = self.pick(&["", "", "", " ", "\t", "    "]);
        let gap = self.pick(&[" ", " ", "\t", "=", " = ", "  "]);
        let end = self.pick(&["", "", "", " ", " # why", "\t#", "\r"]);
        format!("{start}{keyword}{gap}{value}{end}\n")
    }

    fn condition(&mut self) -> String {
        let one = |maker: &mut Self| match maker.0.below(7) {
            0 | 1 => format!(
                "User {}",
                maker.pick(&["ann", "a*,!ann", "root,b*", "\"ann,bob\"", "!bob,*"])
            ),
            2 | 3 => format!("Group {}", maker.pick(&["sudo", "adm,!sudo", "*", "root", "a??"])),
            4 => format!("Address {}", maker.pick(&["10.0.0.0/8", "*"])),
            5 => "User=bob".to_owned(),
            _ => format!("host {}", maker.pick(&["*.example.org", "x"])),
        };
        if self.one_in(6) {
            return "all".to_owned();
        }
        let mut text = one(self);
        if self.one_in(3) {
            let _ = write!(text, " {}", one(self));
        }
        text
    }

    /// A file of settings, with blocks of `Match`.
    fn file(&mut self, includes: &[&str]) -> String {
        let mut text = String::new();
        let mut under_match = false;
        for _ in 0..2 + self.0.below(10) {
            match self.0.below(12) {
                0 | 1 => {
                    let _ = writeln!(text, "Match {}", self.condition());
                    under_match = true;
                }
                2 if !includes.is_empty() => {
                    let _ = writeln!(text, "Include {}", self.pick(includes));
                }
                3 => text.push_str(self.pick(&["# note\n", "\n", "  \t\n"])),
                _ => {
                    let anywhere = self.one_in(40);
                    text.push_str(&self.setting(under_match && !anywhere));
                }
            }
        }
        if self.one_in(25) {
            let broken = [
                "PermitRootLogin maybe\n",
                "UsePAM\n",
                "PubkeyAuthentication yes no\n",
                "AllowUsers \"ann\n",
                "Match Colour red\n",
                "Match User ann all\n",
                "AuthorizedKeysCommand true\n",
                "Match\n",
            ];
            text.push_str(self.pick(&broken));
        }
        text
    }

    fn configuration(&mut self) -> Files {
        let includes = [
            "sshd_config.d/*.conf",
            "/etc/ssh/sshd_config.d/[12]*.conf",
            "more/a more/b",
            "none/*",
            "\"more/a\"",
        ];
        let mut text = String::from("HostKey /mnt/k1\n");
        if !self.one_in(10) {
            text.push_str("AuthorizedKeysCommandUser nobody\n");
        }
        text.push_str(&self.file(&includes));
        vec![
            ("sshd_config".into(), text),
            ("sshd_config.d/10-a.conf".into(), self.file(&["more/a"])),
            ("sshd_config.d/20-b.conf".into(), self.file(&[])),
            ("sshd_config.d/20-b.conf~".into(), "Broken\n".into()),
            ("more/a".into(), self.file(&["more/b"])),
            ("more/b".into(), self.file(&[])),
        ]
    }
}

/// Our answer, in the words of `sshd -T`.
fn ours(files: &Files, user: &str) -> Option<Vec<String>> {
    const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
    let mut tree = Tree::new(Box::new(MemoryFs::new()));
    for (name, text) in files {
        let path = format!("/etc/ssh/{name}");
        tree.mkdir_all(path.rsplit_once('/').unwrap().0, FILE).unwrap();
        tree.write(&path, text.as_bytes(), FILE).unwrap();
    }
    let config = SshdConfig::read(&tree).unwrap();
    if config.broken.is_some() {
        return None;
    }
    let found = find_user(PASSWD.as_bytes(), user.as_bytes()).unwrap();
    let groups = groups_of(GROUP.as_bytes(), &found.name, found.gid);
    let settings = config.settings(&Who { name: found.name, groups }, false);
    let text = |word: &Vec<u8>| String::from_utf8(word.clone()).unwrap();
    let join = |words: &[Vec<u8>]| words.iter().map(text).collect::<Vec<_>>().join(" ");
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    let root = match settings.root_login().name() {
        "prohibit-password" => "without-password",
        name => name,
    };
    let methods = match settings.authentication_methods() {
        [] => "any".to_owned(),
        lists => join(lists),
    };
    let command = settings.authorized_keys_command().unwrap_or(b"none").to_vec();
    let mut out = vec![
        format!("permitrootlogin {root}"),
        format!("pubkeyauthentication {}", yes_no(settings.pubkey())),
        format!("passwordauthentication {}", yes_no(settings.password())),
        format!("kbdinteractiveauthentication {}", yes_no(settings.kbd_interactive())),
        format!("usepam {}", yes_no(settings.use_pam())),
        format!("strictmodes {}", yes_no(settings.strict_modes())),
        format!("authorizedkeysfile {}", join(&settings.authorized_keys_file())),
        format!("authorizedkeyscommand {}", text(&command)),
        format!("authenticationmethods {methods}"),
    ];
    let names = ["allowusers", "denyusers", "allowgroups", "denygroups"];
    for (name, patterns) in names.into_iter().zip(settings.restrictions()) {
        out.extend(patterns.iter().map(|pattern| format!("{name} {}", text(pattern))));
    }
    out.extend(config.host_keys.iter().map(|path| format!("hostkey {}", text(path))));
    Some(sorted(out))
}

/// In one order, without doubles.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines.dedup();
    lines
}

/// The lines of `sshd -T` that we have an opinion about; `None` when sshd does not start.
fn theirs(directory: &Path) -> Option<Vec<String>> {
    if fs::read_to_string(directory.join("rc")).unwrap().trim() != "0" {
        return None;
    }
    let keywords = [
        "permitrootlogin",
        "pubkeyauthentication",
        "passwordauthentication",
        "kbdinteractiveauthentication",
        "usepam",
        "strictmodes",
        "authorizedkeysfile",
        "authorizedkeyscommand",
        "authenticationmethods",
        "allowusers",
        "denyusers",
        "allowgroups",
        "denygroups",
        "hostkey",
    ];
    let text = fs::read_to_string(directory.join("out")).unwrap();
    let lines = text.lines().filter(|line| {
        line.split_once(' ').is_some_and(|(keyword, _)| keywords.contains(&keyword))
    });
    Some(sorted(lines.map(str::to_owned).collect()))
}

#[test]
fn sshd_itself_says_the_same() {
    let directory = scratch();
    let work = directory.path();
    fs::write(work.join("passwd"), PASSWD).unwrap();
    fs::write(work.join("group"), GROUP).unwrap();
    fs::create_dir(work.join("keys")).unwrap();
    for key in ["k1", "k2"] {
        let path = work.join("keys").join(key);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&path)
            .status()
            .expect("this test needs ssh-keygen");
        assert!(made.success());
    }
    let mut maker = Maker(Entropy::seeded(19));
    let mut all = Vec::new();
    for n in 0..CONFIGURATIONS {
        let files = maker.configuration();
        let user = USERS[n % USERS.len()];
        let etc = work.join(format!("{n}"));
        for (name, text) in &files {
            fs::create_dir_all(etc.join(name).parent().unwrap()).unwrap();
            fs::write(etc.join(name), text).unwrap();
        }
        fs::write(etc.join("user"), user).unwrap();
        all.push((etc, files, user));
    }
    // A mount name space of its own: nothing of this is seen outside, or left after it.
    let script = r#"
        tree=$1 work=$2
        mount --bind "$work/passwd" "$tree/etc/passwd"
        mount --bind "$work/group" "$tree/etc/group"
        mount --bind "$work/keys" "$tree/mnt"
        mount -t tmpfs tmpfs "$tree/run" && mkdir "$tree/run/sshd"
        mount --bind /dev "$tree/dev"
        for etc in "$work"/[0-9]*; do
            mount --bind "$etc" "$tree/etc/ssh"
            rc=0
            chroot "$tree" /usr/sbin/sshd -T -C "user=$(cat "$etc/user")" \
                > "$etc/out" 2> "$etc/err" || rc=$?
            echo $rc > "$etc/rc"
            umount "$tree/etc/ssh"
        done"#;
    let ran = Command::new("unshare")
        .args(["-m", "sh", "-ec", script, "sh"])
        .args([&guest_tools(), work])
        .status()
        .unwrap();
    assert!(ran.success(), "the name space could not be made: this test needs root");
    let (mut started, mut wrong) = (0, String::new());
    for (etc, files, user) in &all {
        let (ours, theirs) = (ours(files, user), theirs(etc));
        started += usize::from(theirs.is_some());
        if ours != theirs {
            let err = fs::read_to_string(etc.join("err")).unwrap();
            let _ =
                writeln!(wrong, "{user} in {files:#?}\nours {ours:#?}\ntheirs {theirs:#?}\n{err}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(started > CONFIGURATIONS / 3, "only {started} configurations are valid");
    assert!(started < CONFIGURATIONS, "none keeps sshd from starting");
}
