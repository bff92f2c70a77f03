use std::ffi::OsString;

use super::*;
use crate::exit::Exit;
use crate::request::Parsed;

fn words(options: &[&str]) -> Vec<OsString> {
    ["snf-customize", "apply", "disk"].iter().chain(options).map(OsString::from).collect()
}

fn cli(options: &[&str]) -> Result<Apply, String> {
    match command_line(words(options)) {
        Ok(mut cli) => Ok(std::mem::replace(cli.apply_mut().unwrap(), empty())),
        Err(Ended::Clap(error)) => Err(error.to_string()),
        Err(Ended::Document(failure)) => {
            assert!(matches!(failure.exit, Exit::Input | Exit::Usage));
            Err(failure.message)
        }
    }
}

fn empty() -> Apply {
    let Some(Command::Apply(apply)) =
        Cli::from_arg_matches(&Cli::command().get_matches_from(words(&[]))).unwrap().command
    else {
        panic!()
    };
    *apply
}

fn printed(options: &[&str]) -> String {
    let options: Vec<&str> = options.iter().copied().chain(["--print-plan"]).collect();
    let args = cli(&options).unwrap();
    Parsed::new(&args).map_err(|failure| failure.message).unwrap().print(&args).ok().unwrap()
}

/// Options of every kind, and an edit of every verb whose argument is a path.
const OPTIONS: &[&str] = &[
    "--hostname=web1",
    "--root-password=file:/p w",
    "--user-password=ann:stdin",
    "--user-password=bob:hash:!",
    "--ssh-key=ann:file:k.pub",
    "--machine-id=new",
    "--host-keys=remove",
    "--grow",
    "--size=20G",
    "--no-move",
    "--root-partition=2",
    "--properties={\"CLOUD_INIT\":true,\"OSFAMILY\":\"linux\"}",
    "--luks-key=2:prompt",
    "--disk=other.raw",
    "--format=raw",
    "--sysprep=defaults,-logfiles",
    "--seed=7",
    "--mkdir=/srv/a:owner=ann,mode=2770",
    "--write=/etc/motd:text:\"hello\"\nthere \u{202e}",
    "--write=/x:file:y:mode=0600",
    "--edit=/etc/x:s/a/b/g",
    "--symlink=../x:/etc/y",
    "--enable=ssh.service",
    "--tar-in=a.tar:/srv",
    "--copy-in=site:/srv",
    "--chown=:shadow:/etc/x",
    "--lock-user=ann",
    "--set-line=/etc/x:a=b=c",
    "--add-user=web:groups=adm+video,sudo=password,comment=a b",
    "--add-group=team:gid=7,system",
    "--firstboot-early-command=echo 'x' \"y\"",
    "--firstboot=script.sh",
    "--firstboot-install=vim,g++",
    "--locale=el_GR.UTF-8",
    "--keymap=de:nodeadkeys",
    "--swap=512M",
    "--no-cloud-init",
    "--cloud-user=eve",
    "--nic=MAC=aa:00:00:00:00:01,dhcp",
];

#[test]
fn what_is_printed_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let direct = cli(OPTIONS).unwrap();
    let edits = |args: &Apply| {
        let edits = args.planned.edits.iter().cloned().chain(args.edits.parse().ok().unwrap());
        edits.map(|edit| edit.action).collect::<Vec<_>>()
    };
    for json in [false, true] {
        let mut options = OPTIONS.to_vec();
        if json {
            options.push("--json");
        }
        let text = printed(&options);
        let path = dir.path().join("plan");
        std::fs::write(&path, &text).unwrap();
        let file = format!("--file={}", path.display());
        let again = cli(&[&file]).unwrap();
        assert_eq!(edits(&again), edits(&direct), "{text}");
        let shown = |args: &Apply| {
            let mut copy = format!("{args:?}");
            // The documents and the edits of the command line are compared above.
            copy.truncate(copy.find("planned:").unwrap());
            // A document has an order of its own: see `two_readers_of_standard_input_make_no_plan`.
            let from = copy.find("order: Order").unwrap();
            copy.truncate(from);
            (copy, args.hostname.clone(), args.user_password.clone(), args.properties.clone())
        };
        assert_eq!(shown(&again), shown(&direct));
        // Every option, in the same words again.
        let mut options = vec![&*file];
        if json {
            options.push("--json");
        }
        assert_eq!(printed(&options), text);
    }
}

#[test]
fn two_readers_of_standard_input_make_no_plan() {
    let options = ["--root-password=stdin", "--luks-key=2:stdin", "--print-plan"];
    let said = cli(&options).unwrap_err();
    assert!(said.contains("both read standard input"), "{said}");
    printed(&["--user-password=ann:stdin", "--user-password=bob:stdin"]);
}

#[test]
fn a_document_by_hand() {
    let found = read::parse(
        "hostname = \"web1\"\nroot-partition = 2\nno-move = false\n\
         [[edits]]\nmkdir = { path = \"/srv\", mode = \"0750\" }\n[[edits]]\ndelete.path = \"/tmp/*\"\n",
        "x",
    )
    .unwrap();
    let words: Vec<_> = found.options.iter().flat_map(|given| given.words.clone()).collect();
    assert_eq!(words, ["--hostname=web1", "--root-partition=2"]);
    let origins: Vec<_> = found.edits.iter().map(|edit| edit.origin.clone()).collect();
    assert_eq!(origins, ["x: edits[0]: mkdir /srv", "x: edits[1]: delete /tmp/*"]);
}

