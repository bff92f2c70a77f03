//! Tests of writer, parser and plan without a shell; `tests/rules_bash.rs` has the shell's word.

use super::plan::VARIABLES;
use super::*;
use crate::ask::plan::{ImageFormat, Password, Who};
use crate::craft::random::Entropy;
use crate::craft::secret::Secret;

fn parse(text: &str) -> Rules {
    Rules::parse(text.as_bytes()).unwrap()
}

fn value(text: &str) -> Vec<u8> {
    parse(&format!("export SNF_IMAGE_X={text}\n")).get("X").unwrap().expose().to_vec()
}

#[test]
fn every_kind_of_quote() {
    for (text, expected) in [
        ("", &b""[..]),
        ("bare", b"bare"),
        ("a\\ b\\$c", b"a b$c"),
        ("'it'\\''s'", b"it's"),
        ("'$x `y` \\n'", b"$x `y` \\n"),
        ("\"a \\\"b\\\" \\$c \\` \\\\ \\n\"", b"a \"b\" $c ` \\ \\n"),
        ("\"a $ b\"", b"a $ b"),
        ("\"a\\\nb\"", b"ab"),
        ("a\\\nb", b"ab"),
        ("$'a\\n\\t\\\\\\'\\\"\\?'", b"a\n\t\\'\"?"),
        ("$'\\a\\b\\e\\E\\f\\r\\v'", b"\x07\x08\x1b\x1b\x0c\r\x0b"),
        ("$'\\101\\1012\\7x\\377'", b"AA2\x07x\xff"),
        ("$'\\x41\\x4a1\\xg'", b"AJ1\\xg"),
        ("$'\\u20ac\\U0001f600\\ue9x'", "\u{20ac}\u{1f600}\u{e9}x".as_bytes()),
        ("$'\\ca\\cZ\\c?\\q'", b"\x01\x1a\x7f\\q"),
        ("a'b'\"c\"$'d'e", b"abcde"),
        ("x#y", b"x#y"),
        ("x # a comment", b"x"),
        ("a=b:c", b"a=b:c"),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn statements() {
    let rules = parse(
        "# a comment\n\n  export SNF_IMAGE_A=1 SNF_IMAGE_B='2'; SNF_IMAGE_C=3\n\
         declare -x SNF_IMAGE_D=\"4\"\ndeclare -ax SNF_IMAGE_E=([0]=\"x\" [2]=\"z\")\n\
         declare -ax SNF_IMAGE_F='([0]=\"x\" [1]=\"y\")'\nexport SNF_IMAGE_G\n\
         SNF_IMAGE_H=(a 'b c' # comment\n d [9]=e f)\nOTHER=5",
    );
    for (name, expected) in [("A", "1"), ("B", "2"), ("C", "3"), ("D", "4"), ("E", "x")] {
        assert_eq!(rules.text(name), Some(expected));
    }
    let array = |name: &str| -> Vec<(u32, String)> {
        let text = |v: &Secret| String::from_utf8(v.expose().to_vec()).unwrap();
        rules.array(name).into_iter().map(|(index, value)| (index, text(value))).collect()
    };
    assert_eq!(array("E"), [(0, "x".to_owned()), (2, "z".to_owned())]);
    assert_eq!(array("F"), [(0, "x".to_owned()), (1, "y".to_owned())]);
    assert_eq!(
        array("H").iter().map(|(i, v)| format!("{i}{v}")).collect::<Vec<_>>(),
        ["0a", "1b c", "2d", "9e", "10f"]
    );
    assert_eq!(rules.get("G"), None);
    assert!(rules.iter().any(|(name, _)| name == "OTHER"));
}

#[test]
fn what_is_not_plain_data_is_refused() {
    for (text, line) in [
        ("reboot\n", 1),
        ("export A=1\nrm -rf /\n", 2),
        ("export A=$HOME\n", 1),
        ("export A=\"$HOME\"\n", 1),
        ("export A=\"$(id)\"\n", 1),
        ("export A=`id`\n", 1),
        ("export A=\"`id`\"\n", 1),
        ("export A=~root\n", 1),
        ("export A={a,b}\n", 1),
        ("export A=a&b\n", 1),
        ("export A=a>b\n", 1),
        ("export A=(a\n", 2),
        ("export A=(*)\n", 1),
        ("export A=([x]=1)\n", 1),
        ("export A=([99999999999999]=1)\n", 1),
        ("export A='x'y)\n", 1),
        ("export A+=x\n", 1),
        ("export 1A=x\n", 1),
        ("export A='\n\n\n", 1),
        ("export\n", 1),
        ("declare -A A=()\n", 1),
        ("export A=$'\\0'\n", 1),
        ("export A=$'\\x00'\n", 1),
        ("export A=$'\\ud800'\n", 1),
        ("export A=\\", 1),
        ("A[0]=x\n", 1),
        ("\u{feff}export A=x\n", 1),
    ] {
        let error = Rules::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.line(), line, "{text:?}: {error}");
    }
    assert!(Rules::parse(b"export A=a\0b").is_err());
    assert!(Rules::parse(&vec![b'\n'; MAX_SIZE + 1]).is_err());
}

#[test]
fn an_error_names_the_variable_and_not_the_value() {
    let error = Rules::parse(b"\nexport SNF_IMAGE_PASSWD=hunter2$x\n").unwrap_err().to_string();
    assert!(error.starts_with("line 2, in SNF_IMAGE_PASSWD: "), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let error = Rules::parse(b"hunter2 x\n").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn arbitrary_bytes_come_back() {
    let mut entropy = Entropy::seeded(11);
    for _ in 0..2000 {
        let length = entropy.below(40) as usize;
        // Mostly the characters that need quoting.
        let value: Vec<u8> = (0..length)
            .map(|_| match entropy.below(3) {
                0 => b"'\"\\$`!~#\n\t {}()[]*?;&|<>=a0"[entropy.below(26) as usize],
                1 => entropy.below(255) as u8 + 1,
                _ => b'a' + entropy.below(26) as u8,
            })
            .collect();
        let mut rules = Rules::default();
        rules.set("X", value.clone()).unwrap();
        rules.set_array("Y", [value.clone(), b"z".to_vec()]).unwrap();
        let again = Rules::parse(rules.write().expose()).unwrap();
        assert_eq!(again, rules, "{value:?}");
    }
}

#[test]
fn arbitrary_text_is_never_a_panic() {
    let mut entropy = Entropy::seeded(12);
    let pieces: &[&[u8]] = &[
        b"export ",
        b"SNF_IMAGE_A",
        b"=",
        b"'",
        b"\"",
        b"$'",
        b"\\",
        b"(",
        b")",
        b"[0]=",
        b" ",
        b"\n",
        b"#",
        b"\\u",
        b"\\x",
        b"\\c",
        b"7",
        b"f",
        b"declare -ax ",
        b"$",
        b"\xff",
        b"{",
    ];
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..entropy.below(20) {
            text.extend_from_slice(pieces[entropy.below(pieces.len() as u32) as usize]);
        }
        let _ = Rules::parse(&text);
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let mut rules = Rules::default();
    assert!(rules.set("A B", "x").is_err());
    assert!(rules.set("A", "a\0b").is_err());
    assert!(rules.set_array("A", ["a\0b"]).is_err());
}

const PLAIN: &str = include_str!("../../../fixtures/interop/plain.rules");
const TRICKY: &str = include_str!("../../../fixtures/interop/tricky.rules");

#[test]
fn the_lines_of_the_original_are_ours() {
    for text in [PLAIN, TRICKY] {
        let rules = parse(text);
        let ours = String::from_utf8(rules.write().expose().to_vec()).unwrap();
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&ours), sorted(text));
    }
}

#[test]
fn the_values_of_the_original_arrive() {
    for (rules, environment) in [
        (PLAIN, include_str!("../../../fixtures/interop/plain.env.json")),
        (TRICKY, include_str!("../../../fixtures/interop/tricky.env.json")),
    ] {
        let rules = parse(rules);
        let environment: serde_json::Value = serde_json::from_str(environment).unwrap();
        let mut compared = 0;
        let all = environment.as_object().unwrap().iter();
        for (name, value) in all.chain(environment["extra"].as_object().unwrap()) {
            let variable = match name.strip_prefix("OSP_") {
                Some(parameter) => {
                    let name = parameter.to_ascii_lowercase();
                    VARIABLES.iter().find(|(known, _)| *known == name).unwrap().1
                }
                None if name.starts_with("NIC_") => name,
                None => continue,
            };
            assert_eq!(rules.text(variable), value.as_str(), "{name}");
            compared += 1;
        }
        assert!(compared >= 3);
        assert_eq!(rules.devices(), ["/dev/vdb"]);
    }
}

#[test]
fn the_plan_of_the_original() {
    let rules = parse(TRICKY);
    let plan = rules.plan().unwrap();
    assert_eq!(plan.format, ImageFormat::DiskDump);
    assert_eq!(plan.hostname.as_deref(), Some("vm1.example.test"));
    assert!(plan.tasks.is_all());
    let [(Who::Default, Password::Clear(password))] = &plan.passwords[..] else { panic!() };
    assert!(password.expose().starts_with(b"it's \"q\" $HOME"));
    assert!(password.expose().ends_with(b"\nline2\ttab"));
    assert_eq!(plan.auth_keys.len(), 1);
    assert_eq!(plan.properties.get("users"), Some("root"));
    assert_eq!(plan.properties.get("num"), Some("5"));
    assert_eq!(plan.properties.boolean("flag"), Ok(true));
    assert_eq!(plan.properties.get("nothing"), None);
    let paths: Vec<&str> = plan.personality.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/etc/pers/with space.txt",
            "/etc/pers/it's \"q\" $x",
            "/etc/pers/deep/er/still/f",
            "/etc/motd"
        ]
    );
    assert_eq!(plan.personality[2].owner.as_deref(), Some("daemon"));
    assert_eq!(plan.personality[1].mode, Some(384));

    let nics = rules.nics();
    assert_eq!(nics.len(), 1);
    assert_eq!(nics[&0]["MAC"], "aa:00:00:00:00:01");
    assert_eq!(nics[&0]["NETWORK_TAGS"], "a b");
    assert_eq!(nics[&0]["VLAN"], "line1\nline2");
    assert_eq!(rules.text("NIC_COUNT"), Some("1"));
}

