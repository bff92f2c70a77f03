//! The needs of the machine: Debian packages, the musl target, kernels, Debian trees. Each is made
//! once, kept in a cache outside the checkout, and made again when missing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::util::{Result, command, have, output, run, shell, step, text};

/// Programs that tests, demo and benches use, and the package each comes from.
const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("debootstrap", "debootstrap"),
    ("sgdisk", "gdisk"),
    ("sfdisk", "fdisk"),
    ("parted", "parted"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mkntfs", "ntfs-3g"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("ssh-keygen", "openssh-client"),
    ("dropbearkey", "dropbear-bin"),
    ("setfattr", "attr"),
    ("setfacl", "acl"),
    ("cpio", "cpio"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("bzip2", "bzip2"),
    ("lz4", "lz4"),
    ("lzop", "lzop"),
    ("systemctl", "systemd"),
    ("visudo", "sudo"),
    ("useradd", "passwd"),
    ("swapon", "mount"),
    ("setpriv", "util-linux"),
    ("getcap", "libcap2-bin"),
    ("patch", "patch"),
    ("perl", "perl"),
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("objcopy", "binutils"),
    ("openssl", "openssl"),
    ("file", "file"),
    ("python3", "python3"),
    ("lvm", "lvm2"),
    ("cryptsetup", "cryptsetup-bin"),
    ("hivexsh", "libhivex-bin"),
    ("impacket-secretsdump", "python3-impacket"),
];

/// Python modules that tests use, and the package each comes from.
const MODULES: &[(&str, &str)] = &[("hivex/__init__.py", "python3-hivex")];

/// The folder of slow things: `SNF_IMAGE_CACHE`, or `/var/cache/snf-image`.
pub fn cache() -> Result<PathBuf> {
    let path = std::env::var_os("SNF_IMAGE_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/snf-image"), PathBuf::from);
    fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
    Ok(path)
}

