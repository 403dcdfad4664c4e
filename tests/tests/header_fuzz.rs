//! Generated headers against real Envoy: with the filter it answers what it answers without, decides as the native
//! evaluator does, and passes on what is well-formed.
//!
//! The seed is printed, and taken from `HALFTONE_FUZZ_SEED` when that is set; `HALFTONE_FUZZ_CASES` is how many requests
//! are made by each protocol.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_compiler::{compile, link};
use halftone_proto::v1::EvaluationContext;
use halftone_rules::{Request, Timestamp, VerifiedBundle, codec, token};
use halftone_tests::{
    Edge, EdgeOptions, Envoy, EnvoyOptions, Seen, closing_soon, command,
    wire::{Answer, Client, Field, Message, bytes},
};
use prost::Message as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Requests by each protocol, unless the machine is so busy that they take longer than is enough.
const CASES: u64 = 2_000;
const ENOUGH: Duration = Duration::from_secs(15);
/// Clients at a time.
const LANES: u64 = 8;
/// Bytes that Envoy may grow by. It keeps buffers of the largest requests for each connection.
const MAX_GROWTH: u64 = 24 << 20;

/// Everything that is read from a request by a condition, a path, a host, a cookie or a token.
const RULESETS: [(&str, &str); 2] = [
    (
        "main",
        "match: {hosts: [models.test, '*.example.com'], path_prefixes: [/v2]}
default: v1
attributes:
  tier: {header: x-tier}
  age: {header: x-age, type: int}
  score: {header: x-score, type: double}
  beta: {header: x-beta, type: bool}
  version: {header: x-version, type: semver}
  groups: {header: x-groups, type: list}
  raw: {header: x-raw, type: bytes}
  plan: {cookie: plan}
  flag: {query: flag}
rules:
  - {name: tier, condition: \"tier == 'gold' || tier.startsWith('g') && size(tier) > 5\", weight: 0.5, target: v2}
  - {name: age, condition: 'age - 10 > 20 && age % 7 != 0', weight: 0.5, target: v2}
  - {name: score, condition: 'score * 2.0 >= 1.5 && score < 10.0', target: v2}
  - {name: beta, condition: beta, weight: 0.3, target: v2}
  - {name: version, condition: \"version >= semver('1.2.3-rc.1')\", target: v2}
  - {name: groups, condition: \"'beta' in groups\", target: v2}
  - {name: raw, condition: \"size(raw) > 20\", weight: 0.5, target: v2}
  - {name: plan, condition: \"plan == 'pro' || plan.matches('[0-9]$')\", target: v2}
  - {name: flag, condition: \"flag == 'on'\", target: v2}
  - {name: path, condition: \"request.path.endsWith('/infer') && request.method == 'POST'\", weight: 0.5, target: v2}
  - {name: host, condition: \"request.host.contains('example')\", weight: 0.5, target: v2}
  - {name: user, condition: 'user.id % 2 == 0', weight: 0.5, target: v2}
",
    ),
    ("second", "match: {path_prefixes: [/second]}\ndefault: v1\nrules: [{name: half, weight: 0.5, target: v2}]\n"),
];

/// Numbers that look random, the same ones for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or_default()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Makes requests around what the filter parses.
struct Generator {
    random: Random,
    tokens: Vec<String>,
    /// Line ends within a name or a value would make another request of what follows in HTTP/1.1.
    line_ends: bool,
}

const HEADERS: [&str; 28] = [
    "x-user-id",
    "x-user-id",
    "x-tier",
    "x-age",
    "x-score",
    "x-beta",
    "x-version",
    "x-groups",
    "x-raw",
    "cookie",
    "cookie",
    "traceparent",
    "traceparent",
    "tracestate",
    "tracestate",
    "baggage",
    "baggage",
    "x-halftone-override",
    "x-halftone-override",
    "x-halftone-target",
    "x-halftone-context",
    "x-halftone-route",
    "x_halftone_target",
    "x-halftone-x",
    "x-other",
    "accept",
    "user-agent",
    "x-tenant-tier",
];

const VALUES: [&str; 30] = [
    "",
    "0",
    "1",
    "42",
    "-5",
    "007",
    "+7",
    " 8 ",
    "9223372036854775807",
    "18446744073709551616",
    "1e3",
    "0.75",
    "NaN",
    "1e400",
    "true",
    "false",
    "gold",
    "giraffe",
    "silver",
    "1.2.3",
    "1.2.3-beta.7",
    "beta, qa",
    "a,beta",
    "plan=pro",
    "plan=\"7\"; plan=x",
    "a=1; plan = pro ;b",
    "xds/main",
    "v2",
    "%zz",
    "größe",
];

/// Bytes that mean something to a parser.
const SIGNS: &[u8] = b" \t,;=-_.%/\"\\:@+\x0b\x7f\x80\xa0\xff\0\r\n";

const TRACEPARENTS: [&str; 5] = [
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
    "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
];
const STATES: [&str; 6] = ["a=1", "a=1,b=2", ",, a=1 ,", "t@v=x y", "A=1", "a=1=2"];
const BAGGAGE: [&str; 7] = [
    "a=1",
    "a=1;p=2, b = 2",
    "halftone.target=v9",
    " halftone.revision = 9;x ,c=3",
    ",,",
    "k=%E2%82%AC",
    "halftone.targets=1",
];
const PATHS: [&str; 16] = [
    "/v2",
    "/v2/models/digits/infer",
    "/v2/models/digits/infer?flag=on",
    "/v2?flag=off&flag=on",
    "/v2?flag",
    "/v20",
    "/second",
    "/second/x",
    "/",
    "//v2//x",
    "/v2/../second",
    "/%76%32/x",
    "/v2/%2e%2e/second",
    "/v2/\u{e4}",
    "/v2;x=1",
    "/v2/x?%00=\u{7f}",
];
const HOSTS: [&str; 8] = [
    "models.test",
    "models.test",
    "models.test:8443",
    "a.example.com",
    "MODELS.test",
    "elsewhere.test",
    "example.com",
    "models.test.",
];

impl Generator {
    fn message(&mut self) -> Message {
        let mut message = Message::get("/", &[]);
        message.method = self.random.pick(&["GET", "POST", "PUT", "DELETE"]).into();
        message.path = self.text(&PATHS, 30);
        message.authority = self.text(&HOSTS, 60);
        let lines = self.random.below(12);
        for _ in 0..lines {
            let field = self.field();
            let copies = if self.random.one_in(12) { 1 + self.random.below(30) } else { 1 };
            message.headers.extend(std::iter::repeat_n(field, copies));
        }
        if message.method == b"POST" && self.random.one_in(3) {
            message.body = b"body".to_vec();
            let trailers = self.random.below(3);
            message.trailers = (0..trailers).map(|_| self.field()).collect();
        }
        message
    }

    fn field(&mut self) -> Field {
        let name = self.random.pick(&HEADERS);
        let value = match name {
            "traceparent" => self.text(&TRACEPARENTS, 3),
            "tracestate" => self.list(&STATES, 40),
            "baggage" => self.list(&BAGGAGE, 80),
            "x-halftone-override" => {
                let tokens = self.tokens.clone();
                self.text(&tokens.iter().map(String::as_str).collect::<Vec<_>>(), 2)
            }
            _ => self.text(&VALUES, 3),
        };
        let mut name = name.as_bytes().to_vec();
        if self.random.one_in(25) {
            self.mutate(&mut name);
        }
        // HTTP/2 knows no capitals.
        if self.random.one_in(if self.line_ends { 300 } else { 10 }) {
            name.make_ascii_uppercase();
        }
        (name, value)
    }

    /// One of the texts, and one in so many changed a little.
    fn text(&mut self, texts: &[&str], one_in: usize) -> Vec<u8> {
        let mut text = self.random.pick(texts).as_bytes().to_vec();
        if self.random.one_in(one_in) {
            self.mutate(&mut text);
        }
        text
    }

    fn list(&mut self, members: &[&str], most: usize) -> Vec<u8> {
        let count = if self.random.one_in(8) { self.random.below(most) } else { self.random.below(4) };
        let list = (0..count).map(|_| self.text(members, 12)).collect::<Vec<_>>();
        list.join(&b","[..])
    }

    fn mutate(&mut self, text: &mut Vec<u8>) {
        for _ in 0..=self.random.below(3) {
            let at = self.random.below(text.len() + 1);
            match self.random.below(6) {
                0 => text.insert(at, self.byte()),
                1 if at < text.len() => text[at] = self.byte(),
                2 if at < text.len() => drop(text.remove(at)),
                3 => text.truncate(at),
                4 => {
                    let copies = self.random.below(if text.len() < 64 { 300 } else { 3 });
                    *text = text.repeat(copies);
                }
                _ => text.extend(text.clone().get(at..).unwrap_or_default()),
            }
        }
    }

    fn byte(&mut self) -> u8 {
        loop {
            let byte = if self.random.one_in(2) {
                SIGNS[self.random.below(SIGNS.len())]
            } else {
                self.random.next().to_le_bytes()[0]
            };
            if self.line_ends || !matches!(byte, b'\r' | b'\n') {
                return byte;
            }
        }
    }
}

/// The request as the evaluator is to see it: as it arrived where there is no filter, which is after all that Envoy
/// makes of paths, hosts and blanks.
struct Arrived {
    headers: Vec<(String, Vec<u8>)>,
    /// The target that a valid token demands in ruleset `main`.
    demanded: Option<&'static str>,
}

impl Request for Arrived {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }

    fn headers(&self) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
        Some(self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
    }

    fn demanded_target(&self, ruleset: &str) -> Option<&str> {
        self.demanded.filter(|_| ruleset == "main")
    }
}

impl Arrived {
    fn new(seen: &Seen, valid_token: &str) -> Self {
        let pseudo = |name: &str, value: &str| (name.to_owned(), bytes(value));
        let host = seen.headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
        let mut headers = vec![
            pseudo(":method", &seen.method),
            pseudo(":path", &seen.path),
            pseudo(":authority", host.unwrap_or_default()),
        ];
        headers.extend(seen.headers.iter().map(|(name, value)| pseudo(name, value)));
        let token =
            seen.headers.iter().find(|(name, _)| name == token::HEADER).map(|(_, value)| value.as_str());
        Self { headers, demanded: (token == Some(valid_token)).then_some("v2") }
    }
}

struct Fuzz {
    edge: Edge,
    plain: Envoy,
    bundle: VerifiedBundle,
    tokens: Vec<String>,
}

impl Fuzz {
    async fn start() -> Result<Self> {
        let keys = tempfile::tempdir()?;
        let key = keys.path().join("qa.key");
        let halftone = halftone_tests::Paths::find()?.halftone;
        let made = command(&halftone).args(["override", "new-key", "--out"]).arg(&key).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let token = command(&halftone)
            .args(["override", "token", "--ruleset", "main", "--target", "v2", "--for", "10h", "--key"])
            .arg(&key)
            .output()?;
        let token = String::from_utf8(token.stdout)?.trim().to_owned();
        let public = keys.path().join("qa.key.pub");
        let serve = ["--override-key-file", public.to_str().context("a path")?];
        let edge = Edge::start(EdgeOptions { serve: &serve, ..EdgeOptions::default() }).await?;
        let mut compiled = Vec::new();
        for (name, rules) in RULESETS {
            edge.publish(name, &edge.targets(), rules).await?;
            let text = format!("version: v1\n{}{rules}", edge.targets());
            compiled.push(compile(&text, name).map_err(|problems| anyhow::anyhow!("{problems:#?}"))?);
        }
        let bundle = codec::decode(&codec::encode(&link(2, compiled.iter())?)?)?;
        let options = EnvoyOptions {
            name: "plain",
            workers: 1,
            xds: edge.control_plane.xds,
            xds_form: "sotw",
            default_endpoint: edge.elsewhere.address,
            port: 0,
            admin: 0,
            edit_bootstrap: without_filter,
        };
        let plain = Envoy::start(edge.paths(), edge.folder(), &options).await?;
        // A worker checks so many signatures in a second and remembers the valid ones: so that junk cannot shut it out.
        let first = Message::get("/v2", &[(token::HEADER, token.as_bytes())]);
        let seen = Client::Http1(edge.envoy.address, None).send(&first).await?.seen()?;
        ensure!(seen.by == "v2", "the token is not taken: {seen:?}");
        let junk = token.replace("/v2/", "/v1/");
        Ok(Self { edge, plain, bundle, tokens: vec![token, junk, "v2".into(), "main/v2/1.x".into()] })
    }

    /// Compares what came of a message with the filter and without.
    fn check(&self, with: &Answer, without: &Answer) -> Result<bool> {
        // Envoy ends a connection that it has refused something on, and then the answer may get lost.
        let class = |answer: &Answer| if (400..500).contains(&answer.status()) { 0 } else { answer.status() };
        ensure!(class(with) == class(without), "{} instead of {}", with.status(), without.status());
        if with.status() != 200 {
            ensure!(with.status() < 500);
            return Ok(false);
        }
        let (with, without) = (with.seen()?, without.seen()?);
        let decided = self.check_decision(&with, &without)?;
        check_rest(&with, &without)?;
        check_trace(&with, &without, decided)?;
        check_baggage(&with, &without, decided)?;
        Ok(decided)
    }

    fn check_decision(&self, with: &Seen, without: &Seen) -> Result<bool> {
        let arrived = Arrived::new(without, &self.tokens[0]);
        let ours =
            with.headers.iter().filter(|(name, _)| name.replace('_', "-").starts_with("x-halftone-")).count();
        let Some(native) = self.bundle.decide(&arrived, Timestamp(0), &mut ()) else {
            ensure!(
                ours == 1 && with.one("x-halftone-route")? == "bootstrap" && with.by == "elsewhere",
                "{with:?}"
            );
            return Ok(false);
        };
        ensure!(ours == 3, "{with:?}");
        ensure!(with.one("x-halftone-route")? == format!("xds/{}", native.ruleset));
        ensure!(with.one("x-halftone-target")? == native.target, "{} is right: {with:?}", native.target);
        ensure!(with.by == native.target);
        let context = URL_SAFE_NO_PAD.decode(with.one("x-halftone-context")?)?;
        let context = EvaluationContext::decode(context.as_slice())?;
        let right = context.ruleset == native.ruleset
            && context.target == native.target
            && context.rule == native.rule.unwrap_or_default()
            && context.reason == native.reason as i32
            && context.bucket == native.bucket
            && context.unit_hash == native.unit_hash.unwrap_or_default()
            && context.overridden == native.overridden
            && context.revision == 2;
        ensure!(right, "{context:?} where {native:?} is right");
        Ok(true)
    }
}

/// Nothing but what the filter is there for is different.
fn check_rest(with: &Seen, without: &Seen) -> Result<()> {
    let theirs = |seen: &Seen| {
        let ours = |name: &str| {
            let plain = name.replace(|char: char| !char.is_ascii_alphanumeric(), "-");
            plain.starts_with("x-halftone-")
                || matches!(name, "traceparent" | "tracestate" | "baggage" | "x-request-id")
                // Envoy's own, by the route.
                || name == "x-envoy-expected-rq-timeout-ms"
        };
        let mut theirs = seen.headers.clone();
        theirs.retain(|(name, _)| !ours(name));
        theirs
    };
    ensure!((&with.method, &with.path) == (&without.method, &without.path));
    ensure!(theirs(with) == theirs(without), "{:?} where {:?} came", theirs(with), theirs(without));
    Ok(())
}

/// By W3C's grammar, written differently than in the filter.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length| {
        part.len() == length && part.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    };
    let [version, trace, parent, flags, rest @ ..] = parts.as_slice() else { return false };
    hex(version, 2)
        && *version != "ff"
        && (*version != "00" || rest.is_empty())
        && hex(trace, 32)
        && !trace.trim_matches('0').is_empty()
        && hex(parent, 16)
        && !parent.trim_matches('0').is_empty()
        && hex(flags, 2)
}

fn is_tracestate(lines: &[&str]) -> bool {
    let list = lines.join(",");
    let members: Vec<&str> = list
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
        .collect();
    let key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c);
    members.len() <= 32
        && members.iter().all(|member| {
            let mut parts = member.splitn(2, '=');
            let (name, Some(value)) = (parts.next().unwrap_or_default(), parts.next()) else { return false };
            (1..=256).contains(&name.chars().count())
                && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && name.chars().all(key)
                && (1..=256).contains(&value.chars().count())
                && value.chars().all(|c| (' '..='~').contains(&c) && c != '=')
        })
}

fn check_trace(with: &Seen, without: &Seen, decided: bool) -> Result<()> {
    let (parents, states) = (without.all("traceparent"), without.all("tracestate"));
    if !decided {
        ensure!(with.all("traceparent") == parents && with.all("tracestate") == states, "{with:?}");
        return Ok(());
    }
    let traceparent = with.one("traceparent")?;
    ensure!(is_traceparent(traceparent), "{traceparent}");
    let continues = matches!(parents.as_slice(), [parent] if is_traceparent(parent));
    ensure!((parents == [traceparent]) == continues, "{traceparent} where {parents:?} came");
    let kept = if continues && is_tracestate(&states) { states } else { Vec::new() };
    ensure!(with.all("tracestate") == kept, "{:?} where {kept:?} is right", with.all("tracestate"));
    Ok(())
}

fn check_baggage(with: &Seen, without: &Seen, decided: bool) -> Result<()> {
    let came = without.all("baggage").join(",");
    let members = |list: &str| -> Vec<String> {
        let members = list.split(',').map(|member| member.trim_matches([' ', '\t']));
        members.filter(|member| !member.is_empty()).map(ToOwned::to_owned).collect()
    };
    let name = |member: &str| {
        let name = member.split(['=', ';']).next().unwrap_or_default();
        name.trim_matches(|c: char| !c.is_ascii_graphic()).to_owned()
    };
    let mut expected = members(&came);
    expected.retain(|member| !matches!(name(member).as_str(), "halftone.target" | "halftone.revision"));
    if decided {
        let ours = [format!("halftone.target={}", with.by), "halftone.revision=2".to_owned()];
        let bytes = expected.iter().chain(&ours).map(|member| member.chars().count() + 1).sum::<usize>() - 1;
        if expected.len() <= 62 && bytes <= 8_192 {
            expected.extend(ours);
        }
    }
    match with.all("baggage").as_slice() {
        [] => ensure!(expected.is_empty(), "no baggage where {expected:?} is right"),
        [line] => ensure!(members(line) == expected, "{line} where {expected:?} is right"),
        // Nothing had to be done with it.
        lines => bail!("{lines:?}"),
    }
    Ok(())
}

fn without_filter(bootstrap: &str) -> String {
    let bootstrap = closing_soon(bootstrap);
    let start = bootstrap.find("                  - name: halftone\n").unwrap_or_default();
    let end = bootstrap.find("                  - name: envoy.filters.http.router\n").unwrap_or_default();
    format!("{}{}", &bootstrap[..start], &bootstrap[end..])
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// How many requests were made, answered, and decided on.
type Counts = [u64; 3];

impl Fuzz {
    /// One client after the other, of each Envoy, with the requests of one seed.
    async fn lane(&self, http2: bool, seed: u64, cases: u64, until: Instant) -> Result<Counts> {
        let client = |envoy: &Envoy| {
            let [of_http1, of_http2] = Client::both(envoy.address);
            if http2 { of_http2 } else { of_http1 }
        };
        let (mut with, mut without) = (client(&self.edge.envoy), client(&self.plain));
        let mut generator = Generator { random: Random(seed), tokens: self.tokens.clone(), line_ends: http2 };
        let mut counts = [0; 3];
        for case in 0..cases {
            if Instant::now() > until {
                break;
            }
            let message = generator.message();
            let wire = if http2 { "HTTP/2" } else { "HTTP/1.1" };
            let what = || format!("seed {seed}, case {case}, {wire}: {message:?}");
            let (with, without) = tokio::join!(with.send(&message), without.send(&message));
            let (with, without) = (with.with_context(what)?, without.with_context(what)?);
            let decided = self.check(&with, &without).with_context(what)?;
            counts =
                [counts[0] + 1, counts[1] + u64::from(with.status() == 200), counts[2] + u64::from(decided)];
        }
        Ok(counts)
    }

    async fn lanes(&self, http2: bool, seed: u64, cases: u64, until: Instant) -> Result<Counts> {
        let lanes = (0..LANES).map(|lane| self.lane(http2, seed.wrapping_add(lane), cases / LANES, until));
        let counts = futures::future::try_join_all(lanes).await?;
        Ok(counts
            .into_iter()
            .fold([0; 3], |sum, lane| [sum[0] + lane[0], sum[1] + lane[1], sum[2] + lane[2]]))
    }
}

#[tokio::test]
async fn generated_headers_do_no_harm() -> Result<()> {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let seed = number("HALFTONE_FUZZ_SEED").unwrap_or(now);
    let wanted = number("HALFTONE_FUZZ_CASES");
    let (cases, time) = wanted.map_or((CASES, ENOUGH), |cases| (cases, Duration::from_secs(24 * 3600)));
    println!("seed {seed}, {cases} requests by each protocol");
    let fuzz = Fuzz::start().await?;
    for http2 in [false, true] {
        // Afterwards all that there will ever be is there.
        fuzz.lanes(http2, !seed, cases / 4, Instant::now() + time).await?;
        let before = fuzz.edge.envoy.resident_bytes()?;
        let [made, answered, decided] = fuzz.lanes(http2, seed, cases, Instant::now() + time).await?;
        let after = fuzz.edge.envoy.resident_bytes()?;
        println!(
            "{made} made, {answered} answered, {decided} decided; resident memory from {before} to {after} bytes"
        );
        assert!(
            made > 0 && answered * 2 > made && decided * 4 > made,
            "too much is refused for this to say something"
        );
        assert!(after.saturating_sub(before) < MAX_GROWTH, "Envoy grew from {before} to {after} bytes");
    }
    let log = fuzz.edge.envoy.log();
    assert!(!log.contains("[critical]"), "{log}");
    for stat in ["vm_reload_success", "vm_reload_failure", "vm_reload_backoff"] {
        assert_eq!(fuzz.edge.envoy.stat(&format!("wasm.halftone.{stat}")).await.unwrap_or(0), 0, "{stat}");
    }
    Ok(())
}
