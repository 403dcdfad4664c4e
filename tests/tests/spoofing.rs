//! Clients that say something in our name: whatever the spelling and the protocol, a backend sees what the filter
//! wrote, once, and nothing else.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_proto::v1::EvaluationContext;
use halftone_rules::trace::is_valid_traceparent;
use halftone_tests::{
    Edge, EdgeOptions, Seen, WEBSOCKET_KEY, read_websocket_message, websocket_message,
    wire::{Answer, Client, Message, fields},
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type Fields<'a> = Vec<(&'a str, &'a [u8])>;

/// Even users get `v2`, others `v1`; hosts under `elsewhere.test` are nobody's business.
const RULES: &str = "match: {hosts: [models.test]}\ndefault: v1\nrules: [{name: even, condition: user.id % 2 == 0, target: v2}]\n";

/// Names that somebody down the road might take for ours.
const NAMES: [&str; 20] = [
    "x-halftone-target",
    "x-halftone-context",
    "x-halftone-route",
    "x-halftone-override",
    "x-halftone-whatever",
    "X-Halftone-Target",
    "X-HALFTONE-CONTEXT",
    "X-HALFTONE-Route",
    "x_halftone_target",
    "X_Halftone_Context",
    "x-halftone_route",
    "x_halftone-override",
    "x.halftone.target",
    "x~halftone|context",
    "x-halftone-",
    "traceparent",
    "TraceParent",
    "tracestate",
    "Baggage",
    "baggage",
];

/// A value that would matter if it got through.
fn value(name: &str) -> &'static [u8] {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "baggage" => b"halftone.target=v9, halftone.revision=99,\xa0halftone.target =v9;p, theirs=1",
        "traceparent" => b"00-not-a-trace",
        "tracestate" => b"theirs=1",
        _ if name.ends_with("route") => b"bootstrap",
        _ if name.ends_with("context") => b"CAESBmRpZ2l0cw",
        _ => b"v9",
    }
}

/// Whether a backend that takes names as CGI does would take this one for ours.
fn reads_as_ours(name: &str) -> bool {
    let plain: String = name
        .chars()
        .map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '-' })
        .collect();
    plain.starts_with("x-halftone-")
}

/// What a backend has to have seen of us for a decided request.
fn check_decided(seen: &Seen, target: &str, revision: u64) -> Result<()> {
    ensure!(seen.by == target, "it went to {}", seen.by);
    ensure!(seen.one("x-halftone-target")? == target);
    ensure!(seen.one("x-halftone-route")? == "xds/spoofed");
    let context = URL_SAFE_NO_PAD.decode(seen.one("x-halftone-context")?)?;
    let context = EvaluationContext::decode(context.as_slice())?;
    ensure!(
        context.target == target && context.revision == revision && context.ruleset == "spoofed",
        "{context:?}"
    );
    let lines = || seen.headers.iter().chain(&seen.trailers);
    let ours: Vec<_> = lines().filter(|(name, _)| reads_as_ours(name)).collect();
    ensure!(ours.len() == 3, "{ours:?}");
    ensure!(is_valid_traceparent(seen.one("traceparent")?.as_bytes()), "{seen:?}");
    let baggage = seen.one("baggage")?;
    let members: Vec<&str> =
        baggage.split(',').map(|member| member.split('=').next().unwrap_or("").trim()).collect();
    let of_ours: Vec<&&str> = members.iter().filter(|member| member.contains("halftone.")).collect();
    ensure!(of_ours == [&"halftone.target", &"halftone.revision"], "{baggage}");
    ensure!(baggage.contains(&format!("halftone.target={target},halftone.revision={revision}")), "{baggage}");
    Ok(())
}

/// What it has to have seen when nothing was decided.
fn check_elsewhere(seen: &Seen) -> Result<()> {
    ensure!(seen.by == "elsewhere", "it went to {}", seen.by);
    ensure!(seen.one("x-halftone-route")? == "bootstrap");
    let lines = || seen.headers.iter().chain(&seen.trailers);
    ensure!(lines().filter(|(name, _)| reads_as_ours(name)).count() == 1, "{seen:?}");
    ensure!(!seen.all("baggage").iter().any(|baggage| baggage.contains("halftone.")), "{seen:?}");
    Ok(())
}

