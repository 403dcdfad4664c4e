//! The demo's ports, looked at before anything starts.

use anyhow::{Context, Result, bail};
use halftone_tests::Ports;
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// Where the control plane shows its metrics.
pub(crate) const CONTROL_PLANE_METRICS: u16 = 9921;
/// Where backends do: the last digit is the version.
pub(crate) const BACKEND_METRICS_TENS: u16 = 991;

/// How long a program that is too busy to accept connections is waited for. Binding its port fails anyway.
const PATIENCE: Duration = Duration::from_millis(200);

/// Fails when a port is taken, and names it. Envoy would not notice: its sockets share a port with those of any
/// other Envoy, and the kernel would deal out the connections among them.
pub(crate) fn check(ports: Ports, backends: u16, with_metrics: bool) -> Result<()> {
    let named = [
        ("--rest-port", ports.rest),
        ("--xds-port", ports.xds),
        ("--envoy-port", ports.envoy),
        ("--admin-port", ports.admin),
    ];
    let of_backends = (1..=backends).map(|version| BACKEND_METRICS_TENS * 10 + version);
    let backends = (0..backends).map(|index| ("--backend-port", ports.backend.saturating_add(index)));
    // Held to the end, so that a port that was named twice is taken the second time.
    let mut held = Vec::new();
    for (flag, port) in named.into_iter().chain(backends.filter(|_| ports.backend != 0)) {
        if port != 0 {
            held.push(take(&format!("name another with {flag}, or use --free-ports"), port)?);
        }
    }
    for port in of_backends.chain([CONTROL_PLANE_METRICS]).filter(|_| with_metrics) {
        held.push(take("metrics are shown there; use --free-ports", port)?);
    }
    Ok(())
}

fn take(advice: &str, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Who answers need not have bound the port: the system can redirect it.
    let answers = TcpStream::connect_timeout(&address, PATIENCE).is_ok();
    match TcpListener::bind(address) {
        Ok(listener) if !answers => Ok(listener),
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            Err(error).with_context(|| format!("port {port} cannot be used: {advice}"))
        }
        _ => bail!("port {port} is taken: {advice}"),
    }
}
