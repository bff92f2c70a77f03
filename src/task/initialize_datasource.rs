//! InitializeDatasource: a seed for cloud-init, so that it takes the instance's name, network and
//! user data from the disk itself and looks for them nowhere else.
//!
//! cloud-init must not undo at the first boot the work of the other tasks. With a seed,
//! AssignHostname writes no `preserve_hostname`, ConfigureNetwork leaves the network to the seed,
//! and ChangePassword hands the image's default user, who does not exist before the first boot,
//! to cloud-init. The host keys that DeleteSSHKeys makes stay in any case.

use snf_fs::Attributes;
use snf_fs::error::display_name;

use super::configure_network::render;
use super::{Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work};
use crate::ask::plan::Plan;
use crate::craft::secret::Secret;
use crate::guest::CONFIG_MAX;
use crate::guest::glob;

pub(super) static TASK: Task = Task {
    id: TaskId::InitializeDatasource,
    summary: "give cloud-init a NoCloud seed: name, network and user data",
    applies: Plan::wants_cloud_init,
    work: Work::guest(Needs::System(LINUX), run),
};

const MAIN: &str = "/etc/cloud/cloud.cfg";
const OFF: &str = "/etc/cloud/cloud-init.disabled";
/// The directory of the image's own settings; ours come after them.
pub(super) const CONFIG_DIR: &str = "/etc/cloud/cloud.cfg.d";
const OURS: [&[u8]; 2] =
    [b"/etc/cloud/cloud.cfg.d/99-snf-image-", b"/etc/cloud/cloud.cfg.d/zz-snf-image-"];
/// Read after `99_pve.cfg`, `zz-site.cfg` and their like: of several lists of data sources the last
/// one counts.
const DATASOURCE: &str = "zz-snf-image-datasource.cfg";
const SEED: &str = "/var/lib/cloud/seed/nocloud";
const NO_USER_DATA: &[u8] = b"#cloud-config\n{}\n";

/// Whether this run makes a seed.
pub(crate) fn seeded(session: &Session<'_>) -> Result<bool, TaskError> {
    let plan = session.plan;
    Ok(TASK.will_run(plan)?)
}

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    for (path, wanted, problem) in [
        (MAIN, true, "the image has no cloud-init (there is no /etc/cloud/cloud.cfg)"),
        (OFF, false, "cloud-init is switched off in the image (/etc/cloud/cloud-init.disabled)"),
    ] {
        if guest.tree.exists(path)? != wanted {
            return Err(not_there(problem, session));
        }
    }
    if let Some(problem) = switched_off(guest)? {
        let problem = format!("cloud-init is switched off in the image ({problem})");
        return Err(not_there(&problem, session));
    }
    let id: [u8; 16] = session.entropy.derive("cloud-init instance").bytes();
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let seed = session.plan.cloud_seed.clone();
    let mut meta = format!("instance-id: \"iid-{id}\"\n");
    if let Some(name) = &session.plan.hostname {
        meta.push_str(&format!("local-hostname: {}\n", quote(name)));
    }
    guest.tree.mkdir_all("/var/lib/cloud/seed", Attributes { mode: 0o755, uid: 0, gid: 0 })?;
    guest.tree.mkdir_all(SEED, Attributes { mode: 0o700, uid: 0, gid: 0 })?;
    let meta = seed.meta_data.unwrap_or_else(|| Secret::new(meta));
    check_meta_data(&meta, session);
    put(guest, SEED, "meta-data", meta.expose(), 0o600)?;
    let user_data = session.plan.cloud_userdata.clone();
    for data in user_data.iter().chain(&seed.vendor_data) {
        check_user_data(data, session);
    }
    let user_data = user_data.as_ref().map_or(NO_USER_DATA, Secret::expose);
    put(guest, SEED, "user-data", user_data, 0o600)?;
    match &seed.vendor_data {
        Some(data) => put(guest, SEED, "vendor-data", data.expose(), 0o600)?,
        // A leftover of an earlier seed.
        None => remove(guest, &format!("{SEED}/vendor-data"))?,
    }
    if let Some(network) = &seed.network_config {
        if keeps_network(guest)? {
            session.warn(
                "network-config has no effect: the image tells cloud-init to leave the network alone \
                 (network: {config: disabled} in /etc/cloud)",
            );
        }
        put(guest, SEED, "network-config", network.expose(), 0o600)?;
        remove(guest, &format!("{CONFIG_DIR}/99-snf-image-network.cfg"))?;
    } else if seeds_network(guest, session)? {
        let text = render::cloud_init(&session.plan.nics);
        put(guest, SEED, "network-config", text.as_bytes(), 0o600)?;
        remove(guest, &format!("{CONFIG_DIR}/99-snf-image-network.cfg"))?;
    } else {
        remove(guest, &format!("{SEED}/network-config"))?;
    }
    remove(guest, &format!("{CONFIG_DIR}/99-snf-image-hostname.cfg"))?;
    let mut text = String::from(
        "# Written by snf-image: the instance's data are in /var/lib/cloud/seed/nocloud.\n\
         datasource_list: [ NoCloud, None ]\n\
         # The name as it was given, as on guests without cloud-init.\n\
         prefer_fqdn_over_hostname: true\n",
    );
    if session.plan.cloud_init_debug {
        text.push_str("output: {all: '| tee -a /var/log/cloud-init-output.log /dev/console'}\n");
    }
    remove(guest, &format!("{CONFIG_DIR}/99-snf-image-datasource.cfg"))?;
    put(guest, CONFIG_DIR, DATASOURCE, text.as_bytes(), 0o644)?;
    // A file that is read after ours is stronger.
    for path in glob::expand(&guest.tree, format!("{CONFIG_DIR}/*.cfg").as_bytes())? {
        let ours = format!("{CONFIG_DIR}/{DATASOURCE}");
        let text = guest.tree.read_optional(&path, CONFIG_MAX)?.unwrap_or_default();
        let sets = String::from_utf8_lossy(&text)
            .lines()
            .any(|line| line.trim_end().starts_with("datasource_list:"));
        if sets && path.as_slice() > ours.as_bytes() {
            session.warn(format!(
                "cloud-init will not use the seed: {} has a datasource_list of its own and is read \
                 last",
                display_name(&path)
            ));
        }
    }
    Ok(())
}

