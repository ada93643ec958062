//! Compatibility of the contracts with the baseline, and reflection.

mod baseline;
mod reflection;
