//! The main job, on real parts: digits through Envoy, split by a gray rule, the rule changed under load; then releases that
//! are promoted and rolled back by themselves.
//!
//! `--check` does it bounded in time and checks every claim that it prints.

mod check;
mod folder;
mod ports;
mod report;
mod story;
mod why;

use anyhow::Result;
use check::Checks;
use clap::Parser;
use halftone_tests::{
    Paths, Ports, Stack,
    digits::{self, Digit},
    repository,
    traffic::{Exchange, Traffic, by_target, failures, replay},
};
use std::{collections::HashSet, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// The share of users that version 2 gets first, and after the change.
const FIRST_SHARE: f64 = 0.10;
const SECOND_SHARE: f64 = 0.50;
/// Versions of the model, each with a backend.
const VERSIONS: u16 = 3;
/// Users whose digits are replayed.
const USERS: u64 = 6_000;
/// Clients that send at the same time.
const CONNECTIONS: usize = 8;

/// Halftone's demo: real Envoy, ONNX Runtime and handwritten digits.
#[derive(Parser)]
#[command(name = "demo", bin_name = "scripts/demo.sh")]
struct Args {
    /// Check every claim, end by itself, and fail when one is false.
    #[arg(long)]
    check: bool,
    /// Port of the REST API.
    #[arg(long, default_value_t = 8080)]
    rest_port: u16,
    /// Port of the xDS server.
    #[arg(long, default_value_t = 18000)]
    xds_port: u16,
    /// Port of Envoy.
    #[arg(long, default_value_t = 10000)]
    envoy_port: u16,
    /// Port of Envoy's admin interface.
    #[arg(long, default_value_t = 9901)]
    admin_port: u16,
    /// Port of the first backend; the others take the next ones.
    #[arg(long, default_value_t = 8001, value_parser = clap::value_parser!(u16).range(..65_534))]
    backend_port: u16,
    /// Let the system choose all ports, also those of the metrics (9921 of the control plane, 9911 to 9913 of the backends). With a
    /// --folder of its own, a demo can run beside another one.
    #[arg(long)]
    free_ports: bool,
    /// Folder for the logs and the store: a new one, an empty one, or one that an earlier demo made; `.halftone/demo` of the
    /// repository when left out.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// An OpenTelemetry collector (http://HOST:PORT) that the control plane and the backends send spans and metrics to.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

impl Args {
    fn ports(&self) -> Ports {
        if self.free_ports {
            return Ports::default();
        }
        Ports {
            rest: self.rest_port,
            xds: self.xds_port,
            envoy: self.envoy_port,
            admin: self.admin_port,
            backend: self.backend_port,
        }
    }

    /// The programs, with where they show their metrics and what they are told of the collector. The filter and Envoy send nothing.
    fn paths(&self) -> Result<Paths> {
        let mut paths = Paths::find()?;
        let metrics = |port: &str| format!("--admin=127.0.0.1:{}", if self.free_ports { "0" } else { port });
        paths.serve_flags.push(metrics(&ports::CONTROL_PLANE_METRICS.to_string()).into());
        paths.inference_flags.push(metrics(&format!("{}{{version}}", ports::BACKEND_METRICS_TENS)));
        let otlp = self.otlp_endpoint.iter().map(|url| format!("--otlp-endpoint={url}"));
        paths.serve_flags.extend(otlp.clone().map(Into::into));
        paths.inference_flags.extend(otlp);
        Ok(paths)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // One thread: the machine's cores are for what is shown.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(until_interrupted(&args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo. Whatever ends it, the processes it started end with the stack.
async fn until_interrupted(args: &Args) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let signalled = tokio::select! {
        code = run(args) => return code,
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
    };
    println!("\nall processes are stopped");
    // A demo is ended this way; checks that are cut off have shown nothing. As shells count: 130 and 143.
    let cut_off = u8::try_from(128 + signalled.as_raw_value())?;
    Ok(if args.check { ExitCode::from(cut_off) } else { ExitCode::SUCCESS })
}

async fn run(args: &Args) -> Result<ExitCode> {
    let folder = args.folder.clone().unwrap_or_else(|| repository().join(".halftone/demo"));
    let _lock = folder::lock(&folder)?;
    let ports = args.ports();
    ports::check(ports, VERSIONS, !args.free_ports)?;
    folder::empty(&folder)?;

    println!("Starting the control plane, three backends with ONNX Runtime, and Envoy with the filter …");
    let stack = Stack::start_in(args.paths()?, &folder, ports, VERSIONS, 1, 2).await?;
    let digits = Arc::new(digits::test_set()?);
    let urls = [stack.envoys[0].infer_url()];
    let mut checks = Checks::default();

    let ruleset = ruleset(&stack, FIRST_SHARE);
    println!("\nUploading this ruleset to http://{}/v1/rulesets/digits:\n", stack.control_plane()?.rest);
    println!("{}", report::indented(&ruleset));
    let revision = stack.publish("digits", &ruleset).await?;
    println!(
        "Envoy runs it: revision {revision}. {USERS} users send one of {} handwritten digits each through Envoy:\n",
        digits.len()
    );

    let first = replay(&urls, &digits, 1..=USERS, CONNECTIONS).await?;
    report::table(&first, FIRST_SHARE);
    checks.no_failures("replay", &first);
    checks.split(&first, FIRST_SHARE);
    checks.served_by_the_named_version(&first);
    checks.second_version_is_better(&first);

    println!(
        "\nNow the rule's share goes from {FIRST_SHARE} to {SECOND_SHARE} by a PUT, while traffic runs:\n"
    );
    let change = change_under_load(&stack, &urls, &digits).await?;
    report::timeline(&change.exchanges, change.at);
    let failed = failures(&change.exchanges).len();
    println!("\n{} requests during the change, {failed} failed.", change.exchanges.len());
    checks.no_failures("change", &change.exchanges);

    let second = replay(&urls, &digits, 1..=USERS, CONNECTIONS).await?;
    println!("\nThe same users again:\n");
    report::table(&second, SECOND_SHARE);
    let (before, after) = (candidates(&first), candidates(&second));
    let back = before.difference(&after).count();
    println!("\n{} users moved to v2, {back} moved back.", after.len() - (before.len() - back));
    checks.no_failures("second replay", &second);
    checks.split(&second, SECOND_SHARE);
    checks.nobody_moved_back(back);

    let broken = releases(&stack, &urls, &digits, &mut checks).await?;
    let why = why::ask(&stack, &broken, "v3")?;
    checks.explained(&why);

    if args.check {
        return Ok(checks.report());
    }
    report::curl_lines(&stack, &digits[0].request, &why.trace)?;
    // Until somebody ends it.
    std::future::pending().await
}

/// Releases, one after the other: a copy, a better version, a broken one. The answer is all requests during the last one.
async fn releases(
    stack: &Stack,
    urls: &[String],
    digits: &Arc<Vec<Digit>>,
    checks: &mut Checks,
) -> Result<Vec<Exchange>> {
    println!(
        "\nFrom here on nobody moves a weight. A release does it, by what it sees: errors from the backends, and whether\n\
         answers were right from the application, which sends each label back. Everybody is at v1 again.\n"
    );
    stack.publish("digits", &story::ruleset(stack)?).await?;
    println!("{}", report::indented(&story::text("v1", "v1-copy")));
    println!(
        "1. v1-copy is v1 under another name. Nothing is better about it, so it must not be promoted:\n"
    );
    let copy = story::tell(stack, digits, "v1", "v1-copy").await?;
    println!("\n  So v1 stays. {} labels were sent back.", copy.labels);
    checks.no_failures("release of the copy", &copy.exchanges);
    checks.copy_stays_out(&copy);

    println!("\n2. v2 reads more digits right. The same release, with v2:\n");
    let better = story::tell(stack, digits, "v1", "v2").await?;
    let everybody = replay(urls, digits, 1..=USERS, CONNECTIONS).await?;
    let of_v2 = by_target(&everybody).get("v2").map_or(0, Vec::len);
    println!("\n  {of_v2} of {} users have v2 now.", everybody.len());
    checks.no_failures("release of v2", &better.exchanges);
    checks.promoted_for_everybody(&better, &everybody);

    println!(
        "\n3. v3 is v2, exported wrongly: it answers everything, mostly wrongly. The same release, with v3 after v2:\n"
    );
    let broken = story::tell(stack, digits, "v2", "v3").await?;
    if let (Some(noticed), Some(safe)) = (broken.seconds("start", "rollback"), broken.seconds_to_safe()) {
        println!("\n  Noticed {noticed:.1} s after its first request; time to safe: {safe:.1} s.");
    }
    checks.no_failures("release of v3", &broken.exchanges);
    checks.rolled_back(&broken);
    Ok(broken.exchanges)
}

fn ruleset(stack: &Stack, share: f64) -> String {
    format!(
        "version: v1\n{}default: v1\nrules:\n  - name: canary\n    condition: user.id > 0\n    weight: {share}\n    target: v2\n",
        stack.targets()
    )
}

/// Users who got version 2.
fn candidates(exchanges: &[Exchange]) -> HashSet<u64> {
    by_target(exchanges).get("v2").into_iter().flatten().map(|exchange| exchange.user).collect()
}

/// What happened around a change.
struct Change {
    exchanges: Vec<Exchange>,
    /// When the PUT was answered.
    at: std::time::Instant,
}

async fn change_under_load(stack: &Stack, urls: &[String], digits: &Arc<Vec<Digit>>) -> Result<Change> {
    let traffic = Traffic::start(urls, digits, CONNECTIONS, Duration::from_millis(10), USERS)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let revision = stack.control_plane()?.put("digits", ruleset(stack, SECOND_SHARE)).await?;
    let at = std::time::Instant::now();
    stack.control_plane()?.wait_for_acks(revision, 1).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(Change { exchanges: traffic.stop().await?, at })
}
