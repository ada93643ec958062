//! The service on both engines, called after the server stack.

mod dispatch;
mod fixture;
mod hostile_servers;
mod inbox;
mod mail_servers;
mod sending;
mod webhooks;
