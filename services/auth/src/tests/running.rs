//! A service whose outbox is delivered, and what a client does with it.

use std::sync::Arc;

use drystone::{
    auth::v1::{
        ChangeEmailRequest, ChangePasswordRequest, ListSignInsRequest, ReportSignInRequest,
        RequestPasswordResetRequest, ResendVerificationRequest, ResetPasswordRequest, SignIn, UndoEmailChangeRequest,
        VerifyEmailRequest, VerifyEmailResponse, email_service_server::EmailService,
        password_service_server::PasswordService, sign_in_service_server::SignInService,
    },
    notification::v1::SendRequest,
};
use drystone_mesh::token::Principal;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use super::fixture::{EMAIL, Fixture, from_outside};
use crate::Config;

/// A service whose outbox is delivered. It stops with the test.
pub(super) struct Running {
    pub(super) fixture: Fixture,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Running {
    pub(super) async fn with_account() -> Self {
        Self::of(Fixture::with_account().await)
    }

    pub(super) fn of(fixture: Fixture) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(fixture.service.relay.clone().run(stop.clone()));
        Self { fixture, tasks, stop }
    }

    /// Restarts the service with another configuration.
    pub(super) async fn restart(self, config: Config) -> Self {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        Self::of(self.fixture.restart(config).await)
    }

    pub(super) async fn sign_in(&self, password: &str) -> Result<Arc<Principal>, Status> {
        let tokens = self.fixture.sign_in(EMAIL, password).await?.into_inner();
        Ok(self.fixture.verify(&tokens.access_token).await)
    }

    pub(super) async fn change(&self, by: &Arc<Principal>, current: &str, new: &str) -> Result<bool, Status> {
        let request = ChangePasswordRequest { current_password: current.to_owned(), new_password: new.to_owned() };
        let request = from_outside(request, Some(Arc::clone(by)));
        Ok(self.fixture.service.passwords.change_password(request).await?.into_inner().sessions_ended)
    }

    pub(super) async fn request(&self, email: &str) {
        let request = RequestPasswordResetRequest { email: email.to_owned() };
        self.fixture.service.passwords.request_password_reset(from_outside(request, None)).await.unwrap();
    }

    pub(super) async fn reset(&self, token: &str, new: &str) -> Result<bool, Status> {
        let request = ResetPasswordRequest { token: token.to_owned(), new_password: new.to_owned() };
        let response = self.fixture.service.passwords.reset_password(from_outside(request, None)).await?;
        Ok(response.into_inner().sessions_ended)
    }

    pub(super) async fn verify_email(&self, token: &str) -> Result<VerifyEmailResponse, Status> {
        let request = VerifyEmailRequest { token: token.to_owned() };
        Ok(self.fixture.service.emails.verify_email(from_outside(request, None)).await?.into_inner())
    }

    pub(super) async fn resend(&self, email: &str) {
        let request = ResendVerificationRequest { email: email.to_owned() };
        self.fixture.service.emails.resend_verification(from_outside(request, None)).await.unwrap();
    }

    pub(super) async fn change_email(&self, by: &Arc<Principal>, password: &str, new: &str) -> Result<(), Status> {
        let request = ChangeEmailRequest { new_email: new.to_owned(), current_password: password.to_owned() };
        self.fixture.service.emails.change_email(from_outside(request, Some(Arc::clone(by)))).await.map(drop)
    }

    pub(super) async fn undo_email_change(&self, token: &str) -> Result<bool, Status> {
        let request = UndoEmailChangeRequest { token: token.to_owned() };
        let response = self.fixture.service.emails.undo_email_change(from_outside(request, None)).await?;
        Ok(response.into_inner().sessions_ended)
    }

    pub(super) async fn report_sign_in(&self, token: &str) -> Result<bool, Status> {
        let request = ReportSignInRequest { token: token.to_owned() };
        let response = self.fixture.service.sign_ins.report_sign_in(from_outside(request, None)).await?;
        Ok(response.into_inner().sessions_ended)
    }

    /// All sign-ins of a user, in pages of this size.
    pub(super) async fn sign_ins(&self, by: &Arc<Principal>, page_size: i32) -> Vec<SignIn> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = from_outside(ListSignInsRequest { page_size, page_token }, Some(Arc::clone(by)));
            let page = self.fixture.service.sign_ins.list_sign_ins(request).await.unwrap().into_inner();
            all.extend(page.sign_ins);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    /// Waits until everything is delivered. Returns the messages with this template, in the order of their ids.
    pub(super) async fn messages(&self, template: &str) -> Vec<SendRequest> {
        self.settle().await;
        let state = self.fixture.upstreams.state();
        state.messages.values().filter(|message| message.template == template).cloned().collect()
    }

    pub(super) async fn settle(&self) {
        while self.pending().await > 0 {
            self.fixture.service.relay.wake();
            tokio::task::yield_now().await;
        }
    }

    /// Waits until everything is delivered, also what failed before and is attempted again as time passes.
    pub(super) async fn settle_over_time(&self) {
        while self.pending().await > 0 {
            self.fixture.clock.advance(std::time::Duration::from_secs(1));
            self.fixture.service.relay.wake();
            tokio::task::yield_now().await;
        }
    }

    async fn pending(&self) -> i64 {
        drystone_store::run!(self.fixture.store.db().reader(), |db| {
            sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE dead_at IS NULL").fetch_one(db).await.unwrap()
        })
    }

    /// The token of the newest link.
    pub(super) async fn link(&self) -> String {
        self.link_in("password_reset", "reset-password").await
    }

    /// The token of the newest link in a message with this template, which leads to this page.
    pub(super) async fn link_in(&self, template: &str, page: &str) -> String {
        let messages = self.messages(template).await;
        let link = &messages.last().unwrap().parameters["link"];
        let (url, token) = link.split_once("#token=").unwrap();
        assert_eq!(url, format!("https://id.example.com/{page}"));
        token.to_owned()
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
