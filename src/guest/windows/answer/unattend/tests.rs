//! `tests/windows_answer_oracle.rs` reads the results with Python's XML parser.

use super::*;

/// As Windows System Image Manager writes it, with prefixes declared and two processors.
const OWN: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<unattend xmlns=\"urn:schemas-microsoft-com:unattend\">\r\n\
    \x20   <settings pass=\"oobeSystem\">\r\n\
    \x20       <component name=\"Microsoft-Windows-Shell-Setup\" processorArchitecture=\"x86\">\r\n\
    \x20           <UserAccounts><LocalAccounts><LocalAccount><Name>other</Name></LocalAccount></LocalAccounts></UserAccounts>\r\n\
    \x20       </component>\r\n\
    \x20       <component name=\"Microsoft-Windows-Shell-Setup\" processorArchitecture=\"amd64\" xmlns:wcm=\"http://schemas.microsoft.com/WMIConfig/2002/State\">\r\n\
    \x20           <!-- kept -->\r\n\
    \x20           <AutoLogon><Username>admin</Username><Password><Value>old</Value><PlainText>true</PlainText></Password></AutoLogon>\r\n\
    \x20           <UserAccounts>\r\n\
    \x20               <LocalAccounts>\r\n\
    \x20                   <LocalAccount wcm:action=\"add\"><Name>Admin</Name><Group>Administrators</Group></LocalAccount>\r\n\
    \x20               </LocalAccounts>\r\n\
    \x20           </UserAccounts>\r\n\
    \x20       </component>\r\n\
    \x20   </settings>\r\n\
    \x20   <settings pass=\"specialize\" wasPassProcessed=\"true\"/>\r\n\
    </unattend>\r\n";

fn own() -> AnswerFile {
    AnswerFile::parse(OWN.as_bytes(), Architecture::Amd64).unwrap()
}

fn text(file: &AnswerFile) -> String {
    String::from_utf8(file.bytes().expose().to_vec()).unwrap()
}

#[test]
fn settings_come_and_change() {
    let mut file = own();
    assert_eq!(file.get(Pass::Specialize, SHELL_SETUP, &["ComputerName"]), None);
    file.set(Pass::Specialize, SHELL_SETUP, &["ComputerName"], "vm1").unwrap();
    file.set(Pass::Specialize, SHELL_SETUP, &["TimeZone"], "A & B").unwrap();
    file.set(Pass::Specialize, SHELL_SETUP, &["ComputerName"], "vm2").unwrap();
    assert_eq!(file.get(Pass::Specialize, SHELL_SETUP, &["ComputerName"]), Some("vm2"));
    assert_eq!(file.get(Pass::Specialize, SHELL_SETUP, &["TimeZone"]), Some("A & B"));
    let text = text(&file);
    assert!(!text.contains("wasPassProcessed") && text.contains("<!-- kept -->"), "{text}");
    assert!(text.starts_with(&OWN[..OWN.find("    <settings pass=\"specialize\"").unwrap()]));
    assert_eq!(text.matches("<ComputerName>").count(), 1);
}

#[test]
fn commands_have_an_order() {
    let mut file = own();
    let list = "<RunSynchronousCommand><Order>7</Order><Path>a</Path></RunSynchronousCommand>";
    file.set(Pass::Specialize, DEPLOYMENT, &["RunSynchronous"], "x").unwrap();
    let with = text(&file).replace(">x<", &format!(">{list}<"));
    let mut file = AnswerFile::parse(with.as_bytes(), Architecture::Amd64).unwrap();
    for _ in 0..2 {
        file.run_in_specialize("d", "cmd /c \"a & b\"").unwrap();
    }
    let text = text(&file);
    assert!(text.contains("<Order>8</Order><Path>cmd /c &quot;a &amp; b&quot;</Path>"), "{text}");
    assert_eq!(text.matches("<Description>").count(), 1);
}

#[test]
fn passwords_are_where_windows_looks() {
    let mut file = own();
    assert_eq!(file.local_accounts(), ["Admin"]);
    let password = Secret::new("pä<&w");
    assert!(file.set_account_password("ADMIN", &password).unwrap());
    assert!(!file.set_account_password("other", &password).unwrap());
    file.set_auto_logon_password("Admin", &password).unwrap();
    file.set_administrator_password(&password).unwrap();
    let path = ["UserAccounts", "AdministratorPassword", "Value"];
    let value = file.get(Pass::OobeSystem, SHELL_SETUP, &path).unwrap();
    let units = STANDARD.decode(value).unwrap();
    let units: Vec<u16> = units.chunks(2).map(|p| u16::from_le_bytes([p[0], p[1]])).collect();
    assert_eq!(String::from_utf16(&units).unwrap(), "pä<&wAdministratorPassword");
    let value = file.get(Pass::OobeSystem, SHELL_SETUP, &["AutoLogon", "Password", "PlainText"]);
    assert_eq!(value, Some("false"));
    assert!(!text(&file).contains("<Value>old</Value>"));
}

