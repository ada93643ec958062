//! `drystone.property.v1.PropertyService`.

use std::collections::BTreeSet;

use drystone::property::v1::{
    CreatePropertyRequest, DeletePropertyRequest, ForgetOwnerRequest, ForgetOwnerResponse, GetPropertyRequest,
    ListPropertiesRequest, ListPropertiesResponse, ListPropertyClaimsRequest, ListPropertyClaimsResponse,
    Property as Message, PropertyClaim, UpdatePropertyRequest, property_service_server::PropertyService,
};
use drystone_mesh::{
    call::{self, Call},
    error::Error as MeshError,
    etag, id, mask,
    page::{self, List, Page},
    time::to_proto,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{Claim, Content, ContentUpdate, Description, DisplayName, Error, Labels, NewProperty, Property, Service};

/// The list that page tokens are bound to.
const LIST: &str = "properties";

/// The fields of a property that can be changed.
const MUTABLE_FIELDS: [&str; 3] = ["display_name", "description", "labels"];

type RpcResult<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl PropertyService for Service {
    async fn create_property(&self, request: Request<CreatePropertyRequest>) -> RpcResult<Message> {
        let call = Call::of(&request)?;
        let owner_id = call.principal()?.user_id;
        let CreatePropertyRequest { display_name, description, labels, request_id } = request.into_inner();
        let request_id = if request_id.is_empty() { None } else { Some(id::parse("request_id", &request_id)?) };
        let content = Content {
            display_name: validate("display_name", DisplayName::parse(&display_name))?,
            description: validate("description", Description::parse(&description))?,
            labels: validate("labels", Labels::parse(labels))?,
        };
        let new = NewProperty { id: Uuid::now_v7(), owner_id, request_id, content };
        let property = self.store.create(new, self.clock.now()).await?;
        Ok(Response::new(property.into()))
    }

    async fn get_property(&self, request: Request<GetPropertyRequest>) -> RpcResult<Message> {
        let call = Call::of(&request)?;
        let id = id::parse("id", &request.get_ref().id)?;
        let property = self.store.find(call.principal()?.user_id, id).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(property.into()))
    }

    async fn list_properties(&self, request: Request<ListPropertiesRequest>) -> RpcResult<ListPropertiesResponse> {
        let call = Call::of(&request)?;
        let owner = call.principal()?.user_id;
        let message = request.into_inner();
        let list = List::new(LIST).bound_to(&owner.to_string());
        let page = Page::parse(&list, message.page_size, &message.page_token)?;
        let properties = self.store.list(owner, &page).await?;
        let (properties, next_page_token) =
            page::paginate(&list, properties, page.size, |property| property.id, Message::from);
        Ok(Response::new(ListPropertiesResponse { properties, next_page_token }))
    }

    async fn update_property(&self, request: Request<UpdatePropertyRequest>) -> RpcResult<Message> {
        let call = Call::of(&request)?;
        let owner = call.principal()?.user_id;
        let UpdatePropertyRequest { property, update_mask } = request.into_inner();
        let property = property.unwrap_or_default();
        let id = id::parse("property.id", &property.id)?;
        let version = etag::parse(&property.etag)?;
        let update = parse_update(property, &mask::paths(update_mask.as_ref(), &MUTABLE_FIELDS)?)?;
        let property =
            self.store.update(owner, id, &update, version, self.clock.now()).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(property.into()))
    }

    async fn delete_property(&self, request: Request<DeletePropertyRequest>) -> RpcResult<()> {
        let call = Call::of(&request)?;
        let message = request.into_inner();
        let id = id::parse("id", &message.id)?;
        let version = etag::parse(&message.etag)?;
        let was_deleted = self.store.delete(call.principal()?.user_id, id, version).await?;
        if was_deleted { Ok(Response::new(())) } else { Err(Error::NotFound.into()) }
    }

    async fn list_property_claims(
        &self,
        request: Request<ListPropertyClaimsRequest>,
    ) -> RpcResult<ListPropertyClaimsResponse> {
        let user = id::parse("user_id", &request.get_ref().user_id)?;
        call::record_user(user);
        let claims = self.store.claims(user, Claim::MAX).await?;
        let claims = claims.into_iter().map(PropertyClaim::from).collect();
        Ok(Response::new(ListPropertyClaimsResponse { claims }))
    }

    async fn forget_owner(&self, request: Request<ForgetOwnerRequest>) -> RpcResult<ForgetOwnerResponse> {
        let owner = id::parse("owner_id", &request.get_ref().owner_id)?;
        call::record_user(owner);
        self.store.delete_all(owner).await?;
        Ok(Response::new(ForgetOwnerResponse {}))
    }
}

/// Parses an update: of the fields in the mask or, without a mask, of the fields that are set.
fn parse_update(property: Message, mask: &BTreeSet<&str>) -> Result<ContentUpdate, MeshError> {
    let is_updated = |field: &str, is_set: bool| if mask.is_empty() { is_set } else { mask.contains(field) };
    let Message { display_name, description, labels, .. } = property;
    let update = ContentUpdate {
        display_name: is_updated("display_name", !display_name.is_empty())
            .then(|| validate("property.display_name", DisplayName::parse(&display_name)))
            .transpose()?,
        description: is_updated("description", !description.is_empty())
            .then(|| validate("property.description", Description::parse(&description)))
            .transpose()?,
        labels: is_updated("labels", !labels.is_empty())
            .then(|| validate("property.labels", Labels::parse(labels)))
            .transpose()?,
    };
    if update == ContentUpdate::default() { Err(mask::no_changes(&MUTABLE_FIELDS)) } else { Ok(update) }
}

fn validate<T>(field: &'static str, parsed: Result<T, impl ToString>) -> Result<T, MeshError> {
    parsed.map_err(|error| MeshError::invalid_field(field, error.to_string()))
}

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
