//! Requests that should not be, through real Envoy: no trap, no effect on others.

use anyhow::Result;
use halftone_tests::{
    Stack, digits,
    traffic::{client, send},
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

#[tokio::test]
async fn odd_headers_and_users_do_no_harm() -> Result<()> {
    let stack = Stack::start(1, 1).await?;
    let digits = digits::test_set()?;
    let ruleset = format!(
        "version: v1\n{}default: v1\nattributes:\n  tier: {{header: x-tier}}\nrules:\n  - {{name: gold, condition: tier == 'gold', target: v2}}\n  - {{name: even, condition: user.id % 2 == 0, weight: 0.5, target: v2}}\n",
        stack.targets()
    );
    stack.publish("digits", &ruleset).await?;
    let url = stack.envoys[0].infer_url();
    let client = client()?;
    let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes);
    let large = vec![b'a'; 60 * 1024];
    let mut cases: Vec<Vec<(&str, HeaderValue)>> = vec![
        vec![("x-tier", value(b"\xff\xfe")?)],
        vec![("x-user-id", value(b"\xff\xfe")?)],
        vec![("x-other", value(b"\xff\xfe")?)],
        vec![
            ("traceparent", value(b"\xff\xfe")?),
            ("tracestate", value(b"\xff")?),
            ("baggage", value(b"\xff")?),
        ],
        vec![("x-tier", value(&large)?)],
        vec![("x-user-id", value(&large)?)],
        vec![("x-user-id", value(b"")?)],
        vec![("x-user-id", value(b"-5")?)],
        vec![("x-user-id", value(b"18446744073709551616")?)],
        vec![("x-user-id", value(b"1e3")?)],
        vec![("x-user-id", value(b"2")?), ("x-user-id", value(b"-3")?)],
        vec![("x-halftone-context", value(b"\xff\xfe")?)],
        vec![("x-halftone-target", value(b"\xff\xfe")?)],
    ];
    let many: Vec<(String, HeaderValue)> =
        (0..90).map(|n| Ok((format!("x-halftone-{n}"), value(b"x")?))).collect::<Result<_>>()?;
    cases.push(many.iter().map(|(name, value)| (name.as_str(), value.clone())).collect());
    for case in &cases {
        let mut headers = HeaderMap::new();
        for (name, value) in case {
            headers.append(HeaderName::from_bytes(name.as_bytes())?, value.clone());
        }
        let request = client.post(&url).header("content-type", "application/json").headers(headers);
        let response = request.body(digits[0].request.clone()).send().await?;
        let names: Vec<&str> = case.iter().map(|(name, _)| *name).take(3).collect();
        // The odd values match no rule.
        let expected = if names == ["x-user-id", "x-user-id"] { None } else { Some("v1") };
        assert_eq!(response.status(), 200, "{names:?}");
        let target = response.headers().get("x-halftone-target").and_then(|target| target.to_str().ok());
        assert!(expected.is_none_or(|expected| target == Some(expected)), "{names:?} got {target:?}");
    }
    // A path that is not UTF-8 and a query full of zero bytes are Envoy's to refuse or pass; both are fine.
    for path in ["/v2/models/%ff%fe/infer", "/%00", "/v2?x=%ff", "//", "/v2/models/digits/infer?a=b#c"] {
        let response = client.get(format!("http://{}{path}", stack.envoys[0].address)).send().await?;
        assert!(response.status().as_u16() < 500, "{path}: {}", response.status());
    }
    // The filter still decides, in the VM it started with.
    let mut headers = HeaderMap::new();
    headers.insert("x-tier", HeaderValue::from_static("gold"));
    let exchange = send(&client, &url, 1, &digits[0], headers).await;
    assert_eq!(exchange.target.as_deref(), Some("v2"));
    let log = stack.envoys[0].log();
    assert!(!log.contains("critical"), "{log}");
    Ok(())
}
