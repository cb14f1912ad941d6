//! Where apps are told: at addresses of their own, and never where an attacker would like a call to go.

use super::{app_at, app_with, failed, logged, settled, sign_out, tokens_with, told};
use crate::harness::{
    Setup, World,
    sink::{Manner, Sink},
};

const OK: Manner = Manner::Status(200, None);

#[tokio::test]
async fn h8_a_logout_uri_is_resolved_against_the_redirect_uri_and_called_on_registered_origins_alone() {
    let world = World::own(Setup::default()).await;
    let (own, second, evil) = (Sink::start(OK), Sink::start(OK), Sink::start(OK));
    let app = app_with(&world, &[&own.url("/callback"), "com.example.app://cb"], &[&second.url("/logout")]).await;
    let (own_at, evil_at) = (own.address(), evil.address());
    // Of the base's own scheme and without slashes it is a path, as the URL standard has it.
    let same_scheme = format!("/{evil_at}");
    let called: [(&str, String, &Sink, &str); 8] = [
        ("the scheme alone before a host", format!("http:{evil_at}"), &own, &same_scheme),
        ("a path", "/logout?x=%20".to_owned(), &own, "/logout?x=%20"),
        ("a word", "logoutUri".to_owned(), &own, "/logoutUri"),
        ("a path with dots", "/a/../b".to_owned(), &own, "/b"),
        ("a URL", own.url("/elsewhere#f"), &own, "/elsewhere"),
        ("a URL on the origin of a logout URI", second.url("/x"), &second, "/x"),
        ("blanks", "  /blanks\t".to_owned(), &own, "/blanks"),
        ("a scheme-relative URL that stays at home", format!("//{own_at}/home"), &own, "/home"),
    ];
    for (what, said, sink, target) in called {
        let (_, ticket) = world.signed_in().await;
        tokens_with(&world, &app, &ticket, &said).await;
        sign_out(&world, &ticket).await;
        let call = sink.next().await;
        assert_eq!(call.target, target, "{what}: {said}");
    }
    settled(&world, &app).await;
    let before = own.connections() + second.connections();

    let never = [
        evil.url("/"),
        format!("//{evil_at}/x"),
        format!("/\\{evil_at}/x"),
        format!("\\\\{evil_at}\\x"),
        format!("\\/{evil_at}/x"),
        format!("http:\\\\{evil_at}"),
        format!("/\t/{evil_at}/"),
        format!("/\n/{evil_at}/"),
        format!("\r\n//{evil_at}/"),
        format!("ht\ttp://{evil_at}/"),
        format!("https:{own_at}"),
        format!("https:{evil_at}"),
        format!("http://{own_at}@{evil_at}/"),
        format!("http://{evil_at}#@{own_at}/"),
        format!("http://{evil_at}?@{own_at}/"),
        format!("http://{evil_at}\\@{own_at}/"),
        format!("http://{evil_at}@{own_at}/"),
        format!("http://user:password@{own_at}/"),
        format!("http://{own_at}.evil.invalid/"),
        format!("http://localhost:{}/", own_at.port()),
        format!("https://{own_at}/"),
        "file:///etc/passwd".to_owned(),
        "com.example.app://cb/logout".to_owned(),
        "javascript:alert(1)".to_owned(),
        "http://".to_owned(),
    ];
    for said in &never {
        let (_, ticket) = world.signed_in().await;
        let mark = world.service_log.mark();
        // Whatever it is, the exchange does not fail for it.
        tokens_with(&world, &app, &ticket, said).await;
        let line = logged(&world, mark, "an app's logoutUri is never called", &app);
        assert!(!line.to_string().contains("password@"), "{line}");
        sign_out(&world, &ticket).await;
        assert!(super::owed(&world, &app).await.is_empty(), "{said:?}");
    }
    assert_eq!(evil.connections(), 0);
    assert_eq!(own.connections() + second.connections(), before, "nothing of that was called");
}

