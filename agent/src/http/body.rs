//! Reading request bodies: bounded in size and time, strict in form.
//!
//! The content type is not looked at: deployed callers and `curl -d` do not send
//! the right one. Refused: a body over the limit (413, before it is read where
//! it announces its length), one that does not arrive (408), one that is no
//! JSON, is nested deeper than 128, or holds a key twice (400) — two readers of
//! a key that occurs twice may disagree on which of them counts.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use zlh_api::ErrorCode;

use super::problem::{Failure, quoted};

/// A JSON body of at most [`MAX_BODY_BYTES`].
pub(crate) struct StrictJson<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for StrictJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        parse(&read(request).await?).map(Self)
    }
}

/// The same, where no body at all means the default.
pub(crate) struct JsonOrDefault<T>(pub T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for JsonOrDefault<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = read(request).await?;
        match bytes.iter().all(u8::is_ascii_whitespace) {
            true => Ok(Self(T::default())),
            false => parse(&bytes).map(Self),
        }
    }
}

/// A body that means nothing, but is read so that the connection stays usable.
pub(crate) struct NoBody;

impl<S: Sync> FromRequest<S> for NoBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        read(request).await.map(|_| Self)
    }
}

/// Whether a text is one line, also to whoever prints it.
pub(super) fn is_one_line(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

async fn read(request: Request) -> Result<Bytes, Failure> {
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let body: Body = request.into_body();
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Failure::new(
            ErrorCode::InvalidRequest,
            "the body ended early or is malformed; send as many bytes as Content-Length says, or proper chunks",
        )),
        Err(_) => Err(Failure::new(
            ErrorCode::InvalidRequest,
            format!("the body did not arrive within {} s; send it at once", BODY_TIMEOUT.as_secs()),
        )
        .with_status(StatusCode::REQUEST_TIMEOUT)),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let refuse = |why: String| Failure::new(ErrorCode::BadJson, why);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(refuse("the body is empty; send a JSON object".to_owned()));
    }
    let unexpected = |error| refuse(format!("the body is not the JSON expected here: {error}"));
    serde_json::from_slice::<Unambiguous>(bytes).map_err(unexpected)?;
    // A list would do for an object: its values in the order of the fields.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(refuse("the body is a list; send a JSON object".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(unexpected)
}

fn too_large() -> Failure {
    Failure::new(ErrorCode::BodyTooLarge, format!("the body is larger than {MAX_BODY_BYTES} bytes"))
}

/// Any JSON in which no object holds a key twice.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(de::Error::custom(format_args!("the key {} occurs twice", quoted(&key))));
            }
            seen.insert(key);
            entries.next_value::<Self>()?;
        }
        Ok(self)
    }
}

/// Largest body of any route so far.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn detail(text: &str) -> String {
        parse::<Value>(text.as_bytes()).unwrap_err().to_json()
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":null,"a":2}}]"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(detail(text).contains("the key `a` occurs twice"), "{}", detail(text));
        }
        assert!(parse::<Value>(br#"{"a":{"a":[{"a":true},{"a":-1.5}]}}"#).is_ok());
    }

    #[test]
    fn an_empty_body_is_named_as_such() {
        assert!(detail(" \n").contains("empty"));
    }
}