/// Requests that lie in every way, and whether each may be refused for its form.
fn lies() -> Vec<(Fields<'static>, Fields<'static>, bool)> {
    let mut lies: Vec<(Fields<'_>, Fields<'_>, bool)> = Vec::new();
    for name in NAMES {
        // HTTP/2 knows no capitals.
        let refused = name != name.to_ascii_lowercase();
        lies.push((vec![(name, value(name))], vec![], refused));
        lies.push((vec![(name, value(name)); 3], vec![], refused));
        lies.push((vec![], vec![(name, value(name)); 2], refused));
        lies.push((vec![(name, b"")], vec![], refused));
        lies.push((vec![(name, b"\xff\xfe")], vec![(name, b"\xff\xfe")], refused));
    }
    // All of them at once, as headers and as trailers.
    let plain =
        || NAMES.iter().filter(|name| **name == name.to_ascii_lowercase()).map(|name| (*name, value(name)));
    lies.push((plain().collect(), plain().collect(), false));
    // Forms that Envoy refuses, or makes something harmless of.
    for name in [
        "x-halftone-target ",
        "x-halftone-target\t",
        " x-halftone-target",
        "x-halftone-target\0",
        "x-halftone-target:",
        "x-halftone-\u{131}",
        "\u{fb}x-halftone-target",
        "x-other: 1\r\n x-halftone-target",
        "x-other: 1\nx-halftone-target",
        "x-other: 1\rx-halftone-target",
    ] {
        lies.push((vec![(name, b"v9")], vec![], true));
    }
    for bytes in [&b"v9\r"[..], b"v9\0", b"v9\x0b", b"v9\r\n folded", b"v9\nx-halftone-target: v9"] {
        lies.push((vec![("x-halftone-target", bytes)], vec![], true));
    }
    // Names that a next hop is to take away.
    for nominated in [
        &b"x-halftone-target"[..],
        b"close, X-Halftone-Context",
        b"x-halftone-route, baggage, traceparent",
        b"keep-alive,,x-halftone-target;",
    ] {
        lies.push((vec![("connection", nominated), ("x-halftone-target", b"v9")], vec![], true));
        lies.push((vec![("proxy-connection", nominated), ("te", nominated)], vec![], true));
        lies.push((
            vec![("trailer", nominated), ("keep-alive", nominated)],
            vec![("x-halftone-target", b"v9")],
            true,
        ));
    }
    lies
}

#[tokio::test]
async fn what_a_client_says_in_our_name_reaches_no_backend() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    for targets in [edge.targets(), edge.targets_by_http2()] {
        let revision = edge.publish("spoofed", &targets, RULES).await?;
        for mut client in Client::both(edge.envoy.address) {
            let wire = if matches!(client, Client::Http1(..)) { "HTTP/1.1" } else { "HTTP/2" };
            let (mut answered, mut refused) = (0, 0);
            for (headers, trailers, may_be_refused) in lies() {
                for (user, target) in [("2", "v2"), ("3", "v1")] {
                    let mut headers = headers.clone();
                    // Not side by side: what begins with a blank belongs to the line before it.
                    headers.splice(0..0, [("x-user-id", user.as_bytes()), ("x-before", b"1")]);
                    let message = Message::post("/v2/models/digits/infer", &headers, &trailers);
                    let what = || format!("{wire}: {headers:?} with trailers {trailers:?}");
                    match client.send(&message).await.with_context(what)? {
                        Answer::Response(400, _) | Answer::Ended if may_be_refused => refused += 1,
                        answer => {
                            let seen = answer.seen().with_context(what)?;
                            check_decided(&seen, target, revision).with_context(what)?;
                            answered += 1;
                        }
                    }
                    let elsewhere = Message { authority: b"elsewhere.test".to_vec(), ..message };
                    match client.send(&elsewhere).await.with_context(what)? {
                        Answer::Response(400, _) | Answer::Ended if may_be_refused => {}
                        answer => check_elsewhere(&answer.seen().with_context(what)?).with_context(what)?,
                    }
                }
            }
            assert!(answered > 100 && refused > 10, "{wire}: {answered} answered, {refused} refused");
        }
    }
    ensure_no_trap(&edge).await
}

async fn ensure_no_trap(edge: &Edge) -> Result<()> {
    let log = edge.envoy.log();
    ensure!(!log.contains("[critical]"), "{log}");
    ensure!(
        edge.envoy.stat("wasm.halftone.vm_reload_success").await.unwrap_or(0) == 0,
        "the VM was reloaded"
    );
    Ok(())
}

#[tokio::test]
async fn a_grpc_call_gets_the_decision_and_keeps_its_trailers() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    let revision = edge.publish("spoofed", &edge.targets_by_http2(), RULES).await?;
    let mut client = Client::Http2(edge.envoy.address, None);
    for (user, target) in [(&b"2"[..], "v2"), (b"3", "v1")] {
        let headers: Fields<'_> = vec![
            ("content-type", b"application/grpc"),
            ("te", b"trailers"),
            ("x-user-id", user),
            ("x-halftone-target", b"v9"),
            ("x_halftone_target", b"v9"),
        ];
        let trailers: Fields<'_> = vec![
            ("x-checksum", b"17"),
            ("x-halftone-target", b"v9"),
            ("x_halftone_context", b"v9"),
            ("baggage", b"halftone.target=v9"),
            ("traceparent", b"v9"),
        ];
        let mut message = Message::post("/inference.GRPCInferenceService/ModelInfer", &headers, &trailers);
        message.body = vec![0, 0, 0, 0, 2, 8, 1];
        let seen = client.send(&message).await?.seen()?;
        check_decided(&seen, target, revision)?;
        assert_eq!(seen.trailers, [("x-checksum".to_owned(), "17".to_owned())], "what is not ours stays");
    }
    ensure_no_trap(&edge).await
}

