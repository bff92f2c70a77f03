//! The verbs that edit files, compared with coreutils on a mounted image: the same tree comes out,
//! and e2fsck is content.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use snf_fs::testing::Random;

use crate::cli_support::Guest;

/// An image that the kernel has mounted, until it is dropped.
pub(crate) struct Mounted(pub(crate) PathBuf, PathBuf);

impl Mounted {
    pub(crate) fn new(guest: &Guest) -> Self {
        let at = guest.dir.path().join("mounted");
        fs::create_dir_all(&at).unwrap();
        let status = Command::new("mount").arg("-oloop").arg(&guest.image).arg(&at).status();
        assert!(status.unwrap().success());
        Self(at, guest.image.clone())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..100 {
            if Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // A mount name space that has just ended may hold the loop device for a moment.
        for _ in 0..100 {
            let used = Command::new("losetup").arg("-j").arg(&self.1).output();
            if used.is_ok_and(|used| used.stdout.is_empty()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Runs a script, which may be longer than an argument can be.
pub(crate) fn shell(dir: &Path, script: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), script).unwrap();
    let output =
        Command::new("bash").arg("-eu").arg(file.path()).current_dir(dir).output().unwrap();
    let (said, errors) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}{errors}", String::from_utf8_lossy(said));
    String::from_utf8(output.stdout).unwrap()
}

/// Type, mode, owner, size, names, link text, content and extended attributes of everything.
pub(crate) fn seen(guest: &Guest) -> String {
    let mount = Mounted::new(guest);
    shell(
        &mount.0,
        "find . ! -type d -printf '%P|%y|%m|%U|%G|%s|%n|%l\\n' | sort
         find . -type d -printf '%P|%y|%m|%U|%G\\n' | sort
         find . -type f -exec sha256sum {} + | sort
         find . ! -name lost+found | sort | xargs -d '\\n' getfattr -hd -m- -e hex --",
    )
}

/// The edit `option value`, and what does the same from the root of the mounted image.
struct Step {
    option: &'static str,
    value: String,
    script: String,
}

fn step(option: &'static str, value: impl Into<String>, script: impl Into<String>) -> Step {
    Step { option, value: value.into(), script: script.into() }
}

/// Makes the edits on one image, runs the scripts on another, and compares.
#[track_caller]
fn agree(what: &str, prepare: &str, steps: &[Step]) {
    let (ours, theirs) = (Guest::debian(), Guest::debian());
    for guest in [&ours, &theirs] {
        shell(&Mounted::new(guest).0, prepare);
    }
    let options: Vec<&str> =
        steps.iter().flat_map(|step| [step.option, step.value.as_str()]).collect();
    ours.apply(&options).works();
    let scripts: Vec<&str> = steps.iter().map(|step| step.script.as_str()).collect();
    shell(&Mounted::new(&theirs).0, &format!("umask 022\n{}", scripts.join("\n")));
    ours.check();
    let (a, b) = (seen(&ours), seen(&theirs));
    let first = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    assert!(a == b, "{what}: {first:?}\n{options:?}");
}

#[test]
fn every_verb_does_what_coreutils_do() {
    let local = tempfile::tempdir().unwrap();
    let site = local.path().join("site");
    shell(
        local.path(),
        "mkdir -p site/a/b; echo hello > site/a/b/x; chmod 640 site/a/b/x; chmod 711 site/a
         mkdir t; echo 1 > t/x; chown 11:12 t/x; ln t/x t/y; mknod t/n c 1 5; mkfifo t/p; chmod 2750 t
         setfattr -n user.a -v b t/x || true; chown -h 7:8 t/p
         tar --xattrs --format=pax -czf t.tar.gz t
         setfattr -n user.k -v v site/a/b/x; setfattr -n user.d -v w site/a; ln site/a/b/x site/a/y
         setcap cap_net_raw+ep site/a/b/x 2>/dev/null || true
         ln -s b/x site/a/link; head -c 5000000 /dev/urandom > site/big; chmod 755 site/big",
    );
    let (site, archive) = (site.display(), local.path().join("t.tar.gz"));
    let archive = archive.display();
    let prepare = "mkdir -p srv/old/in; echo one > srv/old/in/x; ln srv/old/in/x srv/old/y
         ln -s in/x srv/old/s; setfattr -n user.k -v v srv/old/in/x; chown 5:6 srv/old/in/x
         printf 'A=0\\n#B=1\\nport 22\\nlast' > srv/conf; mknod srv/old/null c 1 3";
    agree(
        "every verb",
        prepare,
        &[
            step(
                "--mkdir",
                "/srv/a/b:owner=7,mode=2750",
                "mkdir -p srv/a/b; chown 7 srv/a/b; chmod 2750 srv/a/b",
            ),
            step(
                "--write",
                "/srv/n/t:text:some text",
                "mkdir -p srv/n; printf 'some text' > srv/n/t",
            ),
            step(
                "--write",
                format!("/srv/n/f:file:{site}/big:group=9,mode=0604"),
                format!("cp {site}/big srv/n/f; chgrp 9 srv/n/f; chmod 604 srv/n/f"),
            ),
            step(
                "--upload",
                format!("{site}/a/b/x:/srv/n/up"),
                format!("cp {site}/a/b/x srv/n/up; chmod 640 srv/n/up"),
            ),
            step(
                "--copy-in",
                format!("{site}:/srv/in"),
                format!("mkdir srv/in; cp -r --preserve=mode,links,xattr {site} srv/in"),
            ),
            step(
                "--tar-in",
                format!("{archive}:/srv/tar"),
                format!(
                    "mkdir srv/tar; tar --numeric-owner --xattrs --xattrs-include='*' -xpf {archive} -C srv/tar"
                ),
            ),
            step("--copy", "/srv/old:/srv/new", "cp -a srv/old srv/new"),
            step("--copy", "/srv/old:/srv/in", "cp -a srv/old srv/in"),
            step("--move", "/srv/new/y:/srv/in/moved", "mv srv/new/y srv/in/moved"),
            step("--move", "/srv/new/in:/srv/a", "mv srv/new/in srv/a"),
            step("--symlink", "../etc:/srv/l/e", "mkdir srv/l; ln -s ../etc srv/l/e"),
            step("--hardlink", "/srv/n/t:/srv/l/h", "ln srv/n/t srv/l/h"),
            step("--chmod", "4711:/srv/n/f", "chmod 4711 srv/n/f"),
            step("--chown", "3:4:/srv/n/f", "chown 3:4 srv/n/f"),
            step("--touch", "/srv/touched", "touch srv/touched"),
            step("--truncate", "/srv/old/y", ": > srv/old/y"),
            step("--append-line", "/srv/conf:more", "printf '\\nmore\\n' >> srv/conf"),
            step(
                "--edit",
                "/srv/conf:s/^(port) .*/\\1 2222/",
                "sed -E -i 's/^(port) .*/\\1 2222/' srv/conf",
            ),
            step("--set-line", "/srv/conf:A=5", "sed -i 's/^A=.*/A=5/' srv/conf"),
            step("--set-line", "/srv/conf:B=6", "sed -i 's/^#B=.*/B=6/' srv/conf"),
            step("--set-line", "/srv/conf:C=7", "echo C=7 >> srv/conf"),
            step("--delete", "/srv/in/site/a/b", "rm -r srv/in/site/a/b"),
            step("--delete", "/etc/*name", "rm etc/*name"),
        ],
    );
}

/// Files and directories below /srv, as a sequence of edits leaves them.
struct Model {
    dirs: Vec<String>,
    files: Vec<String>,
    next: usize,
    random: Random,
}

impl Model {
    fn pick(&mut self, dirs: bool) -> Option<String> {
        let from = if dirs { &self.dirs } else { &self.files };
        let at = self.random.below(from.len());
        from.get(at).cloned()
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        let dir = self.pick(true).unwrap();
        format!("{dir}/n{}", self.next)
    }

    /// All below `from` moves (or is there once more) below `to`.
    fn graft(&mut self, from: &str, to: &str, keep: bool) {
        for list in [&mut self.dirs, &mut self.files] {
            let below = |path: &String| *path == from || path.starts_with(&format!("{from}/"));
            let found: Vec<String> = list.iter().filter(|path| below(path)).cloned().collect();
            if !keep {
                list.retain(|path| !below(path));
            }
            list.extend(found.iter().map(|path| format!("{to}{}", &path[from.len()..])));
        }
    }

    fn drop_all(&mut self, path: &str) {
        let below = |other: &String| *other == path || other.starts_with(&format!("{path}/"));
        self.dirs.retain(|other| !below(other));
        self.files.retain(|other| !below(other));
    }

    fn step(&mut self) -> Step {
        let new = self.fresh();
        let file = self.pick(false);
        let dir = self.pick(true).unwrap();
        let number = self.random.below(1000);
        let some_dir = if dir == "/srv" { None } else { Some(dir) };
        match (self.random.below(13), file, some_dir) {
            (0, ..) => {
                self.dirs.push(new.clone());
                step("--mkdir", &new, format!("mkdir .{new}"))
            }
            (1, Some(file), _) => {
                let long = "long ".repeat(number * 20);
                step("--write", format!("{file}:text:{long}"), format!("printf '{long}' > .{file}"))
            }
            (2, Some(file), _) => {
                self.graft(&file, &new, false);
                step("--move", format!("{file}:{new}"), format!("mv -T .{file} .{new}"))
            }
            (3, Some(file), _) => {
                self.graft(&file, &new, true);
                step("--hardlink", format!("{file}:{new}"), format!("ln .{file} .{new}"))
            }
            (4, Some(file), _) => {
                self.graft(&file, &new, true);
                step("--copy", format!("{file}:{new}"), format!("cp -aT .{file} .{new}"))
            }
            (5, _, Some(dir)) if !new.starts_with(&format!("{dir}/")) => {
                self.graft(&dir, &new, true);
                step("--copy", format!("{dir}:{new}"), format!("cp -aT .{dir} .{new}"))
            }
            (6, _, Some(dir)) if !new.starts_with(&format!("{dir}/")) => {
                self.graft(&dir, &new, false);
                step("--move", format!("{dir}:{new}"), format!("mv -T .{dir} .{new}"))
            }
            (7, Some(file), _) => {
                let mode = format!("{:04o}", number & 0o777);
                step("--chmod", format!("{mode}:{file}"), format!("chmod {mode} .{file}"))
            }
            (8, Some(path), _) => {
                step("--chown", format!("{number}:7:{path}"), format!("chown {number}:7 .{path}"))
            }
            // Directories stay root's: in another user's directory, ours refuses files with
            // several names (a later step may make some).
            (8, None, Some(path)) => {
                step("--chown", format!("0:{number}:{path}"), format!("chown 0:{number} .{path}"))
            }
            (9, Some(file), _) => step(
                "--append-line",
                format!("{file}:x{number}"),
                // The last line may have no end.
                format!(
                    "[ -z \"$(tail -c1 .{file})\" ] || echo >> .{file}; echo x{number} >> .{file}"
                ),
            ),
            (10, Some(file), _) if number < 500 => {
                self.drop_all(&file);
                step("--delete", &file, format!("rm .{file}"))
            }
            (10, _, Some(dir)) => {
                self.drop_all(&dir);
                step("--delete", &dir, format!("rm -r .{dir}"))
            }
            (11, Some(file), _) => step(
                "--edit",
                format!("{file}:s/[0-4]+/<&>/g"),
                format!(
                    "sed -E 's/[0-4]+/<&>/g' .{file} > /tmp/$$; cat /tmp/$$ > .{file}; rm /tmp/$$"
                ),
            ),
            (12, ..) => {
                step("--symlink", format!("x{number}:{new}"), format!("ln -s x{number} .{new}"))
            }
            _ => {
                self.files.push(new.clone());
                step(
                    "--write",
                    format!("{new}:text:new {number}"),
                    format!("printf 'new {number}' > .{new}"),
                )
            }
        }
    }
}

/// Sequences of edits that nobody thought of. 200 of them take about two minutes: they run for as
/// long as the harnesses do (`SNF_FUZZ_SECONDS`), and three of them always.
#[test]
fn random_sequences_agree() {
    let seconds = std::env::var("SNF_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(5));
    for seed in 1..=200 {
        let mut model = Model {
            dirs: vec!["/srv".to_owned()],
            files: Vec::new(),
            next: 0,
            random: Random(seed),
        };
        let mut steps: Vec<Step> = (0..40).map(|_| model.step()).collect();
        // A file that is written twice in a row is an error.
        let path = |step: &Step| step.value.split(':').next().map(str::to_owned);
        steps.dedup_by(|b, a| a.option == "--write" && b.option == "--write" && path(a) == path(b));
        agree(&format!("seed {seed}"), "mkdir -p srv", &steps);
        if seed >= 3 && Instant::now() > until {
            println!("{seed} sequences");
            return;
        }
    }
}
