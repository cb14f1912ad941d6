//! Forged access tokens: everything that an attacker can make who has a good token and the published keys.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::harness::jwt_part;

/// What an attacker starts from.
pub(super) struct Forger {
    genuine: String,
    header: Value,
    claims: Value,
    /// The published key that signed the genuine token.
    published: Value,
    own: EcdsaKeyPair,
}

/// A forged token and what is wrong with it.
pub(super) type Forgery = (String, String);

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn with(value: &Value, name: &str, new: Value) -> Value {
    let mut value = value.clone();
    value[name] = new;
    value
}

fn without(value: &Value, name: &str) -> Value {
    let mut value = value.clone();
    value.as_object_mut().expect("an object").remove(name);
    value
}

impl Forger {
    pub(super) fn new(genuine: &str, keys: &Value) -> Self {
        let (header, claims) = (jwt_part(genuine, 0), jwt_part(genuine, 1));
        let published =
            keys.as_array().expect("keys").iter().find(|key| key["kid"] == header["kid"]).expect("the key is published").clone();
        let own = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { genuine: genuine.to_owned(), header, claims, published, own }
    }

    fn parts(&self) -> [&str; 3] {
        let parts: Vec<&str> = self.genuine.split('.').collect();
        parts.try_into().expect("a JWT has three parts")
    }

    /// A token of these parts, signed with a key of the attacker's.
    fn signed(&self, header: &Value, claims: &Value) -> String {
        self.signed_text(&format!("{}.{}", encode(header), encode(claims)))
    }

