//! `sysprep.inf`, the answer file of Windows XP and Server 2003: sections with `key=value` lines.

use super::encoding::{self, Encoding};
use crate::craft::secret::Secret;

/// The one that is written where there is none.
const DEFAULT: &str = "[Unattended]\r\nOemSkipEula=Yes\r\n\r\n\
    [GuiUnattended]\r\nAdminPassword=*\r\nOEMSkipRegional=1\r\nOemSkipWelcome=1\r\n\r\n\
    [UserData]\r\nFullName=\"User\"\r\nOrgName=\"Organization\"\r\nComputerName=*\r\n\r\n\
    [Identification]\r\nJoinWorkgroup=WORKGROUP\r\n\r\n\
    [Networking]\r\nInstallDefaultComponents=Yes\r\n";

/// How the file's bytes are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// UTF-8 (plain ASCII, mostly) or UTF-16.
    Unicode(Encoding),
    /// Some code page: bytes beyond ASCII are kept as they are.
    CodePage,
}

/// A `sysprep.inf`. Lines that are not changed stay byte for byte.
pub struct SysprepInf {
    lines: Vec<String>,
    form: Form,
}

impl SysprepInf {
    /// Reads a file; any bytes are one.
    pub fn parse(bytes: &[u8]) -> Self {
        let (text, form) = match encoding::decode(bytes) {
            Ok((text, encoding)) => (text.to_string(), Form::Unicode(encoding)),
            Err(_) => (bytes.iter().map(|byte| char::from(*byte)).collect(), Form::CodePage),
        };
        Self { lines: text.split_inclusive('\n').map(str::to_owned).collect(), form }
    }

    /// The one for an image that has none.
    pub fn default_text() -> Secret {
        Secret::new(DEFAULT)
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Secret {
        let text = self.lines.concat();
        Secret::new(match self.form {
            Form::Unicode(encoding) => encoding::encode(&text, encoding),
            // Every character came from a byte, or is ASCII.
            Form::CodePage => text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect(),
        })
    }

    /// The lines of a section, and where it would get a new one.
    fn section(&self, section: &str) -> Option<std::ops::Range<usize>> {
        let is_head = |line: &String| line.trim_start().starts_with('[');
        let named = |line: &String| {
            let name = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next());
            name.is_some_and(|name| name.trim().eq_ignore_ascii_case(section))
        };
        let start = self.lines.iter().position(named)? + 1;
        let length = self.lines[start..].iter().position(is_head);
        Some(start..length.map_or(self.lines.len(), |length| start + length))
    }

    fn find(&self, section: &str, key: &str) -> Option<(usize, &str)> {
        let range = self.section(section)?;
        range.clone().zip(&self.lines[range]).find_map(|(index, line)| {
            let (name, value) = line.split_once('=')?;
            name.trim().eq_ignore_ascii_case(key).then(|| (index, value.trim()))
        })
    }

    /// The value of a key, without quotes around it.
    pub fn get(&self, section: &str, key: &str) -> Option<&str> {
        let (_, value) = self.find(section, key)?;
        Some(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
    }

    /// Sets a key to a value of ASCII without special characters; section and key are made where
    /// they are missing.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        let newline =
            if self.lines.first().is_none_or(|l| l.ends_with("\r\n")) { "\r\n" } else { "\n" };
        let line = format!("{key}={value}{newline}");
        if let Some((index, old)) = self.find(section, key) {
            if old != value {
                self.lines[index] = line;
            }
            return;
        }
        if let Some(last) = self.lines.last_mut()
            && !last.ends_with('\n')
        {
            last.push_str(newline);
        }
        let Some(range) = self.section(section) else {
            self.lines.push(format!("{newline}[{section}]{newline}"));
            self.lines.push(line);
            return;
        };
        // Before the blank lines that end the section.
        let filled = self.lines[range.clone()].iter().rposition(|line| !line.trim().is_empty());
        self.lines.insert(filled.map_or(range.start, |at| range.start + at + 1), line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_and_change() {
        let mut inf = SysprepInf::parse(
            b"; \xe4\r\n[userdata]\r\n  computername = \"OLD\"\r\n\r\n[Other]\r\nx=1",
        );
        assert_eq!(inf.get("UserData", "ComputerName"), Some("OLD"));
        inf.set("UserData", "ComputerName", "NEW");
        inf.set("UserData", "ProductKey", "K");
        inf.set("GuiUnattended", "TimeZone", "85");
        inf.set("Other", "x", "1");
        let expected: &[u8] = b"; \xe4\r\n[userdata]\r\nComputerName=NEW\r\nProductKey=K\r\n\r\n\
            [Other]\r\nx=1\r\n\r\n[GuiUnattended]\r\nTimeZone=85\r\n";
        assert_eq!(inf.bytes().expose(), expected);
        assert_eq!(inf.get("UserData", "none"), None);
    }

    #[test]
    fn the_default_and_other_encodings() {
        let default = SysprepInf::default_text();
        let inf = SysprepInf::parse(default.expose());
        assert_eq!(inf.get("UserData", "ComputerName"), Some("*"));
        assert_eq!(inf.bytes(), default);
        let wide: Vec<u8> =
            "\u{feff}[a]\nx=1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut inf = SysprepInf::parse(&wide);
        assert_eq!(inf.get("A", "X"), Some("1"));
        inf.set("a", "y", "2");
        assert!(inf.bytes().expose().ends_with(b"y\0=\x002\0\n\0"));
        let mut empty = SysprepInf::parse(b"");
        empty.set("a", "b", "c");
        assert_eq!(empty.bytes().expose(), b"\r\n[a]\r\nb=c\r\n");
    }
}
