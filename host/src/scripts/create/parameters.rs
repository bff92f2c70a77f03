//! The OS parameters in force: Ganeti's, then those of `config_url`, then the configuration's.

use std::collections::BTreeMap;

use snf_image::params::OsParameters;
use snf_image::secret::Secret;

use super::error::CreateError;
use crate::image::fetch::{self, FetchError};
use crate::image::policy::Policy;
use crate::node::cancel::Cancel;
use crate::node::config::Config;
use crate::node::env::Environment;

/// The parameters in force: Ganeti's, then the variant's and the node's for those it did not
/// give. A parameter that Ganeti gives empty is empty.
fn collect(env: &Environment, config: &Config) -> BTreeMap<String, Secret> {
    let mut out = config.parameters.clone();
    for (name, value) in env.parameters() {
        out.insert(name.clone(), value.clone());
    }
    out
}

/// The parameters of Ganeti, of what `config_url` leads to, and of the configuration, in this
/// order.
pub(super) fn os_parameters(
    env: &Environment,
    config: &Config,
    cancel: &Cancel,
) -> Result<OsParameters, CreateError> {
    let given = collect(env, config);
    if given.is_empty() {
        return Err(CreateError::NoParameters);
    }
    let lookup = |map: &BTreeMap<String, Secret>, name: &str| map.get(name).cloned();
    let own = OsParameters::from_lookup(|name| lookup(env.parameters(), name))
        .map_err(CreateError::Parameters)?;
    let configured = OsParameters::from_lookup(|name| lookup(&config.parameters, name))
        .map_err(CreateError::Parameters)?;
    let url = own.config_url.clone().or_else(|| configured.config_url.clone());
    let fetched = match url.filter(|url| !url.is_empty()) {
        None => OsParameters::default(),
        Some(url) => {
            let problems = own.problems();
            if !problems.is_empty() {
                return Err(CreateError::Parameters(problems));
            }
            let fetch_error = |source| CreateError::Fetch { parameter: "config_url", source };
            let policy = Policy::of(config)?;
            let body = cancel.wait(move || fetch::small(&url, &policy))?.map_err(fetch_error)?;
            let text =
                std::str::from_utf8(body.expose()).map_err(|_| fetch_error(FetchError::NotText))?;
            OsParameters::from_json(text).map_err(CreateError::Parameters)?
        }
    };
    let all = own.or(fetched).or(configured);
    let mut problems = all.problems_of_create();
    if problems.is_empty() {
        let plan = all.plan().map_err(CreateError::Parameters)?;
        problems.extend(config.edits.problems(&plan.edits));
    }
    if problems.is_empty() { Ok(all) } else { Err(CreateError::Parameters(problems)) }
}

/// The names of the OS parameters and where each comes from, for the log.
pub(super) fn names_of(env: &Environment, config: &Config) -> String {
    let all = collect(env, config);
    let names: Vec<String> = all
        .keys()
        .map(|name| match env.parameters().contains_key(name) {
            true => format!("{name} (Ganeti)"),
            false => format!("{name} (configuration)"),
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ganeti_wins_over_the_configuration() {
        let env = Environment::from_vars([("OSP_IMG_ID".into(), "".into())]);
        let mut config = Config::default();
        config.parameters.insert("img_id".into(), Secret::new("x"));
        config.parameters.insert("img_format".into(), Secret::new("extdump"));
        let all = collect(&env, &config);
        assert_eq!(all["img_id"].expose(), b"");
        assert_eq!(all["img_format"].expose(), b"extdump");
    }
}
