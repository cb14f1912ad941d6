//! Redeeming a code: what an app may send along.

use crate::harness::{Call, Case, Op, Via, Who, World, exchange, refresh};

#[tokio::test]
async fn no_logout_uri_that_deployed_clients_send_makes_the_exchange_fail() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let sent = [
        app.logout.as_str(),
        "https://elsewhere.invalid/logout",
        "http://127.0.0.1:1/logout",
        "http://169.254.169.254/latest/meta-data",
        "/logout",
        "logout",
        "null",
        "undefined",
        "?",
        "//elsewhere.invalid/logout",
        "\\\\elsewhere\\logout",
        "https:elsewhere",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://user:word@elsewhere.invalid/",
        "登出",
        " ",
    ];
    for op in Op::EXCHANGES {
        for (index, logout) in sent.iter().enumerate() {
            let code = world.code(&app, Who::ticket(&ticket)).await;
            let call = exchange(op, &app, &code).but("logoutUri", Some(logout));
            world.call(Via::BOTH[index % 2], &call).await.tokens();
        }
    }
}

#[tokio::test]
async fn operation_5_needs_no_logout_uri() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for via in Via::BOTH {
        for logout in [None, Some("")] {
            let code = world.code(&app, Who::ticket(&ticket)).await;
            world.call(via, &exchange(Op::ExchangeV281, &app, &code).but("logoutUri", logout)).await.tokens();
        }
    }
}

#[tokio::test]
async fn each_grant_type_reads_its_own_parameters_alone() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    for via in Via::BOTH {
        for op in [Op::TokenV2, Op::TokenV1] {
            let code = world.code(&app, Who::ticket(&ticket)).await;
            let call = exchange(op, &app, &code).with("refreshToken", "not-a-refresh-token");
            world.call(via, &call).await.tokens();
            let fresh = world.tokens(&app, &ticket).await;
            let call = refresh(op, &fresh.refresh).by(app.who()).with("code", "not-a-code").with("logoutUri", "/logout");
            world.call(via, &call).await.tokens();
            // A code is no refresh token, whatever the parameter is called.
            let spare = world.code(&app, Who::ticket(&ticket)).await;
            let crossed = Call::new(op).by(app.who()).with("grantType", "refresh_token").with("refreshToken", &spare).with("code", &spare);
            world.call(via, &crossed).await.refused(Case::Grant);
            world.call(via, &exchange(op, &app, &spare)).await.tokens();
        }
    }
    world.call(Via::Envoy, &refresh(Op::RefreshV281, &tokens.refresh).by(app.who())).await.tokens();
}
