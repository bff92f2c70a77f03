//! Damaged texts of every kind that the library reads: rules, requests, parameters, answer files, and
//! the configuration of a guest. The stable harness (`fuzz_texts.rs`) and the target of cargo-fuzz
//! (`fuzz/` in the checkout) share it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Debug;

use snf_fs::{Attributes, FileType, MemoryFs, Tree};
use snf_image::answer::sysprep::SysprepInf;
use snf_image::answer::xml::Document;
use snf_image::answer::{AnswerFile, Pass, SHELL_SETUP};
use snf_image::guest::distro::Distro;
use snf_image::guest::fstab;
use snf_image::guest::passwd;
use snf_image::guest::selinux::FileContexts;
use snf_image::guest::sshd::{Login, Reach, SshdConfig, Who};
use snf_image::guest::windows::Architecture;
use snf_image::params::OsParameters;
use snf_image::personality;
use snf_image::properties::Properties;
use snf_image::request::Request;
use snf_image::rules::Rules;

use crate::choices::Choices;
use crate::run::{Outcome, Target};

const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

/// A kind of text.
struct Kind {
    name: &'static str,
    /// Good ones.
    texts: &'static [&'static str],
    /// Reads it; whether it was refused.
    read: fn(&[u8]) -> bool,
}

fn refused<T, E: Debug>(result: Result<T, E>) -> bool {
    // Its messages are written without a panic, too.
    result.map_err(|error| format!("{error:?}")).is_err()
}

fn tree(path: &str, text: &[u8]) -> Tree {
    let mut tree = Tree::new(Box::new(MemoryFs::new()));
    let (dir, _) = path.rsplit_once('/').unwrap();
    tree.mkdir_all(dir, FILE).unwrap();
    tree.write(path, text, FILE).unwrap();
    tree
}

fn rules(text: &[u8]) -> bool {
    let Ok(rules) = Rules::parse(text) else { return true };
    // The plan is written, and read again to the same.
    let written = rules.write();
    assert_eq!(Rules::parse(written.expose()).unwrap().write(), written);
    refused(rules.plan())
}

fn answer(text: &[u8]) -> bool {
    let Ok(mut file) = AnswerFile::parse(text, Architecture::Amd64) else { return true };
    let set = file.set(Pass::Specialize, SHELL_SETUP, &["ComputerName"], "name");
    let bytes = file.bytes();
    // An edited one is read again.
    if set.is_ok() {
        AnswerFile::parse(bytes.expose(), Architecture::Amd64).unwrap();
    }
    set.is_err()
}

fn xml(text: &[u8]) -> bool {
    refused(Document::parse(String::from_utf8_lossy(text).into_owned()))
}

fn inf(text: &[u8]) -> bool {
    let mut file = SysprepInf::parse(text);
    file.set("UserData", "ComputerName", "name");
    let bytes = file.bytes();
    assert_eq!(SysprepInf::parse(bytes.expose()).get("UserData", "ComputerName"), Some("name"));
    false
}

fn sshd(text: &[u8]) -> bool {
    let Ok(config) = SshdConfig::read(&tree("/etc/ssh/sshd_config", text)) else { return true };
    let who = Who { name: b"ann".to_vec(), groups: vec![b"ann".to_vec()] };
    let obstacles = config.obstacles(&who, Login::default(), Reach::Key);
    let path = config.settings(&who, true).keys_path(b"ann", 1000, b"/home/ann");
    refused(path) | !obstacles.is_empty()
}

fn mounts(text: &[u8]) -> bool {
    for entry in fstab::parse(text) {
        let _ = (entry.subvolume().map(|found| found.is_ok()), entry.source_text());
    }
    false
}

fn contexts(text: &[u8]) -> bool {
    let path = "/etc/selinux/targeted/contexts/files/file_contexts";
    let Ok(Some(contexts)) = FileContexts::read(&tree(path, text), "targeted") else { return true };
    let label = contexts.label("/etc/shadow", FileType::Regular);
    let long = format!("/{}", "usr/".repeat(100));
    label.is_none() | contexts.label(&long, FileType::Directory).is_none()
}

