//! `weft dev`: a cluster and a dispatcher on this machine, with data in a local folder.

mod folder;

use std::path::PathBuf;
use std::pin::{Pin, pin};

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;
use weft_broker::config::Profile;
use weft_proto::trace::Telemetry;

use self::folder::Folder;
use crate::cluster::{self, Cluster, Plan, Ports};
use crate::{signals, telemetry};

/// What a newcomer may do next, each a command line of this program.
const TRY: [&str; 3] = [
    "stream create orders",
    "publish orders --file order.json   # one CloudEvent as JSON in each line",
    "subscribe orders --from earliest",
];

/// Run a cluster and a dispatcher on this machine until Ctrl-C.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Brokers: 1 within this process, or 3 processes that survive the loss of one.
    #[arg(long, default_value_t = 1, value_parser = nodes)]
    nodes: u16,
    /// Folder for the data; a cluster that is there goes on.
    #[arg(long, default_value = "./weft-data")]
    dir: PathBuf,
    /// Port for clients of the first broker; the others count up. Peers use this + 200.
    #[arg(long, default_value_t = 7400, value_name = "PORT")]
    grpc_port: u16,
    /// Port for HTTP of the first broker: events, health, metrics; the others count up.
    #[arg(long, default_value_t = 7500, value_name = "PORT")]
    http_port: u16,
    /// Folders whose programs functions may run. Default: the current folder and those in $PATH.
    #[arg(long, value_name = "DIR", value_delimiter = ':')]
    commands_from: Vec<PathBuf>,
    /// Export spans and metrics to this collector by OTLP/gRPC, as in `http://127.0.0.1:4317`.
    #[arg(long, value_name = "ENDPOINT")]
    otlp: Option<String>,
    /// What to log: a level, or a list as in `info,weft_dispatcher=debug`.
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    log: String,
}

fn nodes(text: &str) -> Result<u16, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("write 1 or 3".to_owned()),
    }
}

/// Runs until Ctrl-C or SIGTERM.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    telemetry::start(&args.log)?;
    tokio::runtime::Runtime::new()?.block_on(serve(args))
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let stop = pin!(signals::stop()?);
    let ports = Ports::consecutive(args.grpc_port, args.http_port, args.nodes)?;
    let folder = Folder::open(&args.dir, &ports)?;
    let mut telemetry = Telemetry::default();
    telemetry.otlp.endpoint = args.otlp.clone().unwrap_or_default();
    telemetry.check().map_err(|(_, problem)| anyhow::anyhow!("--otlp: {problem}"))?;
    let plan = Plan {
        dir: folder.path().to_owned(),
        ports,
        data_groups: 2,
        profile: Profile::Small,
        telemetry,
    };
    let mut dispatcher = plan.dispatcher()?;
    dispatcher.process.directories.extend(commands_from(args)?);
    dispatcher.webhooks = webhooks()?;
    let result = match args.nodes {
        1 => Box::pin(within(&plan, dispatcher, &folder, stop)).await,
        _ => beside(plan, dispatcher, &folder, stop).await,
    };
    // Nothing runs any more; a failure to say so must not hide what went wrong before.
    let noted = folder.record(&[]);
    result.and(noted)
}

/// Whoever develops functions has them somewhere here; a server must be told where.
fn commands_from(args: &Args) -> anyhow::Result<Vec<PathBuf>> {
    if !args.commands_from.is_empty() {
        return Ok(args.commands_from.clone());
    }
    let here = std::env::current_dir().context("the current folder is gone")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    Ok(std::iter::once(here).chain(named).collect())
}

/// Whoever develops receivers of webhooks has them on this machine, on any port, and in plain text.
fn webhooks() -> anyhow::Result<weft_dispatcher::Webhooks> {
    let here = ["127.0.0.0/8", "::1/128"].map(str::parse);
    let here = here.into_iter().collect::<Result<_, String>>().map_err(anyhow::Error::msg)?;
    Ok(weft_dispatcher::Webhooks {
        allow_private: here,
        ports: Vec::new(),
        origin: Some("localhost".to_owned()),
        ..weft_dispatcher::Webhooks::default()
    })
}

