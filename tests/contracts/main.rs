//! Compatibility of the contracts with the baseline, and reflection.

mod access_diff;
mod baseline;
mod reflection;
