//! The demo, step by step. Whatever does not happen as told is a failure.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use multinodes::{CallError, Node, NodeInfo};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    crowd::{Crowd, crowd},
    processes::{Member, Processes},
};
use crate::cli::{
    bar::Bar,
    duration::milliseconds,
    failure::Failure,
    map::summary::table,
    output::Output,
    paste,
    shapes::{NodeRow, applications},
    style::{self, paint},
    table::{Column, Table},
};

/// The demo under way.
pub(super) struct Story {
    output: Output,
    processes: Processes,
    begin: Instant,
    /// The step under way, for the error if it fails.
    step: &'static str,
    summary: Summary,
}

/// What `demo --json` prints.
#[derive(Debug, Default, Serialize)]
struct Summary {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    swarm: String,
    nodes: Vec<Value>,
    found_ms: Option<f64>,
    calls: Vec<Call>,
    spread: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<Crowd>,
    killed: Option<&'static str>,
    noticed_ms: Option<f64>,
    stopped_ms: Option<f64>,
    total_ms: f64,
}

#[derive(Debug, Serialize)]
struct Call {
    call: String,
    result: Value,
    milliseconds: f64,
}

impl Story {
    pub(super) fn new(output: Output) -> Result<Self, Failure> {
        let processes = Processes::new()?;
        let summary = Summary { swarm: processes.swarm.clone(), ..Summary::default() };
        Ok(Self { output, processes, begin: Instant::now(), step: "beginning", summary })
    }

    pub(super) async fn play(&mut self) -> Result<(), Failure> {
        self.say(&paint(style::HEADER, format!("A swarm of {} processes on this machine", MEMBERS.len())))?;
        self.say("No server, no configuration, no network: the nodes find each other by themselves.")?;
        self.launch().await?;
        self.meet().await?;
        let node = self.look().await?;
        self.call(&node).await?;
        self.spread(&node).await?;
        self.map_and_kill(&node).await?;
        self.go_on(&node).await?;
        node.stop().await;
        self.stop().await
    }

    /// The last words: all happened, or which step failed.
    pub(super) fn end(mut self, result: Result<(), Failure>) -> Result<ExitCode, Failure> {
        self.summary.ok = result.is_ok();
        self.summary.total_ms = milliseconds(self.begin.elapsed());
        let result = result.map_err(|failure| {
            let reason = failure.to_string();
            let text = format!("the demo failed at the step \"{}\": {reason}", self.step);
            let failure = if matches!(failure, Failure::Own(_)) { Failure::own(text) } else { Failure::negative(text) };
            self.summary.failed_step = Some(self.step);
            self.summary.reason = Some(reason);
            failure
        });
        if self.output.json {
            self.output.value(&self.summary)?;
        }
        result?;
        let seconds = self.begin.elapsed().as_secs_f64();
        self.say(&format!("\n{} in {seconds:.1} s.", paint(style::GOOD, "All of it happened,")))?;
        let (start, nodes) = (paste::command(["start", "--name", "alpha"]), paste::command(["nodes"]));
        self.say(&format!("Now your own: `{start}` in one terminal, `{nodes}` in another."))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn launch(&mut self) -> Result<(), Failure> {
        self.begin_step("nodes start, each a process of its own")?;
        for (name, applications) in MEMBERS {
            self.processes.launch(name, applications)?;
        }
        self.processes.until(|members| members.iter().all(|member| member.peer_id.is_some())).await?;
        let mut table = Table::new([Column::text("NODE"), Column::number("PROCESS"), Column::elastic("ADDRESS", 12)]);
        for member in &self.processes.members {
            let address = member.addresses.first().map_or("", |address| address.as_str());
            table.row([
                (style::NODE, member.name.to_owned()),
                (style::PLAIN, member.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())),
                (style::DIM, address.split("/p2p/").next().unwrap_or(address).to_owned()),
            ]);
            self.summary.nodes.push(json!({
                "name": member.name, "pid": member.pid, "peer_id": member.peer_id, "addresses": member.addresses,
            }));
        }
        self.show(&table)
    }

    async fn meet(&mut self) -> Result<(), Failure> {
        self.begin_step("they find each other")?;
        let others = MEMBERS.len() - 1;
        let met = self.processes.until(|members| members.iter().all(|member| member.sees.len() == others)).await?;
        let time = met.saturating_duration_since(self.begin);
        self.summary.found_ms = Some(milliseconds(time));
        let count = MEMBERS.len();
        self.say(&format!("   all {count} know all {count}, {} after the first process was started", took(time)))
    }