#[tokio::test]
async fn g9_no_way_to_write_an_address_leads_to_a_forbidden_one() {
    // The demo's allowance is replaced by one of a network that nobody is on: loopback is forbidden, as it is in production.
    let world = World::own(Setup::default().argument("--outbound-allow", "192.0.2.0/24")).await;
    let bad = Sink::start(OK);
    let port = bad.address().port();
    let bad_v6 = Sink::at(&format!("[::1]:{port}"), OK);
    // An app registers each of these, as an administrator might be talked into: the origin is its own, and what decides is the address.
    let registered: Vec<String> = [
        format!("127.0.0.1:{port}"),
        format!("127.1:{port}"),
        format!("2130706433:{port}"),
        format!("0x7f.1:{port}"),
        format!("017700000001:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::]:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("[::ffff:7f00:1]:{port}"),
        format!("[64:ff9b::7f00:1]:{port}"),
        "169.254.169.254".to_owned(),
        "2852039166".to_owned(),
        "0xa9.0xfe.0xa9.0xfe".to_owned(),
        "0251.0376.0251.0376".to_owned(),
        "[fd00:ec2::254]".to_owned(),
        format!("localhost.:{port}"),
        format!("LOCALHOST:{port}"),
        format!("localhost:{port}"),
        "93.184.215.14:22".to_owned(),
        "93.184.215.14:25".to_owned(),
        "93.184.215.14:6379".to_owned(),
        format!("{}", world.grpc()),
        format!("{}", world.ops()),
        format!("{}", world.http()),
    ]
    .into_iter()
    .map(|authority| format!("http://{authority}/logout"))
    .collect();
    for uri in &registered {
        let (_, ticket) = world.signed_in().await;
        let app = app_with(&world, &["https://app.invalid/callback"], &[uri]).await;
        tokens_with(&world, &app, &ticket, uri).await;
        sign_out(&world, &ticket).await;
        let failed = failed(&world, &app).await;
        // Not every resolver knows that name with a dot at its end.
        let unknown = uri.contains("localhost.:") && failed.last_error.starts_with("its name cannot be looked up");
        assert!(unknown || failed.last_error.starts_with("its address may not be called"), "{uri}: {failed:?}");
    }

    // What is never an address of the app's, whatever it has registered.
    let good = "http://192.0.2.1:8080";
    let at = bad.address();
    let app = app_with(&world, &[&format!("{good}/callback")], &[]).await;
    let uncallable = [
        format!("http://[fe80::1%25lo]:{port}/"),
        format!("http://192.0.2.1:8080@{at}/"),
        format!("http://{at}#192.0.2.1:8080"),
        format!("http://192.0.2.1:8080\\@{at}/"),
        format!("http://{at}\\@192.0.2.1:8080/"),
        format!("//{at}/"),
        "file:///etc/passwd".to_owned(),
        format!("gopher://{at}/"),
        format!("unix:{}", world.edge().display()),
        "http://user:password@192.0.2.1:8080/".to_owned(),
    ];
    for said in &uncallable {
        let (_, ticket) = world.signed_in().await;
        tokens_with(&world, &app, &ticket, said).await;
        sign_out(&world, &ticket).await;
        let owed = super::owed(&world, &app).await;
        // The URL standard reads `good\@bad` as a path at the good host: that is where it goes.
        let elsewhere: Vec<_> = owed.iter().filter(|owed| !owed.uri.starts_with("http://192.0.2.1:8080/")).collect();
        assert!(elsewhere.is_empty(), "{said}: {elsewhere:?}");
    }
    // 64 KiB of it are refused at the door, and what is just too long is not kept.
    let (_, ticket) = world.signed_in().await;
    tokens_with(&world, &app, &ticket, &format!("{good}/{}", "x".repeat(8000))).await;
    sign_out(&world, &ticket).await;
    assert_eq!((bad.connections(), bad_v6.connections()), (0, 0), "nobody was called");
}

#[tokio::test]
async fn g9_our_own_listeners_are_not_called_though_loopback_is_allowed() {
    let world = World::own(Setup::default()).await;
    let sink = Sink::start(OK);
    let port = |address: std::net::SocketAddr| address.port();
    for host in ["127.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"] {
        for own in [port(world.grpc()), port(world.ops()), port(world.http())] {
            let (_, ticket) = world.signed_in().await;
            let uri = format!("http://{host}:{own}/logout");
            let app = app_with(&world, &["https://app.invalid/callback"], &[&uri]).await;
            tokens_with(&world, &app, &ticket, &uri).await;
            sign_out(&world, &ticket).await;
            let failed = failed(&world, &app).await;
            assert!(failed.last_error.starts_with("its address may not be called"), "{uri}: {failed:?}");
        }
        let (_, ticket) = world.signed_in().await;
        let uri = format!("http://{host}:{}/logout", sink.address().port());
        let app = app_with(&world, &["https://app.invalid/callback"], &[&uri]).await;
        let tokens = tokens_with(&world, &app, &ticket, &uri).await;
        sign_out(&world, &ticket).await;
        told(&world, &sink, &app, &tokens).await;
    }
}

#[tokio::test]
async fn b8_a_redirect_leads_nowhere() {
    let world = World::own(Setup::default().argument("--outbound-allow", "127.0.0.1/32")).await;
    let bad = Sink::at("127.0.0.2:0", OK);
    for status in [301, 302, 303, 307, 308] {
        let sink = Sink::start(Manner::Status(status, Some(bad.url("/logout"))));
        let app = app_at(&world, &sink).await;
        let (_, ticket) = world.signed_in().await;
        world.tokens(&app, &ticket).await;
        sign_out(&world, &ticket).await;
        assert_eq!(failed(&world, &app).await.last_error, format!("the app answered {status}"));
    }
    assert_eq!(bad.connections(), 0);
}

#[tokio::test]
async fn a_path_cannot_smuggle_a_second_request_or_header() {
    let world = World::own(Setup::default()).await;
    let sink = Sink::start(OK);
    let app = app_at(&world, &sink).await;
    for (said, target) in [
        ("/a\r\nx-evil: 1\r\n\r\nGET /b", "/ax-evil:%201GET%20/b"),
        ("/a%0d%0ax-evil:%201", "/a%0d%0ax-evil:%201"),
        ("/\u{e9}\u{2028}", "/%C3%A9%E2%80%A8"),
    ] {
        let (_, ticket) = world.signed_in().await;
        tokens_with(&world, &app, &ticket, said).await;
        sign_out(&world, &ticket).await;
        let call = sink.next().await;
        assert_eq!(call.target, target);
        assert!(!call.head.to_ascii_lowercase().contains("\r\nx-evil"), "{}", call.head);
    }
    settled(&world, &app).await;
    assert_eq!(sink.connections(), 3);
}

#[tokio::test]
async fn an_operator_can_forbid_private_networks() {
    let world = World::own(Setup { arguments: vec!["--outbound-deny-private".to_owned()], ..Setup::default() }).await;
    let (_, ticket) = world.signed_in().await;
    let uri = "http://10.255.255.1:8080/logout";
    let app = app_with(&world, &["https://app.invalid/callback"], &[uri]).await;
    tokens_with(&world, &app, &ticket, uri).await;
    sign_out(&world, &ticket).await;
    assert!(failed(&world, &app).await.last_error.starts_with("its address may not be called"));
}