    fn signed_text(&self, text: &str) -> String {
        let signature = self.own.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signed_with(&self, algorithm: &'static EcdsaSigningAlgorithm, header: &Value) -> String {
        let text = format!("{}.{}", encode(header), encode(&self.claims));
        let key = EcdsaKeyPair::generate(algorithm).expect("a key");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature")))
    }

    /// A token with a secret's HMAC in place of a signature.
    fn hashed(&self, header: &Value, secret: &[u8]) -> String {
        let text = format!("{}.{}", encode(&with(header, "alg", "HS256".into())), encode(&self.claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn own_jwk(&self) -> Value {
        let point = self.own.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.header["kid"],
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        })
    }

    /// A33: no signature, somebody else's, or one of another algorithm.
    pub(super) fn unsigned(&self) -> Vec<Forgery> {
        let [_, claims, signature] = self.parts();
        let mut forgeries = Vec::new();
        for alg in ["none", "None", "NONE", "nOnE", "", "null"] {
            let header = encode(&with(&self.header, "alg", alg.into()));
            forgeries.push((format!("alg {alg:?}, no signature"), format!("{header}.{claims}.")));
            forgeries.push((format!("alg {alg:?}, the genuine signature"), format!("{header}.{claims}.{signature}")));
        }
        for (what, alg) in [("null", Value::Null), ("a number", 7.into()), ("a list", json!(["none", "ES256"])), ("an object", json!({}))] {
            forgeries.push((format!("alg is {what}"), self.signed(&with(&self.header, "alg", alg), &self.claims)));
        }
        for alg in ["ES384", "ES512", "RS256", "PS256", "HS256", "HS512", "EdDSA", "es256", "ES256 ", "ES256K"] {
            forgeries.push((format!("alg {alg}, a signature of ES256"), self.signed(&with(&self.header, "alg", alg.into()), &self.claims)));
            forgeries.push((
                format!("alg {alg}, the genuine signature"),
                format!("{}.{claims}.{signature}", encode(&with(&self.header, "alg", alg.into()))),
            ));
        }
        forgeries.push(("no alg".to_owned(), self.signed(&without(&self.header, "alg"), &self.claims)));
        forgeries.push((
            "another curve".to_owned(),
            self.signed_with(&ECDSA_P384_SHA384_FIXED_SIGNING, &with(&self.header, "alg", "ES384".into())),
        ));
        forgeries.push(("a DER signature by another key".to_owned(), self.signed_with(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.header)));
        forgeries.push(("a key of the attacker's".to_owned(), self.signed(&self.header, &self.claims)));
        for (what, bytes) in [
            ("zeros", vec![0; 64]),
            ("nothing", vec![]),
            ("one byte", vec![0]),
            ("ones", [vec![0; 31], vec![1], vec![0; 31], vec![1]].concat()),
            ("the order of the curve", order().repeat(2)),
            ("256 bytes", vec![7; 256]),
        ] {
            forgeries
                .push((format!("the signature is {what}"), format!("{}.{claims}.{}", encode(&self.header), URL_SAFE_NO_PAD.encode(bytes))));
        }
        forgeries
    }

    /// A33: the published key as a secret.
    pub(super) fn keyed_with_what_is_public(&self) -> Vec<Forgery> {
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(self.published[name].as_str().expect("a text")).expect("base64url");
        let (x, y) = (coordinate("x"), coordinate("y"));
        let point = [vec![4], x.clone(), y.clone()].concat();
        // SubjectPublicKeyInfo of a P-256 key (RFC 5480).
        let mut der = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
            0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        der.extend_from_slice(&point);
        let base64 = STANDARD.encode(&der);
        let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"));
        let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
        [
            ("the PEM", pem.clone().into_bytes()),
            ("the PEM and a line end", format!("{pem}\n").into_bytes()),
            ("the DER", der),
            ("the point", point.clone()),
            ("the point without its first byte", point[1..].to_vec()),
            ("x", x),
            ("y", y),
            ("x as text", text(&self.published["x"])),
            ("the JWK", self.published.to_string().into_bytes()),
            ("the key id", text(&self.header["kid"])),
            ("nothing", vec![]),
            ("one zero byte", vec![0]),
        ]
        .into_iter()
        .flat_map(|(what, secret)| {
            let [plain, no_kid] = [self.header.clone(), without(&self.header, "kid")].map(|header| self.hashed(&header, &secret));
            [(format!("HS256 with {what}"), plain), (format!("HS256 with {what} and no kid"), no_kid)]
        })
        .collect()
    }

    /// A33: a header that brings or names a key.
    pub(super) fn with_a_key_of_its_own(&self) -> Vec<Forgery> {
        let jwk = self.own_jwk();
        let certificate = STANDARD.encode(b"not a certificate");
        let mut forgeries: Vec<Forgery> = [
            ("jwk", jwk.clone()),
            ("jwk", with(&jwk, "kid", "own".into())),
            ("jku", "http://127.0.0.1:1/jwks".into()),
            ("x5u", "http://127.0.0.1:1/x5u".into()),
            ("x5c", json!([certificate])),
            ("x5t", "AAAA".into()),
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("b64", false.into()),
            ("zip", "DEF".into()),
            ("cty", "JWT".into()),
        ]
        .into_iter()
        .map(|(name, value)| (format!("a header with {name}"), self.signed(&with(&self.header, name, value), &self.claims)))
        .collect();
        for kid in ["", "unknown", "../../../../dev/null", "/dev/null", "' or '1'='1", "key\0", "*", &"k".repeat(4000)] {
            forgeries
                .push((format!("kid {:?}", &kid[..kid.len().min(20)]), self.signed(&with(&self.header, "kid", kid.into()), &self.claims)));
            forgeries.push((
                format!("kid {:?} and an empty HMAC", &kid[..kid.len().min(20)]),
                self.hashed(&with(&self.header, "kid", kid.into()), b""),
            ));
        }
        for kid in [Value::Null, 0.into(), true.into(), json!([self.header["kid"]]), json!({})] {
            forgeries.push((format!("kid {kid}"), self.signed(&with(&self.header, "kid", kid), &self.claims)));
        }
        forgeries.push(("no kid".to_owned(), self.signed(&without(&self.header, "kid"), &self.claims)));
        forgeries
            .push(("no kid, a key in the header".to_owned(), self.signed(&with(&without(&self.header, "kid"), "jwk", jwk), &self.claims)));
        forgeries
    }

    /// A33, A34: the genuine signature beneath something that it was not made for.
    pub(super) fn tampered(&self) -> Vec<Forgery> {
        let [header, claims, signature] = self.parts();
        let mut forgeries = Vec::new();
        let changes = [
            ("sub", json!("somebody else")),
            ("username", json!("admin")),
            ("client_id", json!("demo-app")),
            ("sid", json!("another session")),
            ("scope", json!("admin")),
            ("exp", json!(9_999_999_999_i64)),
            ("iat", json!(0)),
            ("iss", json!("https://evil.invalid")),
            ("aud", json!(["https://evil.invalid"])),
            ("jti", json!("another")),
            ("accountType", json!(1)),
        ];
        for (claim, value) in changes {
            forgeries.push((format!("{claim} changed"), format!("{header}.{}.{signature}", encode(&with(&self.claims, claim, value)))));
            forgeries.push((
                format!("no {claim}"),
                format!("{header}.{}.{signature}", encode(&without(&with(&self.claims, claim, Value::Null), claim))),
            ));
        }
        for typ in [json!("JWT"), json!("logout+jwt"), json!("application/at+jwt"), json!("AT+JWT "), Value::Null] {
            forgeries.push((format!("typ {typ}"), format!("{}.{claims}.{signature}", encode(&with(&self.header, "typ", typ)))));
        }
        forgeries.push(("no typ".to_owned(), format!("{}.{claims}.{signature}", encode(&without(&self.header, "typ")))));
        // One of these is the genuine token whenever the encoder writes the same text, so it is left out then.
        forgeries.retain(|(_, forged)| *forged != self.genuine);
        forgeries
    }

    /// A33: no compact JWT of three parts.
    pub(super) fn misshapen(&self) -> Vec<Forgery> {
        let [header, claims, signature] = self.parts();
        let genuine = &self.genuine;
        let der = der_of(&URL_SAFE_NO_PAD.decode(signature).expect("base64url"));
        [
            ("two parts", format!("{header}.{claims}")),
            ("an empty signature", format!("{header}.{claims}.")),
            ("no claims", format!("{header}..{signature}")),
            ("no header", format!(".{claims}.{signature}")),
            ("four parts", format!("{genuine}.{signature}")),
            ("a dot at the end", format!("{genuine}.")),
            ("a dot in front", format!(".{genuine}")),
            ("five parts", format!("{header}.{claims}.{signature}.{claims}.{signature}")),
            ("the parts in another order", format!("{claims}.{header}.{signature}")),
            ("dots alone", "..".to_owned()),
            ("JSON serialisation", json!({"protected": header, "payload": claims, "signature": signature}).to_string()),
            (
                "general JSON serialisation",
                json!({"payload": claims, "signatures": [{"protected": header, "signature": signature}]}).to_string(),
            ),
            ("padding", format!("{genuine}==")),
            (
                "padding in each part",
                self.genuine
                    .split('.')
                    .map(|part| URL_SAFE.encode(URL_SAFE_NO_PAD.decode(part).expect("base64url")))
                    .collect::<Vec<_>>()
                    .join("."),
            ),
            ("the signature as DER", format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(der))),
            ("twice", format!("{genuine}{genuine}")),
            ("twice with a comma", format!("{genuine},{genuine}")),
            ("quoted", format!("\"{genuine}\"")),
            ("a scheme in front", format!("Bearer {genuine}")),
        ]
        .map(|(what, forged)| (what.to_owned(), forged))
        .into()
    }

    /// B5, H27: claims of the wrong type, missing or absurd. The signature is the attacker's, so the signature refuses them, whatever else
    /// would; that the verifier refuses them by themselves is a test beside it.
    pub(super) fn mistyped(&self) -> Vec<Forgery> {
        let mut forgeries = Vec::new();
        for claim in ["exp", "nbf", "iat"] {
            for raw in ["\"9999999999\"", "1e400", "-1", "9999999999.5", "null", "true", "[]", "{}", "18446744073709551616", "\"\""] {
                forgeries.push((
                    format!("{claim} {raw}"),
                    self.signed_text(&format!("{}.{}", encode(&self.header), URL_SAFE_NO_PAD.encode(self.with_raw(claim, raw)))),
                ));
            }
        }
        for claim in ["iss", "aud", "sub", "client_id", "sid", "jti", "exp"] {
            forgeries.push((format!("no {claim}"), self.signed(&self.header, &without(&self.claims, claim))));
            for raw in ["{}", "[]", "[[]]", "null", "7", "true", "[null]", "\"\""] {
                forgeries.push((
                    format!("{claim} {raw}"),
                    self.signed_text(&format!("{}.{}", encode(&self.header), URL_SAFE_NO_PAD.encode(self.with_raw(claim, raw)))),
                ));
            }
        }
        forgeries.push(("nbf in a year".to_owned(), self.signed(&self.header, &with(&self.claims, "nbf", json!(9_999_999_999_i64)))));
        forgeries
    }

    fn with_raw(&self, claim: &str, raw: &str) -> String {
        with(&self.claims, claim, "PLACEHOLDER".into()).to_string().replace("\"PLACEHOLDER\"", raw)
    }
}

/// The order of P-256, big-endian.
fn order() -> Vec<u8> {
    let text = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    (0..32).map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).expect("hex")).collect()
}

/// The two halves of an ES256 signature as the DER that X.509 has.
fn der_of(signature: &[u8]) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let mut bytes: Vec<u8> = half.iter().copied().skip_while(|byte| *byte == 0).collect();
        if bytes.first().is_none_or(|byte| *byte >= 0x80) {
            bytes.insert(0, 0);
        }
        [vec![2, u8::try_from(bytes.len()).expect("short")], bytes].concat()
    };
    let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [vec![0x30, u8::try_from(body.len()).expect("short")], body].concat()
}
