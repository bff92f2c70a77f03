//! The options that make edits, in the order in which they stand on the command line.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use snf_image::edit::{Edit, How, verbs};
use snf_image::failure::sentence;

use crate::exit::Failure;

/// The help's heading.
const HEADING: &str = "Edits, made in the order given";
/// The option of all edits that follow links.
const NO_FOLLOW: &str = "no-follow";

/// Each option that makes an edit, with its argument, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct EditArgs {
    given: Vec<(&'static str, String)>,
    no_follow: bool,
}

impl EditArgs {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// The options that were used, each once, as they are written.
    pub(crate) fn options(&self) -> Vec<String> {
        let used = |name| self.given.iter().any(|(given, _)| *given == name);
        verbs().filter(|verb| used(verb.name)).map(|verb| format!("--{}", verb.name)).collect()
    }

    /// Reads the arguments.
    pub(crate) fn parse(&self) -> Result<Vec<Edit>, Failure> {
        let how = How { follow: !self.no_follow };
        let mut edits = Vec::new();
        let mut follows = false;
        for (name, text) in &self.given {
            let Some(verb) = verbs().find(|verb| verb.name == *name) else { continue };
            follows |= verb.follows;
            let action = (verb.parse)(text, how)
                .map_err(|error| Failure::usage(format!("--{name}: {}", sentence(&error))))?;
            edits.push(Edit::of_option(name, action));
        }
        if self.no_follow && !follows {
            return Err(Failure::usage(
                "--no-follow has no effect: none of the edits would follow a symbolic link",
            ));
        }
        Ok(edits)
    }
}

impl FromArgMatches for EditArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for verb in verbs() {
            let indices = matches.indices_of(verb.name).into_iter().flatten();
            let values = matches.get_many::<String>(verb.name).into_iter().flatten();
            given.extend(indices.zip(values).map(|(at, text)| (at, verb.name, text.clone())));
        }
        given.sort_by_key(|(at, ..)| *at);
        let given = given.into_iter().map(|(_, name, text)| (name, text)).collect();
        Ok(Self { given, no_follow: matches.get_flag(NO_FOLLOW) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for EditArgs {
    fn augment_args(command: Command) -> Command {
        let with_verbs = verbs().fold(command, |command, verb| {
            let arg = Arg::new(verb.name)
                .long(verb.name)
                .help(verb.help)
                .help_heading(HEADING)
                .action(ArgAction::Append);
            command.arg(match verb.metavar {
                "" => arg.num_args(0).default_missing_value(""),
                metavar => arg.value_name(metavar),
            })
        });
        with_verbs.arg(
            Arg::new(NO_FOLLOW)
                .long(NO_FOLLOW)
                .help(
                    "Edits do not follow a symbolic link at the end of a path: they replace it, or \
                     change the link itself.",
                )
                .help_heading(HEADING)
                .action(ArgAction::SetTrue),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::{Cli, Command};

    fn edits(options: &[&str]) -> Result<Vec<String>, String> {
        let words = ["snf-customize", "apply", "disk"].iter().chain(options);
        let Some(Command::Apply(args)) = Cli::try_parse_from(words).unwrap().command else {
            panic!()
        };
        let edits = args.edits.parse().map_err(|failure| failure.message)?;
        Ok(edits.into_iter().map(|edit| edit.origin).collect())
    }

    #[test]
    fn the_order_is_the_command_lines() {
        let options = [
            "--mkdir",
            "/b",
            "--write=/b/x:text:y",
            "--hostname",
            "x",
            "--mkdir=/a",
            "--no-cloud-init",
            "--delete",
            "/c",
        ];
        assert_eq!(
            edits(&options).unwrap(),
            ["--mkdir /b", "--write /b/x", "--mkdir /a", "--no-cloud-init", "--delete /c"]
        );
        assert!(edits(&["--mkdir", "b"]).unwrap_err().starts_with("--mkdir: "));
        let pointless = edits(&["--no-follow", "--delete", "/c"]).unwrap_err();
        assert!(pointless.contains("no effect"), "{pointless}");
        edits(&["--no-follow", "--write", "/c:text:x"]).unwrap();
    }
}
