//! The program `virt-api`.

fn main() {}
