//! What a coding costs and saves: rows in JSON by each level that could be chosen, flushed every 64 KiB as an answer is.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use zstd::stream::{raw::CParameter, write::Encoder};

const PIECE: usize = 64 << 10;
const SIZE: usize = 4 << 20;
const AT_LEAST: Duration = Duration::from_millis(400);

pub fn run() -> Result<()> {
    println!("\n## Compression: rows in JSON, in pieces of 64 KiB\n\ncoding   ms of a core per MB   left");
    let rows = rows();
    for level in [1, 2, 3, 4, 6] {
        line(&format!("gzip {level}{}", if level == 2 { " *" } else { "" }), &rows, || {
            let mut coder = GzEncoder::new(Vec::new(), Compression::new(level));
            feed(&mut coder, &rows)?;
            Ok(coder.finish()?.len())
        })?;
    }
    for level in [1, 2, 3, 5] {
        line(&format!("zstd {level}{}", if level == 1 { " *" } else { "" }), &rows, || {
            let mut coder = Encoder::new(Vec::new(), level)?;
            coder.set_parameter(CParameter::WindowLog(17))?;
            feed(&mut coder, &rows)?;
            Ok(coder.finish()?.len())
        })?;
    }
    println!("\n* as the gateway has it");
    Ok(())
}

fn feed(coder: &mut impl Write, rows: &[u8]) -> Result<()> {
    for piece in rows.chunks(PIECE) {
        coder.write_all(piece)?;
        coder.flush()?;
    }
    Ok(())
}

fn line(name: &str, rows: &[u8], code: impl Fn() -> Result<usize>) -> Result<()> {
    let mut times = 0;
    let begun = Instant::now();
    let mut left = 0;
    while begun.elapsed() < AT_LEAST {
        left = code()?;
        times += 1;
    }
    let ms = begun.elapsed().as_secs_f64() * 1e3 / (f64::from(times) * rows.len() as f64 / 1e6);
    println!("{name:8} {ms:19.1} {:5.0} %", left as f64 / rows.len() as f64 * 100.0);
    Ok(())
}

/// Numbers, names, addresses, times, digests: what tables hold.
fn rows() -> Vec<u8> {
    const NAMES: [&str; 8] = ["Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Leslie", "Frances"];
    let mut seed: u64 = 88_172_645_463_325_252;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut out = b"{\"columns\":[],\"rows\":[".to_vec();
    let mut id = 0;
    while out.len() < SIZE {
        let (a, b) = (next(), next());
        let name = NAMES[(a % 8) as usize];
        let (month, day, hour, minute) = (1 + a / 8 % 12, 1 + a / 96 % 28, b % 24, b / 24 % 60);
        let row = format!(
            "[{id},\"{name} {}\",\"{}@example.com\",\"2026-{month:02}-{day:02} {hour:02}:{minute:02}:00+00\",\"{}.{:02}\",\"{a:016x}{b:016x}\",null,true],",
            NAMES[(b % 8) as usize],
            name.to_lowercase(),
            b % 100_000,
            a % 100
        );
        out.extend_from_slice(row.as_bytes());
        id += 1;
    }
    out
}
