//! The environment of this process holds the OS parameters, passwords among them, for as long as it
//! lives: `/proc/PID/environ` shows it. Once they are read they are wiped there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

/// No environment is larger (the kernel's limit for one string is 128 KiB, for all a quarter of
/// the stack).
const MAX_SIZE: u64 = 16 << 20;

/// Overwrites the values of all variables whose name begins with `prefix` with zeros, in the
/// memory that the kernel has put them into. They read as empty afterwards.
pub fn environment(prefix: &str) -> io::Result<()> {
    let (start, size) = area()?;
    let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
    let mut bytes = zeroize::Zeroizing::new(vec![0; size]);
    memory.read_exact_at(&mut bytes, start)?;
    wipe(&bytes, prefix, &mut |at, length| write_zeros(&memory, start + at as u64, length))
}

fn wipe(
    bytes: &[u8],
    prefix: &str,
    zero: &mut dyn FnMut(usize, usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    for string in bytes.split_inclusive(|byte| *byte == 0) {
        if string.starts_with(prefix.as_bytes())
            && let Some(equals) = string.iter().position(|byte| *byte == b'=')
        {
            zero(at + equals + 1, string.len().saturating_sub(equals + 2))?;
        }
        at += string.len();
    }
    Ok(())
}

fn write_zeros(memory: &File, at: u64, length: usize) -> io::Result<()> {
    let zeros = [0; 4096];
    let mut done = 0;
    while done < length {
        let step = (length - done).min(zeros.len());
        memory.write_all_at(&zeros[..step], at + done as u64)?;
        done += step;
    }
    Ok(())
}

/// The place of the strings: fields 50 and 51 of `/proc/self/stat`.
fn area() -> io::Result<(u64, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name, in which anything may be.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(47).map(str::parse::<u64>);
    let wrong = || io::Error::other("/proc/self/stat does not give the place of the environment");
    match (fields.next(), fields.next()) {
        (Some(Ok(start)), Some(Ok(end)))
            if start > 0 && end >= start && end - start <= MAX_SIZE =>
        {
            Ok((start, (end - start) as usize))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_values_asked_for() {
        let mut bytes = b"A=1\0OSP_X=secret\0OSP_Y=\0B=OSP_X=2\0OSP_NOTHING\0OSP_Z=zz".to_vec();
        let copy = bytes.clone();
        wipe(&copy, "OSP_", &mut |at, length| {
            bytes[at..at + length].fill(b'.');
            Ok(())
        })
        .unwrap();
        let expected = b"A=1\0OSP_X=......\0OSP_Y=\0B=OSP_X=2\0OSP_NOTHING\0OSP_Z=.z";
        assert_eq!(bytes, expected, "the last one has no end and keeps its last byte");
        assert!(area().unwrap().1 > 0);
    }
}
