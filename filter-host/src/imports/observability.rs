//! What the module tells its operators: log lines and metrics.

use super::{Answer, Registry, Status, proxy};
use crate::logs::{LogLevel, MAX_LINE_BYTES};
use crate::memory::{check, read, write_u32, write_u64};
use crate::state::HostState;
use wasmtime::Caller;

pub(super) fn offer(registry: &mut Registry) -> wasmtime::Result<()> {
    proxy!(registry, "proxy_log" => log, (level: u32, message: u32, len: u32));
    proxy!(registry, "proxy_get_log_level" => get_log_level, (level: u32));
    proxy!(registry, "proxy_define_metric" => define_metric, (kind: u32, name: u32, len: u32, id: u32));
    proxy!(registry, "proxy_increment_metric" => increment_metric, (id: u32, offset: i64));
    proxy!(registry, "proxy_record_metric" => record_metric, (id: u32, value: u64));
    proxy!(registry, "proxy_get_metric" => get_metric, (id: u32, value: u32));
    Ok(())
}

fn log(caller: &mut Caller<'_, HostState>, level: u32, message: u32, len: u32) -> Answer {
    let level = LogLevel::from_abi(level).ok_or(Status::BadArgument)?;
    check(caller, message, len)?;
    let kept = u32::try_from(MAX_LINE_BYTES).map_or(len, |max| len.min(max));
    let message = read(caller, message, kept)?;
    caller.data_mut().logs.push(level, &message);
    Ok(())
}

fn get_log_level(caller: &mut Caller<'_, HostState>, level: u32) -> Answer {
    let current = caller.data().settings.log_level as u32;
    write_u32(caller, level, current)
}

fn define_metric(caller: &mut Caller<'_, HostState>, kind: u32, name: u32, len: u32, id: u32) -> Answer {
    let name = read(caller, name, len)?;
    let defined = caller.data_mut().metrics.define(kind, &name)?;
    write_u32(caller, id, defined)
}

fn increment_metric(caller: &mut Caller<'_, HostState>, id: u32, offset: i64) -> Answer {
    Ok(caller.data_mut().metrics.increment(id, offset)?)
}

fn record_metric(caller: &mut Caller<'_, HostState>, id: u32, value: u64) -> Answer {
    Ok(caller.data_mut().metrics.record(id, value)?)
}

fn get_metric(caller: &mut Caller<'_, HostState>, id: u32, value: u32) -> Answer {
    let current = caller.data_mut().metrics.get(id)?;
    write_u64(caller, value, current)
}
