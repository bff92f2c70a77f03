//! What happens during a run, told as it happens.

/// One thing worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task begins.
    TaskStart(&'static str),
    /// A task ended well.
    TaskEnd(&'static str),
    /// Something the person should know: safe for the user's eyes.
    Info(String),
    /// Something that was not done, or may not work as hoped.
    Warning(String),
}

/// Where events go: serial lines, JSON, a terminal, a test.
pub trait EventSink {
    /// Takes one event.
    fn event(&mut self, event: Event);
}

impl EventSink for Vec<Event> {
    fn event(&mut self, event: Event) {
        self.push(event);
    }
}
