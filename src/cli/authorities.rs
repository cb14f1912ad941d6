//! `supos-auth authority`: third-party certification authorities, and who their users are here.

use std::{convert::Infallible, path::PathBuf, str::FromStr};

use clap::{ArgAction, ArgGroup, Args, Subcommand};
use serde::Serialize;

use super::{
    AdminArgs,
    apps::field_mask,
    connection::Admin,
    failure::Failure,
    input::{self, Consent},
    names::{self, UserName},
    output::Record,
    pages::{self, LimitArg, Page},
    views::{Received as _, Time, shown, time, yes_no},
};
use crate::grpc::pb::supos::auth::admin::v1 as pb;

#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// Register an authority.
    Create(CreateArgs),
    /// Show one authority.
    Get(AuthorityArg),
    /// List authorities by name.
    List(LimitArg),
    /// Change an authority; what is not given stays as it is.
    Update(UpdateArgs),
    /// Delete an authority and its links.
    Delete(DeleteArgs),
    /// Let users sign in at an authority, also at one that was pending.
    Enable(AuthorityArg),
    /// Stop an authority: nobody can sign in at it.
    Disable(AuthorityArg),
    /// Say who a user of an authority is here: the way for administrators and users with rights, who are never linked by name.
    Link(LinkArgs),
    /// Forget who a user of an authority is here.
    Unlink(UnlinkArgs),
    /// List the links of an authority or of a user.
    Links(LinksArgs),
}

/// The authority that a command is about.
#[derive(Debug, Args)]
pub(crate) struct AuthorityArg {
    /// The authority's name, or `identityProviders/ID` for the one with that id.
    authority: AuthorityName,
}

/// An authority by name or id, as the API writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AuthorityName(String);

impl FromStr for AuthorityName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(if text.starts_with("identityProviders/") { text.to_owned() } else { format!("identityProviders/~{text}") }))
    }
}

impl AuthorityName {
    /// The name or the id, for people to read.
    fn shown(&self) -> &str {
        self.0.strip_prefix("identityProviders/~").unwrap_or(&self.0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The name that the sign-in page shows.
    display_name: String,
    /// The id that the authority knows this service by.
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// A file with the secret that goes with the client id, or - for standard input.
    #[arg(long, value_name = "FILE")]
    client_secret_file: PathBuf,
    /// Where the browser is sent to sign in.
    #[arg(long, value_name = "URI")]
    authorization_uri: String,
    /// Where the service swaps the authority's code for its token.
    #[arg(long, value_name = "URI")]
    token_uri: String,
    /// Where the service reads who has signed in.
    #[arg(long, value_name = "URI")]
    userinfo_uri: String,
    /// Where the browser is sent to sign out.
    #[arg(long, value_name = "URI")]
    logout_uri: String,
    /// Do not find users by their names: an administrator links them.
    #[arg(long)]
    no_link_by_name: bool,
    /// Make users whom nobody here has the name of.
    #[arg(long)]
    create_users: bool,
    /// Make it disabled.
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    authority: AuthorityArg,
    /// The name that the sign-in page shows.
    #[arg(long, value_name = "NAME", group = "change")]
    display_name: Option<String>,
    /// The id that the authority knows this service by.
    #[arg(long, value_name = "ID", group = "change")]
    client_id: Option<String>,
    /// A file with a new secret, or - for standard input.
    #[arg(long, value_name = "FILE", group = "change")]
    client_secret_file: Option<PathBuf>,
    /// Where the browser is sent to sign in.
    #[arg(long, value_name = "URI", group = "change")]
    authorization_uri: Option<String>,
    /// Where the service swaps the authority's code for its token.
    #[arg(long, value_name = "URI", group = "change")]
    token_uri: Option<String>,
    /// Where the service reads who has signed in.
    #[arg(long, value_name = "URI", group = "change")]
    userinfo_uri: Option<String>,
    /// Where the browser is sent to sign out.
    #[arg(long, value_name = "URI", group = "change")]
    logout_uri: Option<String>,
    /// Whether users are found by their names the first time.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, group = "change")]
    link_by_name: Option<bool>,
    /// Whether users are made whom nobody here has the name of.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, group = "change")]
    create_users: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    authority: AuthorityArg,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    #[command(flatten)]
    authority: AuthorityArg,
    /// The id that the user has at the authority (`sub`).
    subject: String,
    /// The user's name here, or `users/ID` for the user with that id.
    user: UserName,
}

#[derive(Debug, Args)]
pub(crate) struct UnlinkArgs {
    #[command(flatten)]
    authority: AuthorityArg,
    /// The id that the user has at the authority (`sub`).
    subject: String,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true))]
