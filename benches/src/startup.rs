//! The startup time of `drystone up`, and its resident memory when ready.

use std::time::Instant;

use anyhow::Result;
use drystone_tests::{Home, Mesh};

use crate::{process::resident_megabytes, report::Measurement};

const RUNS: usize = 5;

/// Starts the mesh with an empty data directory, then restarts it several times with its data.
pub(crate) fn measure() -> Result<Vec<Measurement>> {
    let (first, _, mut home) = start(Home::new())?;
    let mut restarts = Vec::new();
    for _ in 0..RUNS {
        let (time, memory, next_home) = start(home)?;
        restarts.push((time, memory));
        home = next_home;
    }
    restarts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (time, memory) = restarts[RUNS / 2];
    let without = median(|| Mesh::setup().without("notification").start())?;
    let mesh = Mesh::start();
    let alone = |name: &'static str| {
        median(|| {
            let mut setup = Mesh::setup().serve(&[name], mesh.certificates()).set("issuer", "https://id.example.com");
            for other in mesh.services().filter(|other| *other != name) {
                setup = setup.set(&format!("peers.{other}"), &mesh.grpc_address(other).to_string());
            }
            setup.start()
        })
    };
    let (auth, notification) = (alone("auth")?, alone("notification")?);
    Ok(vec![
        Measurement::plain("drystone up, first start to ready", first, "ms").under(500.0),
        Measurement::plain("drystone up, start to ready", time, "ms").under(500.0),
        Measurement::plain("drystone up, resident memory when ready", memory, "MB").under(60.0),
        Measurement::plain("the part of notification in it", memory - without, "MB").under(4.0),
        Measurement::plain("drystone serve auth, resident memory when ready", auth, "MB").under(30.0),
        Measurement::plain("drystone serve notification, resident memory when ready", notification, "MB").under(25.0),
    ])
}

/// Starts and stops a mesh; returns milliseconds until ready, resident megabytes, and its directory.
fn start(home: Home) -> Result<(f64, f64, Home)> {
    let before = Instant::now();
    let mesh = Mesh::setup().home(home).start();
    let time = before.elapsed().as_secs_f64() * 1e3;
    let memory = resident_megabytes(mesh.id())?;
    Ok((time, memory, mesh.stop()))
}

/// The median of the resident memory of several processes when ready.
fn median(start: impl Fn() -> Mesh) -> Result<f64> {
    let mut all = Vec::new();
    for _ in 0..RUNS {
        let mesh = start();
        all.push(resident_megabytes(mesh.id())?);
        drop(mesh.stop());
    }
    all.sort_by(f64::total_cmp);
    Ok(all[RUNS / 2])
}
