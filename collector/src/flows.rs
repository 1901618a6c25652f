//! The command `flows`: looks for flow records, the latest first.

use clap::Args;
use onenet_core::record::FlowId;

use crate::{
    cli::{self, CliError, Format, Place},
    render::{self, Column},
    search::{Moment, Protocol, Within, protocol_name},
    store::{FlowQuery, StoredFlow},
};

/// Arguments of `flows`.
#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    place: Place,
    /// One side is this address, or in this prefix.
    #[arg(long, value_name = "ADDRESS|PREFIX")]
    address: Option<Within>,
    /// The other side is this address, or in this prefix.
    #[arg(long, value_name = "ADDRESS|PREFIX")]
    peer: Option<Within>,
    /// One side has this port.
    #[arg(long)]
    port: Option<u16>,
    /// IP protocol, by name or number.
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Flows that end at this time (UTC) or later.
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Flows that start before this time (UTC).
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// The sensor that saw it.
    #[arg(long)]
    sensor: Option<String>,
    /// One side belongs to this secretariat.
    #[arg(long)]
    secretariat: Option<String>,
    /// All parts of this flow.
    #[arg(long, value_name = "ID")]
    flow_id: Option<FlowId>,
    /// Flows to show at most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const COLUMNS: [Column<StoredFlow>; 15] = [
    Column::text("start", |f| render::moment(f.record.start)),
    Column::text("end", |f| render::moment(f.record.end)),
    Column::text("sensor", |f| f.sensor.to_string()),
    Column::text("protocol", |f| protocol_name(f.record.protocol)),
    Column::text("originator", |f| f.record.originator.ip.to_string()),
    Column::number("orig_port", |f| f.record.originator.port.to_string()),
    Column::text("responder", |f| f.record.responder.ip.to_string()),
    Column::number("resp_port", |f| f.record.responder.port.to_string()),
    Column::text("state", |f| f.record.conn_state.to_string()),
    Column::number("orig_packets", |f| f.record.originator.packets.to_string()),
    Column::number("resp_packets", |f| f.record.responder.packets.to_string()),
    Column::number("orig_ip_bytes", |f| f.record.originator.ip_bytes.to_string()),
    Column::number("resp_ip_bytes", |f| f.record.responder.ip_bytes.to_string()),
    Column::text("direction", |f| f.record.direction.to_string()),
    Column::text("flow_id", |f| f.record.flow_id.to_string()),
];

/// Runs the command.
pub(crate) fn run(args: &FlowsArgs) -> Result<(), CliError> {
    let (_, store) = args.place.store()?;
    let page = store.flows(&FlowQuery {
        from: args.from.map(|moment| moment.0),
        to: args.to.map(|moment| moment.0),
        address: args.address.map(|within| within.0),
        peer: args.peer.map(|within| within.0),
        port: args.port,
        protocol: args.protocol.map(|protocol| protocol.0),
        sensor: args.sensor.clone(),
        secretariat: args.secretariat.clone(),
        flow_id: args.flow_id,
        limit: args.limit,
        ..FlowQuery::default()
    })?;
    if args.format == Format::Table && page.flows.is_empty() {
        return cli::print("no flow matches\n");
    }
    cli::print(&render::render(args.format, &COLUMNS, &page.flows)?)?;
    if page.next.is_some() {
        eprintln!("more flows match; --limit shows more of them");
    }
    Ok(())
}
