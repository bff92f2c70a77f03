//! From the command line to a plan.

use std::collections::{BTreeMap, BTreeSet};

use snf_image::edit::{AccountName, Edit, clash};
use snf_image::failure::sentence;
use snf_image::network::Nic;
use snf_image::nic_option;
use snf_image::params::{check_keys, check_product_key};
use snf_image::personality;
use snf_image::plan::{Grow, Growth, HostKeys, MachineId, Password, Plan, Tasks, Who};
use snf_image::properties::Properties;
use snf_image::random::Entropy;
use snf_image::secret::Secret;
use snf_image::sshkey::check_line;
use snf_image::task::prepare_system::select;
use snf_image::task::{TaskId, check_hostname};
use zeroize::Zeroizing;

use crate::args::{Apply, GrowArg, HostKeysArg};
use crate::cloud::SeedFiles;
use crate::document;
use crate::exit::Failure;
use crate::luks::KeySpec;
use crate::selector::{Inputs, Selector, read_file, user_and_file, user_and_selector};

/// Key files and personalities are read up to this size.
const TEXT_MAX: u64 = 16 << 20;

/// Contents that travel into the helper VM stand in its request: they are read up to this size.
const CARRIED_MAX: u64 = 16 << 20;

/// A password that was made here, to be shown once when it is in force.
#[derive(Debug)]
pub(crate) struct MadePassword {
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
}

/// The request of the command line.
pub(crate) struct Request {
    pub(crate) plan: Plan,
    pub(crate) made: Vec<MadePassword>,
    pub(crate) warnings: Vec<String>,
}

/// The parsed command line, checked before any file is read.
pub(crate) struct Parsed {
    passwords: Vec<(String, Selector)>,
    keys: Vec<(String, std::path::PathBuf)>,
    edits: Vec<Edit>,
    sysprep: Vec<String>,
    machine_id: Option<MachineId>,
    product_key: Option<Selector>,
    properties: Properties,
    luks_keys: Vec<KeySpec>,
    seed: Option<SeedFiles>,
    cloud_user: Option<String>,
    nics: Vec<Nic>,
}

