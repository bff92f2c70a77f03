#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| snf_image_fuzz::one("Btrfs", data));
