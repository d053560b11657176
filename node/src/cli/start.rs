//! `multinodes start`.

use std::{collections::BTreeMap, net::UdpSocket, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;

use multinodes::{Counters, Events, Node};
use tokio::sync::oneshot;

use super::{
    child::{self, Children},
    code_rules, config,
    demo::applications,
    descriptors,
    duration::any_time,
    failure::Failure,
    feed::Feed,
    options::{DEFAULT_SWARM, Settings, given},
    output::Output,
    paste, permissions,
    shapes::{Line, dialable},
    signals::Signals,
    style::{self, paint},
};

/// Run a node until it is interrupted
#[derive(Debug, Args)]
#[command(
    after_help = "It finds the other nodes of its swarm by itself and shows who joins and leaves. SIGINT or SIGTERM stops it; a second one ends it at once.\n\nExit codes: 0 stopped and all that was accepted is done, 124 some of it was given up because --drain was over (stderr says how much), 2 usage or a failure of our own, 128 and the number of the signal that ended it at once."
)]
pub(crate) struct Start {
    /// The node's name [default: a random one]
    #[arg(long, value_name = "NAME", env = "MULTINODES_NAME", hide_env = true)]
    name: Option<String>,

    /// Where to listen; may be repeated [default: any free TCP port]
    #[arg(long, value_name = "MULTIADDR", env = "MULTINODES_LISTEN", hide_env = true, value_delimiter = ',')]
    listen: Vec<String>,

    /// The file with the node's key, made at first use: the node keeps its peer id
    #[arg(long, value_name = "FILE", env = "MULTINODES_IDENTITY", hide_env = true)]
    identity: Option<PathBuf>,

    /// A label, by which others choose nodes; may be repeated
    #[arg(long, value_name = "KEY=VALUE", env = "MULTINODES_LABEL", hide_env = true, value_delimiter = ',')]
    label: Vec<String>,

    /// How long calls and accepted tells may take when the node is asked to stop; 0s gives them up at once [default: 10s]
    #[arg(long, value_name = "TIME", env = "MULTINODES_DRAIN", hide_env = true, value_parser = any_time)]
    drain: Option<Duration>,

    #[command(flatten)]
    permissions: permissions::Permissions,

    #[command(flatten)]
    code: code_rules::CodeRules,

    #[command(flatten)]
    commands: child::Options,

    /// Host applications of the demo
    #[arg(long, hide = true, value_name = "NAMES", value_delimiter = ',')]
    demo_applications: Vec<applications::Kind>,

    /// Stop when stdin is closed, so that nobody outlives the parent process
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

impl Start {
    pub(crate) async fn run(self, settings: Settings, output: Output) -> Result<ExitCode, Failure> {
        output.check()?;
        let commands = self.commands.commands(&settings.applications)?;
        let signals = Signals::take()?;
        warn_of_few_files();
        let node = self.start(&settings).await?;
        let events = node.events();
        for kind in &self.demo_applications {
            kind.register(&node).map_err(Failure::own)?;
        }
        let children = match commands.start(&node) {
            Ok(children) => Arc::new(children),
            Err(failure) => {
                node.stop().await;
                return Err(failure);
            }
        };
        for target in self.permissions.strangers(&settings, &node) {
            style::note(
                style::WARN,
                "protects nothing:",
                &format!("a rule is about `{target}`, which is no application here, nor an action of one"),
            );
        }
        let (stopped, stopping) = oneshot::channel();
        tokio::spawn(stop_on_signal(signals, self.until_stdin_closes, node.clone(), children.clone(), stopped));
        let mut stopping = stopping;
        let mut result = show(&node, &settings, events, &mut stopping, output).await;
        if matches!(result, Err(Failure::Unread)) {
            // Whoever read us is gone (`| tee`, a terminal): no reason for the node to go, too.
            tracing::warn!("nobody reads the output any more; the node goes on without it");
            let _ = stopping.await;
            result = Ok(());
        }
        if result.is_err() {
            // What it shows cannot be written, but the swarm is told all the same.
            node.stop().await;
            children.stop().await;
        }
        result?;
        unfinished(&node).map_or(Ok(ExitCode::SUCCESS), Err)
    }

    async fn start(&self, settings: &Settings) -> Result<Node, Failure> {
        let file = &settings.start;
        let mut builder = settings.builder();
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty()).or(file.name.as_ref()) {
            builder = builder.name(name.as_str());
        }
        for address in given(self.listen.clone()).or_else(|| file.listen.clone()).unwrap_or_default() {
            builder = builder.listen(address);
        }
        if let Some(path) = self.identity.as_ref().or(file.identity.as_ref()) {
            builder = builder.identity(path);
        }
        for (key, value) in self.labels(file)? {
            builder = builder.label(key, value);
        }
        if let Some(timeout) = self.drain.or(file.drain) {
            builder = builder.drain_timeout(timeout);
        }
        builder = self.permissions.apply(builder, settings)?;
        builder = self.code.apply(builder, settings)?;
        builder.start().await.map_err(Failure::own)
    }

    /// The labels of the flags, or else those of the file.
    fn labels(&self, file: &config::Start) -> Result<BTreeMap<String, String>, Failure> {
        match given(self.label.clone()) {
            Some(labels) => permissions::labels(&labels),
            None => Ok(file.labels.clone().unwrap_or_default()),
        }
    }
}

/// A connection is an open file. Who finds out later does not find the way here.
fn warn_of_few_files() {
    let wanted = descriptors::wanted();
    if let Some(few) = descriptors::limit().filter(|limit| *limit < wanted) {
        let text = format!(
            "only {few} files may be open at once, and the node's own limits allow it {wanted}: with more connections it \
             takes no others and is not found; raise the limit, such as by ulimit -n {}",
            wanted.next_power_of_two()
        );
        style::note(style::WARN, "few open files:", &text);
    }
}

