//! `supos-auth sign`: what is signed of a call, and the headers to send with it, for whoever writes a client or looks why one is refused.

use std::{env, io, io::Write as _, path::PathBuf, str::FromStr};

use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use zeroize::Zeroizing;

use super::{failure::Failure, input, output::unless_closed};
use crate::{
    core::{
        Error, Problem,
        clock::{Clock as _, SystemClock},
        ids::AppId,
        secret::Secret,
    },
    dialect::{error::text_of, language::Language, operation::Operation},
    sign::{self, Canonical, DATE, Form, GRPC, NONCE},
};

/// Where the secret comes from when there is no file.
const SECRET_VARIABLE: &str = "SUPOS_AUTH_APP_SECRET";
/// What stands after the text that is signed, so that its end is seen.
const END: &str = "<end>";

/// Either a URL or a gRPC method.
pub(crate) const USAGE: &str = "\
supos-auth sign [OPTIONS] METHOD URL
       supos-auth sign [OPTIONS] --grpc /PACKAGE.SERVICE/METHOD";

pub(crate) const EXAMPLES: &str = "\
Prints the text that is signed, up to <end>, and every header that was signed with it. Send
them all, and none of them twice.

Examples:
  export SUPOS_AUTH_APP_ID=demo-app SUPOS_AUTH_APP_SECRET=demo-secret
  supos-auth sign --content-type application/json POST /open-api/auth/v2/oauth2/token
  url='http://127.0.0.1:8080/open-api/supos/auth/v2/username?accessToken=…'
  supos-auth sign --headers GET \"$url\" | curl -H @- \"$url\"
  supos-auth sign --masked GET \"$url\"      # to compare with the service's log
  supos-auth sign --grpc /supos.auth.v2.AuthService/Token

Environment:
  SUPOS_AUTH_APP_ID      the app's id, as --app-id
  SUPOS_AUTH_APP_SECRET  the app's secret, where there is no --secret-file";

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The HTTP method.
    #[arg(required_unless_present = "grpc")]
    method: Option<Method>,
    /// The URL, or its path and query, exactly as it is sent.
    #[arg(value_name = "URL", required_unless_present = "grpc")]
    target: Option<Target>,
    /// Sign a native gRPC call of this method. Date and nonce are always added.
    #[arg(long, value_name = "/PACKAGE.SERVICE/METHOD", conflicts_with_all = ["method", "target", "content_type"])]
    grpc: Option<Rpc>,
    /// The app's id (its access key).
    #[arg(long, env = "SUPOS_AUTH_APP_ID", value_name = "AK", required_unless_present = "masked")]
    app_id: Option<AppIdArg>,
    /// A file with the app's secret, or - for standard input; without it, it comes from `SUPOS_AUTH_APP_SECRET`.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The Content-Type, exactly as it is sent; without it, the request has none.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true, value_parser = content_type)]
    content_type: String,
    /// A header to sign. Give it again for each further one.
    #[arg(short = 'H', value_name = "X-MC-NAME: VALUE")]
    headers: Vec<Header>,
    #[command(flatten)]
    added: Added,
    /// Sign the second form, which has no line end after the headers.
    #[arg(long)]
    app_form: bool,
    /// Print the headers alone, as `curl -H @-` reads them.
    #[arg(long = "headers")]
    headers_alone: bool,
    /// Print what is signed as the service's log has it in `canonical`, the same for both forms. Needs no app and no secret.
    #[arg(long, conflicts_with = "headers_alone")]
    masked: bool,
}

/// The headers that the command makes by itself.
#[derive(Debug, Args)]
struct Added {
    /// Add X-MC-Date with the time now.
    #[arg(long)]
    date: bool,
    /// Add X-MC-Nonce with a random value.
    #[arg(long)]
    nonce: bool,
}

/// A path and query, as sent.
#[derive(Debug, Clone)]
struct Target(String);

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains([' ', '#']) || text.contains(char::is_control) {
            return Err("no request has a blank, a control character or a # in its URL: write %20 and %23");
        }
        if text.starts_with('/') {
            return Ok(Self(text.to_owned()));
        }
        let (_, rest) = text
            .split_once("://")
            .filter(|(scheme, _)| !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)))
            .ok_or("write it as a URL (https://HOST/PATH?QUERY) or as a path (/PATH?QUERY)")?;
        match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => Ok(Self(rest[at..].to_owned())),
            // Where there is no path, clients send `/`.
            Some(at) => Ok(Self(format!("/{}", &rest[at..]))),
            None => Ok(Self("/".to_owned())),
        }
    }
}

/// The path of a gRPC method.
#[derive(Debug, Clone)]
struct Rpc(String);

impl FromStr for Rpc {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
        match text.strip_prefix('/').and_then(|text| text.split_once('/')) {
            Some((service, method)) if is_name(service) && is_name(method) => Ok(Self(text.to_owned())),
            _ => Err("write it as /supos.auth.v2.AuthService/Token"),
        }
    }
}

/// An app's id.
#[derive(Debug, Clone)]
struct AppIdArg(AppId);

impl FromStr for AppIdArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Two `Authorization` headers that a proxy has joined have a comma between them, so the service takes none with a comma.
        if text.contains(',') {
            return Err("an app whose id has a comma cannot sign");
        }
        AppId::new(text).map(Self).ok_or("no app has such an id")
    }
}

/// A header that is signed, its name in lower case.
#[derive(Debug, Clone)]
struct Header {
    name: String,
    value: String,
}

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("write it as X-MC-NAME: VALUE")?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "that is no name of a header")?;
        if !name.as_str().starts_with("x-mc-") {
            return Err("only headers whose names begin with X-MC- are signed");
        }
        Ok(Self { name: name.as_str().to_owned(), value: value.trim_matches([' ', '\t']).to_owned() })
    }
}

