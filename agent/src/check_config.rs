//! `onenet-agent check-config`: validates the configuration and the plan, and says what `run` will do.

use std::{io::Write, path::Path};

use onenet_core::{mirror::MirrorPlan, plan::Role};

use crate::{
    config::{Config, EbpfSource, Pace, PcapFileSource, PlanSource, Purpose, Source},
    interfaces,
    keys::KeyStore,
    plan::{Held, InUse, Plans},
};

/// Checks the file and writes what it means. Warnings are what may be right by the time the agent runs.
pub(crate) fn check(path: &Path, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    let config = Config::load(path, Purpose::Run)?;
    let mut warnings = Vec::new();
    writeln!(out, "sensor     {} at {}", config.sensor.name, config.sensor.site)?;
    writeln!(out, "state      {}", config.sensor.state_dir.display())?;
    match &config.collector {
        Some(collector) => {
            writeln!(out, "collector  {} as {}", collector.endpoint, collector.server_name())?;
        }
        None => writeln!(out, "collector  the one that this sensor enrolled at")?,
    }
    let known = interfaces::names();
    for source in &config.sources {
        match source {
            Source::PcapFile(files) => describe_files(files, out, &mut warnings)?,
            Source::Ebpf(live) => describe_ebpf(live, out)?,
            Source::Auto { ebpf, pcap } => {
                describe_ebpf(ebpf, out)?;
                writeln!(out, "           else by libpcap, buffer {} MiB", pcap.buffer_mib)?;
            }
            Source::Pcap(live) => {
                let filter = live.filter.as_deref().map_or(String::new(), |f| format!(", filter {f:?}"));
                writeln!(
                    out,
                    "source     interface {}: {} bytes of each packet, buffer {} MiB{}{}{filter}",
                    live.interface,
                    live.snap_length,
                    live.buffer_mib,
                    if live.promiscuous { ", promiscuous" } else { "" },
                    if live.immediate { ", immediate" } else { "" },
                )?;
            }
        }
        if let Some(interface) = source.interface()
            && !known.iter().any(|name| **name == **interface)
        {
            warnings.push(format!("this host has no interface {interface}"));
        }
    }
    if config.sources.is_empty() {
        warnings.push("no [[source]]: `run` has nothing to read".to_owned());
    }
    for interface in &config.interfaces {
        let macs: Vec<String> = interface.router_macs.iter().map(ToString::to_string).collect();
        let routers = if macs.is_empty() { "router learnt".to_owned() } else { macs.join(" ") };
        writeln!(out, "interface  {}: {:?}, {routers}", interface.name, interface.role)?;
    }
    for mirror in &config.mirrors {
        writeln!(out, "mirror     {}: {}", mirror.name, describe_mirror(mirror))?;
        if config.interface(&mirror.name).role == Role::Unknown {
            warnings.push(format!("mirror {0} has no [[interface]] named {0} with a role", mirror.name));
        }
    }
    describe_plan(&config, out, &mut warnings)?;
    writeln!(
        out,
        "spool      up to {} MiB in segments of {} MiB, fsync every {} ms",
        config.spool.max_mib, config.spool.segment_mib, config.spool.fsync_ms
    )?;
    writeln!(
        out,
        "batch      up to {} records, {} KiB or {} ms; heartbeat every {} s",
        config.batch.max_records, config.batch.max_kib, config.batch.max_delay_ms, config.heartbeat_seconds
    )?;
    writeln!(
        out,
        "flows      up to {} live; idle after {} s TCP, {} s UDP; a part every {} s",
        config.flow.max_flows,
        config.flow.tcp_idle_seconds,
        config.flow.udp_idle_seconds,
        config.flow.active_seconds
    )?;
    for warning in &warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "{}: configuration is sound", path.display())?;
    Ok(())
}

fn describe_ebpf(source: &EbpfSource, out: &mut dyn Write) -> std::io::Result<()> {
    let sample = if source.sample > 1 { format!(", one flow in {}", source.sample) } else { String::new() };
    writeln!(
        out,
        "source     interface {} by eBPF (hook {}): up to {} IPv4 and {} IPv6 flows each {} ms, first {} packets of \
         a way{sample}",
        source.interface,
        source.hook.as_str(),
        source.max_flows,
        source.max_flows_v6,
        source.interval_ms,
        source.first_packets,
    )
}

