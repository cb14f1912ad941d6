//! `supos-auth sign`: what it prints, it prints exactly.

use supos_auth::sign::{Canonical, Request};

use self::vectors::{Vector, vectors};
use super::{Person, Said};

#[path = "../vectors/sign.rs"]
mod vectors;

const TOKEN: &str = "/open-api/auth/v2/oauth2/token";
const USERNAME: &str = "/open-api/supos/auth/v2/username";

impl Vector {
    /// The arguments for it, after those that are given.
    fn sign(&self, person: &Person, first: &[&str]) -> Said {
        let headers: Vec<String> = self.x_mc_headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let (url, mut arguments) = (format!("http://user@host.example:8080{}", self.target()), [&["sign"], first].concat());
        arguments.extend(headers.iter().flat_map(|header| ["-H", header]));
        if !self.content_type.is_empty() {
            arguments.extend(["--content-type", &self.content_type]);
        }
        arguments.extend([self.method.as_str(), url.as_str()]);
        person.run_with(&arguments, &[("SUPOS_AUTH_APP_SECRET", &self.sk)], "")
    }
}

fn sign(person: &Person, arguments: &[&str]) -> Said {
    let secret = [("SUPOS_AUTH_APP_ID", "demo-app"), ("SUPOS_AUTH_APP_SECRET", "demo-secret")];
    person.run_with(&[&["sign"], arguments].concat(), &secret, "")
}

#[test]
fn every_worked_case_comes_out_byte_for_byte() {
    let person = Person::new();
    for vector in vectors() {
        let forms = [&["--app-id", &vector.ak][..], &["--app-id", &vector.ak, "--app-form"]].map(|first| vector.sign(&person, first));
        let expected = format!("{}<end>\n\nauthorization: {}\n", vector.canonical, vector.authorization);
        let form = forms.iter().position(|said| said.stdout.starts_with(&expected));
        let form = form.unwrap_or_else(|| panic!("{}: {forms:?}", vector.name));
        let said = &forms[form];
        // Everything that is signed is sent.
        let rest = said.stdout.strip_prefix(&expected).expect("it was found by it");
        assert_eq!(rest.lines().count(), vector.x_mc_headers.len() + usize::from(!vector.content_type.is_empty()), "{}", vector.name);
        assert!(vector.x_mc_headers.iter().all(|(name, value)| rest.contains(&format!("{}: {value}\n", name.to_ascii_lowercase()))));
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", vector.name);
        // And so it is where the headers stand alone.
        let mut first = vec!["--app-id", &vector.ak, "--headers"];
        if form == 1 {
            first.push("--app-form");
        }
        assert_eq!(vector.sign(&person, &first).stdout, format!("authorization: {}\n{rest}", vector.authorization), "{}", vector.name);
    }
}

#[test]
fn the_masked_line_is_that_of_the_services_log_and_needs_no_secret() {
    let person = Person::new();
    for vector in vectors() {
        let headers: Vec<(&str, &str)> = vector.x_mc_headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let target = vector.target();
        let request = Request { method: &vector.method, target: &target, content_type: &vector.content_type, headers: &headers };
        let masked = Canonical::of_request(&request).expect("the service takes it").masked();
        assert_eq!(vector.sign(&person, &["--masked"]).stdout, format!("{masked}\n"), "{}", vector.name);
    }
}

#[test]
fn the_masked_line_shows_no_secret() {
    let person = Person::new();
    for target in [
        format!("{USERNAME}?accessToken=hunter2hunter2"),
        "/open-api/supos/auth/v2/hunter2hunter2/valid".to_owned(),
        "/open-api/supos/auth/v2/code/refreshToken?refreshToken=hunter2hunter2".to_owned(),
    ] {
        let said = person.run(&["sign", "--masked", "GET", &target]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""));
        assert!(said.stdout.contains("sha256:") && !said.stdout.contains("hunter2") && said.stdout.lines().count() == 1, "{}", said.stdout);
    }
}

#[test]
fn date_and_nonce_are_added_signed_and_new_each_time() {
    let person = Person::new();
    let lines = |said: Said| -> (Vec<String>, String, String) {
        assert_eq!(said.code, 0, "{}", said.stderr);
        let value = |name: &str| said.stdout.lines().find_map(|line| line.strip_prefix(name)).expect(name).to_owned();
        let (date, nonce) = (value("x-mc-date: "), value("x-mc-nonce: "));
        assert!(date.len() == 16 && date.ends_with('Z') && nonce.len() == 43, "{date} {nonce}");
        assert!(said.stdout.contains(&format!("\nx-mc-date:{date};x-mc-nonce:{nonce}\n<end>\n")), "{}", said.stdout);
        (said.stdout.lines().map(str::to_owned).collect(), value("authorization: "), nonce)
    };
    let dated = ["--date", "--nonce", "--content-type", "application/json", "POST", TOKEN];
    let (one, other) = (lines(sign(&person, &dated)), lines(sign(&person, &dated)));
    assert!(one.1 != other.1 && one.2 != other.2);
    // A native call has both without being asked, and its own method, path and content type.
    let (text, _, _) = lines(sign(&person, &["--grpc", "/supos.auth.v2.AuthService/Token"]));
    assert_eq!(text[..4], ["POST", "/supos.auth.v2.AuthService/Token", "application/grpc", ""]);
    let headers = sign(&person, &["--headers", "--grpc", "/supos.auth.v2.AuthService/Token"]).stdout;
    let names: Vec<&str> = headers.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["authorization", "x-mc-date", "x-mc-nonce"]);
    // One that was seen can be signed again.
    let seen = ["-H", "X-MC-Date: 20261122T030405Z", "-H", "X-MC-Nonce: n", "--grpc", "/supos.auth.v2.AuthService/Token"];
    assert!(sign(&person, &seen).stdout.contains("\nx-mc-date:20261122T030405Z;x-mc-nonce:n\n<end>\n"));
}

