//! The contracts as clients read them: compared with the baseline, and by reflection.

mod baseline;
mod reflection;
