//! The tests of the library and of `snf-customize` that need no virtual machine.
//!
//! One binary, because linking takes longer than compiling them. A test is named after its file:
//! `cargo test -p PACKAGE FILE` runs one file. The tests with a binary of their own are in Cargo.toml.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accounts_oracle;
mod atomic;
mod cli_apply;
mod cli_btrfs;
mod cli_check;
mod cli_deploy;
mod cli_disk;
mod cli_domain;
mod cli_foreign;
mod cli_grow;
mod cli_hostile;
mod cli_inspect;
mod cli_look;
mod cli_luks;
mod cli_ostree;
mod cli_plan;
mod cli_qcow2;
mod cli_silent;
mod cli_support;
mod cli_usage;
mod cli_volumes;
mod cli_xfs;
mod crypt_oracle;
mod damage;
mod deployed;
mod edit_oracle;
mod first_boot_oracle;
mod growth;
mod guest_ext4;
mod lvm_cut;
mod network_oracle;
mod qcow2_cut;
mod registry_oracle;
mod rules_bash;
mod sshd_oracle;
mod sshkey_oracle;
mod support;
mod units_oracle;
mod windows_answer_oracle;
mod windows_growth;
mod windows_sam_oracle;
