//! How often somebody may be wrong.

use crate::harness::{App, Call, Case, Op, Setup, Via, Who, World, unique, valid};

fn sign_in(name: &str, password: &str) -> Call {
    Call::new(Op::SignIn).with("userName", name).with("password", password)
}

#[tokio::test]
async fn a19_who_guesses_passwords_has_to_wait_whether_the_user_is_there_or_not_and_the_users_own_browser_goes_on() {
    let world = World::own(Setup::default().argument("--failures-per-name", "3")).await;
    let user = world.user().await;
    let signed_in = world.call(Via::Envoy, &sign_in(&user.name, &user.password)).await;
    let cookies = signed_in.headers_of("set-cookie");
    let browser = cookies.iter().find(|cookie| cookie.starts_with("suposBrowser=")).and_then(|cookie| cookie.split(';').next());
    let browser = Who::headers(vec![("cookie", browser.expect("the browser is known from now on").to_owned())]);
    for name in [user.name.clone(), unique("nobody")] {
        for n in 0..3 {
            world.call(Via::BOTH[n % 2], &sign_in(&name, "not the password")).await.refused(Case::Password);
        }
        for via in Via::BOTH {
            for password in ["not the password", &user.password] {
                world.call(via, &sign_in(&name, password)).await.refused(Case::Tries);
            }
        }
    }
    world.call(Via::Envoy, &sign_in(&user.name, &user.password).by(browser.clone())).await.ok();
    world.call(Via::Envoy, &sign_in(&user.name, &user.password)).await.refused(Case::Tries);
    let other = world.user().await;
    world.call(Via::Envoy, &sign_in(&other.name, &other.password).by(browser)).await.ok();
}

#[tokio::test]
async fn a19_an_address_that_guesses_passwords_has_to_wait_whatever_names_it_tries() {
    let world = World::own(Setup::default().argument("--failures-per-good-address", "5")).await;
    let user = world.user().await;
    world.call(Via::Envoy, &sign_in(&user.name, &user.password)).await.ok();
    // One more may be wrong each second.
    let mut wrong = 0;
    let refused = loop {
        let reply = world.call(Via::BOTH[wrong % 2], &sign_in(&unique("nobody"), "not the password")).await;
        if reply.check_refusal(Case::Password).is_err() {
            break reply;
        }
        wrong += 1;
        assert!(wrong < 50, "there is no end to it");
    };
    refused.refused(Case::Tries);
    assert!(wrong >= 5, "only {wrong} were let");
}

#[tokio::test]
async fn a19_who_guesses_signatures_has_to_wait_and_those_that_are_right_pass() {
    let world = World::own(Setup::default().argument("--failures-per-good-address", "5")).await;
    let (app, _, _, tokens) = world.family().await;
    let ask = valid(&tokens.access);
    assert!(world.call(Via::Envoy, &ask.clone().by(app.who())).await.valid());
    let mut wrong = 0;
    let refused = loop {
        let stranger = if wrong % 2 == 0 { App::signing(&app.id, "wrong") } else { App::signing(&unique("no-such-app"), "wrong") };
        let reply = world.call(Via::BOTH[wrong / 2 % 2], &ask.clone().by(stranger)).await;
        if reply.check_refusal(Case::Caller).is_err() {
            break reply;
        }
        wrong += 1;
        assert!(wrong < 50, "there is no end to it");
    };
    refused.refused(Case::Tries);
    assert!(wrong >= 5, "only {wrong} were let");
    for via in Via::BOTH {
        assert!(world.call(via, &ask.clone().by(app.who())).await.valid());
    }
}
