//! The tasks on a Windows in memory.

use super::super::{
    TASKS, TaskId, Work, assign_hostname, change_password, enforce_personality, find,
};
use super::{extend, install_unattend, remote_desktop};
use crate::ask::event::Event;
use crate::ask::plan::{Password, PersonalityFile, Who};
use crate::craft::secret::Secret;
use crate::guest::windows::answer::{AnswerFile, Pass, SHELL_SETUP};
use crate::guest::windows::registry::{FileTime, Hive};
use crate::guest::windows::{Architecture, fixture, sam};
use crate::task::testing::Guest;

const ANSWER: &str = "/Windows/Panther/unattend.xml";
const SCRIPTS: &str = "/Windows/Setup/Scripts/snf-image";
const NOW: FileTime = FileTime(1);

fn answer(guest: &mut Guest, path: &str) -> AnswerFile {
    let text = guest.read(path);
    AnswerFile::parse(text.as_bytes(), Architecture::Amd64).unwrap()
}

fn setting(guest: &mut Guest, pass: Pass, path: &[&str]) -> Option<String> {
    answer(guest, ANSWER).get(pass, SHELL_SETUP, path).map(str::to_owned)
}

fn password(guest: &mut Guest, who: Who, text: &str) {
    guest.plan.passwords = vec![(who, Password::Clear(Secret::new(text)))];
}

fn named(name: &str) -> Who {
    Who::Named(name.into())
}

fn complete() -> Guest {
    let software = fixture::software(false, Some("IMAGE_STATE_COMPLETE"));
    Guest::windows_of(&fixture::system(), &software)
}

fn legacy() -> Guest {
    Guest::windows_of(&fixture::system_with_mini_setup(), &fixture::software(true, None))
}

fn terminal_server(guest: &mut Guest) -> Option<u32> {
    let data = guest.tree().read("/Windows/System32/config/SYSTEM", 1 << 24).unwrap();
    let hive = Hive::open(data, NOW).unwrap();
    let key = hive.key("ControlSet001\\Control\\Terminal Server").unwrap().unwrap();
    hive.number(key, "fDenyTSConnections").unwrap()
}

