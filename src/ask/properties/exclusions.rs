//! The properties that leave out tasks, those that a task reads, and those that nothing reads.

use super::names::{BOOLEANS, EXCLUDE_TASK, EXCLUSIONS, NAMES};
use super::{Properties, PropertyError};
use crate::ask::task_id::TaskId;

/// A name as a message can have it.
fn shown(name: &str) -> String {
    name.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

impl Properties {
    /// Whether a task is excluded: all are, or this one is, or those of its family are.
    ///
    /// # Errors
    /// When one of these properties is neither a yes nor a no.
    pub fn excluded(&self, task: TaskId) -> Result<bool, PropertyError> {
        Ok(self.boolean("EXCLUDE_ALL_TASKS")?
            || (self.boolean("EXCLUDE_MOUNTED_TASKS")? && task.needs_mount())
            || (self.boolean("EXCLUDE_FILESYSTEMRESIZE_TASKS")? && task.resizes())
            || self.boolean(&format!("{EXCLUDE_TASK}{task}"))?)
    }

    /// Leaves a task out.
    pub fn exclude(&mut self, task: TaskId) {
        self.set(&format!("{EXCLUDE_TASK}{task}"), "yes");
    }

    /// Exclusions that exclude nothing because of their spelling: a task that somebody wanted left
    /// out would run.
    pub fn misspelt_exclusions(&self) -> impl Iterator<Item = PropertyError> {
        self.values.keys().filter_map(|name| {
            if !name.starts_with("EXCLUDE") || EXCLUSIONS.contains(&name.as_str()) {
                return None;
            }
            let name = shown(name);
            match name.strip_prefix(EXCLUDE_TASK).map(str::parse::<TaskId>) {
                Some(Ok(_)) => None,
                Some(Err(source)) => Some(PropertyError::NoTask { name, source }),
                None => Some(PropertyError::NoExclusion { name }),
            }
        })
    }

    /// Other properties that nothing reads. Those of an image may be there for somebody else.
    pub fn unknown(&self) -> impl Iterator<Item = PropertyError> {
        let known = |name: &str| {
            name.starts_with("EXCLUDE") || NAMES.contains(&name) || BOOLEANS.contains(&name)
        };
        let unknown = self.values.keys().filter(move |name| !known(name));
        unknown.map(|name| PropertyError::Unknown { name: shown(name) })
    }

    /// The properties that only this task reads.
    pub fn of_task(&self, task: TaskId) -> impl Iterator<Item = &str> {
        let names: &[&str] = match task {
            TaskId::AddSwap => &["SWAP"],
            TaskId::RunCustomTask => &["CUSTOM_TASK", "ALLOW_MOUNTED_TASK_OVERWRITING"],
            TaskId::InitializeDatasource => &["CLOUD_INIT"],
            TaskId::FilesystemResizeAfterUmount => {
                &["OFFLINE_NTFSRESIZE", "OFFLINE_NTFSRESIZE_NOCHECK"]
            }
            TaskId::ConfigureNetwork => &["NM_NETWORKING"],
            TaskId::ChangePassword => &["PASSWD_HASHING_METHOD"],
            _ => &[],
        };
        names.iter().copied().filter(|name| self.filled(name).is_some())
    }
}
