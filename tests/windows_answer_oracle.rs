//! Answer files that we edited, read by Python's XML parser (expat).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::support;
use std::fs;
use std::process::Command;

use snf_image::answer::{AnswerFile, Pass, SHELL_SETUP};
use snf_image::guest::windows::Architecture;
use snf_image::secret::Secret;

/// A line for each setting: pass, component, processor, path, text. Passwords are decoded.
const READ: &str = r#"
import base64, sys
import xml.etree.ElementTree as ET
NS = "{urn:schemas-microsoft-com:unattend}"
WCM = "{http://schemas.microsoft.com/WMIConfig/2002/State}"
def walk(element, path):
    name = path + "/" + element.tag.replace(NS, "")
    action = element.get(WCM + "action")
    if action:
        print(head, name, "action=" + action)
    if len(element) == 0:
        text = (element.text or "").strip()
        if name.endswith("/Value"):
            text = base64.b64decode(text, validate=True).decode("utf-16-le")
        print(head, name, text)
    for child in element:
        walk(child, name)
for file in sys.argv[1:]:
    root = ET.parse(file).getroot()
    assert root.tag == NS + "unattend", root.tag
    for settings in root:
        for component in settings:
            assert component.get("publicKeyToken") == "31bf3856ad364e35"
            head = " ".join([settings.get("pass"), component.get("name"), component.get("processorArchitecture")])
            for child in component:
                walk(child, "")
"#;

fn edited(text: &[u8], architecture: Architecture) -> Secret {
    let mut file = AnswerFile::parse(text, architecture).unwrap();
    file.set(Pass::Specialize, SHELL_SETUP, &["ComputerName"], "vm1").unwrap();
    file.set(Pass::Specialize, SHELL_SETUP, &["TimeZone"], "a <b> & \"c\" 'd' ]]>").unwrap();
    file.set_administrator_password(&Secret::new("p<ä&😀\"'")).unwrap();
    file.run_in_specialize("one", "cmd.exe /c \"a & b\" > c").unwrap();
    file.run_in_specialize("two", "second").unwrap();
    file.bytes()
}

fn expected(architecture: &str) -> Vec<String> {
    let shell = |pass: &str| format!("{pass} {SHELL_SETUP} {architecture}");
    let (specialize, oobe) = (shell("specialize"), shell("oobeSystem"));
    let command = format!(
        "specialize Microsoft-Windows-Deployment {architecture} /RunSynchronous/RunSynchronousCommand"
    );
    let mut lines = vec![
        format!("{specialize} /ComputerName vm1"),
        format!("{specialize} /TimeZone a <b> & \"c\" 'd' ]]>"),
        format!("{oobe} /UserAccounts/AdministratorPassword/Value p<ä&😀\"'AdministratorPassword"),
        format!("{oobe} /UserAccounts/AdministratorPassword/PlainText false"),
    ];
    for (number, (name, path)) in
        (1..).zip([("one", "cmd.exe /c \"a & b\" > c"), ("two", "second")])
    {
        lines.push(format!("{command} action=add"));
        lines.push(format!("{command}/Description {name}"));
        lines.push(format!("{command}/Order {number}"));
        lines.push(format!("{command}/Path {path}"));
        lines.push(format!("{command}/WillReboot Never"));
    }
    lines
}

#[test]
fn another_parser_reads_what_we_wrote() {
    let scratch = support::scratch();
    let path = scratch.path().join("unattend.xml");
    for architecture in [Architecture::X86, Architecture::Amd64, Architecture::Arm64] {
        let default = AnswerFile::default_text(architecture);
        let text = std::str::from_utf8(default.expose()).unwrap();
        let own = "<u:unattend xmlns:u='urn:schemas-microsoft-com:unattend'>\
                   <!-- x --><u:settings pass='oobeSystem'/></u:unattend>";
        // The declaration of a file in UTF-16 says so.
        let wide = format!("\u{feff}{}", text.replace("utf-8", "utf-16"));
        let wide: Vec<u8> = wide.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let crlf = text.replace('\n', "\r\n");
        for input in [text.as_bytes(), own.as_bytes(), &wide, crlf.as_bytes()] {
            fs::write(&path, edited(input, architecture).expose()).unwrap();
            let output =
                Command::new("/usr/bin/python3").arg("-c").arg(READ).arg(&path).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
            let found = String::from_utf8(output.stdout).unwrap();
            for line in expected(architecture.name()) {
                assert!(found.lines().any(|found| found == line), "{line}\nis not in\n{found}");
            }
            // Twice the same edit changes nothing.
            let once = fs::read(&path).unwrap();
            assert_eq!(edited(&once, architecture).expose(), once);
        }
    }
}
