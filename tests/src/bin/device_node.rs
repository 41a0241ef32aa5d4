//! The agent of a worker node inside QEMU, which tests speak with (`tests::device_node`).

fn main() -> std::process::ExitCode {
    tests::device_node::agent::main()
}