    /// Joins as one more node, a passive one, and lists what is there.
    async fn look(&mut self) -> Result<Node, Failure> {
        self.begin_step("what is in the swarm")?;
        let node = Node::builder()
            .swarm(self.processes.swarm.as_str())
            .mdns(false)
            .runtime_folder(self.processes.folder())
            .passive(true)
            .start()
            .await
            .map_err(Failure::own)?;
        until(&node, |nodes| {
            MEMBERS.iter().all(|(name, applications)| {
                let hosted = |node: &NodeInfo, wanted| node.applications.iter().any(|hosted| hosted.name == wanted);
                let node = nodes.iter().find(|node| node.name == *name);
                node.is_some_and(|node| applications.split(',').all(|application| hosted(node, application)))
            })
        })
        .await?;
        let nodes = node.nodes();
        let rows: Vec<_> = nodes.iter().filter(|node| !node.local).map(|node| NodeRow::of(node)).collect();
        self.show(&crate::cli::nodes::table(&rows))?;
        self.say("")?;
        let rows = applications(nodes.iter().filter(|node| !node.local).map(|node| &**node), |_, _| true);
        self.show(&crate::cli::apps::table(&rows))?;
        Ok(node)
    }

    async fn call(&mut self, node: &Node) -> Result<(), Failure> {
        self.begin_step("calls and tells")?;
        let calculator = node.app("calculator").on("alpha");
        self.expect("calculator.add(2, 3) on alpha", json!(5), calculator.call::<Value>("add", (2, 3))).await?;
        let greeter = node.app("greeter");
        let hello = "hello Ada, this is beta";
        self.expect("greeter.hello(\"Ada\") on any host", json!(hello), greeter.call::<Value>("hello", ("Ada",)))
            .await?;
        self.expect("calculator.div(1, 0) on any host", json!("division_by_zero"), async {
            match node.call::<Value>("calculator", "div", (1, 0)).await {
                Err(CallError::Failed { code, .. }) => Ok(code.to_string().into()),
                other => other,
            }
        })
        .await?;
        let journal = node.app("journal");
        self.expect("tell journal \"the demo was here\"", Value::Null, async {
            journal.tell("the demo was here").await.map(|()| Value::Null)
        })
        .await?;
        let reporter = node.app("reporter");
        let sum = reporter.call::<Value>("sum", (20, 22, "alpha"));
        self.expect("reporter.sum(20, 22) on delta, which calls alpha and tells gamma", json!(42), sum).await?;
        self.expect("journal.count() on gamma", json!(2), async {
            loop {
                // A tell is done when it is accepted: it may still be in the queue.
                let count: Value = journal.call("count", ()).await?;
                if count == json!(2) {
                    return Ok(count);
                }
            }
        })
        .await
    }

    async fn spread(&mut self, node: &Node) -> Result<(), Failure> {
        self.begin_step("work is spread over the hosts of an application")?;
        let begin = Instant::now();
        let answers = self.ask_where(node).await?;
        let time = begin.elapsed();
        if answers.len() < 2 {
            return Err(Failure::negative(format_args!("all {WORK} calls went to one of two hosts")));
        }
        self.say(&format!("   {WORK} calls to calculator in {}: {}", took(time), shares(&answers)))?;
        self.summary.spread = answers;
        Ok(())
    }

    async fn map_and_kill(&mut self, node: &Node) -> Result<(), Failure> {
        self.begin_step("1,000 items are spread, and in the middle one worker is killed (SIGKILL)")?;
        let map = node.app("worker").map_iter("square_slowly", (0..ITEMS).map(|item| (item, ITEM_MILLISECONDS)));
        let bar = if self.output.width.is_some() && !self.output.json { Bar::new() } else { None };
        let mut killed = None;
        let crowd = crowd(map, ITEMS, bar, async || {
            killed = Some(self.processes.kill(VICTIM).await?);
            Ok(())
        })
        .await?;
        let killed = killed.ok_or_else(|| Failure::negative("nobody was killed"))?;
        self.show(&table(&crowd.workers))?;
        let again = match crowd.run_again {
            0 => "none of them had to be run again".to_owned(),
            count => format!("{count} were lost with {} and run again by others", paint(style::NODE, VICTIM)),
        };
        let time = Duration::from_secs_f64(crowd.milliseconds / 1000.0);
        self.say(&format!("   all {ITEMS} results are there, right and once each, after {}; {again}", took(time)))?;
        self.summary.map = Some(crowd);
        let gone = |member: &Member| member.name == VICTIM || !member.sees.contains(VICTIM);
        let noticed = self.processes.until(|members| members.iter().all(gone)).await?;
        let time = noticed.saturating_duration_since(killed);
        self.summary.killed = Some(VICTIM);
        self.summary.noticed_ms = Some(milliseconds(time));
        let victim = paint(style::NODE, VICTIM);
        self.say(&format!("   {victim} is gone for all {} others within {}", MEMBERS.len() - 1, took(time)))
    }

