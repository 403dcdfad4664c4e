//! Starts, serves and stops.

use crate::{
    app::{self, App, ClientLimits},
    cli::Args,
    connections::Connections,
    keeper::{Keeper, Plan},
    model::Settings,
    observations::{self, uplink},
    queue::BatchLimits,
    runtime,
    workers::WorkerLimits,
};
use anyhow::{Context, bail};
use halftone_telemetry::{
    metrics::ModelMetrics,
    otlp::{Collector, Telemetry},
};
use opentelemetry::KeyValue;
use std::{fs, io, net::SocketAddr, num::NonZeroUsize, path::Path, sync::Arc, thread, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

/// Of a model's workers, unless the command line says more or fewer.
const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// How long a worker that is not needed stays.
const LINGER: Duration = Duration::from_secs(30);

/// How long requests that have begun may take to finish after a signal to stop.
const FINISH: Duration = Duration::from_secs(30);

/// How long what was observed may take to be sent after that. What is not sent then is kept.
const FLUSH: Duration = Duration::from_secs(5);

/// Serves as the command line says, until a signal to stop.
///
/// # Errors
/// When it cannot start, or requests in flight do not finish in time.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    // A ready file of an earlier run would make a waiting script go ahead too early.
    if let Some(path) = &args.ready_file {
        remove(path).with_context(|| format!("cannot remove the old ready file {}", path.display()))?;
    }
    let observations = observations(args)?;
    let collector = args.otlp.collector().map_err(anyhow::Error::msg)?;
    let keeper = keeper(args).await?;
    if args.check_config {
        let missing = keeper.missing();
        if !missing.is_empty() {
            bail!("{}", missing.join("; "));
        }
        println!("ok: {}", keeper.models().labels().join(", "));
        return Ok(());
    }
    let limits = ClientLimits {
        model_control: args.model_control,
        max_body: args.max_body,
        max_bodies: args.max_bodies,
        silence: Duration::from_secs(args.body_timeout),
    };
    let (outbox, reporter) = observations.map(observations::start).transpose()?.unzip();
    let metrics = ModelMetrics::default();
    let telemetry = telemetry(args, collector, &keeper, &metrics)?;
    let tracer = telemetry.tracer().clone();
    let (app, router) = app::serve(Arc::clone(&keeper), limits, outbox, metrics, tracer).await?;
    if let Some(reporter) = &reporter {
        app.metrics.register(reporter.backlog().metrics());
    }
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    let admin = match args.admin {
        Some(address) => Some(admin(address, &app).await?),
        None => None,
    };
    let stop = stop_signal()?;
    if let Some(path) = &args.ready_file {
        announce(path, address, admin)
            .with_context(|| format!("cannot write the ready file {}", path.display()))?;
    }
    let admin = admin.map(|admin| admin.to_string());
    tracing::info!(%address, admin, models = app.models.labels().join(", "), "listening");
    if args.poll_ms > 0 {
        // Ends with the process: what it has begun to load is then of no use.
        tokio::spawn(keeper.watch(Duration::from_millis(args.poll_ms)));
    }
    let drain = Duration::from_secs(args.drain);
    let connections = Connections { most: args.max_connections, finish: FINISH };
    let drained = {
        let app = Arc::clone(&app);
        async move {
            stopped(stop).await;
            tracing::info!("stopping");
            app.drain().await;
            sleep(drain).await;
        }
    };
    let served = connections.serve(listener, router, drained).await;
    if let Some(reporter) = reporter {
        reporter.stop(FLUSH).await;
    }
    telemetry.stop(FLUSH).await;
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// Sends spans and metrics where the command line says. The version of everything that is said is that of the model, when it is one.
fn telemetry(
    args: &Args,
    collector: Option<Collector>,
    keeper: &Keeper,
    metrics: &ModelMetrics,
) -> anyhow::Result<Telemetry> {
    let labels = keeper.models().labels();
    let version = match labels.as_slice() {
        [one] => one.rsplit(':').next().unwrap_or_default().to_owned(),
        several => several.join(","),
    };
    let attributes = vec![KeyValue::new("model.version", version)];
    Telemetry::start(collector, args.sampling.sampling(), "halftone-inference", attributes, metrics)
        .map_err(anyhow::Error::msg)
}

/// Backends that report less often than this look silent to the control plane, which takes silent candidates back.
const FREQUENT_MS: u64 = 10_000;

/// Where observations go, when the command line says so.
fn observations(args: &Args) -> anyhow::Result<Option<observations::Settings>> {
    let Some(to) = &args.observations_to else { return Ok(None) };
    let Some(folder) = &args.observations_dir else {
        bail!("--observations-to needs --observations-dir: a folder that keeps what is not sent yet");
    };
    if args.observations_interval_ms > FREQUENT_MS {
        tracing::warn!(
            interval_ms = args.observations_interval_ms,
            "with --observations-interval-ms above {FREQUENT_MS} releases may take a sound candidate back: nothing is \
             heard of it for so long"
        );
    }
    Ok(Some(observations::Settings {
        to: uplink::endpoint(to)?,
        token: args.observations_token_file.as_deref().map(uplink::token).transpose()?,
        folder: folder.clone(),
        interval: Duration::from_millis(args.observations_interval_ms),
        spool: args.observations_spool_bytes,
    }))
}

/// Loads the models that the command line says.
async fn keeper(args: &Args) -> anyhow::Result<Arc<Keeper>> {
    let settings = settings(args)?;
    let own = args.ort.as_deref().filter(|path| !path.as_os_str().is_empty());
    let library = runtime::find(own)?;
    let environment = runtime::load(&library, args.intra_threads)?;
    let plan = Plan { folder: args.models.clone(), selections: args.serve.clone(), settings };
    Keeper::start(environment, plan).await
}

fn settings(args: &Args) -> anyhow::Result<Settings> {
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let min = args.min_workers;
    // More than cores do not get more done, and take memory.
    let max = args.max_workers.unwrap_or(cores.clamp(TWO, MOST).max(min));
    if min > max {
        bail!("--min-workers is {min}, more than --max-workers, which is {max}");
    }
    Ok(Settings {
        workers: WorkerLimits { min, max, queue: args.queue, linger: LINGER },
        batch: BatchLimits { size: args.max_batch.get(), delay: Duration::from_micros(args.batch_delay_us) },
        batch_declared: false,
        provider: args.provider,
    })
}

/// Waits for the signal to stop.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as the process; were it gone, there would be no signal to wait for.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Turns true on SIGTERM or SIGINT.
fn stop_signal() -> io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Kept to the end: receivers are to see the value, not a closed channel.
        sender.send_replace(true);
        sender.closed().await;
    });
    Ok(receiver)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Serves what operators ask, to the end of the process; says where.
async fn admin(address: SocketAddr, app: &App) -> anyhow::Result<SocketAddr> {
    let context = || format!("cannot listen on {address}, the address of --admin");
    let listener = TcpListener::bind(address).await.with_context(context)?;
    let bound = listener.local_addr()?;
    let router = halftone_telemetry::admin::router(app.metrics.clone());
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(bound)
}

/// Writes the addresses in one step: who sees the file sees all of it.
fn announce(path: &Path, address: SocketAddr, admin: Option<SocketAddr>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let admin = admin.map(|admin| format!("{admin}\n")).unwrap_or_default();
    fs::write(&temporary, format!("{address}\n{admin}"))?;
    fs::rename(&temporary, path)
}
