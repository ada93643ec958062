//! Passwords, addresses and sign-ins over gRPC: each RPC succeeds and refuses as it does over REST.

use drystone::{
    Reason,
    auth::v1::{
        ChangeEmailRequest, ChangePasswordRequest, ReportSignInRequest, RequestPasswordResetRequest,
        ResendVerificationRequest, ResetPasswordRequest, UndoEmailChangeRequest, VerifyEmailRequest,
        email_service_client::EmailServiceClient, password_service_client::PasswordServiceClient,
        sign_in_service_client::SignInServiceClient,
    },
};
use drystone_tests::{
    User,
    grpc::{assert_refused, with_token},
    unique_email,
};

use crate::{
    passwords::signs_in,
    server::{start, wait_for_link, wait_for_subject},
};

const NEW: &str = "a new horse in the stable";
const NEWER: &str = "and another horse beside it";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_changed_and_reset() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let mut passwords = PasswordServiceClient::new(mesh.channel("auth", "edge"));
    let change = |current: &str, new: &str| ChangePasswordRequest {
        current_password: current.to_owned(),
        new_password: new.to_owned(),
    };
    assert_refused(passwords.change_password(change(&user.password, NEW)).await, Reason::TokenMissing);
    let wrong = with_token(change("wrong horse", NEW), &tokens.access);
    assert_refused(passwords.change_password(wrong).await, Reason::InvalidCredentials);
    let weak = with_token(change(&user.password, "12345678"), &tokens.access);
    assert_refused(passwords.change_password(weak).await, Reason::PasswordTooWeak);
    let empty = with_token(change("", NEW), &tokens.access);
    assert_refused(passwords.change_password(empty).await, Reason::InvalidRequest);
    passwords.change_password(with_token(change(&user.password, NEW), &tokens.access)).await.unwrap();
    wait_for_subject(&smtp, &user.email, "changed").await;

    let request = |email: &str| RequestPasswordResetRequest { email: email.to_owned() };
    for email in [user.email.as_str(), "nobody@example.com"] {
        passwords.request_password_reset(request(email)).await.unwrap();
    }
    let token = wait_for_link(&smtp, &user.email, "reset-password", 0).await;
    let reset = |token: &str| ResetPasswordRequest { token: token.to_owned(), new_password: NEWER.to_owned() };
    assert_refused(passwords.reset_password(reset("no token")).await, Reason::LinkInvalid);
    let mut second = passwords.clone();
    let (one, other) = tokio::join!(passwords.reset_password(reset(&token)), second.reset_password(reset(&token)));
    let (succeeded, refused) = if one.is_ok() { (one, other) } else { (other, one) };
    assert!(succeeded.unwrap().into_inner().sessions_ended);
    assert_refused(refused, Reason::LinkInvalid);
    assert!(signs_in(&mesh, &user.email, NEWER).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_verified_changed_and_got_back() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let mut emails = EmailServiceClient::new(mesh.channel("auth", "edge"));
    let verify = |token: &str| VerifyEmailRequest { token: token.to_owned() };
    let first = wait_for_link(&smtp, &user.email, "verify-email", 0).await;
    for email in [user.email.clone(), "nobody@example.com".to_owned()] {
        emails.resend_verification(ResendVerificationRequest { email }).await.unwrap();
    }
    wait_for_link(&smtp, &user.email, "verify-email", 1).await;
    assert_refused(emails.verify_email(verify("no token")).await, Reason::LinkInvalid);
    let verified = emails.verify_email(verify(&first)).await.unwrap().into_inner();
    assert_eq!((verified.email.as_str(), verified.email_verified), (user.email.as_str(), true));
    assert_refused(emails.verify_email(verify(&first)).await, Reason::LinkInvalid);

    let new = unique_email();
    let change = |new: &str, password: &str| ChangeEmailRequest {
        new_email: new.to_owned(),
        current_password: password.to_owned(),
    };
    assert_refused(emails.change_email(change(&new, &user.password)).await, Reason::TokenMissing);
    let wrong = with_token(change(&new, "wrong horse"), &tokens.access);
    assert_refused(emails.change_email(wrong).await, Reason::InvalidCredentials);
    let malformed = with_token(change("no address", &user.password), &tokens.access);
    assert_refused(emails.change_email(malformed).await, Reason::InvalidRequest);
    emails.change_email(with_token(change(&new, &user.password), &tokens.access)).await.unwrap();
    let link = wait_for_link(&smtp, &new, "verify-email", 0).await;
    assert_eq!(emails.verify_email(verify(&link)).await.unwrap().into_inner().email, new);

    let undo = |token: &str| UndoEmailChangeRequest { token: token.to_owned() };
    let link = wait_for_link(&smtp, &user.email, "undo-email-change", 0).await;
    assert_refused(emails.undo_email_change(undo("no token")).await, Reason::LinkInvalid);
    assert!(emails.undo_email_change(undo(&link)).await.unwrap().into_inner().sessions_ended);
    assert_refused(emails.undo_email_change(undo(&link)).await, Reason::LinkInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_is_reported() {
    let (smtp, mesh) = start();
    let (user, _) = User::signed_in(&mesh).await;
    user.sign_in(&mesh).await;
    let mut sign_ins = SignInServiceClient::new(mesh.channel("auth", "edge"));
    let report = |token: &str| ReportSignInRequest { token: token.to_owned() };
    let link = wait_for_link(&smtp, &user.email, "report-sign-in", 0).await;
    assert_refused(sign_ins.report_sign_in(report("no token")).await, Reason::LinkInvalid);
    assert!(sign_ins.report_sign_in(report(&link)).await.unwrap().into_inner().sessions_ended);
    assert_refused(sign_ins.report_sign_in(report(&link)).await, Reason::LinkInvalid);
}
