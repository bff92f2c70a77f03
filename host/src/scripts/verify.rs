//! `verify parameters`: says what is wrong with each OS parameter that is given. A set that lacks
//! some is fine, because Ganeti asks about the ones that change.

use snf_image::params::{OsParameters, Problem};

use crate::backend::{Backends, Choice, Kind, Settings};
use crate::image::source::SourceError;
use crate::image::source::id::{self, ImageId, Location};
use crate::node::cancel::Cancel;
use crate::node::config;
use crate::node::env::Environment;
use crate::node::log;
use crate::node::parameters;

/// The problems, in the order of the parameters' names.
pub fn problems(env: &Environment, cancel: &Cancel) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in env.parameters().keys().filter(|name| !parameters::is_known(name)) {
        problems.push(Problem {
            parameter: snf_fs::error::display_name(name.as_bytes()),
            problem: "there is no such OS parameter".into(),
        });
    }
    match OsParameters::from_lookup(|name| env.parameters().get(name).cloned()) {
        Err(wrong) => problems.extend(wrong),
        Ok(given) => {
            problems.extend(given.problems());
            if let Ok(plan) = given.plan()
                && !plan.edits.is_empty()
                && let Ok(config) = config::of_process(env.variant().ok().flatten())
            {
                // A configuration that cannot be read is told by create.
                problems.extend(config.edits.problems(&plan.edits));
            }
            let listed = problems.iter().any(|problem| problem.parameter == "img_id");
            // An empty img_id is one that was taken back: `create` asks for it.
            if let Some(id) = given.img_id.as_deref().filter(|id| !id.is_empty() && !listed)
                && let Some(problem) = image_problem(env, id, cancel)
            {
                problems.push(Problem { parameter: "img_id".into(), problem });
            }
        }
    }
    problems
}

/// The problem with an image's id, whether or not there is such an image.
fn image_problem(env: &Environment, id: &str, cancel: &Cancel) -> Option<String> {
    let id = match id.parse::<ImageId>() {
        Ok(id) => id,
        Err(SourceError::Id { problem, .. }) => return Some(problem),
        Err(other) => return Some(log::chain(&other)),
    };
    let Location::Foreign(scheme) = &id.location else { return None };
    // Only a back-end can know it, and the configuration names their folder.
    let variant = env.variant().ok().flatten();
    let choice =
        config::of_process(variant).map_err(|error| log::chain(&error)).and_then(|config| {
            Backends::read(&Settings::of(&config), Kind::Source)
                .and_then(|backends| backends.choose(&id.place, None, cancel))
                .map_err(|error| log::chain(&error))
        });
    match choice {
        Ok(Choice::Program(_) | Choice::Own) => None,
        Ok(Choice::Nobody | Choice::Disabled(_)) => Some(id::no_source(scheme)),
        Err(problem) => Some(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[(&str, &str)]) -> Vec<String> {
        let env = Environment::from_vars(pairs.iter().map(|(k, v)| (k.into(), v.into())));
        problems(&env, &Cancel::new()).into_iter().map(|problem| problem.parameter).collect()
    }

    #[test]
    fn partial_sets_are_fine() {
        assert!(names(&[]).is_empty());
        assert!(names(&[("OSP_IMG_FORMAT", "diskdump")]).is_empty());
        assert!(names(&[("OSP_IMG_ID", ""), ("OSP_IMG_PASSWD", "")]).is_empty());
        assert!(names(&[("OS_NAME", "x"), ("DEBUG_LEVEL", "0")]).is_empty());
    }

    #[test]
    fn each_wrong_one_is_named() {
        for (variable, value, name) in [
            ("OSP_IMG_ID", "ftp://x/y", "img_id"),
            ("OSP_IMG_FORMAT", "tar", "img_format"),
            ("OSP_IMG_PASSWD_HASH", "x", "img_passwd_hash"),
            ("OSP_AUTH_KEYS", "nokey", "auth_keys"),
            ("OSP_IMG_PROPERTIES", "[]", "img_properties"),
            ("OSP_INST_PROPERTIES", "{", "inst_properties"),
            ("OSP_IMG_PERSONALITY", "{}", "img_personality"),
            ("OSP_CONFIG_URL", "x", "config_url"),
            ("OSP_OS_PRODUCT_KEY", "1-2", "os_product_key"),
            ("OSP_OS_ANSWER_FILE", "x", "os_answer_file"),
            ("OSP_CLOUD_USERDATA", "%", "cloud_userdata"),
            ("OSP_DHCP", "x", "dhcp"),
        ] {
            assert_eq!(names(&[(variable, value)]), [name], "{variable}");
        }
        let all = names(&[("OSP_IMG_FORMAT", "x"), ("OSP_IMG_ID", "ftp://x"), ("OSP_FOO", "x")]);
        assert_eq!(all.len(), 3);
    }
}