#[test]
fn spent_files() {
    assert!(!own().is_spent());
    let spent = OWN.replace("pass=\"oobeSystem\"", "pass=\"oobeSystem\" wasPassProcessed=\"true\"");
    assert!(AnswerFile::parse(spent.as_bytes(), Architecture::Amd64).unwrap().is_spent());
    let default = AnswerFile::default_text(Architecture::Arm64);
    let default = AnswerFile::parse(default.expose(), Architecture::Arm64).unwrap();
    assert!(!default.is_spent());
    assert_eq!(default.architectures(), BTreeSet::from(["arm64"]));
    assert_eq!(own().architectures(), BTreeSet::from(["amd64", "x86"]));
}

#[test]
fn encodings_stay() {
    let wide: Vec<u8> =
        "\u{feff}".encode_utf16().chain(OWN.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let mut file = AnswerFile::parse(&wide, Architecture::X86).unwrap();
    assert_eq!(file.bytes().expose(), wide);
    file.set(Pass::Specialize, SHELL_SETUP, &["ComputerName"], "vm").unwrap();
    assert!(file.bytes().expose().starts_with(&[0xff, 0xfe, b'<', 0]));
}

#[test]
fn prefixes() {
    let text = "<u:unattend xmlns:u=\"urn:schemas-microsoft-com:unattend\"></u:unattend>";
    let mut file = AnswerFile::parse(text.as_bytes(), Architecture::Amd64).unwrap();
    file.set(Pass::OobeSystem, SHELL_SETUP, &["OOBE", "HideEULAPage"], "true").unwrap();
    file.run_in_specialize("d", "c").unwrap();
    let text = self::text(&file);
    assert!(text.contains("<u:HideEULAPage>true</u:HideEULAPage>"), "{text}");
    assert!(text.contains("<u:Path>c</u:Path>"), "{text}");
}

#[test]
fn what_is_no_answer_file() {
    for (bytes, part) in [
        (&b"<html/>"[..], "its root element is html"),
        (b"<unattend/>", "does not name the namespace"),
        (b"\x00\x01", "line 1"),
        (b"<unattend", "line 1"),
        (b"<a>\xe4</a>", "it is not UTF-8"),
    ] {
        let error = AnswerFile::parse(bytes, Architecture::Amd64).err().unwrap();
        let error = crate::craft::sentence::sentence(&error);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn hostile_files_end_in_a_result() {
    let mut entropy = crate::craft::random::Entropy::seeded(1);
    let tokens: [&[u8]; 14] = [
        b"<",
        b">",
        b"/>",
        b"</",
        b"\"",
        b"'",
        b"=",
        b"&",
        b"]]>",
        b"<!--",
        b"<a:b c='d'/>",
        b"\xff",
        b"wasPassProcessed='true' ",
        "ä".as_bytes(),
    ];
    let (mut good, mut bad) = (0, 0);
    for _ in 0..400 {
        let mut bytes = OWN.as_bytes().to_vec();
        for _ in 0..=entropy.below(2) {
            let at = entropy.below(bytes.len() as u32) as usize;
            let token = tokens[entropy.below(tokens.len() as u32) as usize];
            let length = entropy.below(3) as usize;
            let end = bytes.len().min(at + length);
            bytes.splice(at..end, token.iter().copied());
        }
        let Ok(mut file) = AnswerFile::parse(&bytes, Architecture::Amd64) else {
            bad += 1;
            continue;
        };
        let password = Secret::new("secret");
        let results = [
            file.set(Pass::Specialize, SHELL_SETUP, &["ComputerName"], "vm"),
            file.run_in_specialize("d", "c"),
            file.set_administrator_password(&password),
            file.set_account_password("admin", &password).map(drop),
            file.set_auto_logon_password("admin", &password),
        ];
        let text = file.bytes();
        // The result is still an answer file, with the settings in it.
        if results.iter().all(Result::is_ok) {
            let again = AnswerFile::parse(text.expose(), Architecture::Amd64).unwrap();
            let name = again.get(Pass::Specialize, SHELL_SETUP, &["ComputerName"]);
            assert_eq!(name, Some("vm"), "{}", String::from_utf8_lossy(text.expose()));
            good += 1;
        }
    }
    assert!(good > 50 && bad > 50, "{good} {bad}");
}
