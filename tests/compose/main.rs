//! What stands in docker-compose.yml, the Dockerfile and deploy/compose, held against what the program accepts and what a
//! container needs. No Docker is needed: what the containers would run is run here with what they would be given.

mod confinement;
mod dockerfile;
mod file;
mod mounts;
mod run;
mod settings;
mod setup;
