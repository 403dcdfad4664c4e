//! What the module can learn of its world: configuration, properties, clock, shared data.

use super::{Answer, Registry, Status, proxy};
use crate::memory::{check, hand_over, read, write_u32, write_u64};
use crate::state::HostState;
use wasmtime::Caller;

const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;
const LAST_BUFFER: u32 = 8;

/// How many bytes of properties a stream may publish.
const MAX_PROPERTY_BYTES: usize = 1 << 20;

pub(super) fn offer(registry: &mut Registry) -> wasmtime::Result<()> {
    proxy!(registry, "proxy_get_buffer_bytes" => get_buffer_bytes,
        (kind: u32, start: u32, max: u32, address: u32, size: u32));
    proxy!(registry, "proxy_get_buffer_status" => get_buffer_status, (kind: u32, size: u32, flags: u32));
    proxy!(registry, "proxy_set_buffer_bytes" => set_buffer_bytes,
        (kind: u32, start: u32, max: u32, bytes: u32, len: u32));
    proxy!(registry, "proxy_get_property" => get_property, (path: u32, len: u32, address: u32, size: u32));
    proxy!(registry, "proxy_set_property" => set_property, (path: u32, path_len: u32, value: u32, value_len: u32));
    proxy!(registry, "proxy_get_current_time_nanoseconds" => get_current_time, (time: u32));
    proxy!(registry, "proxy_set_tick_period_milliseconds" => set_tick_period, (period: u32));
    proxy!(registry, "proxy_get_shared_data" => get_shared_data,
        (key: u32, len: u32, address: u32, size: u32, cas: u32));
    proxy!(registry, "proxy_set_shared_data" => set_shared_data,
        (key: u32, key_len: u32, value: u32, value_len: u32, cas: u32));
    Ok(())
}

/// The configurations are always there; bodies never are.
fn buffer(state: &HostState, kind: u32) -> Result<&[u8], Status> {
    match kind {
        VM_CONFIGURATION => Ok(&state.settings.vm_configuration),
        PLUGIN_CONFIGURATION => Ok(&state.configuration),
        0..=LAST_BUFFER => Err(Status::NotFound),
        _ => Err(Status::BadArgument),
    }
}

fn get_buffer_bytes(
    caller: &mut Caller<'_, HostState>,
    kind: u32,
    start: u32,
    max: u32,
    address: u32,
    size: u32,
) -> Answer {
    let bytes = buffer(caller.data(), kind)?;
    start.checked_add(max).ok_or(Status::BadArgument)?;
    let (start, max) = (start as usize, max as usize);
    let rest = bytes.get(start..).ok_or(Status::BadArgument)?;
    let part = rest.get(..max).unwrap_or(rest).to_vec();
    // Nothing is written for an empty part, as in Envoy; the SDK reads its own null pointer then.
    if part.is_empty() { Ok(()) } else { hand_over(caller, &part, address, size) }
}

fn get_buffer_status(caller: &mut Caller<'_, HostState>, kind: u32, size: u32, flags: u32) -> Answer {
    let len = u32::try_from(buffer(caller.data(), kind)?.len()).unwrap_or(u32::MAX);
    write_u32(caller, size, len)?;
    write_u32(caller, flags, 0)
}

fn set_buffer_bytes(
    caller: &mut Caller<'_, HostState>,
    kind: u32,
    _start: u32,
    _max: u32,
    bytes: u32,
    len: u32,
) -> Answer {
    buffer(caller.data(), kind)?;
    check(caller, bytes, len)?;
    // Of the buffers that are there none can be written.
    Err(Status::BadArgument.into())
}

/// What the module itself published comes before what the settings say.
fn get_property(caller: &mut Caller<'_, HostState>, path: u32, len: u32, address: u32, size: u32) -> Answer {
    let path = read(caller, path, len)?;
    let path = path.strip_suffix(b"\0").unwrap_or(&path);
    let state = caller.data_mut();
    let published = state
        .active_stream()
        .and_then(|stream| stream.properties.iter().find(|(known, _)| known == path))
        .map(|(_, value)| value.clone());
    let value = match published {
        Some(value) => value,
        None => state.settings.property(path).ok_or(Status::NotFound)?.to_vec(),
    };
    hand_over(caller, &value, address, size)
}

fn set_property(
    caller: &mut Caller<'_, HostState>,
    path: u32,
    path_len: u32,
    value: u32,
    value_len: u32,
) -> Answer {
    let path = read(caller, path, path_len)?;
    let value = read(caller, value, value_len)?;
    // Properties live as long as a stream; a root context has nothing to set them on.
    let stream = caller.data_mut().active_stream().ok_or(Status::NotFound)?;
    stream.properties.retain(|(known, _)| *known != path);
    let kept: usize = stream.properties.iter().map(|(path, value)| path.len() + value.len()).sum();
    if kept + path.len() + value.len() > MAX_PROPERTY_BYTES {
        return Err(Status::InternalFailure.into());
    }
    stream.properties.push((path, value));
    Ok(())
}

fn get_current_time(caller: &mut Caller<'_, HostState>, time: u32) -> Answer {
    let now = caller.data().settings.now_ns;
    write_u64(caller, time, now)
}

fn set_tick_period(caller: &mut Caller<'_, HostState>, period: u32) -> Answer {
    caller.data_mut().tick_period_ms = period;
    Ok(())
}

fn get_shared_data(
    caller: &mut Caller<'_, HostState>,
    key: u32,
    len: u32,
    address: u32,
    size: u32,
    cas: u32,
) -> Answer {
    let key = read(caller, key, len)?;
    let (value, version) = caller.data().shared_data.get(&key)?;
    hand_over(caller, &value, address, size)?;
    write_u32(caller, cas, version)
}

fn set_shared_data(
    caller: &mut Caller<'_, HostState>,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
    cas: u32,
) -> Answer {
    let key = read(caller, key, key_len)?;
    let value = read(caller, value, value_len)?;
    Ok(caller.data_mut().shared_data.set(key, value, cas)?)
}