fn users(text: &[u8]) -> bool {
    let first = passwd::users(text).next();
    let _ = passwd::list_users(text, 10);
    refused(passwd::set_passwd(text, b"ann", b"hash")) | first.is_none()
}

fn release(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let distro = Distro::from_os_release(&text);
    let _ = distro.version_number();
    distro.name.chars().any(char::is_control)
}

fn properties(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    match Properties::parse(&text, "the test") {
        Ok(properties) => !properties.problems().is_empty(),
        Err(_) => true,
    }
}

fn files(text: &[u8]) -> bool {
    refused(personality::parse(&String::from_utf8_lossy(text), "the test"))
}

fn parameters(text: &[u8]) -> bool {
    match OsParameters::from_json(&String::from_utf8_lossy(text)) {
        Ok(parameters) => refused(parameters.plan()),
        Err(_) => true,
    }
}

fn request(text: &[u8]) -> bool {
    let Ok(request) = Request::parse(text) else { return true };
    refused(request.write())
}

const UNATTEND: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<unattend xmlns="urn:schemas-microsoft-com:unattend">
  <settings pass="specialize">
    <component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64">
      <ComputerName>old</ComputerName><!-- a comment --><ProductKey/>
    </component>
  </settings>
  <settings pass="oobeSystem"><component name="Microsoft-Windows-Shell-Setup"
    processorArchitecture="amd64"><UserAccounts><LocalAccounts><LocalAccount>
    <Name>ann</Name><Password><Value>&lt;x&gt;</Value><PlainText>true</PlainText></Password>
    </LocalAccount></LocalAccounts></UserAccounts></component></settings>
</unattend>
"#;

const KINDS: &[Kind] = &[
    Kind {
        name: "rules",
        texts: &[
            "SNF_IMAGE_HOSTNAME='web1'\nexport SNF_IMAGE_PASSWD=\"x\\\"y\"\n\
             declare -a SNF_IMAGE_X=([0]=\"a\" [1]='b')\n# comment\nSNF_IMAGE_Y=$'a\\nb\\x41'\n",
            "declare -x SNF_IMAGE_TARGET=\"/dev/vda\"\nSNF_IMAGE_PROPERTY_OSFAMILY=linux\n",
        ],
        read: rules,
    },
    Kind { name: "answer file", texts: &[UNATTEND], read: answer },
    Kind { name: "xml", texts: &[UNATTEND, "<a b='c'><d/>t&amp;<!--x--><e>f</e></a>"], read: xml },
    Kind {
        name: "sysprep.inf",
        texts: &["[Unattended]\r\nOemSkipEula=Yes\r\n;x\r\n[UserData]\r\nComputerName=\"a b\"\r\n"],
        read: inf,
    },
    Kind {
        name: "sshd_config",
        texts: &["# x\nAuthorizedKeysFile %h/.ssh/k \"/etc/keys of/%u\"\nHostKey = /etc/ssh/a\n\
             Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin no\nMatch User ann\nHostKey /b\n"],
        read: sshd,
    },
    Kind {
        name: "fstab",
        texts: &[
            "UUID=0a1b / ext4 defaults,errors=remount-ro 0 1\n/dev/vda1 /boot\\040x vfat noauto 0 0\n\
             LABEL=x /home btrfs subvol=@home,subvolid=5 0 0\n# c\n/dev/mapper/a-b /srv xfs - 0 0\n",
        ],
        read: mounts,
    },
    Kind {
        name: "file_contexts",
        texts: &[
            "/.* system_u:object_r:default_t:s0\n/etc/shadow.* -- system_u:object_r:shadow_t:s0\n\
             /usr/(local/)?lib(64)?/[^/]*\\.so{1,3} -d a:b:c\n/proc/.* <<none>>\n/x{2}\\.d(/.*)? a:b:c\n",
        ],
        read: contexts,
    },
    Kind {
        name: "passwd",
        texts: &["root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n"],
        read: users,
    },
    Kind {
        name: "os-release",
        texts: &["ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian \"12\"'\nID_LIKE=x\\ y\n"],
        read: release,
    },
    Kind {
        name: "properties",
        texts: &[r#"{"OSFAMILY":"linux","ROOT_PARTITION":"1","USERS":"root ann","SWAP":"2:512",
                "EXCLUDE_TASK_AddSwap":"yes","PASSWD_HASHING_METHOD":"sha512"}"#],
        read: properties,
    },
    Kind {
        name: "personality",
        texts: &[
            r#"[{"path":"/etc/motd","contents":"aGVsbG8=","owner":"root","group":"root","mode":420}]"#,
        ],
        read: files,
    },
    Kind {
        name: "parameters",
        texts: &[r#"{"img_id":"debian","img_format":"diskdump","img_passwd":"x",
                "img_properties":"{\"OSFAMILY\":\"linux\"}"}"#],
        read: parameters,
    },
    Kind { name: "request", texts: &["{\"version\":1}", "{\"version\":2}"], read: request },
];