fn content_type(text: &str) -> Result<String, &'static str> {
    HeaderValue::from_str(text).map(|_| text.to_owned()).map_err(|_| "no header holds a control character")
}

/// Signs a call.
pub(crate) fn run(args: &SignArgs) -> Result<(), Failure> {
    let call = Call::of(args)?;
    let canonical = call.canonical()?;
    if args.masked {
        return print(&format!("{}\n", canonical.masked()));
    }
    let Some(AppIdArg(app_id)) = &args.app_id else {
        return Err(Failure::usage("there is no app to sign for").hint("Give it with --app-id AK."));
    };
    let form = if args.app_form { Form::App } else { Form::Usual };
    let signature = canonical.signature(&secret(args)?, form);
    let headers = call.headers_to_send(&format!("Sign {app_id}-{signature}"));
    if args.headers_alone {
        return print(&headers);
    }
    call.note_what_is_odd();
    let text = canonical.text(form);
    print(&Zeroizing::new(format!("{}{END}\n\n{headers}", *text)))
}

fn secret(args: &SignArgs) -> Result<Secret, Failure> {
    if let Some(file) = &args.secret_file {
        return input::secret_from(file).map(Secret::new);
    }
    match env::var(SECRET_VARIABLE) {
        Ok(secret) if !secret.is_empty() => Ok(Secret::new(secret)),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{SECRET_VARIABLE} is not UTF-8 text"))),
        _ => Err(Failure::usage("there is no secret to sign with")
            .hint(format!("Give it with --secret-file FILE, where - is standard input, or in {SECRET_VARIABLE}."))),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    unless_closed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// The call that is signed.
struct Call<'a> {
    method: &'a str,
    target: &'a str,
    content_type: &'a str,
    headers: Vec<Header>,
    is_grpc: bool,
}

impl<'a> Call<'a> {
    fn of(args: &'a SignArgs) -> Result<Self, Failure> {
        let mut call = match (&args.grpc, &args.method, &args.target) {
            (Some(Rpc(rpc)), ..) => Self { method: "POST", target: rpc, content_type: GRPC, headers: args.headers.clone(), is_grpc: true },
            (None, Some(method), Some(Target(target))) => {
                Self { method: method.as_str(), target, content_type: &args.content_type, headers: args.headers.clone(), is_grpc: false }
            }
            _ => return Err(Failure::usage("there is nothing to sign").hint("Give METHOD and URL, or --grpc.")),
        };
        // Over gRPC there has to be one; one that was given stays, so that a call that was seen can be signed again.
        let wanted = |asked: bool, name: &str| asked || (call.is_grpc && !call.headers.iter().any(|header| header.name == name));
        let (date, nonce) = (wanted(args.added.date, DATE), wanted(args.added.nonce, NONCE));
        if date {
            call.headers.push(Header { name: DATE.to_owned(), value: sign::date(SystemClock.now()) });
        }
        if nonce {
            let nonce = Secret::random().map_err(|error| Failure::from_error("no nonce can be made", &error))?;
            call.headers.push(Header { name: NONCE.to_owned(), value: nonce.expose().to_owned() });
        }
        Ok(call)
    }

    fn canonical(&self) -> Result<Canonical, Failure> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|header| (header.name.as_str(), header.value.as_str())).collect();
        let request = sign::Request { method: self.method, target: self.target, content_type: self.content_type, headers: &headers };
        Canonical::of_request(&request).map_err(|error| {
            let failure = Failure::new(format!("the service would refuse this request: {}", text_of(&error, Language::English)));
            match error {
                Error::Parameter { name, problem } => failure.hint(reason(&name, problem)),
                _ => failure,
            }
        })
    }

    /// Every header that was signed, a line each. gRPC libraries send the content type by themselves.
    fn headers_to_send(&self, authorization: &str) -> String {
        let content_type = (!self.is_grpc && !self.content_type.is_empty()).then_some(("content-type", self.content_type));
        let signed = self.headers.iter().map(|header| (header.name.as_str(), header.value.as_str()));
        let all = [("authorization", authorization)].into_iter().chain(content_type).chain(signed);
        all.flat_map(|(name, value)| [name, ": ", value, "\n"]).collect()
    }

    /// Says what is well signed, and will not be answered.
    fn note_what_is_odd(&self) {
        let (path, _) = self.target.split_once('?').unwrap_or((self.target, ""));
        let known = if self.is_grpc { Operation::of_rpc(path) } else { Operation::of_http(&self.method.to_ascii_uppercase(), path) };
        if known.is_none() {
            let called = if self.is_grpc { "by this name" } else { "at this method and path" };
            eprintln!("note: there is no operation {called} that takes a signature");
        }
    }
}

/// Why a request cannot be signed, in more words than the service's answer has.
fn reason(name: &str, problem: Problem) -> &'static str {
    match (name.to_ascii_lowercase().as_str(), problem) {
        ("content-type", _) => "There may be one, so it holds no comma.",
        (name, Problem::Twice) if name.starts_with("x-mc-") => "Each X-MC- header may be given once; --date and --nonce give one, too.",
        (name, _) if name.starts_with("x-mc-") => "The value of an X-MC- header holds no `;` and no control character.",
        (_, Problem::Ambiguous) => {
            "Its signature could be that of another request: a name holds `&` or `=`, or is that of a parameter in another case, or a value \
             holds `&` and the name of a parameter that could come next."
        }
        _ => "A `%` stands before two hexadecimal digits; what is decoded is UTF-8 and holds no control character.",
    }
}
