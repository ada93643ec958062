//! The RPCs, one file per gRPC service, and the conversions to their messages.

mod property_service;

use drystone::property::v1::{Property as Message, PropertyClaim};
use drystone_mesh::{etag, time::to_proto};

use crate::{Claim, Property};

impl From<Property> for Message {
    fn from(property: Property) -> Self {
        Self {
            id: property.id.to_string(),
            owner_id: property.owner_id.to_string(),
            display_name: property.content.display_name.into_string(),
            description: property.content.description.into_string(),
            labels: property.content.labels.into_map().into_iter().collect(),
            etag: etag::format(property.version),
            create_time: Some(to_proto(property.created_at)),
            update_time: Some(to_proto(property.updated_at)),
        }
    }
}

impl From<Claim> for PropertyClaim {
    fn from(claim: Claim) -> Self {
        Self { property_id: claim.property_id.to_string(), relation: claim.relation.name().to_owned() }
    }
}
