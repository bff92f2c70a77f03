//! Bad ends that a test asks for with `snf_image_fault=` on the kernel's command line. The init
//! that is shipped is built without the feature `faults` and knows nothing of that word.

#[cfg(feature = "faults")]
pub(crate) use asked_for::Fault;
#[cfg(not(feature = "faults"))]
pub(crate) use none::Fault;

#[cfg(not(feature = "faults"))]
mod none {
    /// No fault.
    pub(crate) struct Fault;

    impl Fault {
        /// There is none.
        pub(crate) fn asked_for() -> Self {
            Self
        }

        /// Does nothing.
        pub(crate) fn in_kernel(&self) {}

        /// Does nothing.
        pub(crate) fn in_worker(&self) {}
    }
}

#[cfg(feature = "faults")]
mod asked_for {
    use std::fs;

    /// The fault, if there is one.
    pub(crate) struct Fault(Option<String>);

    impl Fault {
        /// The fault that the kernel's command line asks for.
        pub(crate) fn asked_for() -> Self {
            let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
            let mut words = line.split_whitespace();
            Self(words.find_map(|word| Some(word.strip_prefix("snf_image_fault=")?.to_owned())))
        }

        /// The fault that brings the kernel down.
        pub(crate) fn in_kernel(&self) {
            if self.0.as_deref() == Some("kernel") {
                let _ = fs::write("/proc/sysrq-trigger", "c");
            }
        }

        /// The faults of the worker.
        #[allow(clippy::panic)]
        pub(crate) fn in_worker(&self) {
            match self.0.as_deref() {
                Some("panic") => panic!("a fault that was asked for"),
                Some("memory") => {
                    let mut all = Vec::new();
                    loop {
                        all.push(vec![1_u8; 1 << 20]);
                    }
                }
                Some("loop") => loop {
                    std::hint::spin_loop();
                },
                _ => {}
            }
        }
    }
}