#[test]
fn what_makes_no_sense_has_its_place() {
    for (text, part) in [
        ("hostnam = \"x\"", "line 1, column 1: there is no key hostnam; did you mean hostname?"),
        ("zzz = 1", "line 1, column 1: there is no key zzz; the keys are edits, "),
        ("colour = 1", "there is no key colour; the keys are edits, "),
        ("\nhostname = 3", "line 2, column 12: hostname is a text: write hostname = \"3\""),
        ("{\"hostname\": 3}", "hostname is a text"),
        ("hostname = ''", "line 1, column 12: hostname: the host name \"\" is empty"),
        ("root-password = 'hunter'", "line 1, column 17: root-password: a password is given as"),
        ("\nuser-password = ['ann']", "line 2, column "),
        ("user-password = ['ann']", "user-password: the value is not of the form NAME:SELECTOR"),
        ("ssh-key = ['x']", "ssh-key: the value is not of the form USER:file:PATH"),
        ("machine-id = 'foo'", "line 1, column 14: machine-id: 'foo' is none of"),
        ("sysprep = 'nosuch'", "line 1, column 11: "),
        ("cloud-user = 'a:b'", "line 1, column 14: cloud-user: "),
        ("cloud-init = 'x=y'", "line 1, column 14: cloud-init: "),
        ("nic = ['x']", "nic: "),
        ("luks-key = ['x']", "luks-key: "),
        ("product-key = 'x'", "line 1, column 15: product-key: "),
        ("properties = {OSFAMILY = 'beos'}", "OSFAMILY"),
        ("[[edits]]\nwrite = {path='/x', text='x', mode=600}", "a mode is a text"),
        ("[[edits]]\nchmod = {path='/x', mode=644}", "line 2, column 26: a mode is a text"),
        ("[[edits]]\nmkdir = {path='/x', mode=0o750}", "such as mode = \"0644\""),
        ("{\"edits\": [{\"mkdir\": {\"path\": \"/x\", \"mode\": 755}}]}", "a mode is a text"),
        ("\nmkdir = \"/x\"", "line 2, column 1: mkdir is an edit, and stands in the list edits"),
        ("dry-run = true", "there is no key dry-run"),
        ("hostname = 'a'\nhostname = 'b'", "line 2, column 1: duplicate key"),
        ("hostname = ['a']", "line 1, column 12: invalid type: sequence"),
        ("no-move = 'yes'", "no-move is true or false"),
        ("user-password = 'a:stdin'", "user-password is a list of texts"),
        ("host-keys = 'fresh'", "line 1, column 13: invalid value 'fresh' for '--host-keys"),
        ("size = 'big'", "line 1, column 8: invalid value 'big' for '--size"),
        ("root-partition = 0", "invalid value '0' for '--root-partition"),
        ("properties = 'x = 1'", "properties is a table"),
        ("{\"properties\": {\"A\": 1, \"A\": 2}, \"hostnam\": 1}", "A is given twice"),
        ("[[edits]]\nmkdr = {path='/x'}", "line 2, column 1: unknown variant `mkdr`"),
        ("[[edits]]\nmkdir = {path='/x', mod='1'}", "line 2, column 21: unknown field `mod`"),
        ("[[edits]]\nmkdir = {path='x'}", "does not begin with '/'"),
        ("[[edits]]\nmkdir = {path='/x'}\ndelete = {path='/x'}", "has delete and mkdir: begin"),
        ("[[edits]]\nlock-user = {user='a:b'}", "is no name of a user"),
        ("[[edits]]\nwrite = {path='/x'}", "one of text, base64 and file is needed"),
        ("hostname = \"x", "line 1"),
        ("{\"hostname\": \"x\",\n\"hostnam\": \"y\"}", "line 2, column 9: there is no key hostnam"),
        ("{\"hostname\": \"x\", \"hostname\": \"y\"}", "hostname is there twice"),
        ("{\"edits\": [{\"mkdir\": {\"path\": 1}}]}", "line 1"),
        ("{\"hostname\": \"x\"} more", "line 1, column 19: trailing characters"),
    ] {
        let error = read::parse(text, "x").unwrap_err();
        assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn one_place_says_it() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("--file={}", path.display())
    };
    let one = write("one", "hostname = 'a'\nuser-password = ['ann:stdin']");
    let two = write("two", "hostname = 'b'");
    let edits = write("edits", "[[edits]]\nmkdir = {path='/a'}");
    assert!(cli(&[&one, "--hostname", "c"]).unwrap_err().contains("so does --hostname"));
    assert!(cli(&[&one, &two]).unwrap_err().contains("both "));
    let both = cli(&[&one, "--user-password", "bob:stdin"]).unwrap();
    assert_eq!(both.user_password, ["ann:stdin", "bob:stdin"]);
    let args = cli(&["--mkdir", "/b", &edits]).unwrap();
    assert_eq!((args.planned.edits.len(), args.edits.is_empty()), (1, false));
    // A plan is all that is asked for.
    assert!(Parsed::new(&cli(&[&edits]).unwrap()).is_ok());
    assert!(cli(&["--file=/nonexistent"]).unwrap_err().contains("cannot use plan file"));
    let mut words = words(&["--print-plan", "--hostname=x"]);
    words[1] = "deploy".into();
    words.insert(2, "image".into());
    assert!(matches!(command_line(words), Err(Ended::Document(_))));
}

/// The schema in the tree is the one of this program, and has an entry for every verb.
#[test]
fn the_schema_is_in_the_tree() {
    let text = format!("{:#}\n", schema());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.schema.json");
    if std::env::var_os("SNF_WRITE_SCHEMA").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == text, "docs/plan.schema.json is old: snf-customize --plan-schema writes it");
    // These are other words for edits with a field.
    let others = ["upload", "firstboot-early", "firstboot-early-command"];
    for verb in snf_image::edit::verbs().filter(|verb| !others.contains(&verb.name)) {
        assert!(text.contains(&format!("\"{}\"", verb.name)), "{}", verb.name);
    }
}
