//! Messages to users, from the service that sends them to the mail server, the inbox and the webhook.

mod emails;
mod journey;
mod kills;
mod over_grpc;
mod passwords;
mod server;
mod sign_ins;
mod timing;
