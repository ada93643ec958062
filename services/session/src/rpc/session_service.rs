//! `drystone.session.v1.SessionService`.

use drystone::session::v1::{
    EndUserSessionsRequest, EndUserSessionsResponse, ListSessionsRequest, ListSessionsResponse, RaiseSessionRequest,
    RaiseSessionResponse, RevokeAllSessionsRequest, RevokeAllSessionsResponse, RevokeSessionRequest,
    RotateSessionRequest, RotateSessionResponse, StartSessionRequest, StartSessionResponse, VoidKeyTokensRequest,
    VoidKeyTokensResponse, VoidRoleTokensRequest, VoidRoleTokensResponse, VoidTokensRequest, VoidTokensResponse,
    WatchRevocationsRequest, session_service_server::SessionService,
};
use drystone_mesh::{
    call::{self, Call},
    id,
    page::{self, List, Page},
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{to_message, watch};
use crate::{Service, revocation::Holder, rotation::PresentedBy, session::NewSession, sessions::Rotated};

/// The list that page tokens are bound to.
const LIST: &str = "sessions";

#[async_trait]
impl SessionService for Service {
    async fn start_session(
        &self,
        request: Request<StartSessionRequest>,
    ) -> Result<Response<StartSessionResponse>, Status> {
        let StartSessionRequest { user_id, device, address, amr } = request.into_inner();
        let user_id = id::parse("user_id", &user_id)?;
        call::record_user(user_id);
        let new = NewSession { user_id, device, address, methods: amr };
        let session = self.sessions.create(new).await?;
        let counter = session.counter;
        Ok(Response::new(StartSessionResponse { session: Some(to_message(session, None)), counter }))
    }

    async fn raise_session(
        &self,
        request: Request<RaiseSessionRequest>,
    ) -> Result<Response<RaiseSessionResponse>, Status> {
        let RaiseSessionRequest { session_id, user_id, amr } = request.into_inner();
        let (session_id, user_id) = (id::parse("session_id", &session_id)?, id::parse("user_id", &user_id)?);
        call::record_user(user_id);
        let session = self.sessions.raise(user_id, session_id, &amr).await?;
        Ok(Response::new(RaiseSessionResponse { session: Some(to_message(session, None)) }))
    }

    async fn rotate_session(
        &self,
        request: Request<RotateSessionRequest>,
    ) -> Result<Response<RotateSessionResponse>, Status> {
        let RotateSessionRequest { session_id, counter, device, address } = request.into_inner();
        let by = PresentedBy { device, address };
        let rotated = self.sessions.rotate(id::parse("session_id", &session_id)?, counter, by).await?;
        let Rotated { session, is_shared } = rotated;
        call::record_user(session.user_id);
        let counter = session.counter;
        Ok(Response::new(RotateSessionResponse { session: Some(to_message(session, None)), counter, is_shared }))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let call = Call::of(&request)?;
        let user = call.principal()?;
        let ListSessionsRequest { page_size, page_token } = request.into_inner();
        let list = List::new(LIST).bound_to(&user.user_id.to_string());
        let page = Page::parse(&list, page_size, &page_token)?;
        let sessions = self.sessions.list(user.user_id, &page).await?;
        let to_message = |session| to_message(session, Some(user.session_id));
        let (sessions, next_page_token) = page::paginate(&list, sessions, page.size, |session| session.id, to_message);
        Ok(Response::new(ListSessionsResponse { sessions, next_page_token }))
    }

    async fn revoke_session(&self, request: Request<RevokeSessionRequest>) -> Result<Response<()>, Status> {
        let call = Call::of(&request)?;
        let id = id::parse("id", &request.into_inner().id)?;
        self.sessions.revoke(call.principal()?.user_id, id).await?;
        Ok(Response::new(()))
    }

    async fn revoke_all_sessions(
        &self,
        request: Request<RevokeAllSessionsRequest>,
    ) -> Result<Response<RevokeAllSessionsResponse>, Status> {
        let call = Call::of(&request)?;
        let user = call.principal()?;
        let keep = request.into_inner().keep_current.then_some(user.session_id);
        let revoked = self.sessions.revoke_all(user.user_id, keep).await?;
        let revoked_count = i32::try_from(revoked).unwrap_or(i32::MAX);
        Ok(Response::new(RevokeAllSessionsResponse { revoked_count }))
    }

    async fn void_tokens(&self, request: Request<VoidTokensRequest>) -> Result<Response<VoidTokensResponse>, Status> {
        let user_id = id::parse("user_id", &request.into_inner().user_id)?;
        call::record_user(user_id);
        self.sessions.void_tokens([Holder::User(user_id)]).await?;
        Ok(Response::new(VoidTokensResponse {}))
    }

    async fn void_role_tokens(
        &self,
        request: Request<VoidRoleTokensRequest>,
    ) -> Result<Response<VoidRoleTokensResponse>, Status> {
        self.sessions.void_tokens(request.into_inner().roles.into_iter().map(Holder::Role)).await?;
        Ok(Response::new(VoidRoleTokensResponse {}))
    }

    async fn void_key_tokens(
        &self,
        request: Request<VoidKeyTokensRequest>,
    ) -> Result<Response<VoidKeyTokensResponse>, Status> {
        self.sessions.void_key(request.into_inner().key_id).await?;
        Ok(Response::new(VoidKeyTokensResponse {}))
    }

    /// Unless a session stays, tokens are voided as well: a sign-in that read the account before may start a session after the others have ended. It is
    /// never refreshed.
    async fn end_user_sessions(
        &self,
        request: Request<EndUserSessionsRequest>,
    ) -> Result<Response<EndUserSessionsResponse>, Status> {
        let EndUserSessionsRequest { user_id, except_session_id } = request.into_inner();
        let user_id = id::parse("user_id", &user_id)?;
        call::record_user(user_id);
        let keep =
            if except_session_id.is_empty() { None } else { Some(id::parse("except_session_id", &except_session_id)?) };
        let ended = self.sessions.revoke_all(user_id, keep).await?;
        if keep.is_none() {
            self.sessions.void_tokens([Holder::User(user_id)]).await?;
        }
        Ok(Response::new(EndUserSessionsResponse { ended_count: i32::try_from(ended).unwrap_or(i32::MAX) }))
    }

    type WatchRevocationsStream = watch::ResponseStream;

    async fn watch_revocations(
        &self,
        request: Request<Streaming<WatchRevocationsRequest>>,
    ) -> Result<Response<watch::ResponseStream>, Status> {
        let caller = Call::from_extensions(request.extensions()).and_then(|call| call.fields().caller.clone());
        watch::watch(self, caller, request.into_inner()).await.map(Response::new)
    }
}