/// Installs what is missing of the Debian packages.
pub fn packages() -> Result<()> {
    let programs = PROGRAMS.iter().filter(|(program, _)| !have(program));
    let modules = MODULES
        .iter()
        .filter(|(file, _)| !Path::new("/usr/lib/python3/dist-packages").join(file).is_file());
    let mut missing: Vec<&str> = programs.chain(modules).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Versions of QEMU's packages keep each other out: apt would remove one for the other, unless
    // it is asked for both.
    if missing.iter().any(|package| package.starts_with("qemu-")) {
        missing.retain(|package| !package.starts_with("qemu-"));
        missing.extend(["qemu-system-x86", "qemu-utils"]);
    }
    step(&format!("installing {}", missing.join(", ")), || {
        run(command("apt-get", ["update", "-q"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
        let plain = apt_install(&missing, &[]);
        if plain.is_ok() {
            return Ok(());
        }
        // A qemu-utils newer than the release's own keeps the release's QEMU out: both packages
        // must have one version. Take the release's.
        let candidate = output(&mut command("apt-cache", ["madison", "qemu-system-x86"]))?;
        let version = candidate
            .lines()
            .next()
            .and_then(|line| line.split('|').nth(1))
            .map(str::trim)
            .ok_or("apt-cache knows no qemu-system-x86: check the machine's apt sources")?;
        let mut wanted: Vec<String> = missing
            .iter()
            .filter(|package| !package.starts_with("qemu-"))
            .map(|package| (*package).to_owned())
            .collect();
        wanted.push(format!("qemu-system-x86={version}"));
        wanted.push(format!("qemu-utils={version}"));
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        apt_install(&wanted, &["--allow-downgrades"])
    })
}

fn apt_install(packages: &[&str], options: &[&str]) -> Result<()> {
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(options);
    arguments.extend(packages);
    run(command("apt-get", arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// How the static helper is built: with musl where rustup can give the target, else with a fully
/// static glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaticTarget {
    /// `x86_64-unknown-linux-musl`.
    Musl,
    /// The host's own target with `-C target-feature=+crt-static`.
    Glibc,
}

/// Makes sure that one of the static targets is there.
pub fn static_target() -> Result<StaticTarget> {
    const MUSL: &str = "x86_64-unknown-linux-musl";
    let sysroot = output(&mut command("rustc", ["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(MUSL).is_dir() {
        return Ok(StaticTarget::Musl);
    }
    if have("rustup") {
        let added =
            step("adding the musl target", || run(&mut command("rustup", ["target", "add", MUSL])));
        if added.is_ok() {
            return Ok(StaticTarget::Musl);
        }
    }
    eprintln!("  note: no musl target and no rustup to add it: the helper is linked with glibc");
    Ok(StaticTarget::Glibc)
}

/// One of Debian's kernels, unpacked: `boot/vmlinuz-VERSION` and `lib/modules/VERSION`.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The directory it is unpacked in.
    pub root: PathBuf,
    /// Its version, as in `/lib/modules`.
    pub version: String,
}

impl Kernel {
    /// The kernel image.
    pub fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.version))
    }

    /// The directory of its modules.
    pub fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.version)
    }
}

/// The current kernel of a flavour (`cloud-amd64`, `amd64`), downloaded and unpacked once; it is
/// not installed on this machine.
pub fn kernel(flavour: &str) -> Result<Kernel> {
    let script = r#"
        flavour=$1
        depends() { apt-cache depends "linux-image-$flavour" 2>/dev/null |
            sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1; }
        package=$(depends)
        if [ -z "$package" ]; then apt-get update -q >/dev/null; package=$(depends); fi
        [ -n "$package" ] || { echo "apt knows no linux-image-$flavour" >&2; exit 1; }
        apt-get download -q "$package" >/dev/null"#;
    fetch_kernel(flavour, flavour, script)
}

/// The same of another release of Debian, from the machine's own mirror. Kernels of its security
/// suite would be newer, and are not needed here.
pub fn kernel_of(release: &str, flavour: &str) -> Result<Kernel> {
    let script = format!(
        r#"
        flavour=$1
        {OTHER_RELEASES}
        echo "deb $mirror {release} main" > sources.list
        apt-get $apt update -q >/dev/null
        package=$(apt-cache $apt depends "linux-image-$flavour" 2>/dev/null |
            sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
        [ -n "$package" ] || {{ echo "{release} has no linux-image-$flavour" >&2; exit 1; }}
        apt-get $apt download -q "$package" >/dev/null"#
    );
    fetch_kernel(&format!("{release}-{flavour}"), flavour, &script)
}

/// Runs `download` in an empty directory; it leaves one package there. `name` is what tests call
/// this kernel.
fn fetch_kernel(name: &str, flavour: &str, download: &str) -> Result<Kernel> {
    let kernels = cache()?.join("kernels");
    let marker = kernels.join(format!("current-{name}"));
    let of = |version: &str| Kernel {
        root: kernels.join(format!("linux-image-{version}")),
        version: version.to_owned(),
    };
    if let Ok(version) = fs::read_to_string(&marker) {
        let kernel = of(&version);
        if kernel.image().is_file() && kernel.modules().is_dir() {
            return Ok(kernel);
        }
    }
    step(&format!("fetching Debian's {name} kernel"), || {
        let script = format!(
            r#"
            kernels=$2 name=$3
            work=$(mktemp -d)
            trap 'rm -rf "$work"' EXIT
            cd "$work"
            {download}
            mkdir -p "$kernels"
            deb=$(ls linux-image-*.deb)
            package=${{deb%%_*}}
            rm -rf "$kernels/$package.new"
            dpkg-deb -x "$deb" "$kernels/$package.new"
            rm -rf "$kernels/$package"
            mv "$kernels/$package.new" "$kernels/$package"
            version=${{package#linux-image-}}
            # From trixie on a kernel package has its modules in /usr/lib.
            [ -e "$kernels/$package/lib" ] || ln -s usr/lib "$kernels/$package/lib"
            depmod -b "$kernels/$package" "$version"
            printf %s "$version" > "$kernels/current-$name"
            printf %s "$version""#
        );
        Ok(of(&shell(&script, &[flavour, &text(&kernels), name])?))
    })
}

/// Shell text: in the working directory, apt options (`$apt`) for a `sources.list` of one's own, with
/// the machine's Debian `$mirror`.
const OTHER_RELEASES: &str = r#"
            mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' \
                /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep '/debian/*$' | head -n 1)
            [ -n "$mirror" ] || { echo "the apt sources name no Debian mirror" >&2; exit 1; }
            mkdir -p lists/partial cache/archives/partial
            apt="-o Dir::Etc::sourcelist=$PWD/sources.list -o Dir::Etc::sourceparts=/dev/null
                -o Dir::State::lists=$PWD/lists -o Dir::Cache=$PWD/cache -o APT::Sandbox::User=root
                -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false""#;

/// Registry hives of a real Windows, from the tests of Debian's source package dfwinreg
/// (Apache-2.0), fetched once from the machine's own mirror.
pub fn hives() -> Result<()> {
    let place = cache()?.join("hives");
    if place.join("SYSTEM").is_file() {
        return Ok(());
    }
    step("fetching registry hives (source package dfwinreg)", || {
        let script = format!(
            r#"
            place=$1
            work=$(mktemp -d)
            trap 'rm -rf "$work"' EXIT
            cd "$work"
            {OTHER_RELEASES}
            echo "deb-src $mirror trixie main" > sources.list
            apt-get $apt update -q >/dev/null
            apt-get $apt source -q --download-only --tar-only dfwinreg >/dev/null
            tar xzf dfwinreg_*.orig.tar.gz --wildcards '*/test_data/*'
            mkdir -p "$place.new"
            for hive in SAM SECURITY SYSTEM SOFTWARE NTUSER.DAT UsrClass.dat; do
                cp dfwinreg-*/test_data/$hive "$place.new/"
            done
            rm -rf "$place"
            mv "$place.new" "$place""#
        );
        shell(&script, &[&text(&place)]).map(|_| ())
    })
}

/// Programs of guests that judge what is written for them (sshd, netplan, ifupdown, NetworkManager,
/// BusyBox), in a tree of their own: installed on this machine, they would change its network.
pub fn guest_tools() -> Result<()> {
    let tree = cache()?.join("guest-tools-bookworm-1");
    if tree.is_dir() {
        return Ok(());
    }
    step("debootstrapping the programs of guests (once; a minute or two)", || {
        let script = r#"
            tree=$1
            rm -rf "$tree.new"
            debootstrap --variant=minbase --include=systemd-sysv,udev,dbus,openssh-server,ifupdown,isc-dhcp-client,netplan.io,busybox-static,iproute2,policycoreutils,selinux-utils bookworm "$tree.new" > "$tree.log" 2>&1 ||
                { tail -n 15 "$tree.log" >&2; exit 1; }
            # Their configuration wants a running system; their files are enough.
            chroot "$tree.new" apt-get install -y -q --no-install-recommends --download-only \
                network-manager selinux-policy-default > "$tree.log" 2>&1 ||
                { tail -n 15 "$tree.log" >&2; exit 1; }
            for deb in "$tree.new"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$deb" "$tree.new"; done
            rm -f "$tree.new"/var/cache/apt/archives/*.deb "$tree.log"
            mv "$tree.new" "$tree""#;
        shell(script, &[&text(&tree)]).map(|_| ())
    })
}