    async fn go_on(&mut self, node: &Node) -> Result<(), Failure> {
        self.begin_step("the others go on")?;
        let answers = self.ask_where(node).await?;
        if answers.contains_key(VICTIM) {
            return Err(Failure::negative(format_args!("`{VICTIM}` has answered after its end")));
        }
        self.say(&format!("   {WORK} more calls to calculator, none fails: {}", shares(&answers)))
    }

    async fn stop(&mut self) -> Result<(), Failure> {
        self.begin_step("the others stop and say goodbye")?;
        let time = self.processes.stop().await?;
        self.summary.stopped_ms = Some(milliseconds(time));
        self.say(&format!("   all stopped within {}", took(time)))
    }

    /// Calls the calculators at once, and counts who answered.
    async fn ask_where(&self, node: &Node) -> Result<BTreeMap<String, u32>, Failure> {
        let calculator = node.app("calculator").idempotent();
        let calls = (0..WORK).map(|_| calculator.call::<String>("where", ()));
        let mut answers = BTreeMap::new();
        for answer in futures::future::join_all(calls).await {
            *answers.entry(answer.map_err(Failure::negative)?).or_insert(0) += 1;
        }
        Ok(answers)
    }

    /// Makes one call and holds its result against what it must be.
    async fn expect(
        &mut self,
        what: &str,
        wanted: Value,
        call: impl Future<Output = Result<Value, CallError>>,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        let result = call.await;
        let time = begin.elapsed();
        let result = result.map_err(|error| Failure::negative(format_args!("{what}: {error}")))?;
        if result != wanted {
            return Err(Failure::negative(format_args!("{what} gave {result} instead of {wanted}")));
        }
        let shown = if result.is_null() { "accepted".to_owned() } else { result.to_string() };
        let shown = paint(style::GOOD, &shown);
        self.say(&format!("   {what:WIDTH$}  {:>9}  {shown}", took(time)))?;
        self.summary.calls.push(Call { call: what.to_owned(), result, milliseconds: milliseconds(time) });
        Ok(())
    }

    fn begin_step(&mut self, step: &'static str) -> Result<(), Failure> {
        self.step = step;
        self.say(&format!("\n{} {}", paint(style::GOOD, "▸"), paint(style::HEADER, step)))
    }

    fn show(&self, table: &Table) -> Result<(), Failure> {
        self.say(&table.render(self.output.width, INDENT))
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.output.json { Ok(()) } else { self.output.text(text) }
    }
}

/// Waits until the nodes that `node` knows are as wanted.
async fn until(node: &Node, wanted: impl Fn(&[std::sync::Arc<NodeInfo>]) -> bool) -> Result<(), Failure> {
    let mut events = node.events();
    while !wanted(&node.nodes()) {
        events.next().await.ok_or_else(|| Failure::own("the node has stopped by itself"))?;
    }
    Ok(())
}

fn shares(answers: &BTreeMap<String, u32>) -> String {
    let shares = answers.iter().map(|(node, count)| format!("{} {count}", paint(style::NODE, node)));
    shares.collect::<Vec<_>>().join(", ")
}

fn took(time: Duration) -> String {
    let time = milliseconds(time);
    if time < 10.0 { format!("{time:.2} ms") } else { format!("{time:.0} ms") }
}

/// Who takes part, with which applications.
const MEMBERS: [(&str, &str); 4] = [
    ("alpha", "calculator,worker"),
    ("beta", "greeter,worker"),
    ("gamma", "journal,worker"),
    ("delta", "calculator,reporter,worker"),
];

/// Who is killed: one of the two calculators and of the four workers, so that work goes on.
const VICTIM: &str = "delta";

/// How many calls are spread: of two hosts with nothing to do one is drawn, so all calls on one is a matter of one in 2^31.
const WORK: usize = 32;

/// How many items are spread, and how long each takes: together less than a second.
const ITEMS: u64 = 1000;
const ITEM_MILLISECONDS: u64 = 10;

const INDENT: usize = 3;

/// The widest description of a call.
const WIDTH: usize = 64;
