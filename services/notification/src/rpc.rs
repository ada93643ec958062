//! The RPCs: convert, call the domain, convert back.

mod inbox_service;
mod notification_service;

use drystone::notification::v1 as proto;

use crate::channel::Channel;

fn channel_to_proto(channel: Option<Channel>) -> proto::Channel {
    match channel {
        None => proto::Channel::Unspecified,
        Some(Channel::Mail) => proto::Channel::Mail,
        Some(Channel::Webhook) => proto::Channel::Webhook,
        Some(Channel::Inbox) => proto::Channel::Inbox,
    }
}
