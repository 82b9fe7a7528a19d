//! A second factor at the terminal: it is enabled there, asked for at every sign-in, and a recovery code stands in for it once.

use totp_rs::{Builder, Secret};

use crate::people::{PASSWORD, Terminal};
use crate::support::Stack;

/// The code that an authenticator shows so many seconds from now.
fn code(secret: &str, seconds: i64) -> String {
    let secret = Secret::try_from_base32(secret).unwrap();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    let at = time::OffsetDateTime::now_utc().unix_timestamp() + seconds;
    totp.generate(at.cast_unsigned()).to_string()
}

#[tokio::test]
async fn a_second_factor_is_enabled_asked_for_and_replaced_by_a_recovery_code_once() {
    let stack = Stack::start().await;
    stack.watch_token(PASSWORD);
    let invite = ["member", "invite", "ada@example.org"];
    let invited = stack.cli(&invite).await.expect_success();
    let ada = Terminal::new(&stack);
    let password = ada.file("password", PASSWORD);
    let token = ada.file("invitation", &invited.stdout);
    let accept = [
        "member",
        "accept",
        "--token-file",
        &token,
        "--password-file",
        &password,
    ];
    ada.run(&accept).await.expect_success();
    let login = [
        "login",
        "--email",
        "ada@example.org",
        "--password-file",
        &password,
    ];
    ada.run(&login).await.expect_success();

    let setup = ada.json(&["mfa", "setup"]).await;
    let secret = setup["secret"].as_str().unwrap();
    let wrong = ada.run(&["mfa", "enable", "000000"]).await;
    assert_eq!(wrong.status, Some(1), "{wrong:#?}");
    assert!(wrong.stderr.contains("hint:"), "{wrong:#?}");
    // Nothing is asked for yet.
    ada.run(&login).await.expect_success();
    let first = code(secret, 0);
    let enabled = ada.json(&["mfa", "enable", &first]).await;
    let recovery = enabled["recovery_codes"].as_array().unwrap();
    assert_eq!(recovery.len(), 8);
    assert_eq!(ada.json(&["whoami"]).await["totp_enabled"], true);
    ada.run(&["logout"]).await.expect_success();

    // There is no terminal to ask at.
    let asked = ada.run(&login).await;
    assert_eq!(asked.status, Some(1), "{asked:#?}");
    assert!(asked.stderr.contains("second factor"), "{asked:#?}");
    let with = async |code: &str| {
        let login = [&login[..], &["--code", code]].concat();
        ada.run(&login).await
    };
    // The code that enabled it was used.
    let used = with(&first).await;
    assert_eq!(used.status, Some(1), "{used:#?}");
    // The next step's, which is good already.
    with(&code(secret, 30)).await.expect_success();
    ada.run(&["whoami"]).await.expect_success();
    ada.run(&["logout"]).await.expect_success();

    let spare = recovery[0].as_str().unwrap();
    with(spare).await.expect_success();
    ada.run(&["logout"]).await.expect_success();
    let again = with(spare).await;
    assert_eq!(again.status, Some(1), "{again:#?}");
    with(recovery[1].as_str().unwrap()).await.expect_success();
    ada.run(&["mfa", "disable", recovery[2].as_str().unwrap()])
        .await
        .expect_success();
    ada.run(&["logout"]).await.expect_success();
    ada.run(&login).await.expect_success();
    stack.finish().await;
}
