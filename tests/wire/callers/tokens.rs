//! An access token beside a signature.

use crate::harness::{Call, Case, Op, Setup, Via, Who, World, authorize, exchange, forged, refresh, valid};

#[tokio::test]
async fn an_app_that_signs_and_shows_a_token_of_its_own_is_the_app_and_the_user() {
    let world = World::shared().await;
    let (app, user, _, tokens) = world.family().await;
    for via in Via::BOTH {
        for shown in [tokens.access.clone(), format!("Bearer {}", tokens.access)] {
            // What only a user may: a code; what only an app may: to redeem it.
            let both = || app.who().and(Who::headers(vec![("token", shown.clone())]));
            let code = world.call(via, &authorize(Op::AuthorizeV281, &app).by(both())).await.text_of("code");
            let call = exchange(Op::TokenV2, &app, &code).header("token", &shown);
            let given = world.call(via, &call).await.tokens();
            let call = Call::new(Op::Username).with("accessToken", &given.access).by(both());
            assert_eq!(world.call(via, &call).await.text_of("username"), user.name);
        }
    }
}

#[tokio::test]
async fn a_token_that_was_not_given_to_the_app_that_signs_makes_the_whole_call_nobodys() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let other = world.app().await;
    let others = world.tokens(&other, &ticket).await;
    for via in Via::BOTH {
        for shown in [others.access.clone(), forged(&tokens.access), "x".to_owned(), tokens.refresh.clone()] {
            let call = Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who()).header("token", &shown);
            world.call(via, &call).await.refused(Case::Caller);
            let call = refresh(Op::RefreshV281, &tokens.refresh).by(app.who()).header("token", &shown);
            world.call(via, &call).await.refused(Case::Caller);
            for op in [Op::Username, Op::SignOutV281] {
                let call = Call::new(op).with("accessToken", &shown).by(app.who()).header("token", &shown);
                world.call(via, &call).await.refused(Case::Caller);
            }
            world.call(via, &valid(&tokens.access).by(app.who()).header("token", &shown)).await.refused(Case::Caller);
        }
    }
    assert!(world.is_valid(&app, &tokens.access).await);
}

#[tokio::test]
async fn a_token_that_an_app_asks_about_is_no_good_rather_than_an_error_where_it_is_in_the_token_header_too() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let other = world.app().await;
    let others = world.tokens(&other, &ticket).await;
    for via in Via::BOTH {
        for (shown, is_good) in
            [(&tokens.access, true), (&others.access, false), (&forged(&tokens.access), false), (&"x".to_owned(), false)]
        {
            let reply = world.call(via, &valid(shown).by(app.who()).header("token", shown)).await;
            assert_eq!(reply.valid(), is_good, "{shown}");
        }
    }
    assert!(world.is_valid(&other, &others.access).await, "it was asked about, and is as good as before");
}

#[tokio::test]
async fn a_token_that_has_expired_takes_nothing_from_the_signature_beside_it() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, _, tokens) = world.family().await;
    world.step(3700);
    for via in Via::BOTH {
        let call = valid(&tokens.access).by(app.who()).header("token", &tokens.access);
        assert!(!world.call(via, &call).await.valid());
        let call = authorize(Op::Authorize, &app).by(app.who()).header("token", &tokens.access);
        world.call(via, &call).await.refused(Case::Caller);
    }
    let call = refresh(Op::TokenV2, &tokens.refresh).by(app.who()).header("token", &tokens.access);
    world.call(Via::Envoy, &call).await.tokens();
}

#[tokio::test]
async fn a39_a_bearer_goes_in_its_header_and_in_one_way_at_a_time() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let token = &tokens.access;
    let target = format!(
        "{}?responseType=code&appid={}&redirectUri={}&state=s",
        Op::Authorize.path(),
        app.id,
        crate::harness::world::encode(&app.redirect)
    );
    for name in ["access_token", "accessToken", "token", "authorization", "bearer_token"] {
        let reply = world.get(Op::Authorize, &format!("{target}&{name}={token}"), &Who::nobody()).await;
        reply.refused(Case::Caller);
    }
    let body = format!(r#"{{"grantType":"refresh_token","refreshToken":"{}","access_token":"{token}","token":"{token}"}}"#, tokens.refresh);
    world.post(Op::TokenV2, Op::TokenV2.path(), body, &Who::nobody()).await.refused(Case::Caller);
    for via in Via::BOTH {
        // The same token in both places says one thing; two say two.
        let call = Call::new(Op::Username).with("accessToken", token).by(Who::bearer(token));
        world.call(via, &call.clone().header("token", token)).await.ok();
        world.call(via, &call.header("token", &forged(token))).await.refused(Case::Parameter);
    }
    // Where the interface has it as a parameter it is what is asked about, and never who asks.
    for via in Via::BOTH {
        world.call(via, &Call::new(Op::Username).with("accessToken", token)).await.refused(Case::Caller);
        world.call(via, &valid(token)).await.refused(Case::Caller);
        world.call(via, &Call::new(Op::SignOutV281).with("accessToken", token)).await.refused(Case::Caller);
    }
    assert!(world.is_valid(&app, token).await);
}
