//! The links that switch units on and off.

use std::collections::BTreeSet;

use snf_fs::{FileType, Tree};

use super::install::expand;
use super::{CONFIG, Found, Install, UnitError, UnitName, find};

/// Most units that one request leads to, by `Also=`.
const UNITS_MAX: usize = 256;
/// Most names on the way to a unit.
const ALIASES_MAX: usize = 8;

/// A symbolic link to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Its place.
    pub path: String,
    /// Its target.
    pub target: Vec<u8>,
}

/// The ways in which a unit is switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The links.
    pub links: Vec<Link>,
    /// The units that the links are for.
    pub units: Vec<UnitName>,
    /// Parts of it that have no effect, and why.
    pub warnings: Vec<String>,
}

/// The links that switch `unit` on, and with it what its `Also=` names.
///
/// # Errors
/// When there is no such unit, or it cannot be switched on by a link.
pub fn enable(tree: &Tree, unit: &UnitName) -> Result<Plan, UnitError> {
    let mut plan = Plan::default();
    let mut seen = BTreeSet::from([unit.clone()]);
    let mut queue = vec![unit.clone()];
    while let Some(next) = queue.pop() {
        let first = next == *unit;
        let also = match enable_one(tree, &next, &mut plan) {
            Ok(also) => also,
            Err(error @ (UnitError::Missing(_) | UnitError::Masked { .. })) if !first => {
                plan.warnings.push(format!("{unit} switches on {next}, too, but {error}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        for name in also {
            let Ok(name) = UnitName::new(&expand(&name, &next)?) else { continue };
            if seen.insert(name.clone()) {
                queue.push(name);
            }
        }
        if seen.len() > UNITS_MAX {
            return Err(UnitError::TooMany(unit.to_string(), UNITS_MAX));
        }
    }
    plan.links.sort();
    plan.links.dedup();
    Ok(plan)
}

/// The unit that a name stands for, other names followed, and its file or that of its template.
///
/// # Errors
/// When there is none, or it is masked.
pub fn file_of(tree: &Tree, unit: &UnitName) -> Result<(UnitName, Vec<u8>), UnitError> {
    let mut unit = unit.clone();
    for _ in 0..ALIASES_MAX {
        let mut found = find(tree, &unit)?;
        if let (Found::Nothing, Some(template)) = (&found, unit.template()) {
            found = find(tree, &template)?;
        }
        match found {
            Found::File(path) => return Ok((unit, path)),
            Found::Masked(path) => return Err(UnitError::Masked { unit: unit.to_string(), path }),
            Found::Nothing => return Err(UnitError::Missing(unit.to_string())),
            Found::Alias(of) => {
                unit = match unit.instance() {
                    Some(instance) if of.is_template() => of.with_instance(instance),
                    _ => of,
                };
            }
        }
    }
    Err(UnitError::Loop(unit.to_string()))
}

/// Adds the links of one unit; gives what its `Also=` names.
fn enable_one(tree: &Tree, unit: &UnitName, plan: &mut Plan) -> Result<Vec<String>, UnitError> {
    let (unit, file) = file_of(tree, unit)?;
    let unit = &unit;
    let install = Install::read(tree, unit, &file)?;
    plan.units.push(unit.clone());
    let wants = [
        (&install.wanted_by, "wants"),
        (&install.required_by, "requires"),
        (&install.upheld_by, "upholds"),
    ];
    let mut named = unit.clone();
    if let (true, Some(instance)) = (unit.is_template(), &install.default_instance) {
        named = unit.with_instance(&expand(instance, unit)?);
    }
    for (list, word) in wants {
        for name in list {
            let Ok(by) = UnitName::new(&expand(name, &named)?) else {
                plan.warnings.push(format!("{unit}: {name} in its [Install] section is no unit"));
                continue;
            };
            // A template by itself can only belong to another one.
            if named.is_template() && !by.is_template() {
                let example = unit.with_instance("x").to_string();
                return Err(UnitError::Template(unit.to_string(), example));
            }
            let path = format!("{CONFIG}/{by}.{word}/{named}");
            plan.links.push(Link { path, target: file.clone() });
        }
    }
    for name in &install.alias {
        let text = expand(name, &named)?;
        let Ok(mut alias) = UnitName::new(&text) else {
            plan.warnings.push(format!("{unit}: {name} in its [Install] section is no unit"));
            continue;
        };
        // An instance has other instances for its names, and nothing else.
        if alias.suffix() != unit.suffix()
            || alias.instance().is_some() != unit.instance().is_some()
        {
            plan.warnings.push(format!("{unit} cannot have {alias} as another name"));
            continue;
        }
        if let (true, Some(instance)) = (alias.is_template(), unit.instance()) {
            alias = alias.with_instance(instance);
        }
        let path = format!("{CONFIG}/{alias}");
        plan.links.push(Link { path, target: file.clone() });
    }
    Ok(install.also)
}

/// The links that switch `unit` on now, and with it what its `Also=` names. A template stands for all
/// its instances.
///
/// # Errors
/// Errors of the tree.
pub fn disable(tree: &Tree, unit: &UnitName) -> Result<Vec<String>, UnitError> {
    let mut units = BTreeSet::from([unit.clone()]);
    let mut queue = vec![unit.clone()];
    while let Some(next) = queue.pop() {
        let Ok((real, file)) = file_of(tree, &next) else { continue };
        units.insert(real);
        for name in Install::read(tree, &next, &file)?.also {
            let Ok(name) = expand(&name, &next).map(|name| UnitName::new(&name)) else { continue };
            queue.extend(name.ok().filter(|name| units.insert(name.clone())));
        }
        if units.len() > UNITS_MAX {
            return Err(UnitError::TooMany(unit.to_string(), UNITS_MAX));
        }
    }
    let meant = |name: &[u8]| {
        let Some(name) = UnitName::of_entry(name) else { return false };
        units.contains(&name) || name.template().is_some_and(|template| units.contains(&template))
    };
    let mut found = Vec::new();
    for dir in directories(tree)? {
        let top = dir == CONFIG;
        for entry in tree.read_dir(&dir)? {
            let path = [dir.as_bytes(), b"/", &entry.name].concat();
            if tree.lstat(&path)?.file_type != FileType::Symlink {
                continue;
            }
            let target = tree.read_link(&path)?;
            // A mask stays: it is switched off already.
            if top && super::search::leads_to_null(&target) {
                continue;
            }
            let leads_to = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            if meant(&entry.name) || meant(leads_to) {
                found.push(format!("{dir}/{}", String::from_utf8_lossy(&entry.name)));
            }
        }
    }
    Ok(found)
}

/// The directories with an administrator's links.
fn directories(tree: &Tree) -> Result<Vec<String>, UnitError> {
    if !tree.is_dir(CONFIG)? {
        return Ok(Vec::new());
    }
    let mut dirs = vec![CONFIG.to_owned()];
    for entry in tree.read_dir(CONFIG)? {
        let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
        let links = [".wants", ".requires", ".upholds"].iter().any(|end| name.ends_with(end));
        let path = format!("{CONFIG}/{name}");
        if links && tree.is_dir(&path)? {
            dirs.push(path);
        }
    }
    Ok(dirs)
}

/// A link of a package that starts `unit` whatever the administrator says, if there is one.
///
/// # Errors
/// Errors of the tree.
pub fn pulled_in(tree: &Tree, unit: &UnitName) -> Result<Option<String>, UnitError> {
    for dir in super::search::DIRS.into_iter().skip(1) {
        for entry in tree.read_dir_optional(dir)? {
            let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
            if !name.ends_with(".wants") && !name.ends_with(".requires") {
                continue;
            }
            let path = format!("{dir}/{name}/{unit}");
            match tree.lstat(&path) {
                Ok(_) => return Ok(Some(path)),
                Err(error) if error.is_not_found() => {}
                Err(snf_fs::Error::NotADirectory(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(None)
}
