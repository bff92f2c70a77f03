//! The kernel command line: what the host tells us before any disk is open.

use std::time::Duration;

/// What concerns us of the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Whether `snf_image_activate_helper` is there: without it no disk is touched.
    pub(crate) activated: bool,
    /// Where the rules are.
    pub(crate) rules_dev: String,
    /// The host's protocol version, where it says one (the original's host does not).
    pub(crate) protocol: Option<String>,
    /// How long the whole customization may take.
    pub(crate) timeout: Option<Duration>,
    /// HELPER_DEBUG: how long the VM stays up after a failure, with a shell on serial 4.
    pub(crate) debug: Option<Duration>,
    /// `snf_image_times`: log when each step was reached. For `cargo xtask bench helper`.
    pub(crate) times: bool,
    /// `snf_image_fault`: what is to go wrong. For tests.
    pub(crate) fault: Option<String>,
    /// Whether the host has another initramfs, with the drivers of more file systems.
    pub(crate) more_drivers: bool,
    /// `snf_image_snapshot`: stop before the first disk, to be saved, and go on as the host says then.
    pub(crate) snapshot: bool,
}

impl CommandLine {
    /// Reads the text of `/proc/cmdline`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut line = Self {
            activated: false,
            rules_dev: "/dev/fd0".to_owned(),
            protocol: None,
            timeout: None,
            debug: None,
            times: false,
            fault: None,
            more_drivers: false,
            snapshot: false,
        };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                None if word == "snf_image_activate_helper" => line.activated = true,
                None if word == "snf_image_times" => line.times = true,
                None if word == "snf_image_snapshot" => line.snapshot = true,
                Some(("rules_dev", device)) if !device.is_empty() => {
                    line.rules_dev = device.to_owned();
                }
                Some(("snf_image_fault", kind)) => line.fault = Some(kind.to_owned()),
                Some(("snf_image_more", what)) => {
                    line.more_drivers = what.split(',').any(|what| what == "filesystems");
                }
                Some(("snf_image_protocol", version)) => line.protocol = Some(version.to_owned()),
                Some(("snf_image_timeout", seconds)) => {
                    line.timeout = seconds.parse().ok().map(Duration::from_secs);
                }
                Some(("snf_image_debug", seconds)) => {
                    line.debug = seconds.parse().ok().map(Duration::from_secs);
                }
                _ => {}
            }
        }
        line
    }

    /// Why we must not go on, if so.
    pub(crate) fn refusal(&self, our_protocol: &str) -> Option<String> {
        if !self.activated {
            return Some(
                "refusing to touch a disk: snf_image_activate_helper is not on the kernel command line"
                    .to_owned(),
            );
        }
        match &self.protocol {
            Some(theirs) if theirs != our_protocol => Some(format!(
                "the host speaks protocol {theirs}, this helper {our_protocol}; run \
                 snf-image-update-helper"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_words_are_found_among_the_kernels() {
        let line = CommandLine::parse(
            "console=ttyS0 quiet snf_image_activate_helper rules_dev=/dev/vdb \
             snf_image_protocol=1 snf_image_timeout=108 snf_image_debug=3600 \
             snf_image_more=filesystems hypervisor=kvm\n",
        );
        assert!(line.more_drivers);
        assert!(line.activated);
        assert_eq!(line.rules_dev, "/dev/vdb");
        assert_eq!(line.timeout, Some(Duration::from_secs(108)));
        assert_eq!(line.debug, Some(Duration::from_secs(3600)));
        assert_eq!(line.refusal("1"), None);
        assert!(line.refusal("2").unwrap().contains("protocol 1, this helper 2"));
    }

    #[test]
    fn the_originals_command_line_will_do() {
        let line = CommandLine::parse("console=ttyS0 snf_image_activate_helper rules_dev=/dev/fd0");
        assert_eq!((line.refusal("1"), line.timeout, line.debug), (None, None, None));
    }

    #[test]
    fn without_the_flag_it_refuses() {
        for text in
            ["", "console=ttyS0", "x_snf_image_activate_helper", "snf_image_activate_helper=0"]
        {
            assert!(CommandLine::parse(text).refusal("1").unwrap().contains("refusing"), "{text}");
        }
    }
}
