//! `drystone.notification.v1.InboxService`.

use std::pin::Pin;

use drystone::notification::v1::{
    Channel as ProtoChannel, InboxMessage as Message, ListMessagesRequest, ListMessagesResponse,
    ListPreferencesRequest, ListPreferencesResponse, MarkReadRequest, MarkReadResponse,
    Preference as PreferenceMessage, SetPreferenceRequest, SetPreferenceResponse, WatchMessagesRequest,
    WatchMessagesResponse, inbox_service_server::InboxService,
};
use drystone_mesh::{
    call::Call,
    error::Error as MeshError,
    id,
    page::{self, List, Page},
    time::to_proto,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::channel_to_proto;
use crate::{
    Service,
    channel::Channel,
    inbox::InboxMessage,
    preference::{self, Preference},
};

type RpcResult<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl InboxService for Service {
    type WatchMessagesStream = Pin<Box<dyn Stream<Item = Result<WatchMessagesResponse, Status>> + Send>>;

    async fn list_messages(&self, request: Request<ListMessagesRequest>) -> RpcResult<ListMessagesResponse> {
        let call = Call::of(&request)?;
        let user = call.principal()?.user_id;
        let ListMessagesRequest { page_size, page_token, unread_only } = request.into_inner();
        let list = List::new("messages").bound_to(if unread_only { "unread" } else { "" }).bound_to(&user.to_string());
        let page = Page::parse(&list, page_size, &page_token)?;
        let messages = self.store().inbox(user, unread_only, &page).await?;
        let unread = self.store().unread(user).await?;
        let (messages, next_page_token) =
            page::paginate(&list, messages, page.size, |message| message.id, Message::from);
        let unread_count = i32::try_from(unread).unwrap_or(i32::MAX);
        Ok(Response::new(ListMessagesResponse { messages, next_page_token, unread_count }))
    }

    async fn watch_messages(&self, request: Request<WatchMessagesRequest>) -> RpcResult<Self::WatchMessagesStream> {
        let call = Call::of(&request)?;
        call.principal()?;
        let Some(principal) = call.fields().principal.clone() else {
            return Err(MeshError::internal("the call has no principal").into());
        };
        let after = &request.get_ref().after_id;
        let after = if after.is_empty() { None } else { Some(id::parse("after_id", after)?) };
        let watch = self.inboxes().watch(principal, after)?;
        let responses = futures_util::stream::unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match watch.next().await? {
                Ok(messages) => {
                    let messages = messages.into_iter().map(Message::from).collect();
                    Some((Ok(WatchMessagesResponse { messages }), Some(watch)))
                }
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn mark_read(&self, request: Request<MarkReadRequest>) -> RpcResult<MarkReadResponse> {
        let call = Call::of(&request)?;
        let user = call.principal()?.user_id;
        let MarkReadRequest { ids, all } = request.into_inner();
        if all != ids.is_empty() {
            let text = "must be empty with `all`, and must name messages without it";
            return Err(MeshError::invalid_field("ids", text).into());
        }
        let ids: Vec<_> = ids.iter().map(|id| id::parse("ids", id)).collect::<Result<_, _>>()?;
        let which = if all { None } else { Some(ids.as_slice()) };
        let marked = self.store().mark_read(user, which, self.clock().now()).await?;
        Ok(Response::new(MarkReadResponse { marked_count: i32::try_from(marked).unwrap_or(i32::MAX) }))
    }

    async fn list_preferences(&self, request: Request<ListPreferencesRequest>) -> RpcResult<ListPreferencesResponse> {
        let call = Call::of(&request)?;
        let opt_outs = self.store().opt_outs(call.principal()?.user_id).await?;
        let preferences =
            preference::all(self.templates(), &opt_outs).into_iter().map(PreferenceMessage::from).collect();
        Ok(Response::new(ListPreferencesResponse { preferences }))
    }

    async fn set_preference(&self, request: Request<SetPreferenceRequest>) -> RpcResult<SetPreferenceResponse> {
        let call = Call::of(&request)?;
        let user = call.principal()?.user_id;
        let SetPreferenceRequest { category, channel, enabled } = request.into_inner();
        let channel = match ProtoChannel::try_from(channel) {
            Ok(ProtoChannel::Mail) => Channel::Mail,
            Ok(ProtoChannel::Inbox) => Channel::Inbox,
            _ => return Err(MeshError::invalid_field("channel", "must be CHANNEL_MAIL or CHANNEL_INBOX").into()),
        };
        let preference = preference::checked(self.templates(), &category, channel, enabled)?;
        self.store().set_preference(user, &category, channel, enabled).await?;
        Ok(Response::new(SetPreferenceResponse { preference: Some(preference.into()) }))
    }
}

impl From<InboxMessage> for Message {
    fn from(message: InboxMessage) -> Self {
        Self {
            id: message.id.to_string(),
            template: message.template,
            category: message.category,
            title: message.title,
            body: message.body,
            create_time: Some(to_proto(message.created_at)),
            read_time: message.read_at.map(to_proto),
        }
    }
}

impl From<Preference> for PreferenceMessage {
    fn from(preference: Preference) -> Self {
        Self {
            category: preference.category,
            channel: channel_to_proto(Some(preference.channel)).into(),
            enabled: preference.is_enabled,
            mutable: preference.is_mutable,
        }
    }
}
