//! `cargo xtask deb`: a Debian package of the whole, made with dpkg-deb alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::stage::Stage;
use crate::util::{Result, checkout, command, output, run, step, target_dir, text};

/// Ganeti's scripts, each a link.
const SCRIPTS: [&str; 5] = ["create", "export", "import", "rename", "verify"];
const HOST: &str = "/usr/sbin/snf-image-host";
const DOCS: [&str; 4] = ["README.md", "CHANGELOG.md", "docs/host.md", "docs/helper.md"];

/// Builds the package and gives its path.
pub fn deb() -> Result<PathBuf> {
    pack(&crate::stage::stage()?)
}

/// Packs what was built.
pub fn pack(stage: &Stage) -> Result<PathBuf> {
    step("packing the Debian package", || tree(&stage.root.join("bin"), &stage.os))
}

fn tree(bin: &Path, os: &Path) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let top = checkout().join(target_dir());
    let root = top.join("deb");
    let _ = fs::remove_dir_all(&root);
    let packaging = checkout().join("packaging");
    let mut tree = Tree { root: root.clone() };
    tree.program(&bin.join("snf-customize"), "usr/bin/snf-customize")?;
    tree.program(&bin.join("snf-image-host"), &HOST[1..])?;
    tree.program(&bin.join("snf-helper-init"), "usr/lib/snf-image/snf-helper-init")?;
    tree.link("snf-image-host", "usr/sbin/snf-image-update-helper")?;
    for script in SCRIPTS {
        tree.link(HOST, &format!("usr/share/ganeti/os/snf-image/{script}"))?;
    }
    for list in ["ganeti_api_version", "variants.list", "parameters.list"] {
        tree.copy(&os.join(list), &format!("usr/share/ganeti/os/snf-image/{list}"), 0o644)?;
    }
    tree.copy(&packaging.join("snf-image.default"), "etc/default/snf-image", 0o644)?;
    let hook = "etc/kernel/postinst.d/zz-snf-image";
    tree.copy(&packaging.join("debian/kernel-postinst"), hook, 0o755)?;
    for directory in ["variants", "backends/src", "backends/dst"] {
        tree.directory(&format!("etc/ganeti/snf-image/{directory}"))?;
    }
    tree.directory("var/lib/snf-image")?;
    for file in DOCS {
        let name = file.rsplit('/').next().unwrap_or(file);
        tree.copy(&checkout().join(file), &format!("usr/share/doc/snf-image/{name}"), 0o644)?;
    }
    let copyright = packaging.join("debian/copyright");
    tree.copy(&copyright, "usr/share/doc/snf-image/copyright", 0o644)?;
    tree.copy(&packaging.join("debian/postinst"), "DEBIAN/postinst", 0o755)?;
    tree.copy(&packaging.join("debian/postrm"), "DEBIAN/postrm", 0o755)?;
    tree.write("DEBIAN/triggers", "interest-noawait /usr/bin/qemu-system-x86_64\n")?;
    tree.write("DEBIAN/conffiles", &format!("/etc/default/snf-image\n/{hook}\n"))?;
    tree.write(
        "DEBIAN/control",
        &format!(
            "Package: snf-image\nVersion: {version}\nArchitecture: amd64\nSection: admin\n\
             Priority: optional\nMaintainer: The snf-image developers <root@localhost>\n\
             Depends: libc6 (>= {}), qemu-system-x86, adduser\nRecommends: linux-image-amd64 | linux-image-generic\n\
             Suggests: ganeti, libvirt-clients, qemu-block-extra, qemu-utils\n\
             Description: Ganeti OS provider that deploys and customizes disk images\n \
             Lays an image onto an instance's disk and customizes it (passwords, SSH keys, host\n \
             name, network, partitions) inside a small virtual machine. Also holds snf-customize,\n \
             which does the same to an image file without one.\n",
            libc(&bin.join("snf-image-host"))?
        ),
    )?;
    let package = top.join(format!("snf-image_{version}_amd64.deb"));
    run(&mut command(
        "dpkg-deb",
        ["--root-owner-group", "--build", &text(&root), &text(&package)],
    ))?;
    check(&package)?;
    Ok(package)
}

/// Looks at the package as dpkg will: the scripts are there, and lead to the program.
fn check(package: &Path) -> Result<()> {
    let contents = output(&mut command("dpkg-deb", ["--contents", &text(package)]))?;
    for script in SCRIPTS {
        let line = format!("./usr/share/ganeti/os/snf-image/{script} -> {HOST}");
        if !contents.contains(&line) {
            return Err(format!("the package has no {line}:\n{contents}"));
        }
    }
    let foreign = contents.lines().find(|line| !line.contains("root/root"));
    match foreign {
        Some(line) => Err(format!("a file in the package is not root's: {line}")),
        None => Ok(()),
    }
}

/// The C library that the program needs: the highest version among its symbols.
fn libc(program: &Path) -> Result<String> {
    let symbols = output(&mut command("objdump", ["-T", &text(program)]))?;
    let versions = symbols
        .split("GLIBC_")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit() && c != '.').next())
        .map(|version| version.split('.').filter_map(|n| n.parse().ok()).collect::<Vec<u32>>());
    let newest = versions.max().filter(|version| !version.is_empty());
    let newest = newest.ok_or("objdump shows no symbol of the C library")?;
    Ok(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

/// The package's files, with modes that do not depend on the umask.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn place(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        if let Some(parent) = Path::new(name).parent() {
            self.directory(&text(parent))?;
        }
        Ok(path)
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        let mut path = self.root.clone();
        make(&path)?;
        for part in Path::new(name) {
            path.push(part);
            make(&path)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: &Path, name: &str, mode: u32) -> Result<()> {
        let to = self.place(name)?;
        fs::copy(from, &to)
            .and_then(|_| fs::set_permissions(&to, fs::Permissions::from_mode(mode)))
            .map_err(|e| format!("cannot copy {} to {}: {e}", from.display(), to.display()))
    }

    /// A program without what only a debugger reads: that is nine tenths of it.
    fn program(&mut self, from: &Path, name: &str) -> Result<()> {
        self.copy(from, name, 0o755)?;
        run(&mut command("strip", ["--strip-unneeded", &text(&self.root.join(name))]))
    }

    fn link(&mut self, target: &str, name: &str) -> Result<()> {
        let path = self.place(name)?;
        symlink(target, &path).map_err(|e| format!("cannot make {}: {e}", path.display()))
    }

    fn write(&mut self, name: &str, content: &str) -> Result<()> {
        let path = self.place(name)?;
        fs::write(&path, content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))
    }
}

fn make(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|e| format!("cannot make {}: {e}", path.display()))
}
