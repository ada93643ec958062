//! What an operator sees of a mesh: health, metrics and logs.

mod health_command;
mod signals;
