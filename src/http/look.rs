//! What operators choose of how the pages look, and the files that the pages load.

use std::{fs, path::Path, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::header;

/// Where the files are.
pub(super) const FOLDER: &str = "/inter-api/auth/assets/";
const STYLE: &str = include_str!("../../assets/style.css");
const LOGO: &[u8] = include_bytes!("../../assets/logo.svg");
/// The most bytes of a logo.
const MAX_LOGO: usize = 256 * 1024;
/// The kinds of picture that a logo may be, by the end of its file's name.
const KINDS: [(&str, &str); 5] =
    [("svg", "image/svg+xml"), ("png", "image/png"), ("jpg", "image/jpeg"), ("jpeg", "image/jpeg"), ("webp", "image/webp")];

/// How the pages look.
#[derive(Clone, Debug)]
pub struct Look {
    pub(super) product: Arc<str>,
    pub(super) style: Arc<str>,
    pub(super) logo: Arc<str>,
    picture: Arc<[u8]>,
    kind: &'static str,
}

impl Look {
    /// A product of this name, with the logo in this file, or ours.
    ///
    /// # Errors
    /// What is wrong with the logo.
    pub fn new(product: &str, logo: Option<&Path>) -> Result<Self, String> {
        let (picture, kind) = match logo {
            None => (LOGO.to_vec(), "image/svg+xml"),
            Some(path) => {
                let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
                let kind = KINDS.iter().find(|(known, _)| *known == end).map(|(_, kind)| *kind);
                let kind = kind.ok_or_else(|| format!("--logo-file {} has to end in .svg, .png, .jpg or .webp", path.display()))?;
                let picture = fs::read(path).map_err(|error| format!("cannot read the logo {}: {error}", path.display()))?;
                if picture.len() > MAX_LOGO {
                    return Err(format!("the logo {} is larger than {} KiB", path.display(), MAX_LOGO / 1024));
                }
                (picture, kind)
            }
        };
        // The name changes with what is in the file, so that browsers may keep it.
        let name = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes).as_ref().get(..9).unwrap_or_default());
        Ok(Self {
            product: product.into(),
            style: format!("{FOLDER}style-{}.css", name(STYLE.as_bytes())).into(),
            logo: format!("{FOLDER}logo-{}", name(&picture)).into(),
            picture: picture.into(),
            kind,
        })
    }

    /// The file at this path, if there is one.
    pub(super) fn file(&self, path: &str) -> Option<Response> {
        let (kind, bytes): (&'static str, Vec<u8>) = if path == &*self.style {
            ("text/css; charset=utf-8", STYLE.into())
        } else if path == &*self.logo {
            (self.kind, self.picture.to_vec())
        } else {
            return None;
        };
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            // A picture that is opened by itself runs nothing.
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        Some((headers, Body::from(bytes)).into_response())
    }
}
