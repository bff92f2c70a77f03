//! AddSwap: a swap signature, and a line of fstab that names it by UUID.

use snf_fs::Attributes;

use super::{Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work};
use crate::guest::CONFIG_MAX;

pub(super) static TASK: Task = Task {
    id: TaskId::AddSwap,
    summary: "make swap space in the partition or on the disk that SWAP names, and use it at boot",
    applies: |plan| !matches!(plan.properties.swap(), Ok(None)),
    work: Work::guest(Needs::System(LINUX), run),
};

const FSTAB: &str = "/etc/fstab";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let Some(wanted) = session.plan.properties.swap()? else { return Ok(()) };
    let area = session.storage.make_swap(&wanted, session.entropy)?;
    let what = if area.kept { "is swap space already" } else { "becomes swap space" };
    session.info(format!("{} {what}, UUID {}", area.place, area.uuid));
    let line = format!("UUID={} none swap sw 0 0\n", area.uuid);
    let old = guest.tree.read_optional(FSTAB, CONFIG_MAX)?;
    match old {
        Some(text) if names_swap(&text, &area.uuid) => {}
        Some(text) => {
            let newline = if text.is_empty() || text.ends_with(b"\n") { "" } else { "\n" };
            guest.tree.append(FSTAB, format!("{newline}{line}").as_bytes())?;
        }
        None => {
            let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
            guest.tree.write(FSTAB, line.as_bytes(), attributes)?;
        }
    }
    Ok(())
}

/// Whether the table has a line for the swap area.
fn names_swap(text: &[u8], uuid: &str) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let mut fields =
            line.split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty());
        let source = fields.next().unwrap_or_default();
        let Some(value) =
            source.strip_prefix(b"UUID=").or_else(|| source.strip_prefix(b"/dev/disk/by-uuid/"))
        else {
            return false;
        };
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = value.strip_suffix(b"\"").unwrap_or(value);
        value.eq_ignore_ascii_case(uuid.as_bytes()) && fields.nth(1) == Some(b"swap")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snf_fs::MemoryDevice;

    use super::*;
    use crate::guest::storage::Storage;
    use crate::task::testing::Guest;

    fn guest(fstab: Option<&str>) -> Guest {
        let mut guest = Guest::debian();
        if let Some(text) = fstab {
            guest.write("/etc/fstab", text);
        }
        let image = Arc::new(MemoryDevice::new(vec![0; 1 << 20]));
        let swap = Arc::new(MemoryDevice::new(vec![0; 1 << 20]));
        guest.storage = Storage::new(image, vec![swap]);
        guest.plan.properties.set("SWAP", "b");
        guest
    }

    #[test]
    fn a_line_is_added_once() {
        for (before, expected) in [
            ("# /\nUUID=1 / ext4 defaults 0 1", 3),
            ("# /\nUUID=1 / ext4 defaults 0 1\n", 3),
            ("", 1),
        ] {
            let mut guest = guest(Some(before));
            guest.run(&TASK).unwrap();
            let text = guest.read("/etc/fstab");
            assert!(text.starts_with(before), "{text}");
            assert_eq!(text.lines().count(), expected, "{text}");
            assert!(text.ends_with(" none swap sw 0 0\n"), "{text}");
            guest.run(&TASK).unwrap();
            assert_eq!(guest.read("/etc/fstab"), text, "a second run changes nothing");
        }
        let mut without = guest(None);
        without.run(&TASK).unwrap();
        assert_eq!(without.read("/etc/fstab").lines().count(), 1);
        assert_eq!(without.attributes("/etc/fstab"), (0o644, 0, 0));
    }

    #[test]
    fn a_disk_that_is_not_there() {
        let mut guest = guest(None);
        guest.plan.properties.set("SWAP", "d");
        assert!(guest.fail(&TASK).contains("has 2 disks"));
        guest.plan.properties.set("SWAP", "2:10");
        assert!(guest.fail(&TASK).contains("no partition table"));
    }

    #[test]
    fn lines_of_fstab() {
        assert!(names_swap(b"x\n UUID=\"AB-1\"\tnone swap sw", "ab-1"));
        assert!(!names_swap(b"#UUID=ab-1 none swap sw", "ab-1"));
        assert!(!names_swap(b"UUID=ab-1 / ext4", "ab-1"));
        assert!(!names_swap(b"none none swap", ""));
    }
}