pub(crate) struct LinksArgs {
    /// The authority whose links to list: its name, or `identityProviders/ID`.
    #[arg(long, value_name = "NAME", group = "whose")]
    authority: Option<AuthorityName>,
    /// The user whose links to list: his name, or `users/ID`.
    #[arg(long, value_name = "NAME", group = "whose")]
    user: Option<UserName>,
    #[command(flatten)]
    limit: LimitArg,
}

/// Runs a command about authorities.
pub(crate) async fn run(args: &AdminArgs, command: AuthorityCommand) -> Result<(), Failure> {
    let output = args.output();
    match command {
        AuthorityCommand::Create(create) => {
            let request = create.into_request()?;
            let admin = args.sign_on().await?;
            let made = admin.call(admin.authorities().create_identity_provider(request)).await?;
            output.object(&Authority::received(made.identity_provider)?)
        }
        AuthorityCommand::Get(AuthorityArg { authority }) => {
            let admin = args.sign_on().await?;
            let request = pb::GetIdentityProviderRequest { name: authority.0 };
            let got = admin.call(admin.authorities().get_identity_provider(request)).await?;
            output.object(&Authority::received(got.identity_provider)?)
        }
        AuthorityCommand::List(limit) => output.list(&list(&args.sign_on().await?, &limit).await?),
        AuthorityCommand::Update(update) => {
            let request = update.into_request()?;
            let admin = args.sign_on().await?;
            let updated = admin.call(admin.authorities().update_identity_provider(request)).await?;
            output.object(&Authority::received(updated.identity_provider)?)
        }
        AuthorityCommand::Delete(DeleteArgs { authority: AuthorityArg { authority }, consent }) => {
            consent.obtain(&format!("Delete the authority {} and its links? Nobody can sign in at it any more.", authority.shown()))?;
            let admin = args.sign_on().await?;
            let request = pb::DeleteIdentityProviderRequest { name: authority.0.clone() };
            admin.call(admin.authorities().delete_identity_provider(request)).await?;
            output.done(&format!("deleted the authority {}", authority.shown()))
        }
        AuthorityCommand::Enable(AuthorityArg { authority }) => {
            let admin = args.sign_on().await?;
            let request = pb::EnableIdentityProviderRequest { name: authority.0 };
            let enabled = admin.call(admin.authorities().enable_identity_provider(request)).await?;
            output.object(&Authority::received(enabled.identity_provider)?)
        }
        AuthorityCommand::Disable(AuthorityArg { authority }) => {
            let admin = args.sign_on().await?;
            let request = pb::DisableIdentityProviderRequest { name: authority.0 };
            let disabled = admin.call(admin.authorities().disable_identity_provider(request)).await?;
            output.object(&Authority::received(disabled.identity_provider)?)
        }
        AuthorityCommand::Link(LinkArgs { authority: AuthorityArg { authority }, subject, user }) => {
            let admin = args.sign_on().await?;
            let request = pb::LinkUserRequest { identity_provider: authority.0, subject, user: user.0 };
            let linked = admin.call(admin.authorities().link_user(request)).await?;
            output.object(&Link::received(linked.link)?)
        }
        AuthorityCommand::Unlink(UnlinkArgs { authority: AuthorityArg { authority }, subject, consent }) => {
            consent.obtain(&format!("Unlink {subject} of the authority {}?", authority.shown()))?;
            let admin = args.sign_on().await?;
            let request = pb::UnlinkUserRequest { identity_provider: authority.0.clone(), subject: subject.clone() };
            admin.call(admin.authorities().unlink_user(request)).await?;
            output.done(&format!("unlinked {subject} of the authority {}", authority.shown()))
        }
        AuthorityCommand::Links(links) => output.list(&list_links(&args.sign_on().await?, &links).await?),
    }
}

async fn list(admin: &Admin, limit: &LimitArg) -> Result<Vec<Authority>, Failure> {
    pages::read_all(limit, async |page_size, page_token| {
        let request = pb::ListIdentityProvidersRequest { page_size, page_token };
        let page = admin.call(admin.authorities().list_identity_providers(request)).await?;
        let items = page.identity_providers.into_iter().map(Authority::from).collect();
        Ok::<_, Failure>(Page { items, next_page_token: page.next_page_token })
    })
    .await
}

