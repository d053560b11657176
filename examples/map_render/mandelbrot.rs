//! The Mandelbrot set, where it is beautiful: two spirals in the valley of the seahorses, and a small set between them.

use std::{array, f64::consts::LN_2, str::FromStr};

use serde::{Deserialize, Serialize};

/// The middle of the picture, and how much of the plane it shows from left to right.
const CENTRE: (f64, f64) = (-0.743_643_887_037_151, 0.131_825_904_205_330);
const WIDTH: f64 = 0.000_12;

/// A point that has not escaped after so many steps is taken for one of the set.
const STEPS: u32 = 5_000;

/// Beyond this distance from 0, squared, a point has escaped: far out, so that colours run smoothly.
const FAR: f64 = 65_536.0;

/// Each pixel is the mean of so many points in both directions.
const SAMPLES: u32 = 2;

/// A pixel: red, green, blue.
pub(crate) const BYTES: usize = 3;

/// The largest picture, in pixels of each side.
const LARGEST: u32 = 16_384;

/// The colours, as light, that a point runs through the later it escapes, and then again from the first.
const COLOURS: [[f64; 3]; 6] = [
    [0.005, 0.008, 0.05], // night
    [0.01, 0.10, 0.30],   // sea
    [0.10, 0.55, 0.65],   // ice
    [0.95, 0.90, 0.70],   // cream
    [0.90, 0.38, 0.05],   // amber
    [0.25, 0.02, 0.05],   // wine
];

/// How fast they change with the logarithm of the number of steps, and with which it begins.
const PACE: f64 = 1.0;
const FIRST: f64 = 0.6;

/// A picture's size in pixels.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Tile {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Picture {
    pub(crate) fn whole(&self) -> Tile {
        Tile { left: 0, top: 0, width: self.width, height: self.height }
    }

    /// Parts the picture into squares of that side; those at the right and at the bottom may be smaller.
    pub(crate) fn tiles(&self, side: u32) -> Vec<Tile> {
        let starts = |length: u32| (0..length).step_by(side as usize);
        let tile =
            |left, top| Tile { left, top, width: side.min(self.width - left), height: side.min(self.height - top) };
        starts(self.height).flat_map(|top| starts(self.width).map(move |left| tile(left, top))).collect()
    }
}

impl FromStr for Picture {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
        match size {
            Some((width @ 1..=LARGEST, height @ 1..=LARGEST)) => Ok(Self { width, height }),
            _ => Err("a size is such as 1280x960, and 16384x16384 at the most"),
        }
    }
}

impl Tile {
    /// Whether it is within a square of that side.
    pub(crate) fn fits(&self, side: u32) -> bool {
        self.width <= side && self.height <= side
    }

    /// Copies the tile to its place in the picture's pixels.
    pub(crate) fn put(&self, tile: &[u8], picture: &Picture, pixels: &mut [u8]) -> Result<(), &'static str> {
        let row = self.width as usize * BYTES;
        if tile.len() != row * self.height as usize {
            return Err("a worker gave a tile of another size");
        }
        for (y, from) in (self.top as usize..).zip(tile.chunks(row)) {
            let start = (y * picture.width as usize + self.left as usize) * BYTES;
            pixels[start..start + row].copy_from_slice(from);
        }
        Ok(())
    }
}

/// The tile's pixels, row by row; nothing if it is not in the picture.
pub(crate) fn render(picture: &Picture, tile: &Tile) -> Option<Vec<u8>> {
    let right = tile.left.checked_add(tile.width).filter(|right| *right <= picture.width.min(LARGEST))?;
    let bottom = tile.top.checked_add(tile.height).filter(|bottom| *bottom <= picture.height.min(LARGEST))?;
    let pixels = (tile.top..bottom).flat_map(|y| (tile.left..right).map(move |x| (x, y)));
    Some(pixels.flat_map(|(x, y)| pixel(picture, x, y)).collect())
}

fn pixel(picture: &Picture, x: u32, y: u32) -> [u8; BYTES] {
    let step = WIDTH / f64::from(picture.width);
    let place = |pixel: u32, length: u32, sample: u32| {
        let sample = (f64::from(sample) + 0.5) / f64::from(SAMPLES);
        (f64::from(pixel) + sample - f64::from(length) / 2.0) * step
    };
    let mut light = [0.0; BYTES];
    for sample in 0..SAMPLES * SAMPLES {
        let real = CENTRE.0 + place(x, picture.width, sample % SAMPLES);
        let imaginary = CENTRE.1 - place(y, picture.height, sample / SAMPLES);
        let colour = escape(real, imaginary).map_or([0.0; BYTES], colour);
        light = array::from_fn(|part| light[part] + colour[part]);
    }
    light.map(|sum| encoded(sum / f64::from(SAMPLES * SAMPLES)))
}

/// After how many steps a point escapes, with a fraction that says how far out it is then; nothing if it does not.
fn escape(real: f64, imaginary: f64) -> Option<f64> {
    let (mut x, mut y) = (0.0_f64, 0.0_f64);
    for step in 0..STEPS {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > FAR {
            return Some(f64::from(step) + 1.0 - ((xx + yy).ln() / (2.0 * LN_2)).log2());
        }
        (x, y) = (xx - yy + real, 2.0 * x * y + imaginary);
    }
    None
}

fn colour(steps: f64) -> [f64; BYTES] {
    let place = (steps.max(1.0).ln() * PACE + FIRST).rem_euclid(1.0) * COLOURS.len() as f64;
    let (one, way) = (place as usize, place.fract());
    let (one, other) = (COLOURS[one % COLOURS.len()], COLOURS[(one + 1) % COLOURS.len()]);
    // Without corners at the colours themselves.
    let way = way * way * (3.0 - 2.0 * way);
    array::from_fn(|part| one[part] + (other[part] - one[part]) * way)
}

/// Light as it stands in a file (sRGB).
fn encoded(light: f64) -> u8 {
    let value = if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
    (value * 255.0).round() as u8
}
