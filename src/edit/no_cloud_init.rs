//! `--no-cloud-init`: the file that keeps cloud-init from running.

use serde::{Deserialize, Serialize};
use snf_fs::Attributes;

use super::place::PARENTS;
use super::{Act, Action, BadEdit, How, Verb};
use crate::ask::properties::OsFamily;
use crate::guest::Guest;
use crate::task::{self, Needs, Session, TaskError};

const DIR: &str = "/etc/cloud";
const OFF: &str = "/etc/cloud/cloud-init.disabled";

/// cloud-init does not run any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NoCloudInit {}

impl NoCloudInit {
    #[allow(clippy::unnecessary_wraps)]
    fn parse(_: &str, _: How) -> Result<Action, BadEdit> {
        Ok(Action::NoCloudInit(Self {}))
    }
}

impl Act for NoCloudInit {
    const VERBS: &'static [Verb] = &[Verb {
        name: "no-cloud-init",
        metavar: "",
        help: "Keep cloud-init from running at the next boots.",
        follows: false,
        parse: Self::parse,
    }];
    const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    fn subject(&self) -> String {
        String::new()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        if task::seeds_cloud_init(session)? || session.plan.cloud_user.is_some() {
            return Err(TaskError::request(
                "this run also gives cloud-init a seed or a user, of which nothing would come; leave one \
                 of them out",
            ));
        }
        let installed = ["/etc/cloud/cloud.cfg", "/usr/bin/cloud-init"];
        if !installed
            .iter()
            .try_fold(false, |found, path| Ok::<_, TaskError>(found || guest.tree.exists(path)?))?
        {
            session.warn("--no-cloud-init has no effect: the guest has no cloud-init");
            return Ok(());
        }
        if let Some(path) = task::on_command_line(guest, "cloud-init=enabled")? {
            session.warn(format!(
                "--no-cloud-init has no effect: cloud-init=enabled in {path} counts for more"
            ));
        }
        guest.tree.mkdir_all(DIR, PARENTS)?;
        guest.tree.write(OFF, b"", Attributes { mode: 0o644, uid: 0, gid: 0 })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn switched_off_once_and_for_all() {
        let mut guest = Guest::debian();
        runs(&mut guest, "no-cloud-init", "");
        assert!(guest.warnings()[0].contains("has no cloud-init"));
        assert!(!guest.tree().exists("/etc/cloud").unwrap());
        guest.write("/etc/cloud/cloud.cfg", "");
        runs(&mut guest, "no-cloud-init", "");
        assert_eq!(guest.attributes("/etc/cloud/cloud-init.disabled"), (0o644, 0, 0));
        guest.write("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"cloud-init=enabled\"\n");
        runs(&mut guest, "no-cloud-init", "");
        assert!(guest.warnings()[1].contains("in /etc/default/grub counts for more"));
        guest.plan.cloud_userdata = Some(crate::craft::secret::Secret::new("#!/bin/sh\n"));
        assert!(fails(&mut guest, "no-cloud-init", "").contains("gives cloud-init a seed"));
    }
}
