//! The program `virtctl`, also a plugin of kubectl (`kubectl virt`).

fn main() {}
