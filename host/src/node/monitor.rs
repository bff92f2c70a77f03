//! Progress messages: one JSON object a line, to the PROGRESS_MONITOR program or into the log.
//!
//! These messages are for the instance's owner: they tell the steps and the failures, and nothing
//! about the node. A monitor that dies or does not listen stops nothing.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use snf_storage::Program;

use crate::node::log;

/// Position messages come at most this often to a program, and much more rarely into a log.
const PROGRAM_INTERVAL: Duration = Duration::from_millis(500);
const LOG_INTERVAL: Duration = Duration::from_secs(15);
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// How long a program that does not read is waited for, and how long for its end.
const PATIENCE: Duration = Duration::from_secs(2);

enum Sink {
    Log,
    Program {
        program: Program,
        input: ChildStdin,
    },
    /// The program does not listen any more; the deployment goes on.
    Dead(Option<Program>),
}

/// The receiver of progress messages.
pub struct Monitor {
    sink: Sink,
    last_position: Option<Instant>,
    /// Whether the end was reached.
    complete: bool,
    /// The subject of positions: `type` and `disk` of their messages.
    about: (&'static str, Option<usize>),
}

impl Monitor {
    /// Messages into the log.
    pub fn to_log() -> Self {
        Self::with(Sink::Log)
    }

    fn with(sink: Sink) -> Self {
        Self { sink, last_position: None, complete: false, about: ("image-copy-progress", None) }
    }

    /// Has the positions be those of one of the instance's disks and not those of an image. They
    /// come from a process for each disk.
    #[must_use]
    pub fn about(mut self, kind: &'static str, disk: usize) -> Self {
        self.about = (kind, Some(disk));
        self
    }

    /// Messages to a program that is started with the instance's name as its argument. It ends when
    /// the calling thread does. When it cannot be started they go into the log.
    pub fn to_program(program: &Path, instance: &str) -> Self {
        let mut command = Command::new(program);
        command.arg(instance).stdin(Stdio::piped()).stdout(Stdio::null());
        let started = Program::spawn(&mut command, &[], &[]).and_then(|mut program| {
            let input = program.child().stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            // A pipe that is full must not stop us.
            rustix::io::ioctl_fionbio(&input, true)?;
            Ok(Sink::Program { program, input })
        });
        match started {
            Ok(sink) => Self::with(sink),
            Err(error) => {
                log::warning(&format!(
                    "cannot start the progress monitor {}: {error}; progress goes into this log",
                    program.display()
                ));
                Self::to_log()
            }
        }
    }

    fn send(&mut self, mut message: Value, must_arrive: bool) {
        if let Some(object) = message.as_object_mut() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            object.insert("timestamp".into(), json!(now.as_micros() as f64 / 1e6));
        }
        let line = snf_image::shown::json(&message.to_string());
        match &mut self.sink {
            Sink::Log => log::line(&format!("[MONITOR] {line}")),
            Sink::Dead(_) => {}
            Sink::Program { input, .. } => {
                if let Err(error) = write_line(input, &line, must_arrive) {
                    log::warning(&format!(
                        "the progress monitor does not listen any more ({error}); going on without it"
                    ));
                    if let Sink::Program { program, .. } =
                        std::mem::replace(&mut self.sink, Sink::Dead(None))
                    {
                        self.sink = Sink::Dead(Some(program));
                    }
                }
            }
        }
    }

    /// Something good to know.
    pub fn info(&mut self, text: &str) {
        self.send(json!({"type": "image-info", "messages": [text]}), true);
    }

    /// Why the deployment failed.
    pub fn error(&mut self, text: &str) {
        self.send(json!({"type": "image-error", "messages": [text]}), true);
    }

    /// How far the copy is, in bytes. Most calls send nothing.
    pub fn position(&mut self, position: u64, total: Option<u64>) {
        let Some(total) = total.filter(|total| *total > 0) else { return };
        let last = position >= total;
        if std::mem::replace(&mut self.complete, last) && last {
            return;
        }
        let position = position.min(total);
        if matches!(self.sink, Sink::Log) && io::stderr().is_terminal() {
            self.bar(position, total);
            return;
        }
        let interval = if matches!(self.sink, Sink::Log) { LOG_INTERVAL } else { PROGRAM_INTERVAL };
        let now = Instant::now();
        if !last {
            // The first interval begins with the copy, so that a short one is one line.
            let since = *self.last_position.get_or_insert(now);
            if now.duration_since(since) < interval {
                return;
            }
        }
        self.last_position = Some(now);
        let percent = (position as f64 / total as f64 * 10_000.0).round() / 100.0;
        let (kind, disk) = self.about;
        let mut message =
            json!({"type": kind, "position": position, "total": total, "progress": percent});
        if let (Some(disk), Some(object)) = (disk, message.as_object_mut()) {
            object.insert("disk".into(), json!(disk));
        }
        self.send(message, last);
    }

