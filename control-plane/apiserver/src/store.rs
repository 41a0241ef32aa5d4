//! Objects on disk and in memory, with revisions and watches.