/// Pieces that mean something to one parser or another.
const PIECES: &[&str] = &[
    "\0",
    "\n",
    "\r\n",
    "\"",
    "'",
    "\\",
    "$(",
    "`",
    "%h",
    "%",
    "<",
    "</",
    "]]>",
    "<![CDATA[",
    "&#0;",
    "&lt;",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "|",
    "*",
    "+",
    "?",
    "{1000}",
    "{1000000}",
    "=",
    ":",
    ",",
    " ",
    "\t",
    "\u{feff}",
    "\u{202e}",
    "\u{9b}",
    "../",
    "/",
    "-1",
    "4294967296",
    "18446744073709551616",
    "1e999",
    "null",
    "subvol=",
    "Include *",
    "HostKey /x\n",
    "export ",
    "declare -a x=(",
    "\\u0000",
    "\\ud800",
];

fn damage(text: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let at = choices.below(text.len() + 1);
    let length = [1, 2, 8, 64, 1000][choices.below(5)];
    let end = (at + length).min(text.len());
    match choices.below(7) {
        0 => drop(text.drain(at..end)),
        1 => {
            let copy = text[at..end].to_vec();
            let to = choices.below(text.len() + 1);
            text.splice(to..to, copy);
        }
        2 | 3 => {
            let piece = PIECES[choices.below(PIECES.len())];
            text.splice(at..at, piece.bytes());
        }
        4 => {
            let piece =
                PIECES[choices.below(PIECES.len())].repeat([3, 100, 20_000][choices.below(3)]);
            text.splice(at..at, piece.bytes());
        }
        5 => {
            if let Some(byte) = text.get_mut(at) {
                *byte = choices.number(1) as u8;
            }
        }
        _ => {
            if let Some(byte) = text.get_mut(at) {
                *byte ^= 1 << choices.below(8);
            }
        }
    }
}

impl Target for Kind {
    fn name(&self) -> String {
        format!("Text {}", self.name)
    }

    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let mut text = self.texts[choices.below(self.texts.len())].as_bytes().to_vec();
        for _ in 0..=choices.below(6) {
            damage(&mut text, choices);
        }
        // Not all damage of a text is wrong: another password is a password.
        let _ = (self.read)(&text);
        Outcome { reads: 0, noticed: true }
    }

    fn check_undamaged(&self) {
        for text in self.texts {
            let _ = (self.read)(text.as_bytes());
        }
    }
}

/// Every kind of text.
pub fn targets() -> Vec<Box<dyn Target>> {
    KINDS
        .iter()
        .map(|kind| {
            let &Kind { name, texts, read } = kind;
            Box::new(Kind { name, texts, read }) as Box<dyn Target>
        })
        .collect()
}
