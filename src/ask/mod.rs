//! Requests as types, and their words. Nothing here knows a disk.

pub mod cloud_seed;
pub mod event;
pub mod luks_key;
pub mod network;
pub mod nic_option;
pub mod params;
pub mod personality;
pub mod plan;
pub mod prepared;
pub mod properties;
pub(crate) mod task_id;
pub(crate) mod windows_path;
