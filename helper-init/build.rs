//! Leaves the tables for unwinding out of the helper's binary, a tenth of it: the profile `helper`
//! (the one with `opt-level = "z"`) aborts on a panic, and there is nobody to read a backtrace.

fn main() {
    println!("cargo::rerun-if-changed=without-unwinding.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("OPT_LEVEL", "z")
        && is("CARGO_CFG_TARGET_ENV", "musl")
        && let Ok(here) = std::env::var("CARGO_MANIFEST_DIR")
    {
        let script = format!("-Wl,-T,{here}/without-unwinding.ld,--no-eh-frame-hdr");
        println!("cargo::rustc-link-arg-bins={script}");
    }
}
