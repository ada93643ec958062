//! `drystone.auth.v1.SignInService`.

use drystone::auth::v1::{
    ListSignInsRequest, ListSignInsResponse, ReportSignInRequest, ReportSignInResponse, SignIn, SignInMethod,
    SignInOutcome, sign_in_service_server::SignInService,
};
use drystone_mesh::{
    call::Call,
    page::{self, List, Page},
    time::to_proto,
};
use tonic::{Request, Response, Status, async_trait};
use uuid::Uuid;

use crate::{
    account_recovery::AccountRecovery,
    link::Purpose,
    sign_in_history::{Method, Outcome, SignInHistory, SignInRecord},
};

/// The name of the list in page tokens.
const LIST: &str = "sign_ins";

/// The handlers.
pub(crate) struct SignInRpc {
    pub(crate) history: SignInHistory,
    pub(crate) recovery: AccountRecovery,
}

#[async_trait]
impl SignInService for SignInRpc {
    async fn list_sign_ins(
        &self,
        request: Request<ListSignInsRequest>,
    ) -> Result<Response<ListSignInsResponse>, Status> {
        let call = Call::of(&request)?;
        let user_id = call.principal()?.user_id;
        let ListSignInsRequest { page_size, page_token } = request.into_inner();
        let list = List::new(LIST).bound_to(&user_id.to_string());
        let page = Page::parse(&list, page_size, &page_token)?;
        let found = self.history.list(user_id, &page).await?;
        let (sign_ins, next_page_token) = page::paginate(&list, found, page.size, |record| record.id, to_message);
        Ok(Response::new(ListSignInsResponse { sign_ins, next_page_token }))
    }

    async fn report_sign_in(
        &self,
        request: Request<ReportSignInRequest>,
    ) -> Result<Response<ReportSignInResponse>, Status> {
        let sessions_ended = self.recovery.recover(&request.get_ref().token, Purpose::SignInReport).await?;
        Ok(Response::new(ReportSignInResponse { sessions_ended }))
    }
}

fn to_message(record: SignInRecord) -> SignIn {
    SignIn {
        id: record.id.to_string(),
        create_time: Some(to_proto(record.at)),
        address: record.address,
        device: record.device,
        method: match record.method {
            Method::Password => SignInMethod::Password,
            Method::PasswordAndTotp => SignInMethod::PasswordAndTotp,
            Method::PasswordAndBackupCode => SignInMethod::PasswordAndBackupCode,
            Method::PasswordAndPasskey => SignInMethod::PasswordAndPasskey,
            Method::Passkey => SignInMethod::Passkey,
            Method::Unknown => SignInMethod::Unspecified,
        }
        .into(),
        outcome: match record.outcome {
            Outcome::Succeeded => SignInOutcome::Succeeded,
            Outcome::WrongPassword => SignInOutcome::WrongPassword,
            Outcome::AccountDisabled => SignInOutcome::AccountDisabled,
            Outcome::EmailNotVerified => SignInOutcome::EmailNotVerified,
            Outcome::PasswordResetRequired => SignInOutcome::PasswordResetRequired,
            Outcome::WrongCode => SignInOutcome::WrongCode,
            Outcome::Unknown => SignInOutcome::Unspecified,
        }
        .into(),
        session_id: record.session_id.as_ref().map(Uuid::to_string).unwrap_or_default(),
        is_new_device: record.is_new_device,
    }
}
