//! Passkeys in Chromium, with its virtual authenticator.

use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::{User, binary, mails::setup, ports::free_addresses, readme};
use serde_json::json;
use std::process::Command;

use crate::calls::verify_email;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_registers_a_passkey_and_signs_in_with_it() {
    let smtp = Smtp::start(SmtpOptions::default());
    let [page] = free_addresses::<1>();
    let port = page.port();
    let origins = json!([format!("http://localhost:{port}")]).to_string();
    let mesh = setup(&smtp).set("auth.passkeys.rp_id", "localhost").set("auth.passkeys.origins", &origins).start();
    let user = User::register(&mesh).await;
    verify_email(&mesh, &smtp, &user).await;
    let mut command = Command::new(readme::tool("python"));
    command.arg(binary::repository().join("tests/clients/passkeys_chromium.py"));
    command.args(["--server", &format!("http://{}", mesh.rest().address()), "--page-port", &port.to_string()]);
    command.args(["--email", &user.email, "--password", &user.password]);
    let output = tokio::task::spawn_blocking(move || command.output().expect("python runs")).await.unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{text}");
    for step in
        ["sign_in_without_password", "sign_in_from_autofill", "second_factor", "verify", "refuse_another_origin"]
    {
        assert!(text.contains(&format!("ok {step}")), "{step} is missing: {text}");
    }
}
