//! Why properties cannot be used.

use super::names::{EXCLUDE_TASK, EXCLUSIONS};
use crate::ask::task_id::UnknownTask;

/// Why the properties cannot be used. No message holds a property's value unless that is one of
/// a closed set (a number, a yes or no).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// Not a JSON object at all.
    #[error("{origin} is not a JSON object: {problem}; write {{\"NAME\": \"value\", ...}}")]
    Json {
        /// Its origin (`img_properties`).
        origin: String,
        /// The JSON parser's message, with the place.
        problem: String,
    },
    /// A value that is neither a string nor a number nor a boolean.
    #[error(
        "property {name} in {origin} is {found}; a property is a string, a number, true, false or null"
    )]
    Kind {
        /// The property.
        name: String,
        /// Its origin.
        origin: String,
        /// The value found.
        found: &'static str,
    },
    /// A value that the property does not take.
    #[error("property {name} is '{value}'; valid are {valid}")]
    Value {
        /// The property.
        name: String,
        /// The value found.
        value: String,
        /// The valid values.
        valid: &'static str,
    },
    /// One property with two values.
    #[error(
        "property {name} is given twice in {origin}, with different values (upper and lower case are \
         the same); leave one of them out"
    )]
    Twice {
        /// The property.
        name: String,
        /// Its origin.
        origin: String,
    },
    /// An exclusion of no task.
    #[error("property {name} excludes nothing")]
    NoTask {
        /// The property.
        name: String,
        /// The task that it names.
        #[source]
        source: UnknownTask,
    },
    /// An exclusion that is spelt like none there is.
    #[error("there is no property {name}; tasks are excluded by {EXCLUDE_TASK}NAME, {}", EXCLUSIONS.join(", "))]
    NoExclusion {
        /// The property.
        name: String,
    },
    /// A property that nothing reads.
    #[error("there is no property {name}; it has no effect")]
    Unknown {
        /// The property.
        name: String,
    },
}
