//! A collector on this machine and the sensors that it certifies, as the demo and the benchmarks set them up.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    http,
    programs::{Background, output, path},
};

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a collector that was started answers at `web`; `check` may end the wait before.
pub(crate) fn await_answer(
    collector: &mut Background,
    web: SocketAddr,
    check: impl Fn() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while http::get_json(web, "/api/v1/health").is_err() {
        collector.must_live()?;
        check()?;
        if Instant::now() > deadline {
            bail!("the collector does not answer at http://{web}:\n{}", collector.log());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Has the collector that runs in `directory` and listens at `ingest` certify a sensor by a one-use token. `programs` is
/// the folder of both programs, `config` the agent's configuration.
pub(crate) fn enrol(
    programs: &Path,
    directory: &Path,
    ingest: SocketAddr,
    config: &Path,
    (sensor, site): (&str, &str),
) -> Result<()> {
    let create = ["token", "create", "--dir", path(directory)?, "--sensor", sensor, "--site", site];
    let token = output(&programs.join("onenet-collector"), &create)?;
    let token = token.split_whitespace().last().context("`token create` printed no token")?;
    let url = format!("https://{ingest}");
    let enroll = ["enroll", "--config", path(config)?, "--collector", &url, "--token", token];
    output(&programs.join("onenet-agent"), &enroll).map(drop)
}
