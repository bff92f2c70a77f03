//! InstallUnattend: the answer file, with product key and time zone.

use snf_fs::error::display_name;

use super::super::{Guest, Needs, Session, Task, TaskError, TaskId, Work};
use super::{Way, files, places, script};
use crate::ask::plan::Plan;
use crate::craft::secret::Secret;
use crate::guest::windows::answer::sysprep::SysprepInf;
use crate::guest::windows::answer::{AnswerError, AnswerFile, Pass, SHELL_SETUP};
use crate::guest::windows::{SetupState, Windows};

pub(in super::super) static TASK: Task = Task {
    id: TaskId::InstallUnattend,
    summary: "install the answer file of Windows' setup: the image's own, yours, or a default one",
    applies: |_| true,
    work: Work::guest(Needs::System(super::WINDOWS), run),
};

/// The path of the answer file of XP and Server 2003.
const SYSPREP_INF: &str = "/sysprep/sysprep.inf";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if super::way(guest, session)? == Way::Offline {
        session.info("the image is not generalized: its setup will read no answer file");
        let request = &session.plan.windows;
        if request.product_key.is_some() || request.time_zone.is_some() {
            session.warn("product key and time zone are not set: the image is not generalized");
        }
        return Ok(());
    }
    place(guest, session).map(drop)
}

/// The answer file, which is installed when this is asked for first.
fn place(guest: &mut Guest, session: &mut Session<'_>) -> Result<Vec<u8>, TaskError> {
    if let Some(place) = &guest.answer {
        return Ok(place.clone());
    }
    let windows = super::system(guest)?;
    if let SetupState::Generalized { audit: true } = windows.setup_state(&guest.tree)? {
        session
            .warn("the image was generalized for audit mode: it will not ask for a login at first");
    }
    let place = if super::is_legacy(guest) {
        install_legacy(guest, session, &windows)?
    } else {
        install(guest, session, &windows)?
    };
    guest.answer = Some(place.clone());
    Ok(place)
}

fn install(
    guest: &mut Guest,
    session: &mut Session<'_>,
    windows: &Windows,
) -> Result<Vec<u8>, TaskError> {
    let plan = session.plan;
    let ignored = plan.properties.boolean("IGNORE_UNATTEND")?;
    let own = if ignored { None } else { places::own(guest, windows)? };
    let place = match own {
        Some(own) => {
            session.info(format!("the image's own answer file {} is kept", display_name(&own)));
            own
        }
        None => {
            // Files that Windows would find before ours, or has left from an earlier setup with the
            // secrets that were in it.
            for path in places::existing(guest, windows)? {
                if files::wipe(guest, &path)? {
                    session.info(format!("{}: removed", display_name(&path)));
                }
            }
            let text = match &plan.windows.answer_file {
                Some(given) => given.clone(),
                None => AnswerFile::default_text(super::architecture(windows)),
            };
            let file = parse(&text, windows).map_err(|source| TaskError::Answer {
                file: "the answer file".to_owned(),
                remedy: "",
                source,
            })?;
            check_architecture(session, &file, windows);
            files::write(guest, &places::own_place(windows), text.expose())?
        }
    };
    guest.answer = Some(place.clone());
    let time_zone = time_zone(guest, session, windows)?;
    edit(guest, session, |file| {
        if let Some(key) = product_key(plan) {
            file.set(Pass::Specialize, SHELL_SETUP, &["ProductKey"], key)?;
        }
        if let Some((zone, asked_for)) = time_zone {
            let has = |pass| file.get(pass, SHELL_SETUP, &["TimeZone"]).is_some();
            let (specialize, later) = (has(Pass::Specialize), has(Pass::OobeSystem));
            if asked_for || !(specialize || later) {
                file.set(Pass::Specialize, SHELL_SETUP, &["TimeZone"], &zone)?;
                // A later pass would set another one.
                if later {
                    file.set(Pass::OobeSystem, SHELL_SETUP, &["TimeZone"], &zone)?;
                }
            }
        }
        Ok(())
    })?;
    if product_key(plan).is_some() {
        script::clean_up(guest, session)?;
    }
    Ok(place)
}

fn parse(text: &Secret, windows: &Windows) -> Result<AnswerFile, AnswerError> {
    AnswerFile::parse(text.expose(), super::architecture(windows))
}

