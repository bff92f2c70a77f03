//! The kernel command line: the host's words, before any disk is open.

use snf_image::wire::words;

use crate::error::Refusal;

/// Our words on the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// Without this word no disk is touched.
    pub(crate) activated: bool,
    /// The device with the rules.
    pub(crate) rules_dev: String,
    /// The host's protocol version, where it says one (the original's host does not).
    pub(crate) protocol: Option<String>,
    /// HELPER_DEBUG: the VM stays up after a failure, with a shell on serial 4.
    pub(crate) debug: bool,
    /// Log when each step was reached. For `cargo xtask bench helper`.
    pub(crate) times: bool,
    /// Whether the host has another initramfs, with the drivers of more file systems.
    pub(crate) more_drivers: bool,
    /// Stop before the first disk, to be saved, and go on as the host says then.
    pub(crate) snapshot: bool,
}

impl CommandLine {
    /// Reads the text of `/proc/cmdline`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut line = Self {
            activated: false,
            rules_dev: "/dev/fd0".to_owned(),
            protocol: None,
            debug: false,
            times: false,
            more_drivers: false,
            snapshot: false,
        };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                None if word == words::ACTIVATE => line.activated = true,
                None if word == words::TIMES => line.times = true,
                None if word == words::SNAPSHOT => line.snapshot = true,
                None if word == words::DEBUG => line.debug = true,
                Some((words::RULES_DEV, device)) if !device.is_empty() => {
                    line.rules_dev = device.to_owned();
                }
                Some((words::MORE, what)) => {
                    line.more_drivers =
                        what.split(',').any(|what| what == words::MORE_FILE_SYSTEMS);
                }
                Some((words::PROTOCOL, version)) => line.protocol = Some(version.to_owned()),
                _ => {}
            }
        }
        line
    }

    /// Whether a helper that speaks protocol `ours` may go on.
    pub(crate) fn check(&self, ours: u32) -> Result<(), Refusal> {
        if !self.activated {
            return Err(Refusal::NotActivated);
        }
        match &self.protocol {
            Some(theirs) if *theirs != ours.to_string() => {
                Err(Refusal::Protocol { theirs: theirs.clone(), ours })
            }
            _ => Ok(()),
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
             snf_image_protocol=1 snf_image_debug \
             snf_image_more=filesystems hypervisor=kvm\n",
        );
        assert!(line.more_drivers);
        assert!(line.activated);
        assert_eq!(line.rules_dev, "/dev/vdb");
        assert!(line.debug);
        assert_eq!(line.check(1), Ok(()));
        assert!(line.check(2).unwrap_err().to_string().contains("protocol 1, this helper 2"));
    }

    #[test]
    fn the_originals_command_line_will_do() {
        let line = CommandLine::parse("console=ttyS0 snf_image_activate_helper rules_dev=/dev/fd0");
        assert_eq!((line.check(1), line.debug), (Ok(()), false));
    }

    #[test]
    fn without_the_flag_it_refuses() {
        for text in
            ["", "console=ttyS0", "x_snf_image_activate_helper", "snf_image_activate_helper=0"]
        {
            let refusal = CommandLine::parse(text).check(1).unwrap_err();
            assert_eq!(refusal, Refusal::NotActivated, "{text}");
        }
    }
}