/// A websocket through Envoy, and what the backend saw of the request that asked for it.
async fn websocket(edge: &Edge, headers: &[(&str, &[u8])]) -> Result<(TcpStream, String, Seen)> {
    let mut message = Message::get("/v2/models/digits/stream", headers);
    let upgrade: [(&str, &[u8]); 3] = [
        ("upgrade", b"websocket"),
        ("sec-websocket-version", b"13"),
        ("sec-websocket-key", WEBSOCKET_KEY.as_bytes()),
    ];
    message.headers.extend(fields(&upgrade));
    let mut stream = TcpStream::connect(edge.envoy.address).await?;
    stream.write_all(&halftone_tests::wire::http1(&message)).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.with_context(|| String::from_utf8_lossy(&head).into_owned())?);
    }
    let head = String::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 101 ") {
        bail!("no upgrade: {head}");
    }
    let (_, greeting) = read_websocket_message(&mut stream).await?;
    Ok((stream, head, serde_json::from_slice(&greeting)?))
}

#[tokio::test]
async fn a_websocket_is_decided_upon_like_any_request() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    // A time for requests that the socket outlives.
    let targets = edge.targets().replace("]}", "], timeout: 300ms}");
    let revision = edge.publish("spoofed", &targets, RULES).await?;
    let connections: [&[u8]; 3] = [
        b"Upgrade",
        b"keep-alive, Upgrade",
        // A backend that is a proxy itself would take these away.
        b"Upgrade, X-Halftone-Target, x-halftone-context, baggage",
    ];
    for connection in connections {
        for (user, target) in [(&b"2"[..], "v2"), (b"3", "v1")] {
            let headers: Fields<'_> = vec![
                ("connection", connection),
                ("x-user-id", user),
                ("x-halftone-target", b"v9"),
                ("X_Halftone_Target", b"v9"),
            ];
            let (mut stream, head, seen) = websocket(&edge, &headers).await?;
            check_decided(&seen, target, revision)?;
            assert!(head.contains(&format!("x-halftone-target: {target}\r\n")), "{head}");
            let passed_on = seen.one("connection")?.to_ascii_lowercase();
            assert!(!passed_on.contains("halftone") && !passed_on.contains("baggage"), "{passed_on}");
            for text in [&b"one"[..], b"two"] {
                tokio::time::sleep(std::time::Duration::from_millis(if connection.len() == 7 {
                    250
                } else {
                    0
                }))
                .await;
                stream.write_all(&websocket_message(text, Some([1, 2, 3, 4]))?).await?;
                assert_eq!(read_websocket_message(&mut stream).await?.1, text);
            }
        }
    }
    // One that stays open keeps its target through a change of the rules.
    let (mut stream, ..) = websocket(&edge, &[("connection", b"Upgrade"), ("x-user-id", b"2")]).await?;
    let changed = RULES.replace("target: v2", "target: v1");
    edge.publish("spoofed", &edge.targets(), &changed).await?;
    stream.write_all(&websocket_message(b"still there", Some([5; 4]))?).await?;
    assert_eq!(read_websocket_message(&mut stream).await?.1, b"still there");
    let (.., seen) = websocket(&edge, &[("connection", b"Upgrade"), ("x-user-id", b"2")]).await?;
    assert_eq!(seen.by, "v1", "the next one goes by the new rules");
    ensure_no_trap(&edge).await
}

#[tokio::test]
async fn a_client_does_not_choose_the_address_that_it_comes_from() -> Result<()> {
    let rules = "attributes: {client: {source: client_address}}\ndefault: v1\nrules: [{name: office, condition: 'cidr(client, \"10.0.0.0/8\")', target: v2}]\n";
    let edge = Edge::start(EdgeOptions::default()).await?;
    edge.publish("spoofed", &edge.targets(), rules).await?;
    for mut client in Client::both(edge.envoy.address) {
        for name in
            ["x-forwarded-for", "x-envoy-external-address", "x-real-ip", "forwarded", "true-client-ip"]
        {
            for claim in [&b"10.1.2.3"[..], b"8.8.8.8, 10.1.2.3", b"10.1.2.3, 8.8.8.8", b"for=10.1.2.3"] {
                let headers = [(name, claim), ("x-request-id", b"11111111-2222-4333-8444-555555555555")];
                let seen = client.send(&Message::get("/", &headers)).await?.seen()?;
                ensure!(seen.by == "v1", "{name}: {} is believed", claim.escape_ascii());
                ensure!(seen.one("x-request-id")?.starts_with("11111111-"), "the client's id goes on");
            }
        }
    }
    ensure_no_trap(&edge).await
}

#[tokio::test]
async fn a_client_does_not_leave_its_ruleset_by_another_spelling_of_the_host() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    edge.publish("spoofed", &edge.targets(), RULES).await?;
    for mut client in Client::both(edge.envoy.address) {
        for host in ["models.test", "MODELS.test", "models.test.", "models.test:80", "models.test.:80"] {
            let message = Message::get("/", &[("x-user-id", b"2")]);
            let message = Message { authority: host.into(), ..message };
            let seen = client.send(&message).await?.seen()?;
            ensure!(seen.by == "v2", "{host} goes to {}", seen.by);
        }
    }
    ensure_no_trap(&edge).await
}
