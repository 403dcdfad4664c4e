//! `halftone serve`: everything running together.

use crate::{
    api::{self, Token},
    fleet_metrics,
    gate::Gate,
    hooks::{self, Gatekeeper},
    ledger::{self, Access, Ledger, Limits},
    module::ModuleArgs,
    override_key,
    publisher::Publisher,
    release::{self, Controller, prometheus::PrometheusArgs},
    rollback,
    store::{SqliteStore, StoredRelease},
    xds::{self, Nodes, ProxySettings, TraceOwner, TraceSample},
};
use anyhow::{Context, bail};
use clap::Args;
use halftone_telemetry::{
    build_info,
    metrics::ModelMetrics,
    otlp::{self, OtlpArgs, Telemetry},
    sampling::SamplingArgs,
};
use std::{
    fs::{File, TryLockError},
    future::IntoFuture,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch};
use tonic::service::Routes;

/// As many as the filter takes.
const MAX_OVERRIDE_KEYS: usize = 4;

/// How long requests under way may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the last spans and metrics may take to be sent after that.
const FLUSH: Duration = Duration::from_secs(2);

/// What is recorded of a control plane.
const TRACE_SAMPLE: &str = "The share of traces that begin in the control plane and are recorded, from 0 to 1: with a request that \
                            changes something, or with a look at a release. Of requests that belong to a trace, their `traceparent` says \
                            whether they are";
/// The same.
const TRACE_LIMIT: &str = "How many requests that change something are recorded per second, at most, of those that belong to no client's \
                           trace; 0 records none of them. Looks at releases are not limited, nor is what clients sample";

