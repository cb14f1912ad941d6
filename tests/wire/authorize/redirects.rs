//! Which redirect URIs fit which registered ones.

use crate::harness::{Case, Op, Status, Via, Who, World, authorize};

/// A registered URI or pattern, and what is asked for beside it. `HOST` stands for a host of the app's own.
struct Shape {
    registered: &'static str,
    fit: &'static [&'static str],
    unfit: &'static [&'static str],
}

const SHAPES: &[Shape] = &[
    // Registered as it stands: the same string and nothing else, but for the fragment.
    Shape {
        registered: "https://HOST/callback",
        fit: &["https://HOST/callback", "https://HOST/callback#part"],
        unfit: &[
            "https://HOST/callback/",
            "https://HOST/callback/more",
            "https://HOST/callback?a=1",
            "https://HOST/callback?",
            "https://HOST/Callback",
            "https://HOST/",
            "https://HOST",
            "http://HOST/callback",
            "https://HOST:444/callback",
            "https://HOST/x/../callback",
            "https://HOST/%63allback",
            "https://HOST//callback",
            "https://HOST/callback;x",
            "https://HOST/callback%20",
            "https://HOST/callback%00",
            "https://HOST.evil.invalid/callback",
            "https://evil.invalid/callback",
            "https://evil.invalid/https://HOST/callback",
            "https://user@HOST/callback",
            "https://HOST@evil.invalid/callback",
            "https://evil.invalid#@HOST/callback",
            "https://evil.invalid\\@HOST/callback",
            "//HOST/callback",
            "/callback",
            "javascript:alert(1)//HOST/callback",
            "data:text/html,HOST/callback",
            " https://HOST/callback",
            "https://HOST/callback ",
            "https://HOST/callback\n",
            "https://HOST/call\tback",
        ],
    },
    // A pattern: anything beneath the path, any query.
    Shape {
        registered: "https://HOST/app/*",
        fit: &[
            "https://HOST/app/",
            "https://HOST/app/a/b/c",
            "https://HOST/app/a?x=1&y=https://evil.invalid/..",
            "https://HOST/app/a#part",
            "https://HOST:443/app/a",
            "https://HOST/app/a%20b",
        ],
        unfit: &[
            "https://HOST/app",
            "https://HOST/application",
            "https://HOST/",
            "https://HOST/APP/a",
            "http://HOST/app/a",
            "https://HOST:8443/app/a",
            "https://HOST/app/../admin",
            "https://HOST/app/a/..",
            "https://HOST/app/..;/admin",
            "https://HOST/app/.%2e/admin",
            "https://HOST/app/%2e%2e/admin",
            "https://HOST/app/%2E./admin",
            "https://HOST/app/a%2fb",
            "https://HOST/app/a%2Fb",
            "https://HOST/app/a%5cb",
            "https://HOST/app/a\\b",
            "https://HOST\\app\\a",
            "https://HOST/app\\..\\admin",
            "https://user@HOST/app/a",
            "https://user:word@HOST/app/a",
            "https://@HOST/app/a",
            "https://HOST@evil.invalid/app/a",
            "https://evil.invalid@HOST@evil.invalid/app/a",
            "https://evil.invalid/app/a",
            "https://evilHOST/app/a",
            "https://HOST.evil.invalid/app/a",
            "https:HOST/app/a",
            "https:/HOST/app/a",
            "https:///HOST/app/a",
            "//HOST/app/a",
            "https://HOST/app/a\u{0}",
            "https://HOST/app/a\r\nset-cookie: x=y",
            "https://HOST/app/a\tb",
            "JavaScript://HOST/app/a",
            "file:///HOST/app/a",
            "https://*/app/a",
        ],
    },
    Shape {
        registered: "http://HOST:8081/*",
        fit: &["http://HOST:8081/", "http://HOST:8081/a", "http://HOST:8081/a?b#c"],
        unfit: &[
            "http://HOST/a",
            "http://HOST:80/a",
            "http://HOST:808/a",
            "http://HOST:80810/a",
            "https://HOST:8081/a",
            "http://HOST:8081@evil.invalid/a",
        ],
    },
    Shape {
        registered: "http://HOST/*",
        fit: &["http://HOST/a", "http://HOST:80/a"],
        unfit: &["https://HOST/a", "http://HOST:443/a", "http://HOST:8081/a"],
    },
    Shape {
        registered: "https://HOST/one?fixed=1",
        fit: &["https://HOST/one?fixed=1", "https://HOST/one?fixed=1#x"],
        unfit: &["https://HOST/one", "https://HOST/one?fixed=2", "https://HOST/one?fixed=1&more=2", "https://HOST/one?FIXED=1"],
    },
];

#[tokio::test]
async fn a_redirect_uri_fits_as_documented_and_a_misfit_is_never_redirected_to() {
    let world = World::shared().await;
    let (_, ticket) = world.signed_in().await;
    let mut wrong = Vec::new();
    for shape in SHAPES {
        let app =
            world.app_with(|app| app.redirect_uris = vec![shape.registered.replace("HOST", &format!("{}.invalid", app.app_id))]).await;
        let host = format!("{}.invalid", app.id);
        for (redirects, fits) in [(shape.fit, true), (shape.unfit, false)] {
            for redirect in redirects {
                let redirect = redirect.replace("HOST", &host);
                for op in Op::AUTHORIZES {
                    for via in Via::BOTH {
                        let call = authorize(op, &app).but("redirectUri", Some(&redirect)).by(Who::ticket(&ticket));
                        let reply = world.call(via, &call).await;
                        if reply.is_ok() != fits {
                            wrong.push(format!(
                                "{redirect:?} should {}fit {}: {}",
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
