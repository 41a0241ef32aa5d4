//! Tells the crate whether the compiler turns tail calls into jumps: it does from `opt-level` 2 on.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(chained)");
    println!("cargo::rerun-if-changed=build.rs");
    if matches!(std::env::var("OPT_LEVEL").as_deref(), Ok("2" | "3")) {
        println!("cargo::rustc-cfg=chained");
    }
}
