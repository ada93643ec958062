//! `drystone.notification.v1.NotificationService`.

use drystone::notification::v1::{
    Delivery as Message, DeliveryState, ForgetRecipientRequest, ForgetRecipientResponse, GetDeliveryRequest,
    ListDeliveriesRequest, ListDeliveriesResponse, RequeueDeliveryRequest, RequeueDeliveryResponse,
    RewrapParametersRequest, RewrapParametersResponse, SendRequest, SendResponse,
    notification_service_server::NotificationService,
};
use drystone_mesh::{
    call::{self, Actor, Call},
    error::Error as MeshError,
    filter::{self, Field, Kind, Value},
    id,
    page::{self, List, Page},
    time::{from_proto, to_proto},
};
use tonic::{Request, Response, Status};

use super::channel_to_proto;
use crate::{
    Error, Service,
    message::{Delivery, Recipient, State},
    send,
    store::DeliveryFilter,
};

/// The fields of the filter.
const FIELDS: [Field; 2] = [
    Field { name: "state", kind: Kind::Choice(&["queued", "delivered", "dead"]) },
    Field { name: "user_id", kind: Kind::Text },
];

type RpcResult<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl NotificationService for Service {
    async fn send(&self, request: Request<SendRequest>) -> RpcResult<SendResponse> {
        let call = Call::of(&request)?;
        let sender = call.fields().caller.as_ref().and_then(|caller| caller.workload()).unwrap_or_default().to_owned();
        let SendRequest { message_id, template, parameters, recipient, expire_time } = request.into_inner();
        let recipient = recipient.unwrap_or_default();
        let user_id = optional(&recipient.user_id, |text| id::parse("recipient.user_id", text))?;
        if let Some(user) = user_id {
            call::record_target(user);
        }
        let expires_at = expire_time.map(|time| {
            from_proto(&time)
                .ok_or_else(|| MeshError::invalid_field("expire_time", "must be a time of the years 1 to 9999"))
        });
        let request = send::Request {
            id: id::parse("message_id", &message_id)?,
            template,
            sender,
            recipient: Recipient {
                user_id,
                email: optional(&recipient.email, |text| Ok::<_, MeshError>(text.to_owned()))?,
                display_name: recipient.display_name,
                locale: recipient.locale,
            },
            parameters: parameters.into_iter().collect(),
            expires_at: expires_at.transpose()?,
        };
        let deliveries = self.sending().send(request).await?;
        Ok(Response::new(SendResponse { deliveries: deliveries.into_iter().map(Message::from).collect() }))
    }

    async fn get_delivery(&self, request: Request<GetDeliveryRequest>) -> RpcResult<Message> {
        let id = id::parse("id", &request.get_ref().id)?;
        let delivery = self.store().delivery(id).await?.ok_or(Error::DeliveryNotFound)?;
        Ok(Response::new(delivery.into()))
    }

    async fn list_deliveries(&self, request: Request<ListDeliveriesRequest>) -> RpcResult<ListDeliveriesResponse> {
        let call = Call::of(&request)?;
        let message = request.into_inner();
        let caller = match call.actor()? {
            Actor::Operator => "operator".to_owned(),
            Actor::User(user) => user.user_id.to_string(),
        };
        let filter = parse_filter(&message.filter)?;
        let list = List::new("deliveries").bound_to(&message.filter).bound_to(&caller);
        let page = Page::parse(&list, message.page_size, &message.page_token)?;
        let deliveries = self.store().deliveries(filter, &page).await?;
        let (deliveries, next_page_token) =
            page::paginate(&list, deliveries, page.size, |delivery| delivery.id, Message::from);
        Ok(Response::new(ListDeliveriesResponse { deliveries, next_page_token }))
    }

    async fn requeue_delivery(&self, request: Request<RequeueDeliveryRequest>) -> RpcResult<RequeueDeliveryResponse> {
        let id = id::parse("id", &request.get_ref().id)?;
        let was_requeued = self.store().requeue(id, self.clock().now()).await?;
        let delivery = self.store().delivery(id).await?.ok_or(Error::DeliveryNotFound)?;
        if !was_requeued {
            return Err(Error::DeliveryNotDead.into());
        }
        self.sending().dispatcher.wake();
        Ok(Response::new(RequeueDeliveryResponse { delivery: Some(delivery.into()) }))
    }

    async fn forget_recipient(&self, request: Request<ForgetRecipientRequest>) -> RpcResult<ForgetRecipientResponse> {
        let user = id::parse("user_id", &request.get_ref().user_id)?;
        call::record_target(user);
        self.store().forget(user).await?;
        Ok(Response::new(ForgetRecipientResponse {}))
    }

    async fn rewrap_parameters(
        &self,
        _request: Request<RewrapParametersRequest>,
    ) -> RpcResult<RewrapParametersResponse> {
        let (rewrapped, master_key_id) = self.rewrap().await?;
        Ok(Response::new(RewrapParametersResponse { rewrapped, master_key_id }))
    }
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        let is_queued = delivery.state == State::Queued;
        let state = match delivery.state {
            State::Queued => DeliveryState::Queued,
            State::Delivered => DeliveryState::Delivered,
            State::Dead => DeliveryState::Dead,
        };
        Self {
            id: delivery.id.to_string(),
            message_id: delivery.message_id.to_string(),
            template: delivery.template,
            channel: channel_to_proto(delivery.channel).into(),
            destination: delivery.destination,
            user_id: delivery.user_id.map(|id| id.to_string()).unwrap_or_default(),
            state: state.into(),
            attempts: i32::try_from(delivery.attempts).unwrap_or(i32::MAX),
            last_error: delivery.last_error,
            create_time: Some(to_proto(delivery.created_at)),
            next_attempt_time: is_queued.then(|| to_proto(delivery.next_attempt_at)),
            finish_time: delivery.finished_at.map(to_proto),
        }
    }
}

fn parse_filter(text: &str) -> Result<DeliveryFilter, MeshError> {
    let mut filter = DeliveryFilter::default();
    for term in filter::parse(text, &FIELDS)? {
        match (term.field, term.value) {
            ("state", Value::Choice(name)) => {
                filter.state = State::ALL.into_iter().find(|state| state.name() == name);
            }
            ("user_id", Value::Text(text)) => filter.user_id = Some(id::parse("filter", &text)?),
            // The parser knows no other combination.
            _ => {}
        }
    }
    Ok(filter)
}

/// The value of a field that may be empty.
fn optional<T, E>(text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Option<T>, E> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}