async fn list_links(admin: &Admin, links: &LinksArgs) -> Result<Vec<Link>, Failure> {
    let identity_provider = links.authority.as_ref().map(|authority| authority.0.clone()).unwrap_or_default();
    let user = links.user.as_ref().map(|user| user.0.clone()).unwrap_or_default();
    pages::read_all(&links.limit, async |page_size, page_token| {
        let request = pb::ListLinksRequest { identity_provider: identity_provider.clone(), user: user.clone(), page_size, page_token };
        let page = admin.call(admin.authorities().list_links(request)).await?;
        Ok::<_, Failure>(Page { items: page.links.into_iter().map(Link::from).collect(), next_page_token: page.next_page_token })
    })
    .await
}

impl CreateArgs {
    fn into_request(self) -> Result<pb::CreateIdentityProviderRequest, Failure> {
        let identity_provider = pb::IdentityProvider {
            display_name: self.display_name,
            client_id: self.client_id,
            authorization_uri: self.authorization_uri,
            token_uri: self.token_uri,
            userinfo_uri: self.userinfo_uri,
            logout_uri: self.logout_uri,
            enabled: Some(!self.disabled),
            link_by_name: Some(!self.no_link_by_name),
            create_users: self.create_users,
            ..pb::IdentityProvider::default()
        };
        let client_secret = input::secret_from(&self.client_secret_file)?;
        Ok(pb::CreateIdentityProviderRequest { identity_provider: Some(identity_provider), client_secret })
    }
}

impl UpdateArgs {
    /// The new values, and the mask that names them.
    fn into_request(self) -> Result<pb::UpdateIdentityProviderRequest, Failure> {
        let named = [
            ("display_name", self.display_name.is_some()),
            ("client_id", self.client_id.is_some()),
            ("authorization_uri", self.authorization_uri.is_some()),
            ("token_uri", self.token_uri.is_some()),
            ("userinfo_uri", self.userinfo_uri.is_some()),
            ("logout_uri", self.logout_uri.is_some()),
            ("link_by_name", self.link_by_name.is_some()),
            ("create_users", self.create_users.is_some()),
        ];
        let identity_provider = pb::IdentityProvider {
            name: self.authority.authority.0,
            display_name: self.display_name.unwrap_or_default(),
            client_id: self.client_id.unwrap_or_default(),
            authorization_uri: self.authorization_uri.unwrap_or_default(),
            token_uri: self.token_uri.unwrap_or_default(),
            userinfo_uri: self.userinfo_uri.unwrap_or_default(),
            logout_uri: self.logout_uri.unwrap_or_default(),
            link_by_name: self.link_by_name,
            create_users: self.create_users.unwrap_or_default(),
            ..pb::IdentityProvider::default()
        };
        let client_secret = self.client_secret_file.as_deref().map(input::secret_from).transpose()?.unwrap_or_default();
        let update_mask = Some(field_mask(&named));
        Ok(pb::UpdateIdentityProviderRequest { identity_provider: Some(identity_provider), update_mask, client_secret })
    }
}

/// An authority, as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Authority {
    name: String,
    display_name: String,
    client_id: String,
    authorization_uri: String,
    token_uri: String,
    userinfo_uri: String,
    logout_uri: String,
    enabled: bool,
    link_by_name: bool,
    create_users: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_until: Time,
    pending_from: String,
    redirect_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_time: Time,
}

impl From<pb::IdentityProvider> for Authority {
    fn from(authority: pb::IdentityProvider) -> Self {
        Self {
            name: authority.name,
            display_name: authority.display_name,
            client_id: authority.client_id,
            authorization_uri: authority.authorization_uri,
            token_uri: authority.token_uri,
            userinfo_uri: authority.userinfo_uri,
            logout_uri: authority.logout_uri,
            enabled: authority.enabled.unwrap_or_default(),
            link_by_name: authority.link_by_name.unwrap_or_default(),
            create_users: authority.create_users,
            pending_until: time(authority.pending_until),
            pending_from: authority.pending_from,
            redirect_uri: authority.redirect_uri,
            create_time: time(authority.create_time),
            update_time: time(authority.update_time),
        }
    }
}

