//! The page's own files. They hold no data, so they need no token: the page asks for one and sends it itself.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;

use super::Api;

/// The page's files: path, content type, text.
const ASSETS: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/chart.js", "text/javascript; charset=utf-8", include_str!("page/chart.js")),
    ("/card.js", "text/javascript; charset=utf-8", include_str!("page/card.js")),
    ("/client.js", "text/javascript; charset=utf-8", include_str!("page/client.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// Whether a path is one of the page's files.
pub(super) fn is_asset(path: &str) -> bool {
    ASSETS.iter().any(|(known, _, _)| *known == path)
}

/// Their routes.
pub(super) fn routes() -> Router<Api> {
    ASSETS.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        let headers: [(HeaderName, HeaderValue); 2] = [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            // The files change with the binary, and their names do not.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        router.route(path, get(move || std::future::ready((headers.clone(), text))))
    })
}
