//! The events of a run, told as they happen.

use crate::ask::task_id::TaskId;

/// One thing worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task begins.
    TaskStart(TaskId),
    /// A task ended well.
    TaskEnd(TaskId),
    /// Something the person should know: safe for the user's eyes.
    Info(String),
    /// Something that was not done, or may not work as hoped.
    Warning(String),
}

impl Event {
    /// The text of a warning; `None` for other events.
    pub fn into_warning(self) -> Option<String> {
        match self {
            Self::Warning(text) => Some(text),
            _ => None,
        }
    }
}

/// The receiver of events: serial lines, JSON, a terminal, a test.
pub trait EventSink {
    /// Takes one event.
    fn event(&mut self, event: Event);
}

impl EventSink for Vec<Event> {
    fn event(&mut self, event: Event) {
        self.push(event);
    }
}