/// All tasks that a run of all would do, in their order.
fn run_all(guest: &mut Guest) -> Result<(), String> {
    guest.plan.hostname = Some("vm-1.example.org".into());
    let family = guest.windows.as_ref().map(crate::guest::windows::Windows::family);
    for task in TASKS {
        let fits = task.fit(&guest.plan, family) == super::super::Fit::Run
            && !matches!(task.work, Work::Disk(_));
        if fits && task.wanted(&guest.plan) {
            guest.run(task).map_err(|error| {
                format!("{}: {}", task.id, crate::craft::sentence::sentence(&error))
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_whole_run() {
    let mut guest = Guest::windows();
    password(&mut guest, Who::Default, "geheim & 100%");
    guest.plan.windows.default_time_zone = Some("GMT Standard Time".into());
    guest.plan.windows.product_key = Some(Secret::new("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"));
    run_all(&mut guest).unwrap();
    let specialize = |guest: &mut Guest, name| setting(guest, Pass::Specialize, &[name]);
    assert_eq!(specialize(&mut guest, "ComputerName").as_deref(), Some("vm-1"));
    assert_eq!(specialize(&mut guest, "TimeZone").as_deref(), Some("GMT Standard Time"));
    let key = specialize(&mut guest, "ProductKey");
    assert_eq!(key.as_deref(), Some("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"));
    let path = ["UserAccounts", "AdministratorPassword", "PlainText"];
    assert_eq!(setting(&mut guest, Pass::OobeSystem, &path).as_deref(), Some("false"));
    let commands = guest.read(&format!("{SCRIPTS}/password.cmd"));
    let line = "net user ^\"Administrator^\" ^\"geheim ^& 100%%^\" /active:yes /y || set \"SNF_BAD=1\"\r\n";
    assert!(commands.contains(line), "{commands}");
    assert!(!commands.contains("chcp"));
    assert_eq!(terminal_server(&mut guest), Some(1));
    let restore = guest.read(&format!("{SCRIPTS}/remote-desktop.cmd"));
    assert!(restore.contains("/v fDenyTSConnections /t REG_DWORD /d 0 /f\r\n"), "{restore}");
    assert!(guest.read(&format!("{SCRIPTS}/extend.cmd")).contains("diskpart"));
    let run = guest.read(&format!("{SCRIPTS}/run.cmd"));
    assert!(run.contains("in ( \"%SystemDrive%\\Windows\\Panther\\unattend.xml\" "), "{run}");
    assert!(run.split_inclusive('\n').all(|line| line.ends_with("\r\n")));
    let complete = guest.read("/Windows/Setup/Scripts/SetupComplete.cmd");
    assert!(complete.contains("snf-image\\run.cmd\" last"), "{complete}");
    let text = guest.read(ANSWER);
    assert_eq!(text.matches("<RunSynchronousCommand").count(), 1);
    assert!(!text.contains("geheim"));
    assert!(guest.warnings().is_empty(), "{:?}", guest.warnings());
    assert!(!format!("{:?}", guest.events).contains("geheim"));

    // The same once more: nothing but the time of SYSTEM could change, and that does not.
    guest.answer = None;
    guest.tree().commit().unwrap();
    guest.renew();
    run_all(&mut guest).unwrap();
    assert_eq!(guest.changed(), [] as [&str; 0]);
    assert_eq!(terminal_server(&mut guest), Some(1));
}

#[test]
fn the_images_own_answer_file_is_kept() {
    let own = "<?xml version=\"1.0\"?>\n<unattend xmlns=\"urn:schemas-microsoft-com:unattend\">\n\
        <!-- mine --><settings pass=\"oobeSystem\"><component name=\"Microsoft-Windows-Shell-Setup\" \
        processorArchitecture=\"amd64\"><TimeZone>GTB Standard Time</TimeZone><UserAccounts>\
        <LocalAccounts><LocalAccount><Name>boss</Name></LocalAccount></LocalAccounts>\
        </UserAccounts></component></settings></unattend>";
    let mut guest = Guest::windows();
    guest.write("/UNATTEND.XML", own);
    // One of an earlier setup does not count.
    let spent = own.replace("\"oobeSystem\"", "\"oobeSystem\" wasPassProcessed=\"true\"");
    guest.write("/Windows/Panther/unattend.xml", &spent);
    guest.plan.windows.default_time_zone = Some("GMT Standard Time".into());
    guest.plan.properties.set("USERS", "Boss Administrator");
    password(&mut guest, Who::Default, "pä/ss");
    run_all(&mut guest).unwrap();
    let file = answer(&mut guest, "/UNATTEND.XML");
    assert_eq!(file.get(Pass::Specialize, SHELL_SETUP, &["TimeZone"]), None);
    assert_eq!(file.get(Pass::Specialize, SHELL_SETUP, &["ComputerName"]), Some("vm-1"));
    let text = guest.read("/UNATTEND.XML");
    assert!(text.contains("<!-- mine -->") && text.contains("<Password>"), "{text}");
    let commands = guest.read(&format!("{SCRIPTS}/password.cmd"));
    assert!(commands.contains("chcp 65001") && !commands.contains("boss"), "{commands}");
    assert!(guest.read(&format!("{SCRIPTS}/run.cmd")).contains("%SystemDrive%\\UNATTEND.XML\""));

    // A time zone that is asked for wins in both passes.
    guest.answer = None;
    guest.plan.windows.time_zone = Some("gmt standard time".into());
    guest.run(&install_unattend::TASK).unwrap();
    let file = answer(&mut guest, "/UNATTEND.XML");
    for pass in [Pass::Specialize, Pass::OobeSystem] {
        assert_eq!(file.get(pass, SHELL_SETUP, &["TimeZone"]), Some("GMT Standard Time"));
    }
    guest.answer = None;
    guest.plan.windows.time_zone = Some("CET".into());
    let error = guest.fail(&install_unattend::TASK);
    assert!(error.starts_with("the image knows no time zone \"CET\""), "{error}");
}

#[test]
fn a_given_answer_file_replaces_all_others() {
    let mut guest = Guest::windows();
    for path in ["/autounattend.xml", "/Windows/Panther/Unattend/unattend.xml"] {
        guest.write(path, "<secret/>");
    }
    let error = guest.fail(&install_unattend::TASK);
    assert!(error.contains("/Windows/Panther/Unattend/unattend.xml cannot be used"), "{error}");
    let given = "<unattend xmlns=\"urn:schemas-microsoft-com:unattend\"><settings pass=\"x\">\
        <component name=\"a\" processorArchitecture=\"x86\"/></settings></unattend>";
    guest.plan.properties.set("IGNORE_UNATTEND", "yes");
    guest.plan.windows.answer_file = Some(Secret::new(given));
    guest.run(&install_unattend::TASK).unwrap();
    for path in ["/autounattend.xml", "/Windows/Panther/Unattend/unattend.xml"] {
        assert!(!guest.tree().exists(path).unwrap(), "{path}");
    }
    assert_eq!(guest.read(ANSWER), given);
    assert!(guest.warnings()[0].contains("settings for x86 only, and the image is for amd64"));
    guest.answer = None;
    guest.plan.windows.answer_file = Some(Secret::new("<html/>"));
    assert!(guest.fail(&install_unattend::TASK).contains("root element is html"));
}

#[test]
fn the_place_that_the_registry_names() {
    let mut hive = Hive::open(fixture::system(), NOW).unwrap();
    let setup = hive.key("Setup").unwrap().unwrap();
    hive.set_text(setup, "UnattendFile", "C:\\Deploy\\My.xml").unwrap();
    let state = Some("IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT");
    let mut guest = Guest::windows_of(&hive.finish(), &fixture::software(false, state));
    guest.write("/deploy/my.xml", "<unattend xmlns='urn:schemas-microsoft-com:unattend'/>");
    guest.write("/Unattend.xml", "not looked at");
    guest.plan.hostname = Some("vm1".into());
    guest.run(&assign_hostname::TASK).unwrap();
    let file = answer(&mut guest, "/deploy/my.xml");
    assert_eq!(file.get(Pass::Specialize, SHELL_SETUP, &["ComputerName"]), Some("vm1"));
    assert!(guest.warnings()[0].contains("audit mode"));
}

#[test]
fn users_are_those_of_sam_or_of_the_answer_file() {
    let mut guest = Guest::windows();
    for name in ["Admin", "Administrato", "administrators", "root", "", "a\nb", "Names"] {
        password(&mut guest, named(name), "secret");
        let error = guest.fail(&change_password::TASK);
        assert!(
            error.contains("no user \"") && error.ends_with("Administrator, Guest, Ännchen"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
    }
    password(&mut guest, named("äNNCHEN"), "secret");
    guest.run(&change_password::TASK).unwrap();
    assert!(guest.read(&format!("{SCRIPTS}/password.cmd")).contains("net user ^\"Ännchen^\" "));
    assert_eq!(setting(&mut guest, Pass::OobeSystem, &["UserAccounts"]), None);
}

#[test]
fn passwords_that_cannot_be() {
    let mut guest = Guest::windows();
    for (text, part) in [
        ("/delete", "begins with a slash"),
        ("*", "is an asterisk"),
        ("", "is empty"),
        ("a\nb", "control character"),
        (&"x".repeat(128), "128 characters"),
    ] {
        password(&mut guest, Who::Default, text);
        let error = guest.fail(&change_password::TASK);
        assert!(error.contains(part), "{text}: {error}");
        assert!(text.len() < 2 || !error.contains(text), "{error}");
    }
    guest.plan.passwords = vec![(Who::Default, Password::Hash(Secret::new("$6$x$y")))];
    assert!(guest.fail(&change_password::TASK).contains("cannot be set on Windows"));
    guest.plan.passwords = vec![(Who::Default, Password::Hashes(vec![Secret::new("$6$x$y")]))];
    assert!(guest.fail(&change_password::TASK).contains("add the property OSFAMILY=windows"));
    guest.plan.passwords.clear();
    guest.plan.auth_keys = vec![(Who::Default, "ssh-ed25519 x".into())];
    assert!(guest.fail(&change_password::TASK).contains("cannot be set on Windows"));
    assert!(guest.changed().is_empty(), "{:?}", guest.changed());
}

#[test]
fn an_image_that_is_not_generalized() {
    let mut guest = complete();
    password(&mut guest, Who::Default, "secret");
    guest.plan.hostname = Some("vm1".into());
    let tasks = [
        &install_unattend::TASK,
        &extend::TASK,
        &assign_hostname::TASK,
        &change_password::TASK,
        &remote_desktop::TASK,
    ];
    for task in tasks {
        let error = guest.fail(task);
        assert!(error.contains("not generalized (ImageState is IMAGE_STATE_COMPLETE)"), "{error}");
        assert!(error.contains("OFFLINE_PASSWORD"));
    }
    guest.plan.properties.set("OFFLINE_PASSWORD", "yes");
    run_all(&mut guest).unwrap();
    assert_eq!(guest.changed(), ["/Windows/System32/config/SAM"]);
    assert_eq!(terminal_server(&mut guest), Some(0));
    let warnings = guest.warnings().join("\n");
    assert!(warnings.contains("is not named vm-1") && warnings.contains("keeps its size"));
    let data = guest.tree().read("/Windows/System32/config/SAM", 1 << 24).unwrap();
    let accounts = sam::accounts(&Hive::open(data, NOW).unwrap()).unwrap();
    assert_eq!((accounts[0].password, accounts[0].disabled), (Some(true), false));
    assert!(
        guest.events.contains(&Event::Info(
            "the user Administrator was disabled and is enabled now".into()
        ))
    );
    password(&mut guest, named("nobody"), "secret");
    assert!(guest.fail(&change_password::TASK).contains("no user \"nobody\""));
    // The limits of `net user` do not apply here.
    password(&mut guest, named("Guest"), "/*");
    guest.run(&change_password::TASK).unwrap();
}

#[test]
fn windows_xp() {
    let mut guest = legacy();
    password(&mut guest, Who::Default, "geheim");
    guest.plan.windows.default_time_zone = Some("GTB Standard Time".into());
    guest.plan.windows.product_key = Some(Secret::new("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"));
    guest.write("/sysprep/i386/$oem$/CMDLINES.TXT", "[Commands]\r\n\"own.exe\"");
    run_all(&mut guest).unwrap();
    let inf = guest.read("/sysprep/sysprep.inf");
    for line in [
        "ComputerName=vm-1\r\n",
        "TimeZone=130\r\n",
        "ProductKey=AAAAA-BBBBB-CCCCC-DDDDD-EEEEE\r\n",
        "InstallFilesPath=\\sysprep\\i386\r\n",
    ] {
        assert!(inf.contains(line), "{line}{inf}");
    }
    let lines = guest.read("/sysprep/i386/$oem$/CMDLINES.TXT");
    let expected = "[Commands]\r\n\"own.exe\"\r\n\
        \"cmd.exe /c call %SystemRoot%\\Setup\\Scripts\\snf-image\\run.cmd last & \
        rd /s /q %SystemRoot%\\Setup\\Scripts\\snf-image\"\r\n";
    assert_eq!(lines, expected);
    assert!(guest.read(&format!("{SCRIPTS}/password.cmd")).contains("^\"geheim^\""));
    assert!(guest.warnings()[0].contains("OFFLINE_NTFSRESIZE"), "{:?}", guest.warnings());
    assert_eq!(terminal_server(&mut guest), Some(1));
    password(&mut guest, Who::Default, "päss");
    assert!(guest.fail(&change_password::TASK).contains("beyond ASCII"));
    // The image's own is kept, a given one replaces it when that is said.
    guest.answer = None;
    guest.plan.windows = Default::default();
    guest.write("/sysprep/sysprep.inf", "[UserData]\nComputerName=OWN\n");
    guest.plan.windows.sysprep_inf = Some(Secret::new("[UserData]\nComputerName=GIVEN\n"));
    guest.run(&install_unattend::TASK).unwrap();
    assert!(guest.read("/sysprep/sysprep.inf").contains("OWN"));
    guest.answer = None;
    guest.plan.properties.set("IGNORE_UNATTEND", "1");
    guest.run(&install_unattend::TASK).unwrap();
    assert!(guest.read("/sysprep/sysprep.inf").contains("GIVEN"));
}

#[test]
fn an_old_windows_without_mini_setup() {
    let mut guest = Guest::windows_of(&fixture::system(), &fixture::software(true, None));
    let error = guest.fail(&install_unattend::TASK);
    assert!(error.contains("no mini-setup is due"), "{error}");
}

#[test]
fn files_with_windows_paths() {
    let file = |path: &str| PersonalityFile {
        path: path.into(),
        contents: Secret::new("x"),
        owner: Some("root".into()),
        group: None,
        mode: None,
        origin: "img_personality[0]".into(),
        keep_existing: false,
    };
    let mut guest = Guest::windows();
    guest.write("/Users/Public/old.txt", "");
    guest.renew();
    guest.plan.personality = vec![file("C:\\users\\PUBLIC\\Old.txt"), file("/new/dir/x.txt")];
    guest.run(&enforce_personality::TASK).unwrap();
    assert_eq!(guest.changed(), ["/Users/Public/old.txt", "/new", "/new/dir", "/new/dir/x.txt"]);
    let note = "owner, group and mode of 2 files are ignored: on Windows a new file has the \
                permissions of its directory";
    assert!(guest.events.contains(&Event::Info(note.into())));
    for (path, part) in
        [("D:\\x", "another drive"), ("/a:b", "the character \":\""), ("x", "not absolute")]
    {
        guest.plan.personality = vec![file(path)];
        let error = guest.fail(&enforce_personality::TASK);
        assert!(error.starts_with("img_personality[0]: ") && error.contains(part), "{error}");
    }
    guest.plan.personality = vec![file("C:\\Users")];
    assert!(guest.fail(&enforce_personality::TASK).contains("is a directory"));
}

#[test]
fn a_broken_registry_is_a_sentence() {
    let state = Some("IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE");
    let mut guest = Guest::windows_of(b"regf", &fixture::software(false, state));
    assert!(guest.fail(&remote_desktop::TASK).contains("/Windows/System32/config/SYSTEM: "));
    let mut guest = Guest::windows();
    guest.write("/Windows/System32/config/SAM", "junk");
    password(&mut guest, Who::Default, "secret");
    let error = guest.fail(&change_password::TASK);
    assert!(error.contains("/Windows/System32/config/SAM: "), "{error}");
    let mut guest = Guest::windows();
    guest.tree().unlink("/Windows/System32/config/SAM").unwrap();
    password(&mut guest, Who::Default, "secret");
    assert!(guest.fail(&change_password::TASK).contains("has no /Windows/System32/config/SAM"));
}

/// SYSTEM of a Windows that was not shut down: its log is replayed; without it, it is refused.
#[test]
fn a_registry_that_was_not_closed() {
    let old = fixture::system();
    let mut hive = Hive::open(old.clone(), NOW).unwrap();
    let select = hive.key("Select").unwrap().unwrap();
    hive.set_text(select, "Replayed", "yes").unwrap();
    let (dirty, log) = crate::guest::windows::registry::tests::not_closed(&old, &hive.finish());
    let state = Some("IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE");
    let mut guest = Guest::windows_of(&dirty, &fixture::software(false, state));
    let error = guest.fail(&remote_desktop::TASK);
    assert!(error.contains("/Windows/System32/config/SYSTEM: "), "{error}");
    assert!(error.contains("was not closed cleanly") && error.contains("fast startup"), "{error}");
    assert!(guest.changed().is_empty());
    guest
        .tree()
        .write(
            "/Windows/System32/config/system.log1",
            &log,
            snf_fs::Attributes { mode: 0o644, uid: 0, gid: 0 },
        )
        .unwrap();
    guest.run(&remote_desktop::TASK).unwrap();
    assert_eq!(terminal_server(&mut guest), Some(1));
    let data = guest.tree().read("/Windows/System32/config/SYSTEM", 1 << 24).unwrap();
    let hive = Hive::open(data, NOW).unwrap();
    let select = hive.key("Select").unwrap().unwrap();
    assert_eq!(hive.text(select, "Replayed").unwrap().as_deref(), Some("yes"));
}

/// A missing value is missing afterwards, and refused connections stay refused.
#[test]
fn remote_desktop_comes_back_as_it_was() {
    let state = Some("IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE");
    let with = |value: Option<u32>| {
        let mut hive = Hive::open(fixture::system(), NOW).unwrap();
        let key = hive.key("ControlSet001\\Control\\Terminal Server").unwrap().unwrap();
        match value {
            Some(number) => hive.set_number(key, "fDenyTSConnections", number).unwrap(),
            None => assert!(hive.delete_value(key, "fDenyTSConnections").unwrap()),
        }
        Guest::windows_of(&hive.finish(), &fixture::software(false, state))
    };
    let restore = format!("{SCRIPTS}/remote-desktop.cmd");
    let mut guest = with(None);
    guest.run(&remote_desktop::TASK).unwrap();
    assert_eq!(terminal_server(&mut guest), Some(1));
    let text = guest.read(&restore);
    assert!(text.contains("reg delete") && text.contains("/v fDenyTSConnections /f\r\n"), "{text}");
    let mut guest = with(Some(1));
    guest.run(&remote_desktop::TASK).unwrap();
    assert!(!guest.tree().exists(&restore).unwrap() && guest.changed().is_empty());
}

#[test]
fn what_is_for_linux_is_passed_over() {
    use super::super::Fit;
    use crate::guest::OsFamily;
    let plan = Guest::windows().plan;
    let named = |task: TaskId| crate::ask::plan::Plan {
        tasks: crate::ask::plan::Tasks::only([task]),
        ..Default::default()
    };
    for (task, family, all, one) in [
        (TaskId::ChangeMachineId, Some(OsFamily::Windows), Fit::Skip, Fit::Refuse),
        (TaskId::ChangeMachineId, Some(OsFamily::NetBsd), Fit::Refuse, Fit::Refuse),
        (TaskId::ChangeMachineId, None, Fit::Refuse, Fit::Refuse),
        (TaskId::InstallUnattend, Some(OsFamily::Linux), Fit::Skip, Fit::Refuse),
        (TaskId::InstallUnattend, None, Fit::Skip, Fit::Refuse),
        (TaskId::InstallUnattend, Some(OsFamily::WindowsLegacy), Fit::Run, Fit::Run),
        (TaskId::DisableRemoteDesktopConnections, Some(OsFamily::Linux), Fit::Skip, Fit::Skip),
        (TaskId::ChangePassword, Some(OsFamily::Windows), Fit::Run, Fit::Run),
        (TaskId::EnforcePersonality, None, Fit::Run, Fit::Run),
    ] {
        let found = find(task);
        assert_eq!(found.fit(&plan, family), all, "{task} {family:?}");
        assert_eq!(found.fit(&named(task), family), one, "{task} {family:?}");
    }
}
