//! NTFS volumes with the tree of a Windows 8.1 and its real registry: made by mkntfs, filled and
//! read through ntfs-3g.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::disk::{Loop, run};
use super::hives::{closed, hive};

/// An NTFS volume mounted by ntfs-3g.
pub struct NtfsMount {
    /// Where.
    pub path: PathBuf,
    _loop: Loop,
    _directory: tempfile::TempDir,
}

impl NtfsMount {
    /// Mounts a part of an image.
    pub fn at(image: &Path, start: u64, size: u64, read_only: bool) -> Self {
        let device = Loop::new(image, start, size, read_only);
        let directory = tempfile::tempdir().unwrap();
        let options = if read_only { "ro" } else { "rw" };
        run("ntfs-3g", &["-o", options, &device.device, &directory.path().to_string_lossy()]);
        Self { path: directory.path().to_owned(), _loop: device, _directory: directory }
    }

    /// The text of a file of the guest.
    pub fn text(&self, path: &str) -> String {
        let bytes = fs::read(self.path.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        String::from_utf8(bytes).unwrap()
    }
}

impl Drop for NtfsMount {
    fn drop(&mut self) {
        for _ in 0..100 {
            if Command::new("umount").arg(&self.path).status().is_ok_and(|status| status.success())
            {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        // ntfs-3g goes on for a moment after that, and the loop device must wait for it.
        run("sync", &[]);
    }
}

/// Sets values of a hive by hivex: `FILE KEY NAME TYPE HEX` each.
const SET: &str = r#"
import sys, hivex
file, key, name, kind, data = sys.argv[1:]
h = hivex.Hivex(file, write=True)
node = h.root()
for part in key.split("\\"):
    node = h.node_get_child(node, part)
h.node_set_value(node, {"key": name, "t": int(kind), "value": bytes.fromhex(data)})
h.commit(None)
"#;

/// Prints a value of a hive in hexadecimal.
const GET: &str = r#"
import sys, hivex
file, key, name = sys.argv[1:]
h = hivex.Hivex(file)
node = h.root()
for part in key.split("\\"):
    node = h.node_get_child(node, part)
print(h.value_value(h.node_get_value(node, name))[1].hex())
"#;

/// Runs a Python script that must succeed; what it printed.
pub fn python(script: &str, arguments: &[&str]) -> String {
    let mut all = vec!["-c", script];
    all.extend(arguments);
    run("/usr/bin/python3", &all)
}

/// A value of a hive as hivex reads it, in hexadecimal.
pub fn value(hive: &Path, key: &str, name: &str) -> String {
    python(GET, &[&hive.to_string_lossy(), key, name]).trim().to_owned()
}

fn set(hive: &Path, key: &str, name: &str, kind: u32, data: &[u8]) {
    let data: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    python(SET, &[&hive.to_string_lossy(), key, name, &kind.to_string(), &data]);
}

/// The key of SYSTEM with the switch of remote desktop.
pub const TERMINAL_SERVER: &str = "ControlSet001\\Control\\Terminal Server";
/// The key of SOFTWARE that says whether the image is generalized.
const STATE: &str = "Microsoft\\Windows\\CurrentVersion\\Setup\\State";

/// Makes a bare NTFS volume of `mebibytes` with a Windows whose `ImageState` is `state`. Remote
/// desktop is allowed.
pub fn make_volume(image: &Path, mebibytes: u64, state: &str) {
    fs::File::create(image).unwrap().set_len(mebibytes << 20).unwrap();
    let shown = image.to_string_lossy();
    run(
        "mkntfs",
        &["-q", "-F", "-Q", "-p", "2048", "-H", "255", "-S", "63", "-L", "System", &shown],
    );
    let mount = NtfsMount::at(image, 0, mebibytes << 20, false);
    let write = |path: &str, bytes: &[u8]| {
        let path = mount.path.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    // The beginning of a kernel for amd64 is all that is looked at.
    let mut kernel = vec![0; 300_000];
    kernel[..2].copy_from_slice(b"MZ");
    kernel[0x3c] = 0xf8;
    kernel[0xf8..0xfe].copy_from_slice(b"PE\0\0\x64\x86");
    write("Windows/System32/ntoskrnl.exe", &kernel);
    for number in 0..400 {
        write(&format!("Windows/System32/library{number:03}.dll"), b"MZ");
    }
    for name in ["SYSTEM", "SOFTWARE", "SAM", "SECURITY"] {
        write(&format!("Windows/System32/config/{name}"), &closed(hive(name)));
    }
    let config = mount.path.join("Windows/System32/config");
    let wide: Vec<u8> = format!("{state}\0").encode_utf16().flat_map(u16::to_le_bytes).collect();
    set(&config.join("SOFTWARE"), STATE, "ImageState", 1, &wide);
    set(&config.join("SYSTEM"), TERMINAL_SERVER, "fDenyTSConnections", 4, &[0; 4]);
    write("Windows/Setup/Scripts/setupcomplete.CMD", b"@echo own\r\n");
    // Left from the setup that made the image.
    write(
        "Windows/Panther/unattend.xml",
        b"<unattend xmlns=\"urn:schemas-microsoft-com:unattend\"><settings pass=\"oobeSystem\" \
          wasPassProcessed=\"true\"/></unattend>",
    );
    write("Users/Public/Desktop/desktop.ini", b"[x]\r\n");
    write("pagefile.sys", &[0; 100]);
}
