//! What administrators do with authorities.

use prost_types::FieldMask;
use supos_auth::grpc::pb::supos::auth::admin::v1::{
    CreateIdentityProviderRequest, DeleteIdentityProviderRequest, DeleteUserRequest, EnableIdentityProviderRequest,
    GetIdentityProviderRequest, IdentityProvider, Link, LinkOrigin, LinkUserRequest, ListIdentityProvidersRequest, ListLinksRequest,
    UnlinkUserRequest, UpdateIdentityProviderRequest,
};
use tonic::Code;

use super::stage::{Browser, Fake, redirect_uri, registered, ticket};
use crate::harness::{Case, Via, Who, World, native, unique};

fn asked(name: &str) -> IdentityProvider {
    IdentityProvider {
        display_name: name.to_owned(),
        client_id: "id".to_owned(),
        authorization_uri: "https://authority.invalid/a".to_owned(),
        token_uri: "https://authority.invalid/t".to_owned(),
        userinfo_uri: "https://authority.invalid/u".to_owned(),
        logout_uri: "https://authority.invalid/l".to_owned(),
        ..IdentityProvider::default()
    }
}

async fn create(world: &World, identity_provider: IdentityProvider) -> Result<IdentityProvider, tonic::Status> {
    let message = CreateIdentityProviderRequest { identity_provider: Some(identity_provider), client_secret: "s".to_owned() };
    let made = world.authorities().create_identity_provider(world.as_admin(message).await).await?;
    Ok(made.into_inner().identity_provider.expect("the authority"))
}

async fn update(world: &World, changed: IdentityProvider, paths: &[&str], secret: &str) -> Result<IdentityProvider, tonic::Status> {
    let message = UpdateIdentityProviderRequest {
        identity_provider: Some(changed),
        update_mask: Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() }),
        client_secret: secret.to_owned(),
    };
    let updated = world.authorities().update_identity_provider(world.as_admin(message).await).await?;
    Ok(updated.into_inner().identity_provider.expect("the authority"))
}

async fn links(world: &World, message: ListLinksRequest) -> Vec<Link> {
    world.authorities().list_links(world.as_admin(message).await).await.expect("links are listed").into_inner().links
}