/// A secret that is to be read.
enum Wanted<'a> {
    LuksKey(&'a KeySpec),
    ProductKey(&'a Selector),
    Password(&'a String, &'a Selector),
}

impl Parsed {
    /// Parses every option's value.
    pub(crate) fn new(args: &Apply) -> Result<Self, Failure> {
        let grows = args.size.is_some() || args.grow.is_some();
        if args.no_move && !grows {
            return Err(Failure::usage("--no-move has no effect without --size or --grow"));
        }
        let others = grows
            || args.root_password.is_some()
            || !args.user_password.is_empty()
            || !args.ssh_key.is_empty()
            || args.hostname.is_some()
            || !args.edits.is_empty()
            || !args.planned.edits.is_empty()
            || args.personality.is_some()
            || args.machine_id.is_some()
            || args.host_keys.is_some()
            || args.answer_file.is_some()
            || args.product_key.is_some()
            || args.time_zone.is_some()
            || args.cloud_init.is_some()
            || args.cloud_user.is_some()
            || !args.nic.is_empty();
        if !args.laid && !others && args.sysprep.is_none() {
            return Err(Failure::usage(
                "nothing to change was asked for; see snf-customize apply --help, or use inspect to look only",
            ));
        }
        let mut passwords = Vec::new();
        if let Some(text) = &args.root_password {
            passwords.push(("root".to_owned(), Selector::parse(text, "--root-password")?));
        }
        for text in &args.user_password {
            passwords.push(user_and_selector(text, "--user-password")?);
        }
        let mut users = BTreeSet::new();
        if let Some((user, _)) = passwords.iter().find(|(user, _)| !users.insert(user)) {
            return Err(Failure::usage(format!("the password of {user} is given twice")));
        }
        if let Some(name) = &args.hostname {
            hostname(name)?;
        }
        let keys = args
            .ssh_key
            .iter()
            .map(|text| user_and_file(text, "--ssh-key"))
            .collect::<Result<_, _>>()?;
        let mut edits = args.planned.edits.clone();
        edits.extend(args.edits.parse()?);
        if let Some(problem) = clash(&edits) {
            return Err(Failure::usage(problem));
        }
        if let Some((twice, _)) =
            edits.iter().zip(edits.iter().skip(1)).find(|(a, b)| a.is_undone_by(b))
        {
            return Err(Failure::usage(format!("{} is given twice", twice.origin)));
        }
        let mut properties = properties_of(args.properties.as_deref().unwrap_or_default())?;
        if let Some(volume) = &args.root_partition {
            properties.set("ROOT_PARTITION", &volume.0);
        }
        if let Some(problem) = properties.problems().first() {
            return Err(Failure::usage(sentence(problem)));
        }
        if args.offline_password {
            properties.set("OFFLINE_PASSWORD", "yes");
        }
        if args.answer_file.is_some() {
            properties.set("IGNORE_UNATTEND", "yes");
        }
        if args.offline_password && args.root_password.is_none() && args.user_password.is_empty() {
            return Err(Failure::usage(
                "--offline-password has no effect without --root-password or --user-password",
            ));
        }
        let product_key = args.product_key.as_deref().map(product_key).transpose()?;
        let machine_id = args.machine_id.as_deref().map(machine_id).transpose()?;
        let luks_keys = KeySpec::parse_all(&args.stack.luks_key)?;
        let sysprep = match &args.sysprep {
            None => Vec::new(),
            Some(list) => {
                let chosen = operations(list)?;
                contradicted(list, args, others, &chosen)?;
                chosen
            }
        };
        let seed = args.cloud_init.as_deref().map(SeedFiles::parse).transpose()?;
        let nics = nics(&args.nic)?;
        if seed.as_ref().is_some_and(SeedFiles::has_network) && !nics.is_empty() {
            return Err(Failure::usage(
                "--nic and network-config of --cloud-init both describe the network; leave one of them \
                 out",
            ));
        }
        let cloud_user = match &args.cloud_user {
            None => None,
            Some(name) => Some(cloud_user(name)?),
        };
        let parsed = Self {
            sysprep,
            passwords,
            keys,
            edits,
            machine_id,
            product_key,
            properties,
            luks_keys,
            seed,
            cloud_user,
            nics,
        };
        parsed.refuse_exclusions(args)?;
        Ok(parsed)
    }

    /// An option cannot ask for a task that a property leaves out.
    fn refuse_exclusions(&self, args: &Apply) -> Result<(), Failure> {
        let Tasks::Only(tasks) = self.tasks(args) else { return Ok(()) };
        for (task, words) in &tasks {
            let excluded = self.properties.excluded(*task);
            if excluded.map_err(|error| Failure::usage(sentence(&error)))?
                && let Some(option) = words.first()
            {
                return Err(Failure::usage(format!(
                    "{option} asks for the task {task}, and --properties excludes it; leave one of \
                     them out"
                )));
            }
        }
        let mount = self.properties.excluded(TaskId::MountImage);
        let on_guest = tasks.keys().any(|task| task.needs_mount() && !task.resizes());
        if mount.map_err(|error| Failure::usage(sentence(&error)))? && on_guest {
            return Err(Failure::usage(
                "--properties excludes the task MountImage, without which no file can be changed",
            ));
        }
        Ok(())
    }

    /// The request as a document.
    pub(crate) fn print(&self, args: &Apply) -> Result<String, Failure> {
        document::plan(args, &self.edits)
    }

    /// The tasks that the options ask for, each with the options.
    fn tasks(&self, args: &Apply) -> Tasks {
        let (size, grow) = (args.size.is_some(), args.grow.is_some());
        let options: [(&str, bool, TaskId); 22] = [
            ("deploy", args.fill, TaskId::FixPartitionTable),
            ("deploy", args.fill, TaskId::FilesystemResizeUnmounted),
            ("--size", size, TaskId::FixPartitionTable),
            ("--size", size, TaskId::FilesystemResizeUnmounted),
            ("--grow", grow, TaskId::FixPartitionTable),
            ("--grow", grow, TaskId::FilesystemResizeUnmounted),
            ("--hostname", args.hostname.is_some(), TaskId::AssignHostname),
            ("--machine-id", self.machine_id.is_some(), TaskId::ChangeMachineId),
            ("--root-password", args.root_password.is_some(), TaskId::ChangePassword),
            ("--user-password", !args.user_password.is_empty(), TaskId::ChangePassword),
            ("--ssh-key", !self.keys.is_empty(), TaskId::ChangePassword),
            ("--host-keys", args.host_keys.is_some(), TaskId::DeleteSSHKeys),
            // On Windows nobody logs on from afar before the password is set; elsewhere the task
            // is passed over.
            (
                "--root-password",
                args.root_password.is_some(),
                TaskId::DisableRemoteDesktopConnections,
            ),
            (
                "--user-password",
                !args.user_password.is_empty(),
                TaskId::DisableRemoteDesktopConnections,
            ),
            ("--answer-file", args.answer_file.is_some(), TaskId::InstallUnattend),
            ("--time-zone", args.time_zone.is_some(), TaskId::InstallUnattend),
            ("--product-key", self.product_key.is_some(), TaskId::InstallUnattend),
            ("--personality", args.personality.is_some(), TaskId::EnforcePersonality),
            ("--cloud-init", self.seed.is_some(), TaskId::InitializeDatasource),
            ("--cloud-user", self.cloud_user.is_some(), TaskId::ChangePassword),
            ("--nic", !self.nics.is_empty(), TaskId::ConfigureNetwork),
            ("--sysprep", args.sysprep.is_some(), TaskId::PrepareSystem),
        ];
        let mut tasks: BTreeMap<TaskId, Vec<String>> = BTreeMap::new();
        for (option, _, task) in options.into_iter().filter(|(_, given, _)| *given) {
            tasks.entry(task).or_default().push(option.to_owned());
        }
        if !self.edits.is_empty() {
            let planned = (!args.planned.edits.is_empty()).then(|| "--file".to_owned());
            let words = planned.into_iter().chain(args.edits.options());
            tasks.insert(TaskId::EditGuest, words.collect());
        }
        // New files must be labelled on guests with SELinux. Growth alone needs no guest.
        if tasks.keys().any(|task| task.needs_mount() && !task.resizes()) {
            tasks.entry(TaskId::SELinuxAutorelabel).or_default();
        }
        Tasks::Only(tasks)
    }

    /// The secrets that are to be read, in the order of the command line.
    fn secrets(&self, args: &Apply) -> Vec<Wanted<'_>> {
        let mut wanted: Vec<(usize, Wanted<'_>)> = Vec::new();
        let mut root = args.root_password.iter().map(|_| args.order.of_value("root_password", 0));
        let mut users = 0..;
        for (spec, nth) in self.luks_keys.iter().zip(0..) {
            wanted.push((args.order.of_value("luks_key", nth), Wanted::LuksKey(spec)));
        }
        if let Some(selector) = &self.product_key {
            wanted.push((args.order.of_value("product_key", 0), Wanted::ProductKey(selector)));
        }
        for (user, selector) in &self.passwords {
            // Root's is the first one, where there is one.
            let at =
                root.next().or_else(|| Some(args.order.of_value("user_password", users.next()?)));
            wanted.push((at.unwrap_or(usize::MAX), Wanted::Password(user, selector)));
        }
        wanted.sort_by_key(|(at, _)| *at);
        wanted.into_iter().map(|(_, wanted)| wanted).collect()
    }

    /// Reads the files and asks the questions.
    pub(crate) fn read(self, args: &Apply, entropy: &Entropy) -> Result<Request, Failure> {
        let tasks = self.tasks(args);
        let mut plan = Plan {
            properties: self.properties.clone(),
            hostname: args.hostname.clone(),
            machine_id: self.machine_id.clone().unwrap_or(MachineId::Keep),
            host_keys: match args.host_keys {
                Some(HostKeysArg::New) => HostKeys::New,
                Some(HostKeysArg::Remove) => HostKeys::Remove,
                Some(HostKeysArg::Keep) | None => HostKeys::Keep,
            },
            growth: growth(args),
            tasks,
            ..Plan::default()
        };

        // Files first: a person is not asked for a password that cannot be used anyway.
        for (user, path) in self.keys.clone() {
            let (bytes, _) = read_file(&path, TEXT_MAX, "key")?;
            let problem = match std::str::from_utf8(&bytes) {
                Err(_) => "it is not text".to_owned(),
                Ok(text) if text.trim().is_empty() => "there is no key in it".to_owned(),
                Ok(text) => match check_keys(text)
                    .map_err(|problem| problem.to_string())
                    .and_then(|()| whole_keys(text))
                {
                    Err(problem) => problem,
                    Ok(()) => {
                        plan.auth_keys.push((Who::Named(user), text.to_owned()));
                        continue;
                    }
                },
            };
            return Err(Failure::input(format!(
                "cannot use key file {}: {problem}",
                path.display()
            )));
        }
        if let Some(path) = &args.personality {
            let (bytes, _) = read_file(path, TEXT_MAX, "personality")?;
            let shown = path.display();
            let text = std::str::from_utf8(&bytes).map_err(|_| {
                Failure::input(format!("cannot use personality file {shown}: it is not text"))
            })?;
            plan.personality = personality::parse(text, "personality").map_err(|error| {
                Failure::input(format!("cannot use personality file {shown}: {}", sentence(&error)))
            })?;
        }
        if let Some(path) = &args.answer_file {
            let (bytes, _) = read_file(path, TEXT_MAX, "answer")?;
            let text = Secret::new(std::mem::take(&mut *{ bytes }));
            // The image decides which of the two it wants.
            plan.windows.answer_file = Some(text.clone());
            plan.windows.sysprep_inf = Some(text);
        }
        plan.windows.time_zone = args.time_zone.clone();
        if let Some(seed) = self.seed.clone() {
            seed.read(&mut plan)?;
        }
        plan.cloud_user.clone_from(&self.cloud_user);
        plan.nics.clone_from(&self.nics);
        plan.sysprep.clone_from(&self.sysprep);
        plan.edits.clone_from(&self.edits);
        for edit in &mut plan.edits {
            if args.vm && edit.action.is_local() {
                return Err(Failure::usage(format!(
                    "{}: with --vm only --write and --upload bring files of this machine along",
                    edit.origin
                )));
            }
            edit.action.look().map_err(|error| {
                Failure::input(format!("{}: {}", edit.origin, sentence(&error)))
            })?;
            for source in edit.action.sources() {
                // The helper VM does not see our files.
                let looked = if args.vm { source.carry(CARRIED_MAX) } else { source.check() };
                looked.map_err(|error| {
                    Failure::input(format!("{}: {}", edit.origin, sentence(&error)))
                })?;
            }
        }

        let mut inputs = Inputs::new(args.planned.stdin);
        inputs.warnings = without_effect(&plan.properties, &plan.tasks);
        let mut made = Vec::new();
        // One line of standard input for each, in the order of the command line.
        for wanted in self.secrets(args) {
            match wanted {
                Wanted::LuksKey(spec) => plan.luks_keys.push(spec.read(&mut inputs)?),
                Wanted::ProductKey(selector) => {
                    let mut stream = entropy.derive("product key");
                    if let (Password::Clear(key), _) =
                        selector.resolve("the product key", &mut inputs, &mut stream)?
                    {
                        check_product_key(&key).map_err(|problem| {
                            Failure::input(format!("the product key: {problem}"))
                        })?;
                        plan.windows.product_key = Some(key);
                    }
                }
                Wanted::Password(user, selector) => {
                    let mut stream = entropy.derive(&format!("password of {user}"));
                    let (password, shown) = selector.resolve(user, &mut inputs, &mut stream)?;
                    plan.passwords.push((Who::Named(user.clone()), password));
                    if let Some(password) = shown {
                        made.push(MadePassword { user: user.clone(), password });
                    }
                }
            }
        }
        inputs.end();
        Ok(Request { plan, made, warnings: inputs.warnings })
    }
}

/// Whether the value of an option makes sense by itself. A document asks, so that it can say where the
/// value stands.
///
/// # Errors
/// The sentence that the command line gives for it.
pub(crate) fn check_value(option: &str, text: &str) -> Result<(), Failure> {
    match option {
        "cloud-init" => SeedFiles::parse(text).map(drop),
        "cloud-user" => cloud_user(text).map(drop),
        "hostname" => hostname(text),
        "luks-key" => KeySpec::parse_all(&[text.to_owned()]).map(drop),
        "machine-id" => machine_id(text).map(drop),
        "nic" => nics(&[text.to_owned()]).map(drop),
        "product-key" => product_key(text).map(drop),
        "properties" => {
            let properties = properties_of(text)?;
            let problem = properties.problems().into_iter().next();
            problem.map_or(Ok(()), |problem| Err(Failure::usage(sentence(&problem))))
        }
        "root-password" => Selector::parse(text, "--root-password").map(drop),
        "ssh-key" => user_and_file(text, "--ssh-key").map(drop),
        "sysprep" => operations(text).map(drop),
        "user-password" => user_and_selector(text, "--user-password").map(drop),
        _ => Ok(()),
    }
}

/// Whether there is a system that takes the host name.
fn hostname(name: &str) -> Result<(), Failure> {
    check_hostname(name).map_err(|problem| Failure::usage(format!("--hostname: {problem}")))
}

/// The operations of `--sysprep`.
fn operations(list: &str) -> Result<Vec<String>, Failure> {
    if list.starts_with("--") {
        // Lists may begin with a hyphen, and so the option after it was taken for one.
        return Err(Failure::usage(format!(
            "the list of sysprep's operations is missing before {list}: name operations with commas between, \
             or say defaults"
        )));
    }
    select(list).map_err(|error| Failure::usage(format!("operations of sysprep: {error}")))
}

/// The user of `--cloud-user`.
fn cloud_user(name: &str) -> Result<String, Failure> {
    match AccountName::new(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(problem) => Err(Failure::usage(format!("--cloud-user: {problem}"))),
    }
}

/// The properties of `--properties`, none of which excludes what there is not.
fn properties_of(text: &str) -> Result<Properties, Failure> {
    let properties = Properties::parse(text, "--properties")
        .map_err(|error| Failure::usage(sentence(&error)))?;
    match properties.misspelt_exclusions().next() {
        None => {}
        Some(problem) => {
            return Err(Failure::usage(format!("--properties: {}", sentence(&problem))));
        }
    }
    Ok(properties)
}

/// The operations of sysprep must not contradict the other options.
fn contradicted(list: &str, args: &Apply, others: bool, chosen: &[String]) -> Result<(), Failure> {
    let kept = [
        ("--host-keys", args.host_keys == Some(HostKeysArg::Keep), "ssh-hostkeys"),
        ("--machine-id", args.machine_id.as_deref() == Some("keep"), "machine-id"),
    ];
    for (option, keeps, operation) in kept {
        if keeps && chosen.iter().any(|name| name == operation) {
            return Err(Failure::usage(format!(
                "{option} keep and the operation {operation} of sysprep exclude each other; take the operation \
                 out of the list with -{operation}, or leave out {option}"
            )));
        }
    }
    if others && list.split(',').any(|word| word.trim() == "-customize") {
        return Err(Failure::usage(
            "-customize takes the other options out of sysprep, and there are some; leave out -customize, or \
             the other options",
        ));
    }
    Ok(())
}

/// The interfaces of `--nic`, in their order.
fn nics(texts: &[String]) -> Result<Vec<Nic>, Failure> {
    let mut nics: Vec<Nic> = Vec::new();
    for (index, text) in (0..).zip(texts) {
        let nic = nic_option::parse(text, index)
            .map_err(|problem| Failure::usage(format!("--nic: {problem}")))?;
        if nics.iter().any(|other| other.mac == nic.mac) {
            return Err(Failure::usage(format!("--nic: MAC={} is given twice", nic.mac)));
        }
        nics.push(nic);
    }
    Ok(nics)
}

/// Whether each line is a key that `ssh-keygen -lf` reads.
fn whole_keys(text: &str) -> Result<(), String> {
    let mut any = false;
    for (number, line) in (1..).zip(text.lines()) {
        check_line(line).map_err(|error| format!("line {number} {error}"))?;
        any |= !line.trim().is_empty() && !line.trim().starts_with('#');
    }
    if any { Ok(()) } else { Err("there is no key in it".to_owned()) }
}

/// How the room of a larger disk is used.
fn growth(args: &Apply) -> Growth {
    let what = match &args.grow {
        Some(GrowArg::Partition(number)) => Grow::Partition(*number),
        Some(GrowArg::Logical(group, name)) => {
            Grow::Logical { group: group.clone(), name: name.clone() }
        }
        Some(GrowArg::Root) => Grow::Root,
        None if args.size.is_some() => Grow::Root,
        None => Grow::Last,
    };
    Growth { what, no_move: args.no_move }
}

/// Properties that change nothing in this run.
fn without_effect(properties: &Properties, tasks: &Tasks) -> Vec<String> {
    let unknown = properties.unknown().map(|problem| format!("--properties: {problem}"));
    let left_out = TaskId::ALL.into_iter().filter(|task| !tasks.contains(*task));
    let idle = left_out.flat_map(|task| {
        properties.of_task(task).map(move |name| {
            format!("--properties: {name} has no effect: this run does not do the task {task}")
        })
    });
    let mut warnings: Vec<String> = unknown.chain(idle).collect();
    if properties.get("USERS").is_some() {
        warnings.push(
            "--properties: USERS has no effect: --user-password and --ssh-key name their users"
                .to_owned(),
        );
    }
    warnings
}

/// The source of a product key: those of a password, except for those that make one.
fn product_key(text: &str) -> Result<Selector, Failure> {
    match Selector::parse(text, "--product-key") {
        Ok(selector @ (Selector::File(_) | Selector::Stdin | Selector::Prompt)) => Ok(selector),
        _ => Err(Failure::usage(
            "--product-key: a product key is given as file:PATH, stdin or prompt, never as itself",
        )),
    }
}

fn machine_id(text: &str) -> Result<MachineId, Failure> {
    match text {
        "new" => return Ok(MachineId::New),
        "empty" => return Ok(MachineId::Empty),
        "uninitialized" => return Ok(MachineId::Uninitialized),
        "keep" => return Ok(MachineId::Keep),
        _ => {}
    }
    let id = text.replace('-', "").to_ascii_lowercase();
    let hexadecimal = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hexadecimal && id.bytes().any(|byte| byte != b'0') {
        Ok(MachineId::Given(id))
    } else {
        Err(Failure::usage(format!(
            "--machine-id: '{text}' is none of new, empty, uninitialized, keep and 32 hexadecimal digits (not all 0)"
        )))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(options: &[&str]) -> Result<Parsed, Failure> {
        let words = ["snf-customize", "apply", "disk"].iter().chain(options);
        let Some(Command::Apply(args)) = Cli::try_parse_from(words).unwrap().command else {
            panic!()
        };
        Parsed::new(&args)
    }

    #[test]
    fn what_makes_no_sense() {
        for (options, part) in [
            (&[][..], "nothing to change"),
            (&["--seed", "1"], "nothing to change"),
            (&["--root-password", "hunter2"], "never as itself"),
            (&["--root-password", "stdin", "--user-password", "root:stdin"], "given twice"),
            (&["--ssh-key", "root"], "USER:file:PATH"),
            (&["--ssh-key", "root:x.pub"], "file:PATH"),
            (&["--write", "/a:file:b", "--write", "/a:file:c"], "given twice"),
            (&["--write", "/a:hunter2"], "--write: the argument is not of the form"),
            (&["--hostname", "x", "--properties", "[]"], "--properties is not a JSON object"),
            (&["--hostname", "x", "--properties", "{\"OSFAMILY\": 1}"], "OSFAMILY"),
            (
                &["--hostname", "x", "--properties", "{\"EXCLUDE_TASK_AssignHostnam\": 1}"],
                "EXCLUDE_TASK_ASSIGNHOSTNAM excludes nothing: there is no task",
            ),
            (&["--hostname", "x", "--properties", "{\"a\": 1, \"A\": 2}"], "A is given twice"),
            (&["--machine-id", "00000000000000000000000000000000"], "--machine-id"),
            (&["--machine-id", "abc"], "--machine-id"),
            (&["--hostname", ""], "--hostname: the host name \"\" is empty"),
            (&["--hostname", "a_b"], "the character \"_\""),
            (&["--hostname=-web.example.org"], "hyphen"),
            (&["--sysprep", "--dry-run"], "is missing before --dry-run"),
            (&["--sysprep", "defaults", "--host-keys", "keep"], "exclude each other"),
            (&["--sysprep", "utmp,machine-id", "--machine-id", "keep"], "exclude each other"),
            (&["--sysprep", "-customize", "--hostname", "x"], "leave out -customize"),
        ] {
            let failure = parsed(options).err().unwrap();
            assert_eq!(failure.exit, crate::exit::Exit::Usage);
            assert!(failure.message.contains(part), "{options:?}: {}", failure.message);
            assert!(!failure.message.contains("hunter2"));
        }
    }

    #[test]
    fn machine_ids() {
        let id = "0123456789ABCDEF0123456789abcdef";
        assert_eq!(machine_id(id).unwrap(), MachineId::Given(id.to_lowercase()));
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(machine_id(uuid).unwrap(), MachineId::Given(id.to_lowercase()));
        assert_eq!(machine_id("new").unwrap(), MachineId::New);
    }

    #[test]
    fn properties_without_effect() {
        let properties = r#"{"SWAP": "b", "USERS": "ann", "COLOUR": "red", "CLOUD_INIT": "no"}"#;
        let properties = Properties::parse(properties, "--properties").unwrap();
        let warnings = without_effect(&properties, &Tasks::only([TaskId::AssignHostname]));
        for (warning, part) in warnings.iter().zip(["COLOUR", "CLOUD_INIT", "SWAP", "USERS"]) {
            assert!(warning.contains(part) && warning.contains("no effect"), "{warnings:?}");
        }
        assert_eq!(warnings.len(), 4);
    }

    #[test]
    fn only_what_was_asked_for_runs() {
        let words = ["snf-customize", "apply", "disk", "--hostname", "x", "--root-partition", "3"];
        let Some(Command::Apply(args)) = Cli::try_parse_from(words).unwrap().command else {
            panic!()
        };
        let request = Parsed::new(&args).unwrap().read(&args, &Entropy::seeded(1)).ok().unwrap();
        let expected = [
            (TaskId::AssignHostname, vec!["--hostname".to_owned()]),
            (TaskId::SELinuxAutorelabel, Vec::new()),
        ];
        assert_eq!(request.plan.tasks, Tasks::Only(expected.into()));
        assert_eq!(
            request.plan.properties.root_partition(),
            Ok(Some(snf_image::properties::RootVolume::Partition(3)))
        );
        assert_eq!(request.plan.machine_id, MachineId::Keep);
    }
}
