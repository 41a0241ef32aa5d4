//! Crashes: what a flush promised is there, and the tables have at most leaks.
