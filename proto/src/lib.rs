//! The wires between node components: generated code and the JSON that travels in it, without logic.
