//! Health, metrics and logs of a mesh.

mod health_command;
mod signals;
