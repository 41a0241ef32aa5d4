//! Tests of the SIMD and x87 instructions.
