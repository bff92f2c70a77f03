//! EditGuest: the edits of the plan, in the order in which they were asked for. They come after
//! everything that gives the guest its identity, so that they see the users and files that it made
//! and have the last word. The verbs are in [`crate::edit`]; the driver runs them.

use super::{Task, TaskId, Work};

pub(super) static TASK: Task = Task {
    id: TaskId::EditGuest,
    summary: "make the edits that were asked for (files, directories, links), in their order",
    applies: |plan| !plan.edits.is_empty(),
    work: Work::Edits,
};
