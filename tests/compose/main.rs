//! docker-compose.yml, the Dockerfile and deploy/compose. Docker is not needed: the commands of the containers are run here
//! with their configuration and secrets.

mod confinement;
mod dockerfile;
mod envoy;
mod file;
mod mounts;
mod run;
mod settings;
mod setup;
