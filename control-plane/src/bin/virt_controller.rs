//! The program `virt-controller`.

fn main() {}
