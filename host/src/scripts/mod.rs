//! The commands, one file each, and the command line that chooses among them.

pub mod check;
pub mod cli;
pub mod create;
pub mod customize_vm;
pub mod install_os;
pub mod lay_image;
pub mod rename;
pub mod transfer;
pub mod verify;
