//! As much of QEMU's monitor protocol (QMP) as saving a VM and waking it takes.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use crate::limits::QMP_BYTES;
use crate::node::cancel::{Cancel, Cancelled};

/// How often a wait looks whether it was asked to stop.
const STEP: Duration = Duration::from_millis(100);
/// Between two questions whether something is done.
const NAP: Duration = Duration::from_millis(2);

/// Why the monitor does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// Nothing can be said to it.
    #[error("cannot talk to QEMU's monitor")]
    Talk(#[source] io::Error),
    /// It cannot be heard.
    #[error("cannot hear QEMU's monitor")]
    Hear(#[source] io::Error),
    /// Its words are no message.
    #[error("QEMU's monitor talks nonsense")]
    Nonsense(#[source] serde_json::Error),
    /// Its first message is another.
    #[error("QEMU's monitor did not greet")]
    NoGreeting,
    /// A message without an end.
    #[error("QEMU's monitor said more than {QMP_BYTES} bytes at once")]
    TooLong,
    /// QEMU takes longer than it may.
    #[error("QEMU's monitor did not answer in time")]
    Late,
    /// QEMU is gone.
    #[error("QEMU ended")]
    Ended,
    /// It does not do a command.
    #[error("QEMU refuses {command}: {why}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        why: String,
    },
    /// It did a command badly.
    #[error("QEMU says {status}: {why}")]
    Failed {
        /// The status that it gives.
        status: String,
        /// QEMU's words.
        why: String,
    },
    /// A signal came.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A connection to the monitor of one QEMU.
pub struct Qmp<'a> {
    stream: UnixStream,
    heard: Vec<u8>,
    deadline: Instant,
    cancel: &'a Cancel,
    /// QEMU has said that the VM does not run any more.
    stopped: bool,
}

impl<'a> Qmp<'a> {
    /// Takes up the connection; everything that is asked for must be answered before the deadline.
    ///
    /// # Errors
    ///
    /// QEMU is gone, late, or says something else than the protocol.
    pub fn open(
        stream: UnixStream,
        deadline: Instant,
        cancel: &'a Cancel,
    ) -> Result<Self, QmpError> {
        stream.set_read_timeout(Some(STEP)).map_err(QmpError::Hear)?;
        let mut qmp = Self { stream, heard: Vec::new(), deadline, cancel, stopped: false };
        let greeting = qmp.message()?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::NoGreeting);
        }
        qmp.ask("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Has a command done and returns its answer.
    ///
    /// # Errors
    ///
    /// As of [`Qmp::open`], and QEMU's refusal.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        self.send(command, arguments, None)
    }

    /// Gives QEMU a descriptor, under a name.
    ///
    /// # Errors
    ///
    /// As of [`Qmp::ask`].
    pub fn give(&mut self, name: &str, fd: BorrowedFd<'_>) -> Result<(), QmpError> {
        self.send("getfd", &json!({ "fdname": name }), Some(fd)).map(drop)
    }

    /// Asks a question until the answer's `status` is one of the two.
    ///
    /// # Errors
    ///
    /// As of [`Qmp::ask`], and the bad status.
    pub fn wait_for(&mut self, question: &str, good: &str, bad: &str) -> Result<(), QmpError> {
        loop {
            let answer = self.ask(question, &json!({}))?;
            match answer.get("status").and_then(Value::as_str) {
                Some(status) if status == good => return Ok(()),
                Some(status) if status == bad => {
                    let why = answer.get("error-desc").and_then(Value::as_str);
                    let why = why.unwrap_or("no reason").to_owned();
                    return Err(QmpError::Failed { status: bad.to_owned(), why });
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
    ) -> Result<Value, QmpError> {
        let text = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        match fd {
            None => self.stream.write_all(text.as_bytes()).map_err(QmpError::Talk)?,
            Some(fd) => {
                let fds = [fd];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&fds));
                let bytes = [IoSlice::new(text.as_bytes())];
                let sent = sendmsg(&self.stream, &bytes, &mut control, SendFlags::NOSIGNAL)
                    .map_err(|e| QmpError::Talk(e.into()))?;
                self.stream.write_all(&text.as_bytes()[sent..]).map_err(QmpError::Talk)?;
            }
        }
        loop {
            let mut answer = self.message()?;
            if let Some(error) = answer.get("error") {
                let why = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                let (command, why) = (command.to_owned(), why.to_owned());
                return Err(QmpError::Refused { command, why });
            }
            // The other messages are events.
            if let Some(answer) = answer.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Whether QEMU has stopped the VM: an error of KVM does that. Does not wait, and takes a
    /// monitor that talks nonsense for a silent one.
    pub fn has_stopped(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = rustix::net::recv(&self.stream, &mut buffer[..], RecvFlags::DONTWAIT);
        if let Ok((count, _)) = read
            && self.heard.len() <= QMP_BYTES
        {
            self.heard.extend_from_slice(&buffer[..count]);
        }
        while let Some(Ok(_)) = self.heard_message() {}
        self.stopped
    }

    /// The first whole message of those that were heard.
    fn heard_message(&mut self) -> Option<Result<Value, QmpError>> {
        let end = self.heard.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.heard.drain(..=end).collect();
        if end > QMP_BYTES {
            return Some(Err(QmpError::TooLong));
        }
        let message = serde_json::from_slice::<Value>(&line);
        if let Ok(message) = &message
            && message.get("event").and_then(Value::as_str) == Some("STOP")
        {
            self.stopped = true;
        }
        Some(message.map_err(QmpError::Nonsense))
    }

    fn message(&mut self) -> Result<Value, QmpError> {
        loop {
            if let Some(message) = self.heard_message() {
                return message;
            }
            if self.heard.len() > QMP_BYTES {
                return Err(QmpError::TooLong);
            }
            self.cancel.check()?;
            if Instant::now() >= self.deadline {
                return Err(QmpError::Late);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(QmpError::Ended),
                Ok(count) => self.heard.extend_from_slice(&buffer[..count]),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(QmpError::Hear(e)),
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

    fn open(stream: UnixStream, cancel: &Cancel) -> Result<Qmp<'_>, QmpError> {
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
        assert!(
            qmp.ask("cont", &json!({})).unwrap_err().to_string().contains("cont: no such thing")
        );
        let error = qmp.wait_for("query-migrate", "completed", "failed").unwrap_err().to_string();
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
            let error = open(monitor(lines), &cancel).map(drop).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
        let error = open(ours, &cancel).map(drop).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Qmp::open(ours, Instant::now(), &cancel).map(drop).unwrap_err().to_string();
        assert!(error.contains("in time"), "{error}");
        cancel.request(15);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(open(ours, &cancel).is_err());
    }
}
