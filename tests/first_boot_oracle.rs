//! The programs of the first boot, judged by those that would run them: systemd-analyze reads the units, and the
//! shells of Debian and BusyBox run the scripts. A swap file is taken by swapon.

use std::fs;

use crate::cli_support::Guest;
use crate::edit_oracle::{Mounted, shell};

const DIR: &str = "var/lib/snf-image/firstboot";

#[test]
fn scripts_run_once_and_in_their_order() {
    let guest = Guest::debian_with(|tree| {
        fs::create_dir_all(tree.join("var/log")).unwrap();
        fs::write(tree.join("bin/sh"), "").unwrap();
    });
    let script = guest.file("set up.py", "#!/bin/sh\necho \"first in $PWD as $HOME\"\nexit 3\n");
    guest
        .apply(&[
            "--firstboot",
            &script,
            "--firstboot-command",
            "echo second; printf '%s\\n' \"a\\b 'c'\"",
            // As a script that restarts the machine.
            "--firstboot-command",
            "kill -TERM $PPID; sleep 1; echo third",
            "--firstboot-command",
            "echo fourth",
            "--firstboot-early-command",
            "echo early",
        ])
        .works();
    guest.check();
    for interpreter in ["dash", "busybox sh"] {
        let mount = Mounted::new(&guest);
        let copy = guest.dir.path().join("copy");
        shell(&mount.0, &format!("rm -rf {0}; cp -a . {0}", copy.display()));
        let run = |phase: &str| {
            let script = format!(
                "unshare -m sh -c 'mkdir -p /var/lib/snf-image && mount --bind $PWD/var/log /var/log &&
                 mount --bind $PWD/var/lib/snf-image /var/lib/snf-image &&
                 exec {interpreter} /{DIR}/run {phase}'; echo \"ended with $?\""
            );
            shell(&copy, &format!("set +e\n{script}"))
        };
        assert!(run("early").contains("ended with 0"));
        assert!(run("late").contains("ended with 143"), "{interpreter}");
        let log = shell(&copy, "stat -c %a var/log/*.log; cat var/log/*.log");
        let said = ["600\n", "early", "first in / as /root", "ends with 3", "second\na\\b 'c'\n"];
        let places: Vec<_> = said.iter().map(|text| log.find(text).expect(text)).collect();
        assert!(places.is_sorted() && !log.contains("fourth"), "{log}");
        let second = run("late");
        assert!(
            second.contains("0004-command ends with 0") && second.contains("ended with 0"),
            "{second}"
        );
        let log = shell(&copy, "cat var/log/*.log");
        for once in ["early\n", "first in", "second\n", "fourth\n"] {
            assert_eq!(log.matches(once).count(), 1, "{once}: {log}");
        }
        assert!(run("late").starts_with("ended with 0"));
    }
}

#[test]
fn systemd_takes_the_units() {
    let guest = Guest::debian();
    guest.apply(&["--firstboot-command", "true", "--firstboot-early-command", "true"]).works();
    let mount = Mounted::new(&guest);
    let said = shell(
        &mount.0,
        "systemd-analyze verify --man=no --generators=no --recursive-errors=no \
           $PWD/etc/systemd/system/snf-image-firstboot.service \
           $PWD/etc/systemd/system/snf-image-firstboot-early.service 2>&1 || true
         systemctl --root=$PWD is-enabled snf-image-firstboot snf-image-firstboot-early",
    );
    assert_eq!(said, "enabled\nenabled\n", "the units, and nothing to say of them");
}

#[test]
fn a_swap_file_is_one() {
    let guest = Guest::debian();
    guest.apply(&["--swap", "6M"]).works();
    guest.check();
    let refused = guest.apply(&["--swap", "6M"]);
    assert!(refused.stderr.contains("has /swapfile already"), "{}", refused.stderr);
    let guest_of_noise = Guest::debian();
    let refused = guest_of_noise.apply(&["--swap", "1G"]);
    assert!(refused.stderr.contains("MiB free; grow it with --size"), "{}", refused.stderr);
    let mount = Mounted::new(&guest);
    let said = shell(
        &mount.0,
        "stat -c '%a %s' swapfile; swaplabel swapfile; tail -1 etc/fstab; filefrag -v swapfile | grep -c unwritten || true
         swapon $PWD/swapfile; swapoff $PWD/swapfile",
    );
    assert!(said.starts_with("600 6291456\n") && said.contains("UUID:"), "{said}");
    assert!(said.ends_with("/swapfile none swap sw 0 0\n0\n"), "{said}");
}
