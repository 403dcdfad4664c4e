//! Requests that should not be, through real Envoy: no trap, no effect on others.

use anyhow::{Context, Result};
use halftone_tests::{
    Edge, EdgeOptions, Stack, digits,
    traffic::{client, send},
    wire::{Client, Message},
};
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};

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

/// A ruleset for a host of its own whose rule reads so many attributes, half of them from headers and half from cookies.
fn reading(host: &str, attributes: usize) -> String {
    let declared: String = (0..attributes)
        .map(|n| format!("  a{n}: {{{}: a{n}}}\n", if n % 2 == 0 { "header" } else { "cookie" }))
        .collect();
    let condition = (0..attributes).map(|n| format!("a{n} == 'v{n}'")).collect::<Vec<_>>().join(" && ");
    format!(
        "match: {{hosts: [{host}]}}\ndefault: v1\nattributes:\n{declared}rules:\n  - {{name: all, condition: \"{condition}\", target: v2}}\n"
    )
}

/// Headers and cookies for the attributes, the last of them wrong when told so, and what fills a request up to Envoy's
/// limits of 100 headers and 96 KiB.
fn full_request(host: &str, last_is_wrong: bool, headers: usize, filler: usize) -> Message {
    let value = |n: usize| if last_is_wrong && n == 48 { "wrong".to_owned() } else { format!("v{n}") };
    let of_cookies = (0..200).map(|n| format!("a{n}={}", value(n))).collect::<Vec<_>>().join("; ");
    let mut message = Message { authority: host.into(), ..Message::get("/", &[]) };
    message.headers =
        (0..headers - 26).map(|n| (format!("x-filler-{n}").into(), vec![b'a'; filler])).collect();
    message.headers.push((b"cookie".to_vec(), of_cookies.into()));
    message.headers.extend((0..50).step_by(2).map(|n| (format!("a{n}").into(), value(n).into())));
    message
}

#[tokio::test]
async fn two_hundred_attributes_are_read_up_to_envoys_limits() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    let hosts = ["r0.test", "r1.test", "r2.test", "r3.test"];
    for host in hosts {
        edge.publish(host, &edge.targets(), &reading(host, 50)).await?;
    }
    // What one ruleset may read is bounded, and the answer says so.
    let text = format!("version: v1\n{}{}", edge.targets(), reading("r4.test", 200));
    let refused = edge.control_plane.request(Method::PUT, "/v1/rulesets/r4", text).await?;
    assert_eq!(refused.status(), 422);
    let answer = refused.text().await?;
    assert!(answer.contains("64"), "{answer}");
    for mut client in Client::both(edge.envoy.address) {
        for host in hosts {
            for (last_is_wrong, target) in [(false, "v2"), (true, "v1")] {
                let message = full_request(host, last_is_wrong, 90, 1_300);
                let seen = client.send(&message).await?.seen().context(host)?;
                assert_eq!((seen.by.as_str(), seen.one("x-halftone-target")?), (target, target), "{host}");
            }
        }
        // Beyond them Envoy refuses, and the next request is none the worse for it.
        for (headers, filler) in [(90, 1_700), (120, 1), (27, 120_000)] {
            let answer = client.send(&full_request("r0.test", false, headers, filler)).await?;
            assert!(matches!(answer.status(), 0 | 431), "{headers} headers: {}", answer.status());
        }
        let seen = client.send(&full_request("r0.test", false, 90, 10)).await?.seen()?;
        assert_eq!(seen.by, "v2");
    }
    assert!(!edge.envoy.log().contains("[critical]"), "{}", edge.envoy.log());
    Ok(())
}

/// Bytes that no client library sends, in values that rules read and in others, in one line and in several.
#[tokio::test]
async fn control_characters_are_refused_by_envoy_or_have_no_value() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    let rules = "default: v1\nattributes: {tier: {header: x-tier}}\nrules: [{name: gold, condition: tier == 'gold', target: v2}]\n";
    edge.publish("odd", &edge.targets(), rules).await?;
    let lines: [&[&[u8]]; 4] = [&[b"?"], &[b"?gold"], &[b"gold?"], &[b"?", b"gold"]];
    for mut client in Client::both(edge.envoy.address) {
        let (mut taken, mut refused) = (0, 0);
        for byte in (0..=b' ').chain(0x7f..=0xa0).chain([0xff]).filter(|byte| !matches!(byte, b'\r' | b'\n'))
        {
            for name in ["x-tier", "x-other", "baggage"] {
                for lines in lines {
                    let mut message = Message::get("/", &[("x-tier", b"gold")]);
                    let odd = lines.iter().map(|line| {
                        (
                            name.as_bytes().to_vec(),
                            line.iter().map(|&b| if b == b'?' { byte } else { b }).collect(),
                        )
                    });
                    message.headers.splice(0..0, odd);
                    let answer = client.send(&message).await?;
                    if matches!(answer.status(), 0 | 400) {
                        refused += 1;
                        continue;
                    }
                    taken += 1;
                    let seen = answer.seen().with_context(|| format!("{byte:#x} in {name}"))?;
                    // As it arrived: Envoy takes blanks away around values, or not. The first line counts.
                    let gold = seen.all("x-tier").first() == Some(&"gold");
                    assert!(gold || name == "x-tier", "{byte:#x} in {name}: {seen:?}");
                    let target = if gold { "v2" } else { "v1" };
                    assert_eq!(seen.by, target, "{byte:#x} in {name}, {lines:?}");
                }
            }
        }
        assert!(taken > 300 && refused > 300, "{taken} taken, {refused} refused");
    }
    assert!(!edge.envoy.log().contains("[critical]"), "{}", edge.envoy.log());
    Ok(())
}
