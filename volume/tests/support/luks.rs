//! Containers made by cryptsetup, and an independent reader of their content in Python.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use snf_fs::{BlockDevice, FileDevice};

pub const SECRET: &[u8] = b"correct horse";

/// The cheapest parameters that cryptsetup accepts: these tests are not on how slow they are.
pub const PBKDF2: &[&str] = &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

/// A container in a file.
pub struct Container {
    directory: tempfile::TempDir,
    pub path: PathBuf,
}

impl Container {
    /// Formats a file of `size` MiB.
    pub fn new(size: u64, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("container");
        File::create(&path).unwrap().set_len(size << 20).unwrap();
        let container = Self { directory, path };
        container.cryptsetup(&[&["luksFormat"], options].concat(), &[]);
        container
    }

    pub fn key_file(&self, name: &str, secret: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, secret).unwrap();
        path
    }

    /// Runs cryptsetup on the container; gives its output.
    pub fn cryptsetup(&self, before: &[&str], after: &[&str]) -> String {
        let key = self.key_file("key", SECRET);
        let mut command = Command::new("cryptsetup");
        command.args(["--batch-mode", "--key-file"]).arg(key);
        let output = command.args(before).arg(&self.path).args(after).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn device(&self) -> Arc<dyn BlockDevice> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        Arc::new(FileDevice::from_file(file).unwrap())
    }

    /// The container's key in hexadecimal digits, from `luksDump`.
    pub fn volume_key(&self) -> String {
        let dump = self.cryptsetup(&["luksDump", "--dump-volume-key"], &[]);
        let start = dump.find("MK dump:").unwrap() + "MK dump:".len();
        dump[start..].chars().filter(char::is_ascii_hexdigit).collect()
    }

    /// Bytes of the content, by Python. `offset` and `length` are whole sectors.
    pub fn python(
        &self,
        cipher: &str,
        sector: u64,
        data: u64,
        offset: u64,
        length: u64,
    ) -> Vec<u8> {
        const SCRIPT: &str = r"
import sys, hashlib
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
path, key, cipher, sector, data, offset, length = sys.argv[1:]
key = bytes.fromhex(key); sector, data, offset, length = map(int, (sector, data, offset, length))
file = open(path, 'rb'); file.seek(data + offset)
for start in range(offset, offset + length, sector):
    number = start // 512
    vector = number.to_bytes(16, 'little')
    if cipher == 'aes-xts-plain64': mode = modes.XTS(vector)
    elif cipher == 'aes-cbc-plain64': mode = modes.CBC(vector)
    elif cipher == 'aes-cbc-essiv:sha256':
        essiv = Cipher(algorithms.AES(hashlib.sha256(key).digest()), modes.ECB()).encryptor()
        mode = modes.CBC(essiv.update(vector))
    decryptor = Cipher(algorithms.AES(key), mode).decryptor()
    sys.stdout.buffer.write(decryptor.update(file.read(sector)) + decryptor.finalize())
";
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", SCRIPT]).arg(&self.path).args([&self.volume_key(), cipher]);
        python.args([sector, data, offset, length].map(|number| number.to_string()));
        let output = python.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }
}

/// Runs a program with `input` on its standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// Changes the JSON text of both headers of LUKS2 and repairs the checksums.
pub fn edit_json(path: &Path, change: impl Fn(&str) -> String) {
    let mut bytes = std::fs::read(path).unwrap();
    for at in [0, 16384] {
        let text = &bytes[at + 4096..at + 16384];
        let end = text.iter().position(|byte| *byte == 0).unwrap();
        let new = change(std::str::from_utf8(&text[..end]).unwrap());
        bytes[at + 4096..at + 16384].fill(0);
        bytes[at + 4096..at + 4096 + new.len()].copy_from_slice(new.as_bytes());
        seal(&mut bytes[at..at + 16384]);
    }
    std::fs::write(path, bytes).unwrap();
}

/// The checksum of a header of LUKS2 anew.
pub fn seal(header: &mut [u8]) {
    header[448..512].fill(0);
    let digest = Sha256::digest(&*header);
    header[448..480].copy_from_slice(&digest);
}