/// Flags of `halftone serve`.
#[derive(Args, Debug)]
#[command(mut_arg("trace_sample", |arg| arg.help(TRACE_SAMPLE)), mut_arg("trace_limit", |arg| arg.help(TRACE_LIMIT)))]
pub struct ServeArgs {
    /// Address of the REST API.
    #[arg(long, env = "HALFTONE_REST", default_value = "127.0.0.1:8080")]
    pub rest: SocketAddr,
    /// Address of the xDS server, for proxies, and of the ledger, for backends.
    #[arg(long, env = "HALFTONE_XDS", default_value = "127.0.0.1:18000")]
    pub xds: SocketAddr,
    /// Folder of the store. Created when it is missing.
    #[arg(long, env = "HALFTONE_DATA", default_value = "halftone-data")]
    pub data: PathBuf,
    /// The filter module: every bundle is tried on it before it leaves.
    #[command(flatten)]
    pub module: ModuleArgs,
    /// File with the token that changes and observations need. Required when --rest is not a loopback address; without it
    /// no observations are taken when --xds is none.
    #[arg(long, env = "HALFTONE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Who starts and continues traces: the filter, or the tracer that the proxies are configured with.
    #[arg(long, env = "HALFTONE_TRACE_OWNER", value_enum, default_value_t)]
    pub trace_owner: TraceOwner,
    /// Of the traces that begin in the filter, the share that is sampled, from 0 to 1: of requests that no rule took, or that a
    /// candidate is compared with.
    #[arg(long, env = "HALFTONE_TRACE_SAMPLE_STABLE", value_name = "SHARE", default_value_t = 1.0, value_parser = otlp::share)]
    pub trace_sample_stable: f64,
    /// The same of requests that a rule took, candidates' above all.
    #[arg(long, env = "HALFTONE_TRACE_SAMPLE_CANDIDATE", value_name = "SHARE", default_value_t = 1.0, value_parser = otlp::share)]
    pub trace_sample_candidate: f64,
    /// File with a public key, as `halftone override new-key` writes it, whose override tokens proxies take. May be
    /// given up to four times, for the time in which one key replaces another.
    #[arg(long, env = "HALFTONE_OVERRIDE_KEY_FILE", value_delimiter = ',')]
    pub override_key_file: Vec<PathBuf>,
    /// File that says who is told of decisions about releases, and who is asked before they go on; docs/release.md has
    /// its form.
    #[arg(long, env = "HALFTONE_HOOKS", value_name = "FILE")]
    pub hooks: Option<PathBuf>,
    /// How much is observed.
    #[command(flatten)]
    pub observations: Limits,
    /// Where releases may take metrics from, besides backends and outcomes.
    #[command(flatten)]
    pub prometheus: PrometheusArgs,
    /// How much Prometheus gets.
    #[command(flatten)]
    pub metrics: release::MetricsArgs,
    /// Address for operators: metrics for Prometheus, CPU profiles, the state of the heap. Not for clients. None when it is
    /// not given.
    #[arg(long, env = "HALFTONE_ADMIN", value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// Where spans and metrics go.
    #[command(flatten)]
    pub otlp: OtlpArgs,
    /// Which traces are recorded.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// File to write the addresses to (JSON: `rest`, `xds`, `admin`) once all is ready. For scripts that use port 0.
    #[arg(long, env = "HALFTONE_READY_FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Runs until `shutdown` is done.
///
/// # Errors
/// When something needed to start is missing, or a server fails.
pub async fn serve(args: ServeArgs, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let token = token(&args)?;
    let collector = args.otlp.collector().map_err(anyhow::Error::msg)?;
    let prometheus = args.prometheus.server()?;
    let hooks = args.hooks.as_deref().map(hooks::read).transpose()?.unwrap_or_default();
    let Started { publisher, ledger, stored, _lock } = {
        let (data, filter) = (args.data.clone(), args.module.here()?);
        let (settings, limits) = (settings(&args)?, args.observations);
        tokio::task::spawn_blocking(move || start(&data, &filter, settings, limits)).await??
    };
    let access = match &token {
        Some(token) => Access::Token(token.clone()),
        None if args.xds.ip().is_loopback() => Access::Open,
        None => Access::Closed,
    };
    if !args.xds.ip().is_loopback() {
        tracing::warn!(xds = %args.xds, "whoever can connect to the xDS server can read all rules; keep it to the proxies' network");
    }
    let nodes = Nodes::new();
    let rest = bind(args.rest, "--rest").await?;
    let xds = bind(args.xds, "--xds").await?;
    let addresses = (rest.local_addr()?, xds.local_addr()?);
    let gates = Gatekeeper::new(&hooks);
    let controller =
        Controller::start(publisher.clone(), nodes.clone(), Arc::clone(&ledger), gates, prometheus, stored)?;
    let metrics = ModelMetrics::default();
    metrics.register(build_info::collector("halftone", env!("CARGO_PKG_VERSION")));
    metrics.register(fleet_metrics::metrics(publisher.clone(), nodes.clone()));
    metrics.register(ledger::metrics(Arc::clone(&ledger)));
    metrics.register(release::metrics(controller.clone(), args.metrics));
    metrics.register(hooks::metrics(&hooks));
    let telemetry = Telemetry::start(collector, args.sampling.sampling(), "halftone", Vec::new(), &metrics)
        .map_err(anyhow::Error::msg)?;
    let tracer = telemetry.tracer().clone();
    let admin = match args.admin {
        Some(address) => Some(admin(address, metrics).await?),
        None => None,
    };

    let (stop, stopping) = watch::channel(());
    let parts = (controller.clone(), nodes.clone(), Arc::clone(&ledger));
    let router = api::router(parts, token, tracer.clone(), stopping.clone())
        .into_make_service_with_connect_info::<SocketAddr>();
    let stopped = || {
        let mut stopping = stopping.clone();
        async move {
            // An error means that the sender is gone, which is how stopping is told.
            let _ = stopping.changed().await;
        }
    };
    let observations = Routes::new(ledger::grpc(Arc::clone(&ledger), access));
    let mut rest = tokio::spawn(axum::serve(rest, router).with_graceful_shutdown(stopped()).into_future());
    let mut xds =
        tokio::spawn(xds::serve(xds, publisher.resources(), nodes.clone(), observations, stopped()));
    tracing::info!(
        rest = %addresses.0,
        xds = %addresses.1,
        revision = publisher.current().revision,
        "the control plane is ready"
    );
    if let Some(path) = &args.ready_file {
        let admin = admin.map(|admin| format!(",\"admin\":\"{admin}\"")).unwrap_or_default();
        let text = format!("{{\"rest\":\"{}\",\"xds\":\"{}\"{admin}}}\n", addresses.0, addresses.1);
        write_whole(path, &text)?;
    }

    tokio::select! {
        () = shutdown => {}
        ended = &mut rest => { ended.context("the REST server")??; bail!("the REST server stopped by itself") }
        () = rollback::watch(publisher.clone(), nodes) => {}
        () = controller.run(&tracer) => {}
        () = hooks::deliver(&hooks, &controller) => {}
        ended = &mut xds => { ended.context("the xDS server")??; bail!("the xDS server stopped by itself") }
    }
    tracing::info!("stopping");
    drop(stop);
    let both = async {
        rest.await.context("the REST server")??;
        xds.await.context("the xDS server")??;
        anyhow::Ok(())
    };
    // What was accepted is in the store already, so a client that does not let go may be cut off.
    let served = tokio::time::timeout(DRAIN, both).await.unwrap_or(Ok(()));
    telemetry.stop(FLUSH).await;
    tracing::info!("stopped");
    served
}

/// What proxies are told besides the rules.
fn settings(args: &ServeArgs) -> anyhow::Result<ProxySettings> {
    if args.override_key_file.len() > MAX_OVERRIDE_KEYS {
        bail!("--override-key-file is given more than {MAX_OVERRIDE_KEYS} times");
    }
    let keys = args.override_key_file.iter().map(|path| {
        let key = override_key::read_public(path)?;
        Ok(override_key::public_text(&key))
    });
    Ok(ProxySettings {
        tracing: args.trace_owner,
        trace_sample: TraceSample {
            stable: args.trace_sample_stable,
            candidate: args.trace_sample_candidate,
        },
        override_keys: keys.collect::<anyhow::Result<_>>()?,
        ..ProxySettings::new(args.module.on_proxy()?)
    })
}

/// What is kept in the folder.
struct Started {
    publisher: Publisher,
    ledger: Arc<Ledger>,
    stored: Vec<StoredRelease>,
    /// On the files: released when dropped.
    _lock: File,
}

fn start(data: &Path, filter: &Path, settings: ProxySettings, limits: Limits) -> anyhow::Result<Started> {
    let wasm = std::fs::read(filter)
        .with_context(|| format!("the filter module {} cannot be read", filter.display()))?;
    let gate = Gate::new(&wasm).with_context(|| format!("{} is not the filter module", filter.display()))?;
    std::fs::create_dir_all(data).with_context(|| format!("the folder {} cannot be made", data.display()))?;
    let lock = lock(data)?;
    let path = data.join("halftone.db");
    let store =
        SqliteStore::open(&path).with_context(|| format!("the store {} cannot be opened", path.display()))?;
    let (publisher, stored) = Publisher::start(Arc::new(store), gate, settings)?;
    let path = data.join("ledger.db");
    let ledger = Ledger::open(&path, limits, publisher.names())
        .with_context(|| format!("the ledger {} cannot be opened", path.display()))?;
    Ok(Started { publisher, ledger: Arc::new(ledger), stored, _lock: lock })
}

/// Two control planes on one store would publish past each other. The kernel releases the lock however
/// the process ends.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another control plane runs on the folder {}", data.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

/// Whoever can reach the API can move traffic, so beyond this machine it takes a secret.
fn token(args: &ServeArgs) -> anyhow::Result<Option<Token>> {
    let Some(path) = &args.token_file else {
        if !args.rest.ip().is_loopback() {
            bail!("--rest {} is not a loopback address: give a token with --token-file", args.rest);
        }
        return Ok(None);
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("the token file {}", path.display()))?;
    let token = Token::new(&text);
    if token.is_none() {
        bail!("the token in {} is shorter than 16 characters", path.display());
    }
    Ok(token)
}

/// Serves what operators ask, to the end of the process; says where.
async fn admin(address: SocketAddr, metrics: ModelMetrics) -> anyhow::Result<SocketAddr> {
    let listener = bind(address, "--admin").await?;
    let bound = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, halftone_telemetry::admin::router(metrics)).into_future());
    Ok(bound)
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag} {address} cannot be listened on"))
}

/// Whoever waits for the file never sees half of it.
fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("the file {} cannot be written", path.display()))
}