/// Shows what happens until the node is stopped.
async fn show(
    node: &Node,
    settings: &Settings,
    mut events: Events,
    stopping: &mut oneshot::Receiver<()>,
    output: Output,
) -> Result<(), Failure> {
    welcome(node, settings, output)?;
    let mut feed = Feed::new(node, output);
    feed.on_known(node)?;
    loop {
        tokio::select! {
            biased;
            _ = &mut *stopping => break,
            event = events.next() => match event {
                Some(event) => feed.on_event(&event)?,
                // The node's own end of the events: wait until the goodbye is said.
                None => {
                    let _ = stopping.await;
                    break;
                }
            },
        }
    }
    if output.json {
        return output.line(&Line::Stopped { name: node.name(), peer_id: node.peer_id().to_string() });
    }
    output.text(&format!("{} stopped", paint(style::NODE, node.name())))
}

/// What a node that was stopped has given up.
fn unfinished(node: &Node) -> Option<Failure> {
    let Counters { unfinished_calls: calls, unfinished_tells: tells, .. } = node.counters();
    (calls + tells > 0).then(|| {
        let left = format!("{calls} calls and {tells} accepted tells were not finished");
        Failure::TimedOut(format!("{left}, and are lost; `--drain TIME` allows more"))
    })
}

/// What the node is called, how to reach it, what to try next.
fn welcome(node: &Node, settings: &Settings, output: Output) -> Result<(), Failure> {
    let name = node.name();
    let swarm = node.description().swarm;
    let mut addresses = dialable(&node.addresses(), node.peer_id());
    // Stable: the rest stays in order.
    let outward = outward_addresses();
    addresses.sort_by_key(|address| !outward.iter().any(|outward| address.starts_with(outward)));
    if output.json {
        return output.line(&Line::Started { name, peer_id: node.peer_id().to_string(), addresses });
    }
    let title = paint(style::NODE, name);
    let private = settings.entry.is_private();
    let kind = if private { "private swarm" } else { "swarm" };
    output.text(&format!("{title} is up in {kind} `{swarm}`, peer id {}", paint(style::DIM, node.peer_id())))?;
    let here = |words: &[&str], more: &[String]| command_here(settings, &addresses, words, more);
    let elsewhere = |flags: Vec<String>| {
        let words = ["start"].into_iter().chain(flags.iter().map(String::as_str));
        style::note(style::DIM, "from elsewhere:", &paste::elsewhere(words));
    };
    if private {
        let ticket = format!("{swarm}.ticket");
        style::note(style::DIM, "for others:", &here(&["ticket"], &paste::flag("out", &ticket)));
        elsewhere(paste::flag("ticket", &ticket));
    } else if let Some(address) = addresses.first() {
        let swarm = if swarm == DEFAULT_SWARM { Vec::new() } else { paste::flag("swarm", &swarm) };
        elsewhere([swarm, paste::flag("join", address)].concat());
    }
    style::note(style::DIM, "try next:", &here(&["nodes"], &[]));
    style::note(style::DIM, "try next:", &here(&["call", "node", "echo", "\"hi\""], &[]));
    style::note(style::DIM, "to stop:", "Ctrl-C");
    Ok(())
}

/// A command that finds this node from the same shell: without the rendezvous folder by its address.
fn command_here(settings: &Settings, addresses: &[String], words: &[&str], more: &[String]) -> String {
    let address = addresses.first().filter(|_| !settings.rendezvous);
    let join = address.map(|address| ["--join", address.as_str()]).into_iter().flatten();
    settings.command(&words.iter().copied().chain(more.iter().map(String::as_str)).chain(join).collect::<Vec<_>>())
}

/// The starts of the addresses by which this host reaches others: those of the interface with the default route. Bridges of
/// containers have addresses, too, which mean nothing elsewhere. Nothing is sent for it.
fn outward_addresses() -> Vec<String> {
    // Of the blocks for documentation: no such host is anywhere.
    let far = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let own = far.into_iter().filter_map(|(any, far)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    let found = own.filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    found.map(|ip| format!("{}/", multinodes::Multiaddr::from(ip))).collect()
}

/// Stops the node at the first signal, even while nobody reads our output and the feed is stuck in it.
async fn stop_on_signal(
    mut signals: Signals,
    until_stdin_closes: bool,
    node: Node,
    children: Arc<Children>,
    stopped: oneshot::Sender<()>,
) {
    tokio::select! {
        _ = signals.next() => {}
        () = stdin_closed(), if until_stdin_closes => {}
    }
    let stop = async {
        node.stop().await;
        children.stop().await;
    };
    tokio::select! {
        () = stop => {}
        signal = signals.next() => {
            children.kill();
            std::process::exit(128 + i32::from(signal))
        }
    }
    let _ = stopped.send(());
    tokio::select! {
        () = tokio::time::sleep(LAST_WORDS) => {
            let _ = unfinished(&node).map(Failure::report);
            std::process::exit(if unfinished(&node).is_some() { 124 } else { 0 })
        }
        signal = signals.next() => std::process::exit(128 + i32::from(signal)),
    }
}

/// Waits for the end of stdin, on a thread of its own: the runtime would wait for a blocked read at its end.
async fn stdin_closed() {
    let (respond_to, closed) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = respond_to.send(());
    });
    let _ = closed.await;
}

/// How long a stopped node tries to get its last lines out.
const LAST_WORDS: Duration = Duration::from_secs(2);
