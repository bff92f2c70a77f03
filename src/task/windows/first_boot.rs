//! Scripts that a Windows runs once at the end of its setup: `SetupComplete.cmd` calls a command file
//! that runs them in their order.

use super::super::{Guest, Session, TaskError};
use super::{Way, files, script};
use crate::craft::secret::Secret;
use crate::guest::windows::path;

/// Directory of the scripts, below that of Windows.
const DIRECTORY: &str = "Setup/Scripts/snf-image-firstboot";
const SETUP_COMPLETE: &str = "Setup/Scripts/SetupComplete.cmd";
const RUN: &str = include_str!("first_boot.cmd");
const CALL: &str = "@if exist \"%~dp0snf-image-firstboot\\run.cmd\" \
    (call \"%~dp0snf-image-firstboot\\run.cmd\" & rd /s /q \"%~dp0snf-image-firstboot\")\r\n";

/// Puts a script after those that are there, and sees to it that they run.
///
/// # Errors
/// When the image is not generalized, so that no setup will run, or the script is none for Windows.
pub(crate) fn install(
    guest: &mut Guest,
    session: &mut Session<'_>,
    name: &str,
    content: &Secret,
) -> Result<(), TaskError> {
    if super::way(guest, session)? == Way::Offline {
        return Err(TaskError::request(
            "the image is not generalized: no setup runs when it starts next, and nothing else starts \
             scripts; run sysprep /generalize /oobe /shutdown in it",
        ));
    }
    let lower = name.to_ascii_lowercase();
    let known = [".cmd", ".bat", ".ps1"].into_iter().any(|ending| lower.ends_with(ending));
    if !known || content.expose().starts_with(b"#!") {
        return Err(TaskError::request(format!(
            "{name} is no script for Windows; it must be a .cmd or .ps1"
        )));
    }
    let windows = super::system(guest)?;
    let directory = windows.below(DIRECTORY);
    let there = path::find(&guest.tree, &directory)?;
    let number = match there {
        None => 1,
        Some(path) => {
            let entries = guest.tree.read_dir(path)?;
            let numbers = entries.iter().filter_map(|entry| {
                std::str::from_utf8(entry.name.get(..4)?).ok()?.parse::<u32>().ok()
            });
            numbers.max().unwrap_or(0) + 1
        }
    };
    if number > 9999 {
        return Err(TaskError::request("the guest has 9999 scripts for its first start already"));
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let skip = name.chars().count().saturating_sub(60);
    let name: String = name.chars().skip(skip).map(plain).collect();
    files::write(guest, &format!("{directory}/run.cmd"), &crlf(RUN.as_bytes()))?;
    let text = Secret::new(crlf(content.expose()));
    files::write(guest, &format!("{directory}/{number:04}-{name}"), text.expose())?;
    let complete = windows.below(SETUP_COMPLETE);
    let old = files::read(guest, &complete)?.unwrap_or_default();
    if old.windows(CALL.len()).any(|part| part == CALL.as_bytes()) {
        return Ok(());
    }
    // Passwords and growth come first.
    let first = if old.starts_with(script::CALL.as_bytes()) { script::CALL.len() } else { 0 };
    let new = [&old[..first], CALL.as_bytes(), &old[first..]].concat();
    files::write(guest, &complete, &new)?;
    Ok(())
}

/// A text with the line ends of Windows.
fn crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 16);
    let mut before = 0;
    for &byte in text {
        if byte == b'\n' && before != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        before = byte;
    }
    out
}
