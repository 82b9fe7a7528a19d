//! Extractors whose refusals are problems: JSON bodies, ids in paths, queries.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use store::PageRequest;
use utoipa::IntoParams;

use crate::error::ApiError;
use crate::problem::Code;

/// A JSON body, read by the rules of [`crate::json`].
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        check_media_type(request.headers())?;
        // `middleware::read_body` has bounded it already.
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| {
            ApiError::invalid("body", "could not be read; send it again").because(error)
        })?;
        crate::json::parse(&body).map(Self)
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| {
            ApiError::invalid("body", "could not be read; send it again").because(error)
        })?;
        if body.is_empty() {
            // The seeds' clients send the media type without a body.
            return Ok(Self(T::default()));
        }
        check_media_type(&headers)?;
        crate::json::parse(&body).map(Self)
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |detail: &str| Err(ApiError::new(Code::UnsupportedMediaType, detail));
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|coding| coding != "identity")
    {
        return refuse("the body has a Content-Encoding; send it as it is");
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return refuse("the body has no Content-Type; send `Content-Type: application/json`");
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let lower = essence.to_ascii_lowercase();
    if lower == "application/json"
        || (lower.starts_with("application/") && lower.ends_with("+json"))
    {
        return Ok(());
    }
    refuse(&format!(
        "the body is {}; send `Content-Type: application/json`",
        crate::text::excerpt(essence)
    ))
}

/// The last segment of a path that names one thing.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|error| {
            // An id that is not even UTF-8 is one that does not exist.
            ApiError::not_found("id", parts.uri.path()).because(error)
        })
    }
}

impl Id {
    /// Parses the id; a text of another shape is an id that does not exist.
    pub(crate) fn parse<T: std::str::FromStr>(&self, what: &str) -> Result<T, ApiError> {
        self.0
            .parse()
            .map_err(|_| ApiError::not_found(what, &self.0))
    }
}

/// A query string. A parameter twice, or one of a wrong type, is refused.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query.map(|Query(params)| Self(params)).map_err(|error| {
            let source = std::error::Error::source(&error);
            let text = source.map_or_else(|| error.to_string(), ToString::to_string);
            let code = if text.contains("unknown field") {
                Code::UnknownField
            } else {
                Code::InvalidRequest
            };
            let detail = format!("query: {text}; GET /openapi.json says what it takes");
            ApiError::new(code, detail)
        })
    }
}

/// `?limit=&cursor=` of every list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Items of one page: default 50, at most 200 (more is taken as 200).
    #[param(
        minimum = 1,
        maximum = 4_294_967_295_u64,
        default = 50,
        required = false
    )]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
}

impl Paging {
    pub(crate) fn new(limit: Option<u32>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    pub(crate) fn request(self) -> Result<PageRequest, ApiError> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if limit == 0 {
            return Err(ApiError::invalid(
                "limit",
                format_args!("must be 1 to {MAX_LIMIT}"),
            ));
        }
        Ok(PageRequest {
            limit: limit.min(MAX_LIMIT),
            cursor: self.cursor,
        })
    }
}

/// `?limit=&cursor=` and nothing else, for lists that the seeds' clients do not know: whoever sends a filter means it.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PagingAlone {
    /// Items of one page: default 50, at most 200 (more is taken as 200).
    #[param(
        minimum = 1,
        maximum = 4_294_967_295_u64,
        default = 50,
        required = false
    )]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
}

impl PagingAlone {
    pub(crate) fn request(self) -> Result<PageRequest, ApiError> {
        Paging::new(self.limit, self.cursor).request()
    }
}

/// `?limit=&cursor=` of the lists of the seeds' own resources: their clients turn no pages, so as much as fits is the first.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WidePaging {
    /// Items of one page: default 200, which is the most (more is taken as 200).
    #[param(
        minimum = 1,
        maximum = 4_294_967_295_u64,
        default = 200,
        required = false
    )]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
}

impl WidePaging {
    pub(crate) fn request(self) -> Result<PageRequest, ApiError> {
        Paging::new(self.limit.or(Some(MAX_LIMIT)), self.cursor).request()
    }
}

const DEFAULT_LIMIT: u32 = 50;
pub(crate) const MAX_LIMIT: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn media_type(value: &str) -> Result<(), ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        check_media_type(&headers)
    }

    #[test]
    fn json_and_its_relatives_are_taken() {
        for value in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
        ] {
            media_type(value).unwrap();
        }
    }

    #[test]
    fn any_other_media_type_is_refused() {
        for value in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "text/json",
            "application/jsonx",
            ";",
        ] {
            assert_eq!(
                media_type(value).expect_err(value).code(),
                Code::UnsupportedMediaType
            );
        }
        assert!(check_media_type(&HeaderMap::new()).is_err());
    }

    #[test]
    fn an_encoded_body_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert!(check_media_type(&headers).is_err());
    }

    #[test]
    fn a_limit_is_clamped_and_zero_is_refused() {
        let paging = |limit| {
            Paging {
                limit,
                cursor: None,
            }
            .request()
        };
        assert_eq!(paging(None).unwrap().limit, 50);
        assert_eq!(paging(Some(1_000_000_000)).unwrap().limit, 200);
        assert!(paging(Some(0)).is_err());
        assert_eq!(WidePaging::default().request().unwrap().limit, 200);
    }
}