/// cloud-init is asked for and cannot come.
fn not_there(problem: &str, session: &Session<'_>) -> TaskError {
    let plan = session.plan;
    let asked = match plan.tasks.is_all() {
        true => {
            "CLOUD_INIT or cloud_userdata asks for it; take another image, or leave them out".into()
        }
        false => format!(
            "{} asks for it; take another image, or leave it out",
            plan.tasks.words(TaskId::InitializeDatasource)
        ),
    };
    TaskError::request(format!("{problem}, and {asked}"))
}

/// Says what cloud-init will make of a person's `meta-data`.
fn check_meta_data(data: &Secret, session: &mut Session<'_>) {
    let text = String::from_utf8_lossy(data.expose());
    if !text.contains("instance-id") {
        session.warn(
            "meta-data has no instance-id: a guest that cloud-init has set up before stays as it is",
        );
    }
    if let Some(name) = &session.plan.hostname
        && text.contains("local-hostname")
        && !text.contains(name.as_str())
    {
        let warning = format!(
            "meta-data has a local-hostname of its own, which cloud-init sets in place of {name}"
        );
        session.warn(warning);
    }
}

/// The beginnings by which cloud-init knows what data are.
const KINDS: [&[u8]; 12] = [
    b"#cloud-config",
    b"#!",
    b"#include",
    b"## template: jinja",
    b"#cloud-boothook",
    b"#part-handler",
    b"#cloud-config-archive",
    b"#cloud-config-jsonp",
    b"#upstart-job",
    b"Content-Type:",
    b"MIME-Version:",
    b"\x1f\x8b",
];

/// Says that cloud-init will pass over data that it does not know.
fn check_user_data(data: &Secret, session: &mut Session<'_>) {
    let data = data.expose();
    if !data.is_empty() && !KINDS.iter().any(|kind| data.starts_with(kind)) {
        session.warn(
            "cloud-init will not use user data that begin with none of #cloud-config, #!, #include and \
             the other lines that say what they are",
        );
    }
}

