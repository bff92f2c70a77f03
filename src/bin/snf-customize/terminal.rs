//! Asking for passwords on the terminal, without showing them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use snf_image::secret::Secret;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

/// Longer input than this is no password.
const LONGEST: usize = 1024;

fn open_tty(instead: &str) -> Result<File, Failure> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Failure::input(format!("there is no terminal to ask for a password on; use {instead}"))
    })
}

/// Asks once for a passphrase that exists already.
pub(crate) fn ask_once(prompt: &str) -> Result<Secret, Failure> {
    let tty = open_tty("file:PATH or stdin")?;
    let answer = ask(&tty, &format!("{prompt}: "))?;
    Ok(Secret::new(answer.as_slice()))
}

/// Asks until the same password was typed twice in a row, three times at most.
pub(crate) fn ask_twice(prompt: &str) -> Result<Secret, Failure> {
    let tty = open_tty("file:PATH, stdin or random")?;
    for _ in 0..3 {
        let first = ask(&tty, &format!("{prompt}: "))?;
        if first.is_empty() {
            say(&tty, "An empty password is not taken.\n");
            continue;
        }
        let second = ask(&tty, "The same again: ")?;
        if first == second {
            return Ok(Secret::new(first.as_slice()));
        }
        say(&tty, "They differ; once more.\n");
    }
    Err(Failure::input("no password was typed twice the same in three attempts"))
}

fn say(mut tty: &File, text: &str) {
    // A terminal that cannot be written to shows nothing; reading will tell.
    let _ = tty.write_all(text.as_bytes());
}

/// The settings to put back, should the program end while it asks.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Puts the terminal's settings back if a question is open. For the end of the program.
pub(crate) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((tty, before)) = before {
        let _ = tcsetattr(&tty, OptionalActions::Flush, &before);
        say(&tty, "\n");
    }
}

/// Puts the terminal's settings back, whatever happens.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(tty: &'a File) -> rustix::io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut quiet = before.clone();
        // Neither shown nor turned into signals: Ctrl-C arrives as a byte.
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        if let Ok(copy) = tty.try_clone() {
            *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((copy, before.clone()));
        }
        tcsetattr(tty, OptionalActions::Flush, &quiet)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = tcsetattr(self.tty, OptionalActions::Flush, &self.before);
    }
}

fn ask(mut tty: &File, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let fail =
        |problem: String| Failure::input(format!("cannot read from the terminal: {problem}"));
    let quiet = Quiet::new(tty).map_err(|errno| fail(errno.to_string()))?;
    say(tty, prompt);
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    loop {
        let mut byte = Zeroizing::new([0]);
        let count = tty.read(&mut *byte).map_err(|error| fail(error.to_string()))?;
        match byte[0] {
            _ if count == 0 => return Err(fail("it was closed".to_owned())),
            b'\n' | b'\r' => break,
            3 | 28 => {
                drop(quiet);
                say(tty, "\n");
                return Err(Failure::new(Exit::Interrupted, "interrupted; nothing was written"));
            }
            _ if line.len() == LONGEST => return Err(fail("the line is too long".to_owned())),
            other => line.push(other),
        }
    }
    drop(quiet);
    say(tty, "\n");
    Ok(line)
}
