//! Reading and changing headers.

use super::{Answer, Fault, Registry, Status, proxy};
use crate::headers::{Full, HeaderMap};
use crate::memory::{hand_over, read, write_u32};
use crate::state::{HostState, Phase};
use wasmtime::Caller;

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const LAST_MAP: u32 = 7;

pub(super) fn offer(registry: &mut Registry) -> wasmtime::Result<()> {
    proxy!(registry, "proxy_get_header_map_value" => get_value,
        (map: u32, name: u32, len: u32, address: u32, size: u32));
    proxy!(registry, "proxy_get_header_map_pairs" => get_pairs, (map: u32, address: u32, size: u32));
    proxy!(registry, "proxy_get_header_map_size" => get_size, (map: u32, size: u32));
    proxy!(registry, "proxy_add_header_map_value" => add_value,
        (map: u32, name: u32, name_len: u32, value: u32, value_len: u32));
    proxy!(registry, "proxy_replace_header_map_value" => replace_value,
        (map: u32, name: u32, name_len: u32, value: u32, value_len: u32));
    proxy!(registry, "proxy_remove_header_map_value" => remove_value, (map: u32, name: u32, len: u32));
    proxy!(registry, "proxy_set_header_map_pairs" => set_pairs, (map: u32, bytes: u32, len: u32));
    Ok(())
}

/// `Ok(None)` for a map that a log callback would see if the stream had got that far.
fn readable(state: &mut HostState, map: u32) -> Result<Option<&HeaderMap>, Status> {
    let stream = state.active_stream().ok_or(Status::BadArgument)?;
    match (map, stream.phase) {
        (REQUEST_HEADERS, Phase::Request | Phase::Log) => Ok(Some(&stream.request)),
        (RESPONSE_HEADERS, Phase::Response) => stream.response.as_ref().map(Some).ok_or(Status::BadArgument),
        (RESPONSE_HEADERS, Phase::Log) => Ok(stream.response.as_ref()),
        (0..=LAST_MAP, Phase::Log) => Ok(None),
        _ => Err(Status::BadArgument),
    }
}

fn writable(state: &mut HostState, map: u32) -> Result<&mut HeaderMap, Status> {
    let stream = state.active_stream().ok_or(Status::BadArgument)?;
    match (map, stream.phase) {
        (REQUEST_HEADERS, Phase::Request) => Ok(&mut stream.request),
        (RESPONSE_HEADERS, Phase::Response) => stream.response.as_mut().ok_or(Status::BadArgument),
        _ => Err(Status::BadArgument),
    }
}

fn get_value(
    caller: &mut Caller<'_, HostState>,
    map: u32,
    name: u32,
    len: u32,
    address: u32,
    size: u32,
) -> Answer {
    let name = read(caller, name, len)?;
    let headers = readable(caller.data_mut(), map)?;
    let value = headers.and_then(|headers| headers.get(&name)).ok_or(Status::NotFound)?.to_vec();
    hand_over(caller, &value, address, size)
}

fn get_pairs(caller: &mut Caller<'_, HostState>, map: u32, address: u32, size: u32) -> Answer {
    let bytes = readable(caller.data_mut(), map)?.map(HeaderMap::encode).unwrap_or_default();
    hand_over(caller, &bytes, address, size)
}

fn get_size(caller: &mut Caller<'_, HostState>, map: u32, size: u32) -> Answer {
    let bytes = readable(caller.data_mut(), map)?.map_or(0, HeaderMap::byte_size);
    write_u32(caller, size, u32::try_from(bytes).unwrap_or(u32::MAX))
}

fn add_value(
    caller: &mut Caller<'_, HostState>,
    map: u32,
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
) -> Answer {
    let name = read(caller, name, name_len)?;
    let value = read(caller, value, value_len)?;
    Ok(writable(caller.data_mut(), map)?.add(&name, &value)?)
}

fn replace_value(
    caller: &mut Caller<'_, HostState>,
    map: u32,
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
) -> Answer {
    let name = read(caller, name, name_len)?;
    let value = read(caller, value, value_len)?;
    Ok(writable(caller.data_mut(), map)?.replace(&name, &value)?)
}

/// Fine with a header that is not there.
fn remove_value(caller: &mut Caller<'_, HostState>, map: u32, name: u32, len: u32) -> Answer {
    let name = read(caller, name, len)?;
    writable(caller.data_mut(), map)?.remove(&name);
    Ok(())
}

/// Envoy empties the map when the pairs are broken; here the module hears of it.
fn set_pairs(caller: &mut Caller<'_, HostState>, map: u32, bytes: u32, len: u32) -> Answer {
    let bytes = read(caller, bytes, len)?;
    let headers = writable(caller.data_mut(), map)?;
    *headers = HeaderMap::decode(&bytes).ok_or(Status::BadArgument)?;
    Ok(())
}

impl From<Full> for Fault {
    fn from(_: Full) -> Self {
        Self::Status(Status::InternalFailure)
    }
}