/// Files that hold the kernel's command line.
const COMMAND_LINES: [&str; 6] = [
    "/etc/kernel/cmdline",
    "/etc/default/grub",
    "/etc/default/grub.d/*.cfg",
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/loader/entries/*.conf",
];

/// The other ways to switch cloud-init off, in words.
fn switched_off(guest: &Guest) -> Result<Option<String>, TaskError> {
    let policy = guest.config("/etc/cloud/ds-identify.cfg")?.unwrap_or_default();
    let disabled = String::from_utf8_lossy(&policy).lines().any(|line| {
        line.split('#')
            .next()
            .unwrap_or_default()
            .trim()
            .strip_prefix("policy:")
            .is_some_and(|policy| matches!(policy.trim().split(',').next(), Some("disabled")))
    });
    if disabled {
        return Ok(Some("policy: disabled in /etc/cloud/ds-identify.cfg".into()));
    }
    let path = on_command_line(guest, "cloud-init=disabled")?;
    Ok(path.map(|path| format!("cloud-init=disabled in {path}")))
}

/// The first file of a command line of the kernel that has this word.
///
/// # Errors
/// Errors of the tree.
pub(crate) fn on_command_line(guest: &Guest, word: &str) -> Result<Option<String>, TaskError> {
    for pattern in COMMAND_LINES {
        for path in glob::expand(&guest.tree, pattern.as_bytes())? {
            if !guest.tree.is_file(&path)? {
                continue;
            }
            let text = guest.tree.read(&path, CONFIG_MAX)?;
            let has = String::from_utf8_lossy(&text)
                .lines()
                .any(|line| !line.trim_start().starts_with('#') && line.contains(word));
            if has {
                return Ok(Some(display_name(&path)));
            }
        }
    }
    Ok(None)
}

/// Whether the seed carries the network. It does not where the image tells cloud-init to leave the
/// network alone: then it is configured as on any other image.
pub(super) fn seeds_network(guest: &Guest, session: &Session<'_>) -> Result<bool, TaskError> {
    let plan = session.plan;
    if plan.nics.is_empty()
        || !seeded(session)?
        || !super::configure_network::TASK.will_run(plan)?
    {
        return Ok(false);
    }
    Ok(!keeps_network(guest)?)
}

/// Whether the image tells cloud-init to leave the network alone.
fn keeps_network(guest: &Guest) -> Result<bool, TaskError> {
    for text in configuration(guest)? {
        let off = text.lines().any(|line| {
            let line = line.split('#').next().unwrap_or_default();
            line.split_once("config:").is_some_and(|(_, value)| {
                value.trim_matches([' ', '}', '"', '\'']).eq_ignore_ascii_case("disabled")
            })
        });
        if off {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The user whom cloud-init makes at the first boot, if the image names one.
pub(super) fn default_user(guest: &Guest) -> Result<Option<String>, TaskError> {
    let mut found = None;
    for text in configuration(guest)? {
        let mut inside: Option<usize> = None;
        for line in text.lines() {
            let line = line.split(" #").next().unwrap_or_default();
            let (depth, word) = (line.len() - line.trim_start().len(), line.trim());
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            if word == "default_user:" {
                inside = Some(depth);
            } else if inside.is_some_and(|outer| depth <= outer) {
                inside = None;
            } else if inside.is_some()
                && let Some(name) = word.strip_prefix("name:")
            {
                found = Some(name.trim().trim_matches(['"', '\'']).to_owned());
            }
        }
    }
    Ok(found.filter(|name| !name.is_empty()))
}

/// The image's own settings of cloud-init, the later ones stronger; not those that we wrote.
pub(super) fn configuration(guest: &Guest) -> Result<Vec<String>, TaskError> {
    let mut paths = vec![MAIN.as_bytes().to_vec()];
    paths.extend(glob::expand(&guest.tree, format!("{CONFIG_DIR}/*.cfg").as_bytes())?);
    paths.retain(|path| !OURS.iter().any(|ours| path.starts_with(ours)));
    let mut out = Vec::new();
    for path in paths {
        let text = guest.tree.read_optional(&path, CONFIG_MAX)?.unwrap_or_default();
        out.push(String::from_utf8_lossy(&text).into_owned());
    }
    Ok(out)
}

/// Writes one of our files: root's, with exactly this mode.
pub(super) fn put(
    guest: &mut Guest,
    dir: &str,
    name: &str,
    content: &[u8],
    mode: u16,
) -> Result<(), TaskError> {
    guest.tree.mkdir_all(dir, Attributes { mode: 0o755, uid: 0, gid: 0 })?;
    let path = format!("{dir}/{name}");
    guest.tree.write(&path, content, Attributes { mode, uid: 0, gid: 0 })?;
    guest.tree.chown(&path, 0, 0)?;
    guest.tree.chmod(&path, mode)?;
    Ok(())
}

fn remove(guest: &mut Guest, path: &str) -> Result<(), TaskError> {
    match guest.tree.unlink(path) {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A string as YAML takes it in any place: JSON's form.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::cloud_seed::CloudSeed;
    use crate::ask::network::{Ipv4, Ipv6, Mac, Nic};
    use crate::ask::plan::{Password, Who};
    use crate::task::testing::Guest;
    use crate::task::{TASKS, assign_hostname, change_password, configure_network};

    fn guest() -> Guest {
        let mut guest = Guest::debian();
        guest.write(
            MAIN,
            "users:\n - default\ndisable_root: true\nsystem_info:\n   default_user:\n     \
             name: debian # who\n     lock_passwd: True\n   distro: debian\n",
        );
        guest.write("/usr/sbin/netplan", "");
        guest.tree().commit().unwrap();
        guest.renew();
        guest.plan.properties.set("CLOUD_INIT", "yes");
        guest.plan.hostname = Some("vm1.example.org".into());
        let nic = Nic::new(0, Mac([0xaa, 0, 0, 0, 0, 1]), Ipv4::Dhcp, Ipv6::None);
        guest.plan.nics = vec![nic];
        guest
    }

    #[test]
    fn a_seed_and_nothing_that_works_against_it() {
        let mut guest = guest();
        guest.plan.cloud_userdata = Some(Secret::new("#!/bin/sh\necho hello\n"));
        for task in [&TASK, &assign_hostname::TASK, &configure_network::TASK] {
            guest.run(task).unwrap();
        }
        let meta = guest.read("/var/lib/cloud/seed/nocloud/meta-data");
        assert!(meta.contains("local-hostname: \"vm1.example.org\"\n"), "{meta}");
        assert_eq!(guest.read("/var/lib/cloud/seed/nocloud/user-data"), "#!/bin/sh\necho hello\n");
        let network = guest.read("/var/lib/cloud/seed/nocloud/network-config");
        assert!(network.contains("version: 2\n") && network.contains("aa:00:00:00:00:01"));
        for file in ["meta-data", "user-data", "network-config"] {
            let path = format!("/var/lib/cloud/seed/nocloud/{file}");
            assert_eq!(guest.attributes(&path), (0o600, 0, 0), "{file}");
        }
        let changed = guest.changed();
        assert!(!changed.iter().any(|path| path.contains("netplan")), "{changed:?}");
        assert!(!changed.iter().any(|path| path.ends_with("-hostname.cfg")), "{changed:?}");
        assert!(guest.read("/etc/hostname").starts_with("vm1"));
    }

    #[test]
    fn parts_that_a_person_gives() {
        let mut guest = guest();
        guest.plan.nics.clear();
        guest.plan.cloud_userdata = Some(Secret::new("echo hello\n"));
        guest.plan.cloud_seed = CloudSeed {
            meta_data: Some(Secret::new("local-hostname: other\n")),
            network_config: Some(Secret::new("version: 2\n")),
            vendor_data: Some(Secret::new("#!/bin/sh\n")),
        };
        guest.run(&TASK).unwrap();
        for (file, text) in [
            ("meta-data", "local-hostname: other\n"),
            ("network-config", "version: 2\n"),
            ("vendor-data", "#!/bin/sh\n"),
            ("user-data", "echo hello\n"),
        ] {
            assert_eq!(guest.read(&format!("{SEED}/{file}")), text);
        }
        let warnings = guest.warnings().join("\n");
        for said in ["no instance-id", "in place of vm1.example.org", "begin with none of"] {
            assert!(warnings.contains(said), "{warnings}");
        }
        guest.write(&format!("{CONFIG_DIR}/90-own.cfg"), "network: {config: disabled}\n");
        guest.run(&TASK).unwrap();
        assert!(guest.warnings().join("\n").contains("network-config has no effect"));
        guest.plan.cloud_userdata = None;
        guest.plan.cloud_seed = CloudSeed::default();
        guest.run(&TASK).unwrap();
        assert!(!guest.tree().exists(format!("{SEED}/vendor-data")).unwrap());
    }

    #[test]
    fn an_image_that_keeps_its_network_to_itself() {
        for text in ["network: {config: disabled}\n", "network:\n  config: \"disabled\"\n"] {
            let mut guest = guest();
            guest.write(&format!("{CONFIG_DIR}/90-own.cfg"), text);
            guest.run(&TASK).unwrap();
            guest.run(&configure_network::TASK).unwrap();
            assert!(!guest.tree().exists(format!("{SEED}/network-config")).unwrap());
            assert!(guest.tree().exists("/etc/netplan/60-snf-image.yaml").unwrap());
        }
    }

    #[test]
    fn the_seed_is_used_or_that_is_said() {
        let mut guest = guest();
        guest.write(&format!("{CONFIG_DIR}/99_pve.cfg"), "datasource_list: [ ConfigDrive ]\n");
        guest.run(&TASK).unwrap();
        assert!(guest.warnings().is_empty());
        let text = guest.read(&format!("{CONFIG_DIR}/{DATASOURCE}"));
        assert!(text.contains("prefer_fqdn_over_hostname: true\n"));
        guest.write(&format!("{CONFIG_DIR}/zzz.cfg"), "datasource_list: [ Ec2 ]\n");
        guest.run(&TASK).unwrap();
        assert!(guest.warnings()[0].contains("zzz.cfg has a datasource_list of its own"));
        guest.write("/boot/grub/grub.cfg", "# cloud-init=disabled\nlinux /v cloud-init=disabled\n");
        assert!(guest.fail(&TASK).contains("(cloud-init=disabled in /boot/grub/grub.cfg)"));
        guest.write("/etc/cloud/ds-identify.cfg", "policy: disabled\n");
        assert!(guest.fail(&TASK).contains("(policy: disabled in /etc/cloud/ds-identify.cfg)"));
    }

    #[test]
    fn the_user_that_is_yet_to_be_made() {
        let mut guest = guest();
        guest.plan.properties.set("USERS", "root debian");
        guest.plan.passwords = vec![(Who::Default, Password::Hash(Secret::new("$6$a$b")))];
        guest.plan.auth_keys = vec![(Who::Default, "ssh-ed25519 AAAA me\n".into())];
        guest.run(&TASK).unwrap();
        guest.run(&change_password::TASK).unwrap();
        let path = format!("{CONFIG_DIR}/99-snf-image-user.cfg");
        let text = guest.read(&path);
        for line in [
            "disable_root: false\n",
            "    lock_passwd: false\n",
            "    passwd: \"$6$a$b\"\n",
            "      - \"ssh-ed25519 AAAA me\"\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert_eq!(guest.attributes(&path), (0o600, 0, 0));
        assert!(guest.read("/etc/shadow").starts_with("root:$6$a$b:"));
        guest.plan.properties.set("USERS", "mallory");
        let error = guest.run(&change_password::TASK).unwrap_err().to_string();
        assert!(error.contains("no user \"mallory\""), "{error}");
    }

    #[test]
    fn an_image_without_it_is_an_error() {
        let mut guest = Guest::debian();
        guest.plan.properties.set("CLOUD_INIT", "yes");
        let error = guest.run(&TASK).unwrap_err().to_string();
        assert!(error.contains("has no cloud-init"), "{error}");
        guest.write(MAIN, "");
        guest.write(OFF, "");
        let error = guest.run(&TASK).unwrap_err().to_string();
        assert!(error.contains("switched off"), "{error}");
        assert!(TASKS.iter().any(|task| std::ptr::eq(*task, &TASK)));
    }
}