#[test]
fn plans_that_make_no_sense() {
    let error = |text: &str| parse(text).plan().unwrap_err().to_string();
    assert!(error("SNF_IMAGE_HOSTNAME=x").contains("has no SNF_IMAGE_TYPE"));
    assert!(error("SNF_IMAGE_TYPE=qcow2").contains("img_format"));
    let wrong = "SNF_IMAGE_TYPE=diskdump\nSNF_IMAGE_PROPERTY_ROOT_PARTITION=x";
    assert!(error(wrong).contains("ROOT_PARTITION"));
    let plan = parse("SNF_IMAGE_TYPE=extdump\nSNF_IMAGE_PROPERTY_OSFAMILY=linux").plan().unwrap();
    assert_eq!(plan.format, ImageFormat::ExtDump);
    assert!(plan.passwords.is_empty());
}

#[test]
fn hashes_that_are_none_are_left_out() {
    let hash = "$6$salt$0123456789012345678901";
    let mut rules = Rules::default();
    rules.set("TYPE", "diskdump").unwrap();
    rules.set("PASSWD_HASH", hash).unwrap();
    rules.set_array("PREPARED_PASSWD_HASHES", ["", "a:b"]).unwrap();
    assert!(matches!(rules.plan().unwrap().passwords[..], [(_, Password::Hash(_))]));
    // Hashes of no password.
    rules.remove("PASSWD_HASH");
    rules.set_array("PREPARED_PASSWD_HASHES", [hash]).unwrap();
    assert!(rules.plan().unwrap().passwords.is_empty());
}