#[tokio::test]
async fn an_administrator_makes_reads_lists_changes_and_deletes_authorities() {
    let world = World::shared().await;
    let name = unique("managed");
    let made = create(&world, asked(&name)).await.expect("it can be made");
    assert_eq!((made.enabled, made.link_by_name, made.create_users), (Some(true), Some(true), false));
    assert_eq!(made.redirect_uri, redirect_uri(&world));
    for by in [made.name.clone(), format!("identityProviders/~{name}")] {
        let request = world.as_admin(GetIdentityProviderRequest { name: by }).await;
        let got = world.authorities().get_identity_provider(request).await.expect("it is there").into_inner();
        assert_eq!(got.identity_provider.as_ref(), Some(&made));
        assert!(!format!("{got:?}").contains("client_secret"));
    }
    assert_eq!(create(&world, asked(&name)).await.map_err(|status| status.code()).err(), Some(Code::AlreadyExists));

    let new_name = unique("renamed");
    let changed = IdentityProvider {
        name: made.name.clone(),
        display_name: new_name.clone(),
        token_uri: "https://other.invalid/t".to_owned(),
        create_users: true,
        ..IdentityProvider::default()
    };
    let updated = update(&world, changed.clone(), &["display_name", "create_users"], "").await.expect("it can be changed");
    assert_eq!((updated.display_name.as_str(), updated.create_users), (new_name.as_str(), true));
    assert_eq!(updated.token_uri, made.token_uri, "what the mask does not name stays");
    update(&world, changed.clone(), &[], "a new secret").await.expect("the secret can be changed alone");
    for (paths, code) in [(&[][..], Code::InvalidArgument), (&["enabled"], Code::InvalidArgument), (&["client_id"], Code::InvalidArgument)]
    {
        assert_eq!(update(&world, changed.clone(), paths, "").await.map_err(|status| status.code()).err(), Some(code), "{paths:?}");
    }
    let bad = IdentityProvider { token_uri: "http://169.254.169.254/".to_owned(), ..changed.clone() };
    assert_eq!(update(&world, bad, &["token_uri"], "").await.map_err(|status| status.code()).err(), Some(Code::InvalidArgument));
    let other = create(&world, asked(&name)).await.expect("its old name is free");
    let clash = IdentityProvider { name: other.name, display_name: new_name, ..IdentityProvider::default() };
    assert_eq!(update(&world, clash, &["display_name"], "").await.map_err(|status| status.code()).err(), Some(Code::AlreadyExists));

    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = world.as_admin(ListIdentityProvidersRequest { page_size: 1, page_token }).await;
        let page = world.authorities().list_identity_providers(request).await.expect("they are listed").into_inner();
        all.extend(page.identity_providers.into_iter().map(|authority| authority.display_name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(all.contains(&name) && all.is_sorted(), "{all:?}");
    let delete = async || {
        let request = world.as_admin(DeleteIdentityProviderRequest { name: made.name.clone() }).await;
        world.authorities().delete_identity_provider(request).await.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(delete().await, Ok(()));
    assert_eq!(delete().await, Err(Code::NotFound));
}

#[tokio::test]
async fn links_are_made_listed_and_removed_and_go_with_either_end() {
    let world = World::shared().await;
    let (user, other) = (world.user().await, world.user().await);
    let fake = Fake::of("by-name", &user.name).await;
    let authority = registered(&world, &fake, |_| {}).await;
    let name = format!("identityProviders/{}", authority.id);
    let link = async |subject: &str, user: &str| {
        let message = LinkUserRequest { identity_provider: name.clone(), subject: subject.to_owned(), user: format!("users/~{user}") };
        world.authorities().link_user(world.as_admin(message).await).await.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(link("one", &user.name).await, Ok(()));
    assert_eq!(link("one", &user.name).await, Ok(()), "again is no error");
    assert_eq!(link("one", &other.name).await, Err(Code::AlreadyExists));
    assert_eq!(link("two", &other.name).await, Ok(()));
    assert_eq!(link("", &user.name).await, Err(Code::InvalidArgument));
    assert_eq!(link(&"x".repeat(257), &user.name).await, Err(Code::InvalidArgument));
    assert_eq!(link("three", "nobody-of-that-name").await, Err(Code::NotFound));
    let browser = Browser::of(&world).await;
    ticket(&world, &world.call(Via::Envoy, &browser.begins(&world, &authority).back()).await);

    let of_authority = ListLinksRequest { identity_provider: name.clone(), ..ListLinksRequest::default() };
    let of_user = ListLinksRequest { user: format!("users/~{}", user.name), ..ListLinksRequest::default() };
    let listed = links(&world, of_authority.clone()).await;
    let shown: Vec<_> = listed.iter().map(|link| (link.subject.as_str(), link.user_name.as_str(), link.origin())).collect();
    let (by_name, by_hand) = (LinkOrigin::Name, LinkOrigin::Administrator);
    assert_eq!(shown, [("by-name", user.name.as_str(), by_name), ("one", &user.name, by_hand), ("two", &other.name, by_hand)]);
    assert_eq!(links(&world, of_user.clone()).await.len(), 2);
    for wrong in [ListLinksRequest::default(), ListLinksRequest { user: of_user.user.clone(), ..of_authority.clone() }] {
        let refused = world.authorities().list_links(world.as_admin(wrong).await).await;
        assert_eq!(refused.map_err(|status| status.code()).err(), Some(Code::InvalidArgument));
    }
    let unlink = async |subject: &str| {
        let message = UnlinkUserRequest { identity_provider: name.clone(), subject: subject.to_owned() };
        world.authorities().unlink_user(world.as_admin(message).await).await.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(unlink("two").await, Ok(()));
    assert_eq!(unlink("two").await, Err(Code::NotFound));
    let request = world.as_admin(DeleteUserRequest { name: format!("users/{}", user.id) }).await;
    world.users().delete_user(request).await.expect("he can be deleted");
    assert!(links(&world, of_authority).await.is_empty());
    world.call(Via::Envoy, &browser.begins(&world, &authority).back()).await.refused(Case::Stranger);
}

#[tokio::test]
async fn only_administrators_manage_authorities() {
    let world = World::shared().await;
    let (_, ticket) = world.signed_in().await;
    for (who, code) in [(Who::nobody(), Code::Unauthenticated), (Who::authorization(&format!("Ticket {ticket}")), Code::PermissionDenied)] {
        let request = native::request(ListIdentityProvidersRequest::default(), &who);
        assert_eq!(world.authorities().list_identity_providers(request).await.map_err(|status| status.code()).err(), Some(code));
        let request = native::request(EnableIdentityProviderRequest { name: "identityProviders/~x".to_owned() }, &who);
        assert_eq!(world.authorities().enable_identity_provider(request).await.map_err(|status| status.code()).err(), Some(code));
        let request = native::request(LinkUserRequest::default(), &who);
        assert_eq!(world.authorities().link_user(request).await.map_err(|status| status.code()).err(), Some(code));
    }
}

#[tokio::test]
async fn the_command_line_does_all_of_it() {
    let world = World::shared().await;
    let user = world.user().await;
    let who = world.admin().await;
    let ticket = who.headers[0].1.strip_prefix("Ticket ").expect("a ticket").to_owned();
    let folder = tempfile::TempDir::new().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "the-secret-of-the-file\n").expect("a file");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_supos-auth"))
            .args(["authority"])
            .args(arguments)
            .args(["--output", "json"])
            .env("SUPOS_AUTH_SERVER", format!("http://{}", world.grpc()))
            .env("SUPOS_AUTH_TICKET", &ticket)
            .env("HOME", folder.path())
            .output()
            .expect("the binary runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(!format!("{out}{err}").contains("the-secret-of-the-file"));
        if output.status.success() { Ok(serde_json::from_str::<serde_json::Value>(&out).unwrap_or_default()) } else { Err(err) }
    };
    let (name, secret) = (unique("by-cli"), secret.to_str().expect("a path"));
    let create = ["create", &name, "--client-id", "id", "--client-secret-file", secret, "--authorization-uri", "https://a.invalid/a"];
    let uris = ["--token-uri", "https://a.invalid/t", "--userinfo-uri", "https://a.invalid/u", "--logout-uri", "https://a.invalid/l"];
    let made = run(&[&create[..], &uris[..], &["--disabled"]].concat()).expect("it is made");
    assert_eq!((&made["displayName"], &made["enabled"], &made["linkByName"]), (&name.clone().into(), &false.into(), &true.into()));
    assert!(run(&[&create[..], &uris[..]].concat()).expect_err("the name is taken").contains("exists already"));
    assert_eq!(run(&["enable", &name]).expect("it is enabled")["enabled"], true);
    let updated = run(&["update", &name, "--create-users", "true", "--client-secret-file", secret]).expect("it is changed");
    assert_eq!((&updated["createUsers"], &updated["clientId"]), (&true.into(), &"id".into()));
    assert_eq!(run(&["get", made["name"].as_str().expect("a name")]).expect("it is there"), updated);
    assert!(run(&["list"]).expect("they are listed").as_array().is_some_and(|all| all.contains(&updated)));
    let linked = run(&["link", &name, "sub ject/1", &user.name]).expect("he is linked");
    assert_eq!((&linked["userName"], &linked["origin"]), (&user.name.clone().into(), &"LINK_ORIGIN_ADMINISTRATOR".into()));
    for of in [["links", "--authority", &name], ["links", "--user", &user.name]] {
        assert_eq!(run(&of).expect("links are listed"), serde_json::json!([linked]));
    }
    assert!(run(&["unlink", &name, "sub ject/1"]).expect_err("it asks first").contains("--yes"));
    run(&["unlink", &name, "sub ject/1", "--yes"]).expect("he is unlinked");
    assert_eq!(run(&["disable", &name]).expect("it is disabled")["enabled"], false);
    run(&["delete", &name, "--yes"]).expect("it is deleted");
    assert!(run(&["get", &name]).expect_err("it is gone").contains("no such"));
}