    /// Somebody watches: a bar that stays on its line.
    fn bar(&mut self, position: u64, total: u64) {
        const WIDTH: u64 = 40;
        let now = Instant::now();
        let last = position >= total;
        let soon = self.last_position.is_some_and(|at| now.duration_since(at) < BAR_INTERVAL);
        if soon && !last {
            return;
        }
        self.last_position = Some(now);
        let full = (u128::from(position) * u128::from(WIDTH) / u128::from(total.max(1))) as usize;
        let full = full.min(WIDTH as usize);
        let text = format!(
            "\r[{}{}] {:3.0} % of {} MiB{}",
            "=".repeat(full),
            " ".repeat(WIDTH as usize - full),
            position as f64 / total.max(1) as f64 * 100.0,
            total >> 20,
            if last { "\n" } else { "" }
        );
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// A task of the helper begins.
    pub fn task_start(&mut self, task: &str) {
        self.send(json!({"type": "image-helper", "subtype": "task-start", "task": task}), true);
    }

    /// A task of the helper ended.
    pub fn task_end(&mut self, task: &str) {
        self.send(json!({"type": "image-helper", "subtype": "task-end", "task": task}), true);
    }

    /// The helper warns.
    pub fn helper_warning(&mut self, text: &str) {
        self.send(json!({"type": "image-helper", "subtype": "warning", "messages": [text]}), true);
    }

    /// The helper failed.
    pub fn helper_error(&mut self, text: &str) {
        self.send(json!({"type": "image-helper", "subtype": "error", "messages": [text]}), true);
    }

    /// The helper failed, in the words of a program it ran.
    pub fn helper_stderr(&mut self, text: &str) {
        self.send(json!({"type": "image-helper", "subtype": "error", "stderr": text}), true);
    }
}

fn write_line(input: &mut ChildStdin, line: &str, must_arrive: bool) -> io::Result<()> {
    let bytes = [line.as_bytes(), b"\n"].concat();
    let limit = Instant::now() + PATIENCE;
    let mut written = 0;
    while written < bytes.len() {
        match input.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A position that nobody has time to read is out of date anyway.
                if written == 0 && !must_arrive {
                    return Ok(());
                }
                if Instant::now() >= limit {
                    return Err(io::Error::other("it does not read its standard input"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for Monitor {
    /// The program sees the end of its input and gets a moment to end.
    fn drop(&mut self) {
        let program = match std::mem::replace(&mut self.sink, Sink::Log) {
            Sink::Program { program, .. } => Some(program),
            Sink::Dead(program) => program,
            Sink::Log => None,
        };
        if let Some(mut program) = program {
            let _ = program.wait_until(Instant::now() + PATIENCE, &|| false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(dir: &Path, text: &str) -> std::path::PathBuf {
        let path = dir.join("monitor");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_program_gets_every_message() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let program = script(dir.path(), &format!("echo \"$1\" >{0}; cat >>{0}", out.display()));
        let mut monitor = Monitor::to_program(&program, "inst1");
        monitor.info("hello");
        monitor.position(1, Some(3));
        monitor.position(3, Some(3));
        monitor.task_start("MountImage");
        monitor.task_end("MountImage");
        monitor.helper_warning("w");
        monitor.helper_stderr("a\nb");
        monitor.error("bad");
        drop(monitor);
        let text = std::fs::read_to_string(&out).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("inst1"));
        let all: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(all.iter().all(|m| m["timestamp"].is_f64()));
        let mut seen = all.iter().map(|m| {
            let mut m = m.clone();
            m.as_object_mut().unwrap().remove("timestamp");
            m.to_string()
        });
        assert_eq!(seen.next().unwrap(), r#"{"messages":["hello"],"type":"image-info"}"#);
        assert_eq!(
            seen.next().unwrap(),
            r#"{"position":3,"progress":100.0,"total":3,"type":"image-copy-progress"}"#
        );
        assert_eq!(
            seen.next().unwrap(),
            r#"{"subtype":"task-start","task":"MountImage","type":"image-helper"}"#
        );
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn a_dead_or_deaf_monitor_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["exit 1", "exec sleep 60"] {
            let program = script(dir.path(), text);
            let started = Instant::now();
            let mut monitor = Monitor::to_program(&program, "x");
            for _ in 0..200 {
                monitor.info(&"x".repeat(1000));
            }
            drop(monitor);
            assert!(started.elapsed() < Duration::from_secs(20), "{text}");
        }
        Monitor::to_program(Path::new("/nonexistent/monitor"), "x").info("into the log");
    }
}
