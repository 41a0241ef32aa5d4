//! Repository rules, guest harness and end-to-end tests.