/// A file whose settings are all for another processor is of no use.
fn check_architecture(session: &mut Session<'_>, file: &AnswerFile, windows: &Windows) {
    let wanted = super::architecture(windows).name();
    let there = file.architectures();
    if !there.is_empty() && !there.iter().any(|name| name.eq_ignore_ascii_case(wanted)) {
        let there: Vec<&str> = there.into_iter().collect();
        session.warn(format!(
            "the answer file has settings for {} only, and the image is for {wanted}",
            there.join(", ")
        ));
    }
}

fn product_key(plan: &Plan) -> Option<&str> {
    let key = plan.windows.product_key.as_ref()?;
    std::str::from_utf8(key.expose()).ok().filter(|key| !key.is_empty())
}

/// The time zone that is wanted, and whether this image's owner asked for it.
fn time_zone(
    guest: &Guest,
    session: &Session<'_>,
    windows: &Windows,
) -> Result<Option<(String, bool)>, TaskError> {
    let request = &session.plan.windows;
    let (zone, asked_for) = match (&request.time_zone, &request.default_time_zone) {
        (Some(zone), _) => (zone.trim(), true),
        (None, Some(zone)) => (zone.trim(), false),
        (None, None) => return Ok(None),
    };
    if zone.is_empty() {
        return Ok(None);
    }
    // Setup stops at a zone that it does not know.
    let known = windows.time_zones(&guest.tree)?;
    match known.iter().find(|known| known.eq_ignore_ascii_case(zone)) {
        Some(known) => Ok(Some((known.clone(), asked_for))),
        // The suffix says "without daylight saving time".
        None if known.is_empty() || zone.ends_with("_dstoff") => {
            Ok(Some((zone.to_owned(), asked_for)))
        }
        None => Err(TaskError::request(format!(
            "the image knows no time zone \"{}\"; it has names such as {} (tzutil /l lists them)",
            display_name(zone.as_bytes()),
            known.iter().take(3).cloned().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// Changes the answer file, which is installed first where it is not there yet.
pub(super) fn edit(
    guest: &mut Guest,
    session: &mut Session<'_>,
    change: impl FnOnce(&mut AnswerFile) -> Result<(), AnswerError>,
) -> Result<(), TaskError> {
    let windows = super::system(guest)?;
    let place = place(guest, session)?;
    let fail = |source| TaskError::Answer {
        file: format!("the answer file {}", display_name(&place)),
        remedy: "",
        source,
    };
    let bytes = Secret::new(guest.tree.read(&place, files::TEXT_MAX)?);
    let mut file = parse(&bytes, &windows).map_err(fail)?;
    change(&mut file).map_err(fail)?;
    guest.tree.write(&place, file.bytes().expose(), files::FILE)?;
    Ok(())
}

fn install_legacy(
    guest: &mut Guest,
    session: &mut Session<'_>,
    windows: &Windows,
) -> Result<Vec<u8>, TaskError> {
    let plan = session.plan;
    let ignored = plan.properties.boolean("IGNORE_UNATTEND")?;
    let own = if ignored { None } else { files::read(guest, SYSPREP_INF)? };
    let (text, is_own) = match (own, &plan.windows.sysprep_inf) {
        (Some(own), _) => {
            session.info("the image's own sysprep.inf is kept");
            (Secret::new(own), true)
        }
        (None, Some(given)) => (given.clone(), false),
        (None, None) => (SysprepInf::default_text(), false),
    };
    let mut inf = SysprepInf::parse(text.expose());
    if let Some(key) = product_key(plan) {
        inf.set("UserData", "ProductKey", key);
    }
    if let Some((zone, asked_for)) = time_zone(guest, session, windows)?
        && (asked_for || !is_own)
    {
        match windows.time_zone_index(&guest.tree, &zone)? {
            Some(index) => inf.set("GuiUnattended", "TimeZone", &index.to_string()),
            None => session.warn(format!("the image does not say the number of time zone {zone}")),
        }
    }
    files::write(guest, SYSPREP_INF, inf.bytes().expose())
}

/// Changes `sysprep.inf`, which is installed first where it is not there yet.
pub(super) fn edit_legacy(
    guest: &mut Guest,
    session: &mut Session<'_>,
    change: impl FnOnce(&mut SysprepInf),
) -> Result<(), TaskError> {
    let place = place(guest, session)?;
    let mut inf = SysprepInf::parse(&guest.tree.read(&place, files::TEXT_MAX)?);
    change(&mut inf);
    guest.tree.write(&place, inf.bytes().expose(), files::FILE)?;
    Ok(())
}
