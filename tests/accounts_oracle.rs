//! `--add-user` and `--add-group`, compared with useradd and groupadd on a mounted image that has this
//! machine's own accounts and rules; pwck, grpck and visudo are content.

use std::fs;
use std::path::Path;

use crate::cli_support::Guest;
use crate::edit_oracle::{Mounted, seen, shell};

/// The files that the tools read and write.
const FILES: [&str; 8] =
    ["passwd", "group", "shadow", "gshadow", "subuid", "subgid", "login.defs", "default/useradd"];

fn guest(more: impl FnOnce(&Path)) -> Guest {
    Guest::debian_with(|tree| {
        fs::create_dir_all(tree.join("etc/default")).unwrap();
        for file in FILES {
            fs::copy(Path::new("/etc").join(file), tree.join("etc").join(file)).unwrap();
        }
        shell(
            tree,
            "cp -a /etc/skel etc; mkdir -p srv home var/mail etc/sudoers.d usr/bin usr/sbin; rm -rf home/*
             mkdir -m 700 etc/skel/.config; echo x > etc/skel/.config/x; ln -s x etc/skel/.config/y
             cp /etc/sudoers etc; cp -a /etc/pam.d /etc/security /etc/hosts /etc/nsswitch.conf etc; touch usr/bin/sudo bin/sh usr/sbin/nologin",
        );
        more(tree);
    })
}

/// A script that runs with the directories of the mounted image in place of this machine's.
fn inside(mount: &Mounted, script: &str) -> String {
    let file = mount.0.with_extension("sh");
    fs::write(&file, script).unwrap();
    shell(
        &mount.0,
        &format!(
            "unshare -m bash -eu -c 'for dir in etc home srv var/mail
             do mount --bind $PWD/$dir /$dir; done; exec bash -eu {} 2>&1'",
            file.display()
        ),
    )
}

#[test]
fn users_and_groups_are_those_of_useradd() {
    for rules in [
        "",
        "echo 'HOME_MODE 0700' >> etc/login.defs; sed -i s/^USERGROUPS_ENAB.*/USERGROUPS_ENAB\\ no/ etc/login.defs",
    ] {
        let (ours, theirs) =
            (guest(|tree| drop(shell(tree, rules))), guest(|tree| drop(shell(tree, rules))));
        let check = "pwck -rq || true; grpck -r || true";
        let before = inside(&Mounted::new(&ours), check);
        let run = ours.apply(&[
            "--add-group",
            "docker:system",
            "--add-group",
            "team",
            "--add-user",
            "bob:groups=docker+adm,comment=Bob Builder",
            "--add-user",
            "svc:system,shell=/usr/sbin/nologin",
            "--add-user",
            "web:uid=5000,group=team,home=/srv/web,shell=/bin/bash,groups=adm",
            "--add-user",
            "eve",
        ]);
        run.works();
        inside(
            &Mounted::new(&theirs),
            "umask 022; groupadd -r docker; groupadd team
             useradd -m -G docker,adm -c 'Bob Builder' bob
             useradd -r -s /usr/sbin/nologin svc
             useradd -m -u 5000 -g team -d /srv/web -s /bin/bash -G adm web
             useradd -m eve
             rm -f /etc/*- /etc/.pwd.lock",
        );
        ours.check();
        assert_eq!(inside(&Mounted::new(&ours), check), before, "pwck and grpck");
        let text = |guest: &Guest| {
            shell(&Mounted::new(guest).0, "tail -n 9 etc/passwd etc/group etc/*shadow etc/sub*")
        };
        assert_eq!(text(&ours), text(&theirs));
        let (a, b) = (seen(&ours), seen(&theirs));
        let first = a.lines().zip(b.lines()).find(|(a, b)| a != b);
        assert!(a == b, "{first:?}");
    }
}

#[test]
fn rules_of_sudo_are_accepted() {
    let guest = guest(|_| {});
    guest
        .apply(&[
            "--add-user",
            "a.b:sudo",
            "--add-user",
            "ADMIN:sudo=password",
            "--add-user",
            "m$:sudo",
        ])
        .works();
    let mount = Mounted::new(&guest);
    let said = shell(
        &mount.0,
        "for file in etc/sudoers.d/*snf*; do visudo -cf $file; done; ls -l etc/sudoers.d; cat etc/sudoers.d/*snf*",
    );
    assert_eq!(said.matches("parsed OK").count(), 3, "{said}");
    assert!(said.contains("a.b ALL=(ALL:ALL) NOPASSWD: ALL\n"), "{said}");
    assert!(inside(&mount, "visudo -c").contains("90-snf-image-a_b: parsed OK"));
    let allowed = inside(&mount, "sudo -ll -U a.b; sudo -ll -U ADMIN");
    assert_eq!(allowed.matches("Commands:\n\tALL").count(), 2, "{allowed}");
    assert_eq!(allowed.matches("!authenticate").count(), 1, "{allowed}");
}
