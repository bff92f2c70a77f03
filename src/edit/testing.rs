//! Shared by the tests of the verbs.

use super::{Action, BadEdit, Edit, How, verbs};
use crate::craft::sentence::sentence;
pub(super) use crate::task::testing::Guest;

/// The edit that an option makes.
pub(super) fn parse(verb: &str, text: &str) -> Result<Action, BadEdit> {
    let verb = verbs().find(|known| known.name == verb).unwrap();
    (verb.parse)(text, How { follow: true })
}

/// Makes an edit that must succeed.
pub(super) fn runs(guest: &mut Guest, verb: &str, text: &str) {
    guest.edit(parse(verb, text).unwrap()).unwrap();
}

/// Makes an edit that must fail, and gives its sentence.
pub(super) fn fails(guest: &mut Guest, verb: &str, text: &str) -> String {
    guest.edit(parse(verb, text).unwrap()).unwrap_err()
}

impl Guest {
    /// Makes one edit.
    pub(super) fn edit(&mut self, action: Action) -> Result<(), String> {
        self.plan.edits = vec![Edit { origin: "edit".into(), action }];
        self.with(super::run).map_err(|error| sentence(&error))
    }
}
