//! Boots an image under TCG and talks to its serial console as a person would.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A running guest. Dropped, it is killed; its disk is never changed (`snapshot=on`).
pub struct Console {
    child: Child,
    stdin: ChildStdin,
    output: Receiver<Vec<u8>>,
    seen: String,
    counter: u32,
}

impl Console {
    /// Starts the image and waits for its login prompt.
    pub fn boot(image: &Path) -> Self {
        Self::boot_with(image, "raw", "none")
    }

    /// The same for an image of this format.
    pub fn boot_as(image: &Path, format: &str) -> Self {
        Self::boot_with(image, format, "none")
    }

    /// The same with a network card, as QEMU's option `-nic` has it.
    pub fn boot_with(image: &Path, format: &str, nic: &str) -> Self {
        let mut child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", "max", "-m", "512", "-display", "none"])
            .args(["-serial", "stdio", "-monitor", "none", "-no-reboot", "-nic", nic])
            .args(["-device", "virtio-rng-pci", "-drive"])
            .arg(format!(
                "file={},format={format},if=virtio,snapshot=on,cache=unsafe",
                image.display().to_string().replace(',', ",,")
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu-system-x86_64 starts");
        let mut stdout = child.stdout.take().unwrap();
        let stdin = child.stdin.take().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n) = stdout.read(&mut buf) {
                if n == 0 || sender.send(buf[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut console = Self { child, stdin, output, seen: String::new(), counter: 0 };
        console.expect(&["login: "], 300);
        console
    }

    /// Waits until one of the texts appears; returns which, and forgets everything up to it.
    fn expect(&mut self, texts: &[&str], seconds: u64) -> usize {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let first = texts
                .iter()
                .enumerate()
                .filter_map(|(index, text)| self.seen.find(text).map(|at| (at, text.len(), index)))
                .min();
            if let Some((at, length, index)) = first {
                self.seen.drain(..at + length);
                return index;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {texts:?} on the console within {seconds} s; seen:\n{}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("QEMU ended while waiting for {texts:?}; seen:\n{}", self.seen)
                }
            }
        }
    }

    fn send(&mut self, line: &str) {
        self.stdin.write_all(line.as_bytes()).unwrap();
        self.stdin.write_all(b"\n").unwrap();
        self.stdin.flush().unwrap();
    }

    /// Tries to log in at a login prompt; whether it worked. After a failure the console is at
    /// the login prompt again, after success at a quiet shell.
    pub fn login(&mut self, user: &str, password: &str) -> bool {
        self.send(user);
        self.expect(&["assword: "], 60);
        // login(1) flushes its input after the prompt.
        std::thread::sleep(Duration::from_millis(300));
        self.send(password);
        let ok = self.expect(&["Login incorrect", "# ", "$ "], 90) != 0;
        if ok {
            self.send("stty -echo; PS1=; PS2=; bind 'set enable-bracketed-paste off' 2>/dev/null");
            self.run("true");
        } else {
            self.expect(&["login: "], 60);
        }
        ok
    }

    /// Runs a command in the shell: its exit status and what it printed.
    pub fn run(&mut self, command: &str) -> (i32, String) {
        self.counter += 1;
        let n = self.counter;
        // The marker is put together by the shell, so that an echo of the command is not it.
        self.send(&format!("echo 'BEG''IN{n}:'; {{ {command}\n}} 2>&1; echo \"E\"\"ND{n}:$?:\""));
        self.expect(&[&format!("BEGIN{n}:")], 120);
        let end = format!("END{n}:");
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self.seen.contains(&end)
            || !self.seen[self.seen.find(&end).unwrap() + end.len()..].contains(':')
        {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self
                .output
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("`{command}` did not end; seen:\n{}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        let at = self.seen.find(&end).unwrap();
        let said = self.seen[..at].replace('\r', "").trim_matches('\n').to_owned();
        let rest = self.seen[at + end.len()..].to_owned();
        let status = rest.split(':').next().unwrap().parse().unwrap();
        self.seen.clear();
        (status, said)
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&mut self, command: &str) -> String {
        let (status, said) = self.run(command);
        assert_eq!(status, 0, "`{command}` in the guest: {said}");
        said
    }

    /// Leaves the shell; the login prompt is back.
    pub fn logout(&mut self) {
        self.send("exit");
        self.expect(&["login: "], 60);
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
