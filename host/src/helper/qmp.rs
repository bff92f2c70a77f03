//! As much of QEMU's monitor protocol (QMP) as saving a VM and waking it takes.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use crate::node::cancel::Cancel;

/// Longest message of QEMU's; the greeting has some hundred bytes.
const LIMIT: usize = 64 << 10;
/// How often a wait looks whether it was asked to stop.
const STEP: Duration = Duration::from_millis(100);
/// Between two questions whether something is done.
const NAP: Duration = Duration::from_millis(2);

/// A connection to the monitor of one QEMU.
pub(super) struct Qmp<'a> {
    stream: UnixStream,
    heard: Vec<u8>,
    deadline: Instant,
    cancel: &'a Cancel,
    /// QEMU has said that the VM does not run any more.
    stopped: bool,
}

impl<'a> Qmp<'a> {
    /// Takes up the connection; everything that is asked for must be answered before the deadline.
    pub(super) fn open(
        stream: UnixStream,
        deadline: Instant,
        cancel: &'a Cancel,
    ) -> Result<Self, String> {
        stream.set_read_timeout(Some(STEP)).map_err(|e| e.to_string())?;
        let mut qmp = Self { stream, heard: Vec::new(), deadline, cancel, stopped: false };
        let greeting = qmp.message()?;
        if greeting.get("QMP").is_none() {
            return Err("QEMU's monitor did not greet".to_owned());
        }
        qmp.ask("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Has a command done and returns its answer.
    pub(super) fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        self.send(command, arguments, None)
    }

    /// Gives QEMU a descriptor, under a name.
    pub(super) fn give(&mut self, name: &str, fd: BorrowedFd<'_>) -> Result<(), String> {
        self.send("getfd", &json!({ "fdname": name }), Some(fd)).map(drop)
    }

    /// Asks a question until the answer's `status` is one of the two.
    pub(super) fn wait_for(&mut self, question: &str, good: &str, bad: &str) -> Result<(), String> {
        loop {
            let answer = self.ask(question, &json!({}))?;
            match answer.get("status").and_then(Value::as_str) {
                Some(status) if status == good => return Ok(()),
                Some(status) if status == bad => {
                    let why = answer.get("error-desc").and_then(Value::as_str);
                    return Err(format!("QEMU says {bad}: {}", why.unwrap_or("no reason")));
                }
                _ => std::thread::sleep(NAP),
            }
        }
    }

    fn send(
        &mut self,
        command: &str,
        arguments: &Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value, String> {
        let fail = |error: io::Error| format!("cannot talk to QEMU's monitor: {error}");
        let text = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        match fd {
            None => self.stream.write_all(text.as_bytes()).map_err(fail)?,
            Some(fd) => {
                let fds = [fd];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&fds));
                let bytes = [IoSlice::new(text.as_bytes())];
                let sent = sendmsg(&self.stream, &bytes, &mut control, SendFlags::NOSIGNAL)
                    .map_err(|e| fail(e.into()))?;
                self.stream.write_all(&text.as_bytes()[sent..]).map_err(fail)?;
            }
        }
        loop {
            let mut answer = self.message()?;
            if let Some(error) = answer.get("error") {
                let why = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(format!("QEMU refuses {command}: {why}"));
            }
            // The other messages are events.
            if let Some(answer) = answer.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Whether QEMU has stopped the VM: an error of KVM does that. Does not wait, and takes a
    /// monitor that talks nonsense for a silent one.
    pub(super) fn has_stopped(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = rustix::net::recv(&self.stream, &mut buffer[..], RecvFlags::DONTWAIT);
        if let Ok((count, _)) = read
            && self.heard.len() <= LIMIT
        {
            self.heard.extend_from_slice(&buffer[..count]);
        }
        while let Some(Ok(_)) = self.heard_message() {}
        self.stopped
    }

    /// The first whole message of those that were heard.
    fn heard_message(&mut self) -> Option<Result<Value, String>> {
        let end = self.heard.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.heard.drain(..=end).collect();
        let message = serde_json::from_slice::<Value>(&line);
        if let Ok(message) = &message
            && message.get("event").and_then(Value::as_str) == Some("STOP")
        {
            self.stopped = true;
        }
        Some(message.map_err(|e| format!("QEMU's monitor talks nonsense: {e}")))
    }

    fn message(&mut self) -> Result<Value, String> {
        loop {
            if let Some(message) = self.heard_message() {
                return message;
            }
            if self.heard.len() > LIMIT {
                return Err(format!("QEMU's monitor said more than {LIMIT} bytes at once"));
            }
            self.cancel.check().map_err(|e| e.to_string())?;
            if Instant::now() >= self.deadline {
                return Err("QEMU's monitor did not answer in time".to_owned());
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("QEMU ended".to_owned()),
                Ok(count) => self.heard.extend_from_slice(&buffer[..count]),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(format!("cannot hear QEMU's monitor: {e}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says these lines to whoever connects, one after each line that comes.
    fn monitor(lines: &'static [&'static str]) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            for line in lines {
                theirs.write_all(line.as_bytes()).unwrap();
                let mut byte = [0];
                while theirs.read(&mut byte).unwrap_or(0) == 1 && byte != *b"\n" {}
            }
        });
        ours
    }

    fn open(stream: UnixStream, cancel: &Cancel) -> Result<Qmp<'_>, String> {
        Qmp::open(stream, Instant::now() + Duration::from_secs(20), cancel)
    }

    #[test]
    fn asks_waits_and_tells_refusals() {
        let cancel = Cancel::new();
        let mut qmp = open(
            monitor(&[
                "{\"QMP\": {}}\r\n",
                "{\"return\": {}}\r\n",
                "{\"event\": \"STOP\"}\r\n{\"return\": {\"status\": \"active\"}}\r\n",
                "{\"return\": {\"status\": \"completed\"}}\r\n",
                "{\"error\": {\"desc\": \"no such thing\"}}\r\n",
                "{\"return\": {\"status\": \"failed\", \"error-desc\": \"disk full\"}}\r\n",
            ]),
            &cancel,
        )
        .unwrap();
        qmp.wait_for("query-migrate", "completed", "failed").unwrap();
        assert!(qmp.ask("cont", &json!({})).unwrap_err().contains("cont: no such thing"));
        let error = qmp.wait_for("query-migrate", "completed", "failed").unwrap_err();
        assert!(error.contains("disk full"), "{error}");
        assert!(qmp.ask("stop", &json!({})).is_err(), "it has ended");
        assert!(qmp.has_stopped(), "an event among the answers");
    }

    #[test]
    fn a_vm_that_qemu_stops_is_noticed_without_waiting() {
        let cancel = Cancel::new();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"QMP\": {}}\n{\"return\": {}}\n").unwrap();
        let mut qmp = open(ours, &cancel).unwrap();
        assert!(!qmp.has_stopped());
        theirs.write_all(b"{\"event\": \"RESUME\"}\n{\"event\": \"ST").unwrap();
        assert!(!qmp.has_stopped());
        theirs.write_all(b"OP\"}\n").unwrap();
        assert!(qmp.has_stopped());
        drop(theirs);
        assert!(qmp.has_stopped());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"QMP\": {}}\n{\"return\": {}}\n<?xml?>\n").unwrap();
        assert!(!open(ours, &cancel).unwrap().has_stopped());
    }

    #[test]
    fn nonsense_silence_and_signals_end() {
        let cancel = Cancel::new();
        for (lines, words) in [
            (&["{}\n"][..], "did not greet"),
            (&["<?xml?>\n"], "nonsense"),
            (&["{\"QMP\": {}}\n"], "QEMU ended"),
        ] {
            let error = open(monitor(lines), &cancel).map(drop).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
        let error = open(ours, &cancel).map(drop).unwrap_err();
        assert!(error.contains("more than"), "{error}");
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Qmp::open(ours, Instant::now(), &cancel).map(drop).unwrap_err();
        assert!(error.contains("in time"), "{error}");
        cancel.request(15);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(open(ours, &cancel).is_err());
    }
}
