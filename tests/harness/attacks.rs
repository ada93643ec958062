//! What attackers send, for the tests in `tests/abuse` and the benchmark beside them.

pub mod floods;
pub mod large;
pub mod raw;