#[test]
fn a_url_is_taken_as_it_is() {
    let person = Person::new();
    for (url, path, query) in [
        ("/a/../b//c?x=1", "/a/../b//c", "x=1"),
        ("//host/a", "//host/a", ""),
        ("https://HOST:443/A%2fb?B=%31", "/A%2fb", "b=1"),
        ("http://[::1]:8080/a?x=http://b/c?d", "/a", "x=http://b/c?d"),
        ("http://host", "/", ""),
        ("http://host?x=1", "/", "x=1"),
        ("/a?x=a+b%20c%2Bd&n=%E5%BC%A0", "/a", "n=张&x=a b c+d"),
    ] {
        let said = sign(&person, &["GET", url]);
        assert!(said.stdout.starts_with(&format!("GET\n{path}\n\n{query}\n\n<end>\n\nauthorization: Sign demo-app-")), "{url}: {said:?}");
        assert!(said.stderr.starts_with("note: there is no operation"), "{}", said.stderr);
    }
}

#[test]
fn what_the_service_would_refuse_is_said_and_not_signed() {
    let person = Person::new();
    for (arguments, words) in [
        (&["GET", "/open-api/supos/auth/v2/username?accessToken=%zz"][..], "query is malformed"),
        (&["GET", "/open-api/supos/auth/v2/username?ACCESSTOKEN=x"], "accessToken is ambiguous"),
        (&["GET", "/open-api/supos/auth/v2/username?a=1%26accesstoken%3DT"], "query is ambiguous"),
        (&["-H", "X-MC-Type: a;b", "GET", USERNAME], "X-MC- is malformed"),
        (&["--date", "-H", "X-MC-Date: 20261122T030405Z", "GET", USERNAME], "x-mc-date is given more than once"),
        (&["--content-type", "application/json, text/plain", "POST", TOKEN], "Content-Type is ambiguous"),
    ] {
        for printed in ["--headers", "--masked"] {
            let said = sign(&person, &[&[printed], arguments].concat());
            assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{arguments:?}");
            let expected = format!("error: the service would refuse this request: {words}\n");
            assert!(said.stderr.starts_with(&expected) && said.stderr.lines().count() == 2, "{arguments:?}: {}", said.stderr);
        }
    }
    for arguments in [
        &["GET"][..],
        &["GET", "open-api"],
        &["GET", "host/path"],
        &["GET", "/a b"],
        &["GET", "/a#b"],
        &["GET", "/a\nb"],
        &["G T", "/a"],
        &["-H", "Accept: x", "GET", "/a"],
        &["-H", "X-MC-Type", "GET", "/a"],
        &["--content-type", "a\r\nb: c", "GET", "/a"],
        &["--app-id", "a,b", "GET", "/a"],
        &["--app-id", "a b", "GET", "/a"],
        &["--headers", "--masked", "GET", "/a"],
        &["--grpc", "/a/b", "GET", "/a"],
        &["--grpc", "/a/b", "--content-type", "x"],
        &["--grpc", "a/b"],
        &["--grpc", "/a/b?c"],
    ] {
        assert_eq!(sign(&person, arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn a_secret_comes_from_a_file_or_the_environment_and_is_not_printed() {
    let person = Person::new();
    let arguments = ["sign", "--app-id", "demo-app", "GET", USERNAME];
    let said = person.run_with(&arguments, &[], "");
    assert!(said.code == 2 && said.stderr.contains("--secret-file FILE") && said.stderr.contains("SUPOS_AUTH_APP_SECRET"), "{said:?}");
    person.write("secret", "demo-secret\n");
    let from_environment = person.run_with(&arguments, &[("SUPOS_AUTH_APP_SECRET", "demo-secret")], "");
    let from_file = person.run_with(&[&arguments[..], &["--secret-file", "secret"]].concat(), &[("SUPOS_AUTH_APP_SECRET", "x")], "");
    let from_stdin = person.run_with(&[&arguments[..], &["--secret-file", "-"]].concat(), &[], "demo-secret");
    assert_eq!(from_environment.code, 0, "{}", from_environment.stderr);
    for said in [&from_file, &from_stdin] {
        assert_eq!(said.stdout, from_environment.stdout);
    }
    assert!(!from_environment.stdout.contains("demo-secret"));
    let without_app = person.run_with(&["sign", "GET", USERNAME], &[("SUPOS_AUTH_APP_SECRET", "demo-secret")], "");
    assert!(without_app.code == 2 && without_app.stderr.contains("--app-id"), "{}", without_app.stderr);
    let help = person.run(&["sign", "--help"]).stdout;
    assert!(help.contains("SUPOS_AUTH_APP_SECRET") && help.contains("--grpc /PACKAGE.SERVICE/METHOD"), "{help}");
}
