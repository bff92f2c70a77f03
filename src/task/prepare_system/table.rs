//! The operations of `sysprep`: names and defaults as virt-sysprep has them, and some of our own.

/// The work of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// Deletes what these patterns name, directories with all that is in them.
    Delete(&'static [&'static str]),
    /// Deletes what the first patterns name, but for files with these names.
    DeleteBut(&'static [&'static str], &'static [&'static str]),
    /// Deletes what these patterns name where they are files, and leaves directories.
    DeleteFiles(&'static [&'static str]),
    /// Empties the files that these patterns name.
    Empty(&'static [&'static str]),
    /// Removes the lines that set these variables from the files that the patterns name.
    DropVariables(&'static [&'static str], &'static [&'static str]),
    /// Makes an empty file.
    Touch(&'static str),
    /// Editors' copies in the directories that hold them.
    BackupFiles,
    /// The machine's number, and D-Bus's copy.
    MachineId,
    /// Host keys of SSH.
    HostKeys,
    /// The network files of cloud-init; only if cloud-init writes them anew.
    CloudNetwork,
    /// Nothing by itself: what the other options of the command say.
    Options,
    /// It cannot be done, and why.
    Refused(&'static str),
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Whether it is done when nothing is said.
    pub default: bool,
    /// Its effect, for the list.
    pub summary: &'static str,
    pub(super) work: Work,
}

impl Operation {
    /// Whether it can be done here.
    pub fn is_done(&self) -> bool {
        !matches!(self.work, Work::Refused(_))
    }
}

const fn on(name: &'static str, summary: &'static str, work: Work) -> Operation {
    Operation { name, default: true, summary, work }
}

const fn off(name: &'static str, summary: &'static str, work: Work) -> Operation {
    Operation { name, default: false, summary, work }
}

use Work::{Delete, DeleteBut, DeleteFiles, DropVariables, Empty};

/// All operations, sorted by name.
pub const OPERATIONS: &[Operation] = &[
    on("abrt-data", "crash reports of ABRT", Delete(&["/var/spool/abrt/*"])),
    on(
        "backup-files",
        "copies that editors leave (*.bak, *~) in /etc, /root, /srv, /tmp and /var",
        Work::BackupFiles,
    ),
    on(
        "bash-history",
        "the command lines typed into bash",
        Delete(&["/home/*/.bash_history", "/root/.bash_history"]),
    ),
    on(
        "blkid-tab",
        "the cache of blkid",
        Delete(&[
            "/etc/blkid.tab*",
            "/etc/blkid/blkid.tab*",
            "/dev/.blkid.tab*",
            "/run/blkid/blkid.tab*",
            "/var/run/blkid.tab*",
        ]),
    ),
    off(
        "ca-certificates",
        "certificates and keys of an authority and of servers",
        DeleteBut(
            &[
                "/etc/pki/CA/certs/*",
                "/etc/pki/CA/crl/*",
                "/etc/pki/CA/newcerts/*",
                "/etc/pki/CA/private/*",
                "/etc/pki/tls/certs/*.crt",
                "/etc/pki/tls/private/*",
            ],
            &["ca-bundle.crt", "ca-bundle.trust.crt"],
        ),
    ),
    on(
        "cloud-init",
        "the state that cloud-init keeps of the instance, so that it starts anew",
        Delete(&["/var/lib/cloud/*", "/var/log/cloud-init*.log", "/run/cloud-init/*"]),
    ),
    on(
        "cloud-init-network",
        "network configuration that cloud-init wrote and will write again",
        Work::CloudNetwork,
    ),
    on("crash-data", "dumps of the kernel", Delete(&["/var/crash/*", "/var/log/dump/*"])),
    on(
        "cron-spool",
        "jobs of users for cron and at",
        DeleteFiles(&[
            "/var/spool/cron/*",
            "/var/spool/cron/crontabs/*",
            "/var/spool/cron/atjobs/*",
            "/var/spool/cron/atjobs/.SEQ",
            "/var/spool/cron/atspool/*",
            "/var/spool/cron/tabs/*",
            "/var/spool/at/*",
            "/var/spool/at/.SEQ",
            "/var/spool/at/spool/*",
            "/var/spool/atjobs/*",
            "/var/spool/atjobs/.SEQ",
            "/var/spool/atspool/*",
        ]),
    ),
    on("customize", "the other options of the command", Work::Options),
    on(
        "dhcp-client-state",
        "leases of DHCP, of every client",
        DeleteFiles(&[
            "/var/lib/dhclient/*",
            "/var/lib/dhcp/*",
            "/var/lib/dhcpcd/*",
            "/var/lib/dhcpcd5/*",
            "/var/db/dhcpcd/*",
            "/var/lib/NetworkManager/*.lease",
            "/var/lib/NetworkManager/dhclient-*.conf",
            "/var/lib/wicked/lease-*.xml",
            "/var/lib/wicked/duid.xml",
            "/var/lib/wicked/iaid.xml",
        ]),
    ),
    on("dhcp-server-state", "leases that a DHCP server gave", Delete(&["/var/lib/dhcpd/*"])),
    on("dovecot-data", "data of Dovecot", Delete(&["/var/lib/dovecot/*"])),
    off(
        "firewall-rules",
        "rules of the firewall",
        Delete(&["/etc/sysconfig/iptables", "/etc/firewalld/services/*", "/etc/firewalld/zones/*"]),
    ),
    off(
        "flag-reconfiguration",
        "asks the guest to configure itself at boot (/.unconfigured)",
        Work::Touch("/.unconfigured"),
    ),
    off(
        "fs-uuids",
        "new UUIDs of the file systems",
        Work::Refused(
            "the UUIDs stand in fstab, boot loader and initramfs, which nothing here could change with them",
        ),
    ),
    on(
        "ipa-client",
        "the state of an IPA client",
        Delete(&[
            "/etc/ipa/ca.crt",
            "/etc/ipa/default.conf",
            "/var/lib/ipa-client/sysrestore/*",
            "/var/lib/ipa-client/pki/*",
        ]),
    ),
    on("journal", "systemd's journal", Delete(&["/var/log/journal/*"])),
    off(
        "kerberos-data",
        "data of a Kerberos server",
        DeleteBut(&["/var/kerberos/krb5kdc/*"], &["kadm5.acl", "kdc.conf"]),
    ),
    on("kerberos-hostkeytab", "the host's keys for Kerberos", Delete(&["/etc/krb5.keytab"])),
    on(
        "logfiles",
        "logs, and what installers leave",
        DeleteFiles(&[
            "/etc/Pegasus/*.[cps][enrs][fmlrt]",
            "/root/anaconda-ks.cfg",
            "/root/anaconda-post.log",
            "/root/initial-setup-ks.cfg",
            "/root/install.log*",
            "/root/original-ks.cfg",
            "/var/cache/fontconfig/*",
            "/var/cache/gdm/*",
            "/var/cache/man/*",
            "/var/lib/AccountService/users/*",
            "/var/lib/fprint/*",
            "/var/lib/logrotate.status",
            "/var/lib/logrotate/*",
            "/var/log/*.log*",
            "/var/log/BackupPC/LOG",
            "/var/log/ConsoleKit/*",
            "/var/log/anaconda.syslog",
            "/var/log/anaconda/*",
            "/var/log/apache2/*_log*",
            "/var/log/apache2/*.log*",
            "/var/log/apt/*",
            "/var/log/aptitude*",
            "/var/log/audit/*",
            "/var/log/btmp*",
            "/var/log/ceph/*.log",
            "/var/log/chrony/*.log",
            "/var/log/cron*",
            "/var/log/cups/*_log*",
            "/var/log/debug*",
            "/var/log/dmesg*",
            "/var/log/exim4/*",
            "/var/log/faillog*",
            "/var/log/firewalld*",
            "/var/log/gdm/*",
            "/var/log/glusterfs/*.log",
            "/var/log/grubby*",
            "/var/log/httpd/*log*",
            "/var/log/installer/*",
            "/var/log/jetty/*.log",
            "/var/log/lastlog*",
            "/var/log/libvirt/*.log",
            "/var/log/libvirt/*/*.log",
            "/var/log/lightdm/*",
            "/var/log/lxc/*.log",
            "/var/log/mail/*",
            "/var/log/maillog*",
            "/var/log/messages*",
            "/var/log/nginx/*.log*",
            "/var/log/ntp",
            "/var/log/ntpstats/*",
            "/var/log/openvswitch/*",
            "/var/log/ppp/connect-errors",
            "/var/log/rhsm/*",
            "/var/log/secure*",
            "/var/log/setroubleshoot/*.log",
            "/var/log/spooler*",
            "/var/log/squid/*.log",
            "/var/log/syslog*",
            "/var/log/tallylog*",
            "/var/log/tuned/tuned.log",
            "/var/log/unattended-upgrades/*",
            "/var/log/wtmp*",
            "/var/log/xferlog*",
            "/var/named/data/named.run",
        ]),
    ),
    on(
        "lvm-system-devices",
        "the list of devices that LVM may use",
        Delete(&["/etc/lvm/devices/system.devices"]),
    ),
    off(
        "lvm-uuids",
        "new UUIDs of LVM",
        Work::Refused(
            "the engine for LVM does not rename volumes yet; run vgchange --uuid in the guest",
        ),
    ),
    on(
        "machine-id",
        "the machine's number: /etc/machine-id is empty, and systemd makes one at boot",
        Work::MachineId,
    ),
    on("mail-spool", "mail of users", DeleteFiles(&["/var/spool/mail/*", "/var/mail/*"])),
    on(
        "net-hostname",
        "host names in ifcfg files",
        DropVariables(&["/etc/sysconfig/network-scripts/ifcfg-*"], &["HOSTNAME", "DHCP_HOSTNAME"]),
    ),
    on(
        "net-hwaddr",
        "hardware addresses in ifcfg files",
        DropVariables(&["/etc/sysconfig/network-scripts/ifcfg-*"], &["HWADDR"]),
    ),
    on(
        "net-nmconn",
        "connections of NetworkManager",
        Delete(&["/etc/NetworkManager/system-connections/*.nmconnection"]),
    ),
    on(
        "networkmanager-state",
        "the secret key and the memory of NetworkManager",
        Delete(&[
            "/var/lib/NetworkManager/secret_key",
            "/var/lib/NetworkManager/seen-bssids",
            "/var/lib/NetworkManager/timestamps",
        ]),
    ),
    on(
        "pacct-log",
        "the accounts of processes",
        Empty(&["/var/account/pacct", "/var/log/account/pacct"]),
    ),
    on(
        "package-manager-cache",
        "caches of package managers",
        Delete(&[
            "/var/cache/apk/*",
            "/var/cache/apt/archives/*.deb",
            "/var/cache/apt/archives/partial/*",
            "/var/cache/apt/*.bin",
            "/var/cache/dnf/*",
            "/var/cache/libdnf5/*",
            "/var/cache/PackageKit/*",
            "/var/cache/pacman/pkg/*",
            "/var/cache/urpmi/*",
            "/var/cache/xbps/*",
            "/var/cache/yum/*",
            "/var/cache/zypp/*",
            "/var/cache/zypper/*",
        ]),
    ),
    on(
        "pam-data",
        "what PAM remembers",
        Delete(&[
            "/var/run/console/*",
            "/var/run/faillock/*",
            "/var/run/sepermit/*",
            "/var/lib/faillock/*",
        ]),
    ),
    on(
        "passwd-backups",
        "old copies of passwd, shadow and their like",
        Delete(&[
            "/etc/group-",
            "/etc/gshadow-",
            "/etc/passwd-",
            "/etc/shadow-",
            "/etc/subgid-",
            "/etc/subuid-",
        ]),
    ),
    on(
        "puppet-data-log",
        "data and logs of Puppet",
        DeleteFiles(&["/var/log/puppet/*", "/var/lib/puppet/*/*", "/var/lib/puppet/*/*/*"]),
    ),
    on(
        "random-seed",
        "the stored seed of randomness, so that clones do not share it",
        Delete(&[
            "/var/lib/systemd/random-seed",
            "/var/lib/urandom/random-seed",
            "/var/lib/random-seed",
            "/var/lib/misc/random-seed",
            "/var/lib/seedrng/seed.*",
            "/boot/efi/loader/random-seed",
            "/boot/loader/random-seed",
            "/efi/loader/random-seed",
        ]),
    ),
    on(
        "rh-subscription-manager",
        "the subscription of Red Hat",
        Delete(&["/etc/pki/consumer/*", "/etc/pki/entitlement/*"]),
    ),
    on(
        "rhn-systemid",
        "the system's number at RHN",
        Delete(&["/etc/sysconfig/rhn/systemid", "/etc/sysconfig/rhn/osad-auth.conf"]),
    ),
    on("rpm-db", "the shared memory of the RPM database", Delete(&["/var/lib/rpm/__db.*"])),
    on(
        "samba-db-log",
        "data and logs of Samba",
        DeleteFiles(&[
            "/var/log/samba/old/*",
            "/var/log/samba/*",
            "/var/lib/samba/*/*",
            "/var/lib/samba/*",
        ]),
    ),
    off(
        "script",
        "a script of this machine",
        Work::Refused(
            "it would run on this machine with the guest mounted; use the other options for edits",
        ),
    ),
    on(
        "smolt-uuid",
        "the machine's number for Smolt",
        Delete(&["/etc/sysconfig/hw-uuid", "/etc/smolt/uuid", "/etc/smolt/hw-uuid"]),
    ),
    on("ssh-hostkeys", "the SSH host keys", Work::HostKeys),
    on(
        "ssh-userdir",
        "the directories .ssh of root and of users",
        Delete(&["/home/*/.ssh", "/root/.ssh"]),
    ),
    on("sssd-db-log", "data and logs of SSSD", Delete(&["/var/log/sssd/*", "/var/lib/sss/db/*"])),
    on(
        "systemd-credentials",
        "the host's key for credentials of systemd; credentials that it encrypted become unreadable",
        Delete(&["/var/lib/systemd/credential.secret"]),
    ),
    on("tmp-files", "temporary files", Delete(&["/tmp/*", "/tmp/.*", "/var/tmp/*", "/var/tmp/.*"])),
    on(
        "udev-persistent-net",
        "names that udev gave to network interfaces",
        Delete(&["/etc/udev/rules.d/70-persistent-net.rules"]),
    ),
    off(
        "user-account",
        "the accounts of users",
        Work::Refused("no account is removed here; delete it in the guest with userdel"),
    ),
    on("utmp", "the list of logged-in users", Delete(&["/var/run/utmp", "/run/utmp"])),
    on("yum-uuid", "the machine's number for yum", Delete(&["/var/lib/yum/uuid"])),
];
