//! Which redirect URIs fit which registered ones.

use crate::harness::{Case, Op, Status, Via, Who, World, authorize, visitor::Visitor, world::encode};

/// A registered URI or pattern, and what is asked for beside it. `HOST` stands for a host of the app's own.
#[derive(serde::Deserialize)]
struct Shape {
    registered: String,
    fits: Vec<Asked>,
    misfits: Vec<Asked>,
}

/// What is asked for, and why it fits or does not.
#[derive(serde::Deserialize)]
struct Asked {
    uri: String,
    why: String,
}

fn shapes() -> Vec<Shape> {
    serde_json::from_str(include_str!("../../data/redirect-uris.json")).expect("the table is JSON")
}

#[tokio::test]
async fn a_redirect_uri_fits_as_documented_and_a_misfit_is_never_redirected_to() {
    let world = World::shared().await;
    let (_, ticket) = world.signed_in().await;
    let mut wrong = Vec::new();
    let shapes = shapes();
    assert!(shapes.iter().map(|shape| shape.misfits.len()).sum::<usize>() >= 60, "the table has shrunk");
    for shape in &shapes {
        let app =
            world.app_with(|app| app.redirect_uris = vec![shape.registered.replace("HOST", &format!("{}.invalid", app.app_id))]).await;
        let host = format!("{}.invalid", app.id);
        for (redirects, fits) in [(&shape.fits, true), (&shape.misfits, false)] {
            for Asked { uri, why } in redirects {
                let redirect = uri.replace("HOST", &host);
                for op in Op::AUTHORIZES {
                    for via in Via::BOTH {
                        let call = authorize(op, &app).but("redirectUri", Some(&redirect)).by(Who::ticket(&ticket));
                        let reply = world.call(via, &call).await;
                        if reply.is_ok() != fits {
                            wrong.push(format!(
                                "{redirect:?} ({why}) should {}fit {}: {}",
                                if fits { "" } else { "not " },
                                shape.registered,
                                reply.text
                            ));
                        } else if fits && reply.status == Status::Http(302) {
                            let location = url::Url::parse(reply.header("location").expect("a location")).expect("a URL");
                            assert_eq!(location.host_str(), Some(host.as_str()), "{redirect:?}");
                        } else if !fits {
                            reply.refused(Case::Parameter);
                            assert!(reply.header("location").is_none(), "{redirect:?}");
                        }
                    }
                }
                if fits {
                    continue;
                }
                // A browser gets a page, and goes nowhere, signed in or not.
                for signed_in in [true, false] {
                    let mut visitor = Visitor::default();
                    visitor.cookies.extend(signed_in.then(|| ("suposTicket".to_owned(), ticket.clone())));
                    let query = format!("responseType=code&appid={}&redirectUri={}&state=s", app.id, encode(&redirect));
                    for op in Op::AUTHORIZES {
                        let page = visitor.get(&world, &format!("{}?{query}", op.path())).await;
                        assert!(page.status == 400 && page.header("location").is_empty(), "{redirect:?} ({why}): {}", page.status);
                    }
                }
                // Nor does a misfit find its app by itself.
                let call = authorize(Op::Authorize, &app).but("appid", None).but("redirectUri", Some(&redirect)).by(Who::ticket(&ticket));
                world.call(Via::Envoy, &call).await.refused(Case::Parameter);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn any_of_several_registered_redirect_uris_will_do() {
    let world = World::shared().await;
    let app = world.app_with(|app| app.redirect_uris.push(format!("https://{}.invalid/second", app.app_id))).await;
    let (_, ticket) = world.signed_in().await;
    for redirect in [app.redirect.clone(), format!("https://{}.invalid/second", app.id)] {
        let reply =
            world.call(Via::Envoy, &authorize(Op::Authorize, &app).but("redirectUri", Some(&redirect)).by(Who::ticket(&ticket))).await;
        assert!(reply.header("location").is_some_and(|location| location.starts_with(&redirect)), "{}", reply.text);
    }
}
