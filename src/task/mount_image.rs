//! MountImage: the file systems of the guest's fstab. [`crate::guest::Guest::mount`] does it.

use super::{Task, TaskId, Work};

pub(super) static TASK: Task = Task {
    id: TaskId::MountImage,
    summary: "mount the root and the other file systems of /etc/fstab",
    applies: |_| true,
    work: Work::Mount,
};