impl Record for Authority {
    const COLUMNS: &'static [&'static str] = &["name", "id", "state", "links by name", "makes users", "authorization URI"];

    fn details(&self) -> Vec<(&'static str, String)> {
        let state = match (&self.pending_until, self.enabled) {
            (Some(_), _) => format!("pending until {}, from {}", shown(&self.pending_until), self.pending_from),
            (None, true) => "enabled".to_owned(),
            (None, false) => "disabled".to_owned(),
        };
        vec![
            ("name", self.display_name.clone()),
            ("id", names::id(&self.name).to_owned()),
            ("state", state),
            ("client id", self.client_id.clone()),
            ("authorization URI", self.authorization_uri.clone()),
            ("token URI", self.token_uri.clone()),
            ("userinfo URI", self.userinfo_uri.clone()),
            ("logout URI", self.logout_uri.clone()),
            ("redirect URI, to be registered there", self.redirect_uri.clone()),
            ("links by name", yes_no(self.link_by_name)),
            ("makes users", yes_no(self.create_users)),
            ("made", shown(&self.create_time)),
            ("changed", shown(&self.update_time)),
        ]
    }
}

/// A link, as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    identity_provider: String,
    subject: String,
    user: String,
    user_name: String,
    origin: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Time,
}

impl From<pb::Link> for Link {
    fn from(link: pb::Link) -> Self {
        Self {
            origin: link.origin().as_str_name(),
            identity_provider: link.identity_provider,
            subject: link.subject,
            user: link.user,
            user_name: link.user_name,
            create_time: time(link.create_time),
        }
    }
}

impl Record for Link {
    const COLUMNS: &'static [&'static str] = &["subject", "user name", "authority id", "linked by", "made"];

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("subject", self.subject.clone()),
            ("user name", self.user_name.clone()),
            ("user id", names::id(&self.user).to_owned()),
            ("authority id", names::id(&self.identity_provider).to_owned()),
            ("linked by", self.origin.trim_start_matches("LINK_ORIGIN_").to_ascii_lowercase()),
            ("made", shown(&self.create_time)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn authorities_go_by_name_or_id() {
        let name = |text: &str| text.parse::<AuthorityName>().unwrap().0;
        assert_eq!(name("Plant login"), "identityProviders/~Plant login");
        assert_eq!(name("identityProviders/01"), "identityProviders/01");
    }

    #[test]
    fn an_authority_and_a_link_are_printed_as_the_api_has_them() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let authority = Authority::from(pb::IdentityProvider {
            name: "identityProviders/1".to_owned(),
            display_name: "Plant".to_owned(),
            client_id: "c".to_owned(),
            authorization_uri: "a".to_owned(),
            token_uri: "t".to_owned(),
            userinfo_uri: "u".to_owned(),
            logout_uri: "l".to_owned(),
            enabled: Some(false),
            link_by_name: Some(true),
            create_users: true,
            pending_until: at(1),
            pending_from: "10.0.0.1".to_owned(),
            redirect_uri: "r".to_owned(),
            create_time: at(2),
            update_time: at(3),
        });
        assert_eq!(
            to_value(&authority).unwrap(),
            json!({
                "name": "identityProviders/1", "displayName": "Plant", "clientId": "c", "authorizationUri": "a", "tokenUri": "t",
                "userinfoUri": "u", "logoutUri": "l", "enabled": false, "linkByName": true, "createUsers": true,
                "pendingUntil": "1970-01-01T00:00:01Z", "pendingFrom": "10.0.0.1", "redirectUri": "r",
                "createTime": "1970-01-01T00:00:02Z", "updateTime": "1970-01-01T00:00:03Z",
            })
        );
        assert!(authority.details().contains(&("state", "pending until 1970-01-01T00:00:01Z, from 10.0.0.1".to_owned())));
        let link = Link::from(pb::Link {
            identity_provider: "identityProviders/1".to_owned(),
            subject: "s".to_owned(),
            user: "users/2".to_owned(),
            user_name: "zhang".to_owned(),
            origin: pb::LinkOrigin::Name.into(),
            create_time: at(4),
        });
        assert_eq!(
            to_value(&link).unwrap(),
            json!({
                "identityProvider": "identityProviders/1", "subject": "s", "user": "users/2", "userName": "zhang",
                "origin": "LINK_ORIGIN_NAME", "createTime": "1970-01-01T00:00:04Z",
            })
        );
        assert!(link.details().contains(&("linked by", "name".to_owned())));
        for column in Authority::COLUMNS {
            assert!(authority.details().iter().any(|(name, _)| name == column), "{column}");
        }
        for column in Link::COLUMNS {
            assert!(link.details().iter().any(|(name, _)| name == column), "{column}");
        }
    }
}
