//! `/openapi.json`: the whole surface. What is served is the text checked in as
//! `agent/api/openapi.json`, packed; a test fails when it is not what the handlers say.

use std::io::Read;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;

/// Packed by the build.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "agent",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")))]
pub(crate) async fn openapi(headers: HeaderMap) -> Response {
    let mut response = match takes_gzip(&headers) {
        true => {
            let mut response = PACKED.into_response();
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        false => document().into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// The document.
pub(crate) fn document() -> String {
    let mut text = String::new();
    // It was packed from text by the build of this very program.
    let _ = GzDecoder::new(PACKED).read_to_string(&mut text);
    text
}

/// Whether `gzip` is named, and not as what is not taken.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=");
        name.trim().eq_ignore_ascii_case("gzip") && weight.parse() != Ok(0_f32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_what_is_served() {
        assert!(document() == include_str!("../../api/openapi.json"));
    }

    #[test]
    fn gzip_is_sent_to_who_takes_it() {
        for (value, taken) in [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("GZIP;q=1.0, identity", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, br", false),
            ("x-gzip", false),
            ("identity", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(takes_gzip(&headers), taken, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
