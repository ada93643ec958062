//! Preferences: what a user wants to receive, by category and channel.

use std::collections::BTreeSet;

use drystone_mesh::error::Error as MeshError;

use crate::{channel::Channel, template::Templates};

/// Whether a user wants messages of a category over a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preference {
    pub(crate) category: String,
    pub(crate) channel: Channel,
    pub(crate) is_enabled: bool,
    pub(crate) is_mutable: bool,
}

/// The preferences of a user with these opt-outs: one for each category and channel that a template has. Webhooks are the operator's.
pub(crate) fn all(templates: &Templates, opt_outs: &BTreeSet<(String, Channel)>) -> Vec<Preference> {
    let known: BTreeSet<(&str, Channel, bool)> = templates
        .iter()
        .flat_map(|template| {
            template.channels().iter().map(|channel| (template.category(), *channel, template.is_security()))
        })
        .filter(|(_, channel, _)| *channel != Channel::Webhook)
        .collect();
    let preferences = known.into_iter().map(|(category, channel, is_security)| {
        let is_mutable = !is_security;
        let is_enabled = !is_mutable || !opt_outs.contains(&(category.to_owned(), channel));
        Preference { category: category.to_owned(), channel, is_enabled, is_mutable }
    });
    preferences.collect()
}

/// The preference that is set, if it can be.
pub(crate) fn checked(
    templates: &Templates,
    category: &str,
    channel: Channel,
    is_enabled: bool,
) -> Result<Preference, MeshError> {
    let all = all(templates, &BTreeSet::new());
    let names: Vec<_> = all.iter().map(|known| format!("{} by {}", known.category, known.channel.name())).collect();
    let known = all.into_iter().find(|known| known.category == category && known.channel == channel);
    let known = known.ok_or_else(|| {
        let text = format!("must be one that there are messages of: {}", names.join(", "));
        MeshError::invalid_field("category", text)
    })?;
    if !known.is_mutable && !is_enabled {
        return Err(MeshError::invalid_field("category", "messages about security cannot be switched off"));
    }
    Ok(Preference { is_enabled, ..known })
}
