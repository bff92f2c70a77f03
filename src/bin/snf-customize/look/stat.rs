//! `snf-customize stat`.

use serde_json::json;
use snf_fs::FileType;
use snf_fs::error::display_name;
use snf_fs::tree::Handle;

use super::args::Stat;
use super::names::{self, Names};
use super::opened::{Opened, bytes};
use super::{Trouble, ls, time};
use crate::exit::{Exit, Failure};
use crate::output::{self, Document};

/// Shows what is known of files.
pub(super) fn run(args: &Stat) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.source)?;
    let names = Names::of(&opened.guest);
    let mut found = Vec::new();
    opened.end(args.paths.iter().try_for_each(|path| {
        let path = bytes(path);
        let handle = opened.tree().handle(path, args.dereference)?;
        let path = match args.dereference {
            true => opened.tree().resolve(path)?.path,
            false => opened.tree().resolve_link(path)?,
        };
        found.push((path, handle));
        Ok(())
    }))?;
    if args.json {
        let mut files = Vec::new();
        opened.end(found.iter().try_for_each(|(path, handle)| {
            let mut value = ls::entry(opened.tree(), path, *handle, None)?;
            let stat = opened.tree().stat_handle(*handle)?;
            value["node"] = json!(stat.node.0);
            value["blocks"] = json!(stat.blocks);
            value["user"] = json!(names.user(stat.uid));
            value["group"] = json!(names.group(stat.gid));
            value["atime"] = json!(time::long(stat.atime));
            value["ctime"] = json!(time::long(stat.ctime));
            let xattrs = opened.tree().xattrs_handle(*handle)?;
            let xattrs = xattrs.iter().map(|(name, value)| {
                json!({"name": display_name(name), "value_base64": snf_image::craft::base64::encode(value)})
            });
            value["xattrs"] = xattrs.collect();
            files.push(value);
            Ok(())
        }))?;
        let mut document = Document::new("stat", &args.source.disk);
        document.set("files", files);
        document.finish(Exit::Done, "");
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    opened.end(found.iter().try_for_each(|(path, handle)| {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&page(&opened, &names, path, *handle)?);
        Ok(())
    }))?;
    output::print(&text);
    Ok(Exit::Done)
}

fn page(opened: &Opened, names: &Names, path: &[u8], handle: Handle) -> Result<String, Trouble> {
    let tree = opened.tree();
    let stat = tree.stat_handle(handle)?;
    let owner = |number: u32, name: Option<&str>| match name {
        Some(name) => format!("{name} ({number})"),
        None => number.to_string(),
    };
    let mut rows = vec![
        ("path", display_name(path)),
        ("kind", names::kind(stat.file_type).to_owned()),
        ("mode", format!("{:04o} {}", stat.mode, names::mode(&stat))),
        ("owner", owner(stat.uid, names.user(stat.uid))),
        ("group", owner(stat.gid, names.group(stat.gid))),
        ("size", format!("{} bytes", stat.size)),
        ("space", format!("{} bytes", u128::from(stat.blocks) * 512)),
        ("links", stat.links.to_string()),
        ("node", stat.node.0.to_string()),
        ("modified", time::long(stat.mtime)),
        ("changed", time::long(stat.ctime)),
        ("accessed", time::long(stat.atime)),
    ];
    if stat.file_type == FileType::Symlink {
        rows.insert(2, ("target", display_name(&tree.read_link_handle(handle)?)));
    }
    if let Some((major, minor)) = stat.device {
        rows.push(("device", format!("{major}, {minor}")));
    }
    for (name, value) in tree.xattrs_handle(handle)? {
        // A value that ends with a zero byte is a C string: a label, for example.
        let value = value.strip_suffix(b"\0").unwrap_or(&value);
        rows.push(("xattr", format!("{} = {}", display_name(&name), display_name(value))));
    }
    Ok(rows.iter().map(|(name, value)| format!("{name:8}  {value}\n")).collect())
}
