//! The parameter disk for the helper: the rules and the answer file.

use std::fs::File;

use snf_image::params::{OsParameters, Problem};
use snf_image::plan::{ImageFormat, Plan};
use snf_image::properties::{OsFamily, Properties};
use snf_image::random::{Clock, Entropy};
use snf_image::rules::Rules;
use snf_image::secret::Secret;

use super::error::CreateError;
use crate::helper::{floppy, guest_disk};
use crate::image::fetch;
use crate::image::policy::Policy;
use crate::node::cancel::Cancel;
use crate::node::config::Config;
use crate::node::env::Environment;

/// The answer file for Windows, which goes onto the parameter disk beside the rules.
pub(super) fn answer_file(
    parameters: &OsParameters,
    config: &Config,
    plan: &Plan,
    cancel: &Cancel,
) -> Result<Vec<(&'static str, Secret)>, CreateError> {
    let fetch_error = |parameter| move |source| CreateError::Fetch { parameter, source };
    let family = plan.properties.os_family().ok().flatten();
    // Windows XP and Server 2003 have another kind of file.
    let name = match family {
        Some(OsFamily::WindowsLegacy) => "sysprep.inf",
        _ => "unattend.xml",
    };
    if let Some(url) = parameters.os_answer_file.as_deref().filter(|url| !url.is_empty()) {
        let (url, policy) = (url.to_owned(), Policy::of(config)?);
        let fetched = cancel.wait(move || fetch::small(&url, &policy))?;
        let body = fetched.map_err(fetch_error("os_answer_file"))?;
        return Ok(vec![(name, body)]);
    }
    match &config.unattend {
        // Of a family that is not known the helper finds out; others do not look at the file.
        Some(path) if family.is_none_or(OsFamily::is_windows) => {
            let body = fetch::small_file(path).map_err(fetch_error("UNATTEND"))?;
            Ok(vec![(name, body)])
        }
        _ => Ok(Vec::new()),
    }
}

/// The rules for the helper.
pub(super) fn rules(
    env: &Environment,
    config: &Config,
    parameters: &OsParameters,
    plan: &Plan,
    disks: usize,
) -> Result<Rules, CreateError> {
    let mut rules = base_rules(env, config, disks)?;
    rules.set_parameters(parameters)?;
    // The format implies these; a whole disk implies nothing.
    let implied: &[&str] = match plan.format {
        ImageFormat::DiskDump => &[],
        _ => &["OSFAMILY", "ROOT_PARTITION"],
    };
    for name in implied {
        if let Some(value) = plan.properties.get(name).filter(|value| !value.is_empty()) {
            rules.set(&format!("PROPERTY_{name}"), value)?;
        }
    }
    if parameters.os_answer_file.as_deref().is_some_and(|url| !url.is_empty()) {
        rules.set("INST_PROPERTIES", ignore_unattend(parameters.inst_properties.as_deref())?)?;
    }
    Ok(rules)
}

/// The instance's properties with IGNORE_UNATTEND, which an answer file of its own implies.
fn ignore_unattend(properties: Option<&str>) -> Result<String, CreateError> {
    let text = properties.filter(|text| !text.trim().is_empty()).unwrap_or("{}");
    let mut properties = Properties::parse(text, "inst_properties").map_err(|error| {
        let parameter = "inst_properties".to_owned();
        CreateError::Parameters(vec![Problem { parameter, problem: error.to_string() }])
    })?;
    properties.set("IGNORE_UNATTEND", "yes");
    Ok(json_of(&properties))
}

/// Properties as the JSON object that the helper reads.
pub(crate) fn json_of(properties: &Properties) -> String {
    let map: serde_json::Map<String, serde_json::Value> =
        properties.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    serde_json::Value::Object(map).to_string()
}

/// The rules of every run of the helper, whatever the parameters.
pub(crate) fn base_rules(
    env: &Environment,
    config: &Config,
    disks: usize,
) -> Result<Rules, CreateError> {
    let mut rules = Rules::default();
    rules.set("HOSTNAME", env.instance_name()?)?;
    rules.set_array("DEV", (0..disks).map(guest_disk))?;
    rules.set("DHCP_TAGS", config.dhcp_tags.as_str())?;
    rules.set("STATEFUL_DHCPV6_TAGS", config.stateful_dhcpv6_tags.as_str())?;
    rules.set("STATELESS_DHCPV6_TAGS", config.stateless_dhcpv6_tags.as_str())?;
    rules.set("DEFAULT_NIC_CONFIG", config.default_nic_config.as_str())?;
    rules.set("DNS_SERVERS", config.nic_dns.as_str())?;
    rules.set("WINDOWS_TIMEZONE", config.windows_timezone.as_str())?;
    if config.cloud_init_debug {
        rules.set("CLOUD_INIT_DEBUG", "yes")?;
    }
    for (name, value) in env.nic_variables()? {
        rules.set(&name, value)?;
    }
    Ok(rules)
}

/// The parameter disk with these files.
pub(crate) fn parameter_disk(files: &[(&str, Secret)]) -> Result<File, CreateError> {
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, content)| (*name, content.expose())).collect();
    Ok(floppy::build(&files, Clock::system().now(), entropy()?.bytes())?)
}

pub(crate) fn entropy() -> Result<Entropy, CreateError> {
    Entropy::from_os().map_err(|source| CreateError::System { action: "get random bytes", source })
}

/// Whether the parameters will fit onto a parameter disk, with room for what is prepared.
pub(super) fn check_room(
    files: &[(&'static str, Secret)],
    rules: &Rules,
) -> Result<(), CreateError> {
    let mut all = files.to_vec();
    all.push(("rules", rules.write()));
    all.push(("prepared", Secret::new(vec![0; 48 << 10])));
    parameter_disk(&all).map(drop)
}