type Stop<'a, F> = Pin<&'a mut F>;

/// One broker within this process.
async fn within<F>(
    plan: &Plan,
    dispatcher: weft_dispatcher::Config,
    folder: &Folder,
    mut stop: Stop<'_, F>,
) -> anyhow::Result<()>
where
    F: Future<Output = ()> + Send,
{
    let config = plan.config(1).context("there is no first node")?;
    config.check()?;
    let token = CancellationToken::new();
    let mut process = telemetry::process();
    let own = ("weft", config.advertised());
    let metrics = process.metrics.clone();
    let (tracer, export) = telemetry::export(&config.telemetry, own, metrics)?;
    process.tracer = tracer.clone();
    let mut broker = pin!(weft_broker::run(config, process, token.clone().cancelled_owned()));
    let work = async {
        tokio::select! {
            () = stop.as_mut() => return Ok(()),
            ready = cluster::ready(plan.ports[0].http) => ready?,
        }
        folder.record(&[std::process::id()])?;
        announce(plan);
        weft_dispatcher::run(dispatcher, tracer, stop).await?;
        anyhow::Ok(())
    };
    let both = async {
        tokio::select! {
            ended = &mut broker => {
                ended?;
                bail!("the broker stopped by itself")
            }
            result = work => {
                // Clients first, then what they talk to.
                token.cancel();
                let ended = broker.await;
                result?;
                Ok(ended?)
            }
        }
    };
    telemetry::beside(export, both).await
}

/// Several brokers, each a child of this process.
async fn beside<F>(
    plan: Plan,
    dispatcher: weft_dispatcher::Config,
    folder: &Folder,
    mut stop: Stop<'_, F>,
) -> anyhow::Result<()>
where
    F: Future<Output = ()> + Send,
{
    let mut cluster = tokio::select! {
        () = stop.as_mut() => return Ok(()),
        cluster = Cluster::start(plan) => cluster?,
    };
    folder.record(&cluster.pids())?;
    announce(cluster.plan());
    let own = ("weft-dispatcher", "dev");
    let (tracer, export) = telemetry::export(&dispatcher.telemetry, own, None)?;
    let both = async {
        tokio::select! {
            result = weft_dispatcher::run(dispatcher, tracer, stop) => result,
            never = report_ends(&mut cluster, folder) => match never {},
        }
    };
    let result = telemetry::beside(export, both).await;
    let stopped = cluster.stop().await;
    result?;
    stopped
}

/// A crash is told, not mended: whoever develops wants to see it.
#[expect(clippy::print_stderr, reason = "the user of the terminal shall see it")]
async fn report_ends(cluster: &mut Cluster, folder: &Folder) -> std::convert::Infallible {
    loop {
        let (number, status) = cluster.ended().await;
        let log = cluster.log_of(number);
        eprintln!("\nbroker {number} ended by itself ({status}). The end of its log:\n{log}\n");
        eprintln!("The others go on. To have it back, stop with Ctrl-C and start again.");
        if let Err(error) = folder.record(&cluster.pids()) {
            eprintln!("{error:#}");
        }
    }
}

#[expect(clippy::print_stdout, reason = "the user of the terminal shall see it")]
fn announce(plan: &Plan) {
    let each = |port: fn(&Ports) -> u16| {
        let list: Vec<_> =
            plan.ports.iter().map(|ports| format!("http://127.0.0.1:{}", port(ports))).collect();
        list.join(" ")
    };
    println!("Weft is ready. Data are in {}.", plan.dir.display());
    println!("  clients (gRPC)      {}", each(|ports| ports.grpc));
    println!("  HTTP                {}", each(|ports| ports.http));
    println!("Try, in another terminal:");
    // The first port is the default of all commands.
    let endpoint = match plan.ports.first() {
        Some(ports) if ports.grpc != 7_400 => {
            format!(" --endpoint http://127.0.0.1:{}", ports.grpc)
        }
        _ => String::new(),
    };
    for command in TRY {
        println!("  weft{endpoint} {command}");
    }
    println!("Ctrl-C stops it.");
}
