//! A picture of the Mandelbrot set, rendered in tiles by all nodes of the swarm: something to look at.
//!
//! By itself it runs three nodes in this process:
//!
//! ```text
//! cargo run --release --example map_render [FILE.png] [--size 1280x960] [--check]
//! ```
//!
//! Or in several terminals, or on several machines of a LAN: any number of workers, which may come and go while it
//! renders, and one that has the picture rendered.
//!
//! ```text
//! cargo run --release --example map_render worker [--join ADDRESS]
//! cargo run --release --example map_render render FILE.png [--listen ADDRESS]
//! ```
//!
//! An address is only needed where nodes do not find each other by themselves. `--check` renders all of it once more
//! without any swarm, and compares that with the file.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

mod mandelbrot;

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{BufReader, BufWriter},
    path::Path,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures::StreamExt;
use mandelbrot::{BYTES, Picture, Tile};
use multinodes::{Actions, AppError, Builder, Node};
use serde_bytes::ByteBuf;

/// Wide enough that what is sent for a tile is little beside the work, small enough that the last ones end together.
const TILE: u32 = 32;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut words, mut options, mut arguments) = (Vec::new(), BTreeMap::new(), std::env::args().skip(1));
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some("check") => drop(options.insert("check".to_owned(), String::new())),
            Some(name) => drop(options.insert(name.to_owned(), arguments.next().ok_or("an option without a value")?)),
            None => words.push(argument),
        }
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let address = options.get("listen").or(options.get("join"));
    let node = |name: &str| {
        let builder = Node::builder().name(name).swarm("map-render-example");
        // On loopback nobody else is meant.
        if address.is_some_and(|address| address.starts_with("/ip4/127.")) { alone(builder) } else { builder }
    };
    let picture: Picture = options.get("size").map_or("1280x960", String::as_str).parse()?;
    let check = options.contains_key("check");
    match words[..] {
        ["worker"] => {
            let name = format!("worker-{}", std::process::id());
            work(options.get("join").into_iter().fold(node(&name), Builder::join)).await
        }
        ["render", file] => {
            let node = options.get("listen").into_iter().fold(node("painter"), Builder::listen).start().await?;
            println!("`painter` waits for workers: run `map_render worker`");
            paint(&node, picture, file.as_ref(), check).await
        }
        ["render"] | [_, _, ..] => Err("see the first lines of examples/map_render/main.rs".into()),
        _ => in_one_process(picture, words.first().unwrap_or(&"mandelbrot.png").as_ref(), check).await,
    }
}

async fn in_one_process(picture: Picture, file: &Path, check: bool) -> Result<(), Box<dyn Error>> {
    let mut nodes: Vec<Node> = Vec::new();
    for name in ["alpha", "beta", "gamma"] {
        let builder = alone(Node::builder().name(name).swarm("map-render-example"));
        let known = nodes.first().and_then(|first| first.addresses().first().cloned());
        let node =
            known.into_iter().fold(builder, |builder, address| builder.join(address.to_string())).start().await?;
        node.register("render", renderer(cores().div_ceil(3)))?;
        nodes.push(node);
    }
    paint(&nodes[0], picture, file, check).await?;
    for node in nodes.iter().rev() {
        node.stop().await;
    }
    Ok(())
}

/// A node that looks for nobody but those it joins.
fn alone(builder: Builder) -> Builder {
    builder.listen("/ip4/127.0.0.1/tcp/0").mdns(false).rendezvous(false)
}

async fn work(builder: Builder) -> Result<(), Box<dyn Error>> {
    let node = builder.start().await?;
    node.register("render", renderer(cores()))?;
    println!("`{}` renders {} tiles at once; Ctrl-C ends", node.name(), cores());
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

fn cores() -> u32 {
    available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// The application. Rendering is nothing but computing, so it has threads of its own.
fn renderer(slots: u32) -> Actions {
    Actions::new().slots(slots).try_action("tile", |(picture, tile): (Picture, Tile)| async move {
        let rendering = tokio::task::spawn_blocking(move || {
            Some(tile).filter(|tile| tile.fits(TILE)).and_then(|tile| mandelbrot::render(&picture, &tile))
        });
        let pixels = rendering.await.map_err(AppError::of)?;
        pixels.map(ByteBuf::from).ok_or_else(|| AppError::bad_arguments("the tile is too large or not in the picture"))
    })
}

async fn paint(node: &Node, picture: Picture, file: &Path, check: bool) -> Result<(), Box<dyn Error>> {
    node.wait_for("render").await?;
    let tiles = picture.tiles(TILE);
    println!("{} tiles of a picture of {} x {}", tiles.len(), picture.width, picture.height);
    let begun = Instant::now();
    let items: Vec<_> = tiles.iter().map(|tile| (picture, *tile)).collect();
    let mut outcomes = node.app("render").idempotent().map_iter::<ByteBuf>("tile", items);
    let mut pixels = vec![0; picture.width as usize * picture.height as usize * BYTES];
    let mut workers = BTreeMap::<String, (usize, Duration)>::new();
    while let Some(outcome) = outcomes.next().await {
        let outcome = outcome?;
        tiles[usize::try_from(outcome.index)?].put(&outcome.result?, &picture, &mut pixels)?;
        let (count, time) = workers.entry(outcome.node.unwrap_or_default()).or_default();
        (*count, *time) = (*count + 1, *time + outcome.duration);
    }
    println!("rendered in {:.2?}", begun.elapsed());
    for (worker, (count, time)) in workers {
        println!("  {count:4} tiles by {worker}, {:.1?} each", time / u32::try_from(count)?);
    }
    write(file, &picture, &pixels)?;
    println!("{} is there to look at", file.display());
    if check {
        compare(file, &picture)?;
    }
    Ok(())
}

fn write(file: &Path, picture: &Picture, pixels: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(file)?), picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    Ok(writer.finish()?)
}

/// Reads the file, and renders all of it in one piece.
fn compare(file: &Path, picture: &Picture) -> Result<(), Box<dyn Error>> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(file)?)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("a picture that is too large")?];
    reader.next_frame(&mut pixels)?;
    let begun = Instant::now();
    let whole = mandelbrot::render(picture, &picture.whole()).ok_or("no picture")?;
    let differing = whole.chunks(BYTES).zip(pixels.chunks(BYTES)).filter(|(one, other)| one != other).count();
    if whole.len() != pixels.len() || differing > 0 {
        return Err(format!("{differing} pixels are not as they are without a swarm").into());
    }
    println!("the same, pixel by pixel, as by one thread without a swarm, which took {:.2?}", begun.elapsed());
    Ok(())
}
