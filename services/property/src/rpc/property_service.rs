//! `drystone.property.v1.PropertyService`.

use std::collections::BTreeSet;

use drystone::property::v1::{
    CreatePropertyRequest, DeletePropertyRequest, GetPropertyRequest, ListPropertiesRequest, ListPropertiesResponse,
    ListPropertyClaimsRequest, ListPropertyClaimsResponse, Property as Message, PropertyClaim, UpdatePropertyRequest,
    property_service_server::PropertyService,
};
use drystone_mesh::{
    call::{self, Call},
    error::Error as MeshError,
    etag, id, mask,
    page::{self, Page},
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{Change, Claim, Content, Description, DisplayName, Error, Labels, NewProperty, Property, Service};

/// The list that page tokens belong to.
const LIST: &str = "properties";

/// The fields of a property that can be changed.
const CHANGEABLE: [&str; 3] = ["display_name", "description", "labels"];

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl PropertyService for Service {
    async fn create_property(&self, request: Request<CreatePropertyRequest>) -> Answer<Message> {
        let call = Call::of(&request)?;
        let owner_id = call.principal()?.user_id;
        let CreatePropertyRequest { display_name, description, labels, request_id } = request.into_inner();
        let request_id = if request_id.is_empty() { None } else { Some(id::parse("request_id", &request_id)?) };
        let content = Content {
            display_name: valid("display_name", DisplayName::parse(&display_name))?,
            description: valid("description", Description::parse(&description))?,
            labels: valid("labels", Labels::parse(labels))?,
        };
        let new = NewProperty { id: Uuid::now_v7(), owner_id, request_id, content };
        let property = self.store.create(new, self.clock.now()).await?;
        Ok(Response::new(property.into()))
    }

    async fn get_property(&self, request: Request<GetPropertyRequest>) -> Answer<Message> {
        let call = Call::of(&request)?;
        let id = id::parse("id", &request.get_ref().id)?;
        let property = self.store.find(call.principal()?.user_id, id).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(property.into()))
    }

    async fn list_properties(&self, request: Request<ListPropertiesRequest>) -> Answer<ListPropertiesResponse> {
        let call = Call::of(&request)?;
        let message = request.into_inner();
        let page = Page::parse(LIST, message.page_size, &message.page_token)?;
        let properties = self.store.list(call.principal()?.user_id, &page).await?;
        let (properties, next_page_token) =
            page::paginate(LIST, properties, page.size, |property: &Property| property.id);
        let properties = properties.into_iter().map(Message::from).collect();
        Ok(Response::new(ListPropertiesResponse { properties, next_page_token }))
    }

    async fn update_property(&self, request: Request<UpdatePropertyRequest>) -> Answer<Message> {
        let call = Call::of(&request)?;
        let owner = call.principal()?.user_id;
        let UpdatePropertyRequest { property, update_mask } = request.into_inner();
        let property = property.unwrap_or_default();
        let id = id::parse("property.id", &property.id)?;
        let version = etag::parse(&property.etag)?;
        let change = parse_change(property, &mask::paths(update_mask.as_ref(), &CHANGEABLE)?)?;
        let property =
            self.store.update(owner, id, &change, version, self.clock.now()).await?.ok_or(Error::NotFound)?;
        Ok(Response::new(property.into()))
    }

    async fn delete_property(&self, request: Request<DeletePropertyRequest>) -> Answer<()> {
        let call = Call::of(&request)?;
        let message = request.into_inner();
        let id = id::parse("id", &message.id)?;
        let version = etag::parse(&message.etag)?;
        let was_there = self.store.delete(call.principal()?.user_id, id, version).await?;
        if was_there { Ok(Response::new(())) } else { Err(Error::NotFound.into()) }
    }

    async fn list_property_claims(
        &self,
        request: Request<ListPropertyClaimsRequest>,
    ) -> Answer<ListPropertyClaimsResponse> {
        let user = id::parse("user_id", &request.get_ref().user_id)?;
        call::record_user(user);
        let claims = self.store.claims(user, Claim::MAX).await?;
        let claims = claims.into_iter().map(PropertyClaim::from).collect();
        Ok(Response::new(ListPropertyClaimsResponse { claims }))
    }
}

/// The change that is wanted: of the fields that the mask names or, without a mask, of those that are set.
fn parse_change(property: Message, wanted: &BTreeSet<&str>) -> Result<Change, MeshError> {
    let is_wanted = |field: &str, is_set: bool| if wanted.is_empty() { is_set } else { wanted.contains(field) };
    let Message { display_name, description, labels, .. } = property;
    let change = Change {
        display_name: is_wanted("display_name", !display_name.is_empty())
            .then(|| valid("property.display_name", DisplayName::parse(&display_name)))
            .transpose()?,
        description: is_wanted("description", !description.is_empty())
            .then(|| valid("property.description", Description::parse(&description)))
            .transpose()?,
        labels: is_wanted("labels", !labels.is_empty())
            .then(|| valid("property.labels", Labels::parse(labels)))
            .transpose()?,
    };
    if change == Change::default() { Err(mask::no_changes(&CHANGEABLE)) } else { Ok(change) }
}

fn valid<T>(field: &'static str, parsed: Result<T, impl ToString>) -> Result<T, MeshError> {
    parsed.map_err(|error| MeshError::invalid_field(field, error.to_string()))
}
