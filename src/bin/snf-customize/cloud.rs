//! The argument of `--cloud-init`.

use std::path::PathBuf;

use snf_image::plan::Plan;
use snf_image::secret::Secret;

use crate::exit::Failure;
use crate::selector::read_file;

/// The most that a part may have: what the clouds allow is far less.
const PART_MAX: u64 = 16 << 20;

/// The parts of a seed, as files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeedFiles {
    user_data: Option<PathBuf>,
    meta_data: Option<PathBuf>,
    network_config: Option<PathBuf>,
    vendor_data: Option<PathBuf>,
}

impl SeedFiles {
    /// Reads `user-data=FILE[,meta-data=FILE][,network-config=FILE][,vendor-data=FILE]`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let fail = |problem: String| Err(Failure::usage(format!("--cloud-init: {problem}")));
        let mut files = Self::default();
        for part in text.split(',') {
            let (key, path) = part.split_once('=').unwrap_or((part, ""));
            let slot = match key {
                "user-data" => &mut files.user_data,
                "meta-data" => &mut files.meta_data,
                "network-config" => &mut files.network_config,
                "vendor-data" => &mut files.vendor_data,
                _ => {
                    return fail(format!(
                        "'{}' is no part of a seed; valid are user-data=FILE, meta-data=FILE, \
                         network-config=FILE and vendor-data=FILE, with commas between them",
                        part.escape_debug()
                    ));
                }
            };
            if path.is_empty() {
                return fail(format!("the path after {key}= is empty"));
            }
            if slot.replace(path.into()).is_some() {
                return fail(format!("{key} is given twice"));
            }
        }
        Ok(files)
    }

    /// Whether it brings a network along.
    pub(crate) fn has_network(&self) -> bool {
        self.network_config.is_some()
    }

    /// Reads the files into the plan.
    pub(crate) fn read(self, plan: &mut Plan) -> Result<(), Failure> {
        let seed = &mut plan.cloud_seed;
        for (path, kind, slot) in [
            (self.user_data, "user-data", &mut plan.cloud_userdata),
            (self.meta_data, "meta-data", &mut seed.meta_data),
            (self.network_config, "network-config", &mut seed.network_config),
            (self.vendor_data, "vendor-data", &mut seed.vendor_data),
        ] {
            if let Some(path) = path {
                let (bytes, _) = read_file(&path, PART_MAX, kind)?;
                *slot = Some(Secret::new(std::mem::take(&mut *{ bytes })));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let files = SeedFiles::parse("user-data=a b,vendor-data=/v").unwrap();
        assert_eq!(files.user_data, Some("a b".into()));
        assert!(!files.has_network());
        for bad in ["", "user-data", "user-data=", "x=y", "user-data=a,user-data=b", "file"] {
            assert!(SeedFiles::parse(bad).is_err(), "{bad}");
        }
    }
}