/// What a mirror's packets are known by.
fn describe_mirror(mirror: &MirrorPlan) -> String {
    let mut text = mirror.kind.tunnel().to_string();
    if let Some(id) = mirror.id {
        text += &format!(" {id}");
    }
    match mirror.destination {
        Some(destination) => text += &format!(" to {destination}"),
        None => text += " to any address",
    }
    if let Some(port) = mirror.port {
        text += &format!(", UDP port {port}");
    }
    text + "; its tunnel is stripped"
}

fn describe_files(
    source: &PcapFileSource,
    out: &mut dyn Write,
    warnings: &mut Vec<String>,
) -> std::io::Result<()> {
    let pace = match source.pace {
        Pace::Fast => "as fast as possible",
        Pace::Captured => "at the captured pace",
    };
    let on = source.interface.as_ref().map_or(String::new(), |name| format!(", as interface {name}"));
    for path in &source.paths {
        writeln!(out, "source     {} {pace}{on}", path.display())?;
    }
    match source.files() {
        Err(error) => warnings.push(error.to_string()),
        Ok(files) => {
            for file in files.iter().filter(|file| !file.exists()) {
                warnings.push(format!("{}: no such file", file.display()));
            }
        }
    }
    Ok(())
}

fn until_it_comes(config: &Config, in_use: &InUse, out: &mut dyn Write) -> std::io::Result<()> {
    if config.plan_source == PlanSource::Collector && in_use.held.version == 0 {
        writeln!(out, "           until the collector's comes")?;
    }
    Ok(())
}

/// The plan that packets will be judged by.
fn plan_in_use(config: &Config, warnings: &mut Vec<String>) -> InUse {
    if config.plan_source == PlanSource::File {
        return InUse { plan: config.plan.clone(), held: Held::default() };
    }
    let key = KeyStore::new(&config.sensor.state_dir).cosign_key().unwrap_or_else(|error| {
        warnings.push(format!("{error:#}"));
        None
    });
    let plans = Plans::open(&config.sensor.state_dir, key, config.plan_source, config.plan.clone());
    let in_use = plans.in_use();
    warnings.extend(plans.state(in_use.held).refusal);
    in_use
}

fn describe_plan(config: &Config, out: &mut dyn Write, warnings: &mut Vec<String>) -> std::io::Result<()> {
    let in_use = plan_in_use(config, warnings);
    let plan = &in_use.plan;
    match &config.plan_path {
        _ if in_use.held.version > 0 => {
            write!(out, "plan       version {} of the collector's: ", in_use.held.version)?;
        }
        Some(path) => write!(out, "plan       {}: ", path.display())?,
        None => write!(out, "plan       in the configuration: ")?,
    }
    if plan.secretariats.is_empty() && plan.prefixes.is_empty() && plan.segments.is_empty() {
        writeln!(out, "empty; RFC 1918 and ULA count as inside")?;
        return until_it_comes(config, &in_use, out);
    }
    let here = plan.segments.iter().filter(|segment| segment.site == config.sensor.site);
    writeln!(
        out,
        "{} secretariats, {} prefixes, {} segments ({} at {}), {} public prefixes, {} exemptions",
        plan.secretariats.len(),
        plan.prefixes.len(),
        plan.segments.len(),
        here.clone().count(),
        config.sensor.site,
        plan.public.len(),
        plan.exemptions.len()
    )?;
    until_it_comes(config, &in_use, out)?;
    if here.clone().next().is_none() {
        warnings.push(format!("the plan has no segment at site {}", config.sensor.site));
    }
    for segment in here {
        if let Some(name) = &segment.interface
            && !config.interfaces.is_empty()
            && !config.interfaces.iter().any(|interface| interface.name == *name)
        {
            warnings
                .push(format!("segment {} is on interface {name}, which has no [[interface]]", segment.id));
        }
    }
    Ok(())
}
