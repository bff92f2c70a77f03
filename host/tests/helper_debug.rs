//! HELPER_DEBUG for real: the VM that failed stays up, its shell answers, and nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod vm_support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use snf_image_host::helper::{HelperConfig, HelperError, HelperReport, HelperSink, MonitorMessage};

use vm_support::*;

/// Attaches as the warning says, in a thread, and talks.
#[derive(Default)]
struct Person {
    heard: Heard,
    talk: Option<std::thread::JoinHandle<Vec<String>>>,
    socket: Option<PathBuf>,
}

impl HelperSink for Person {
    fn console(&mut self, line: &str) {
        self.heard.console(line);
    }
    fn monitor(&mut self, message: MonitorMessage) {
        self.heard.monitor(message);
    }
    fn warning(&mut self, text: &str) {
        self.heard.warning(text);
        let address = text.split("UNIX-CONNECT:").nth(1).unwrap();
        let socket = PathBuf::from(address.split(' ').next().unwrap());
        self.socket = Some(socket.clone());
        self.talk = Some(std::thread::spawn(move || talk(&socket)));
    }
}

const COMMANDS: [&str; 11] = [
    "help",
    "result",
    "disks",
    "partitions",
    "ls /etc",
    "cat /etc/hostname",
    "stat /etc/shadow",
    "dmesg",
    "cat /nothing",
    "use vdz9",
    "frob",
];

fn talk(socket: &Path) -> Vec<String> {
    let mode = fs::metadata(socket.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else may attach");
    let mut stream = UnixStream::connect(socket).unwrap();
    // Words of one side are lost before the other listens: empty lines until the prompt comes.
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let limit = Instant::now() + Duration::from_secs(120);
    let mut heard = Vec::new();
    while !heard.ends_with(b"> ") {
        assert!(Instant::now() < limit, "no prompt");
        stream.write_all(b"\n").unwrap();
        let mut buffer = [0; 4096];
        if let Ok(count) = stream.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
        }
    }
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut answers = Vec::new();
    for command in COMMANDS {
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        answers.push(answer(&mut stream));
    }
    // QEMU forgets what it has not read from somebody who has left.
    stream.write_all(b"poweroff\n").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"power off"));
    answers
}

fn answer(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\n> ") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    println!("{text}");
    text
}

fn run_with(person: &mut Person, rules: &str) -> Result<HelperReport, HelperError> {
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let before = fs::read(&path).unwrap();
    let config = HelperConfig { debug: true, ..config(helper()) };
    let result = run_into(&config, open(&path), rules, person);
    if result.is_err() {
        assert!(before == fs::read(&path).unwrap(), "the disk has changed");
    }
    assert_no_children();
    result
}

#[test]
fn after_a_failure_the_shell_answers_and_poweroff_ends_it() {
    let mut person = Person::default();
    let bad = rules("/dev/vda", "x").replace("{\"", "{\"USERS\":\"mallory\",\"");
    let bad = format!("{bad}export SNF_IMAGE_PASSWD=x\n");
    let error = run_with(&mut person, &bad).unwrap_err();
    assert!(matches!(&error, HelperError::Failed(text) if text.contains("mallory")), "{error}");
    let answers = person.talk.take().unwrap().join().unwrap();
    let expected = [
        "poweroff",
        "mallory",
        "vda ",
        "ext4",
        " os-release\n",
        "template\n",
        "mtime ",
        "Linux version",
        "error: ",
        "error: no partition vdz9; there is vda",
        "error: no command frob",
    ];
    for ((command, answer), words) in COMMANDS.iter().zip(&answers).zip(expected) {
        assert!(answer.contains(words), "{command}: {answer}");
    }
    assert!(!person.socket.unwrap().exists());
}

#[test]
fn a_run_that_succeeds_does_not_wait() {
    let mut person = Person::default();
    let started = Instant::now();
    run_with(&mut person, &rules("/dev/vda", "fine.example.org")).unwrap();
    assert!(person.talk.is_none());
    println!("{:?}", started.elapsed());
}
