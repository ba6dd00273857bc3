//! Who is let in: `Host`, `Origin`, content type and token.

use std::net::SocketAddr;

use setpoint::http::HttpConfig;

use super::fake::Fake;
use super::{client, raw};

#[tokio::test]
async fn no_page_elsewhere_can_steer_it() {
    let fake = Fake::start_with(
        &["queue"],
        HttpConfig { hosts: vec!["scale.example".into()], ..HttpConfig::default() },
        SocketAddr::from(([127, 0, 0, 1], 0)),
    )
    .await;
    for (host, status) in [
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("scale.example", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:8080", 403),
        ("", 403),
    ] {
        let answer =
            raw(&fake, format!("GET /v1/policies HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
                .await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
    for request in [
        "GET /v1/policies HTTP/1.0\r\n\r\n".to_owned(),
        "GET /v1/policies HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(),
        "GET http://evil.example/v1/policies HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let answer = raw(&fake, request.as_bytes()).await;
        assert!(answer.contains(" 403 ") || answer.contains(" 400 "), "{request}: {answer}");
    }

    let own = format!("http://{}", fake.addr);
    let cases = [
        (None, None, Some("application/json"), 200),
        (Some(own.as_str()), Some("same-origin"), Some("application/json; charset=utf-8"), 200),
        (Some("http://evil.example"), None, Some("application/json"), 403),
        (Some("null"), None, Some("application/json"), 403),
        (Some("http://127.0.0.1:1"), None, Some("application/json"), 403),
        (None, Some("cross-site"), Some("application/json"), 403),
        (None, None, Some("text/plain"), 415),
        (None, None, Some("application/x-www-form-urlencoded"), 415),
        (None, None, None, 415),
    ];
    for (origin, site, content_type, status) in cases {
        fake.take_commands();
        let mut request = client().post(fake.url("/v1/policies/queue/pause")).body("{}");
        for (header, value) in [("origin", origin), ("sec-fetch-site", site), ("content-type", content_type)] {
            if let Some(value) = value {
                request = request.header(header, value);
            }
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{origin:?} {site:?} {content_type:?}");
        assert_eq!(fake.take_commands().is_empty(), status != 200, "nothing refused reaches the engine");
    }

    let page = client().get(fake.url("/")).send().await.unwrap();
    let headers = page.headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains("frame-ancestors 'none'")
            && !policy.contains("unsafe")
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(!headers.contains_key("access-control-allow-origin"));
    fake.stop().await;
}

#[tokio::test]
async fn a_token_is_needed_for_everything_that_says_something() {
    let config = HttpConfig { token: Some("s3cret".into()), ..HttpConfig::default() };
    let fake = Fake::start_with(&["queue"], config, SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let status = async |path: &str, token: Option<&str>| {
        let request = client().get(fake.url(path));
        let request = token.map_or_else(|| client().get(fake.url(path)), |token| request.bearer_auth(token));
        let response = request.send().await.unwrap();
        assert_eq!(response.status() == 401, response.headers().contains_key("www-authenticate"));
        response.status().as_u16()
    };
    for path in ["/v1/policies", "/v1/policies/queue", "/v1/tasks", "/v1/events", "/metrics", "/readyz", "/nowhere"] {
        assert_eq!(status(path, None).await, 401, "{path}");
        for wrong in ["", "s3cre", "s3cret2", "S3CRET"] {
            assert_eq!(status(path, Some(wrong)).await, 401, "{path} {wrong}");
        }
    }
    assert_eq!(status("/v1/policies", Some("s3cret")).await, 200);
    // The page's files say nothing; it asks for the token itself.
    for public in ["/healthz", "/", "/page.js", "/client.js", "/page.css"] {
        assert_eq!(status(public, None).await, 200, "{public}");
    }
    fake.stop().await;
}
