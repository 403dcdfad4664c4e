//! What the module does with a stream as a whole.

use super::{Answer, Registry, Status, proxy};
use crate::headers::HeaderMap;
use crate::memory::{check, read, write_u32};
use crate::outcome::LocalResponse;
use crate::state::{HostState, Phase};
use wasmtime::Caller;

pub(super) fn offer(registry: &mut Registry) -> wasmtime::Result<()> {
    proxy!(registry, "proxy_send_local_response" => send_local_response,
        (status: u32, details: u32, details_len: u32, body: u32, body_len: u32, headers: u32, headers_len: u32,
         grpc_status: i32));
    proxy!(registry, "proxy_set_effective_context" => set_effective_context, (id: u32));
    proxy!(registry, "proxy_done" => done, ());
    proxy!(registry, "proxy_call_foreign_function" => call_foreign_function,
        (name: u32, name_len: u32, arguments: u32, arguments_len: u32, results: u32, results_len: u32));
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "proxy-wasm prescribes them")]
fn send_local_response(
    caller: &mut Caller<'_, HostState>,
    status: u32,
    details: u32,
    details_len: u32,
    body: u32,
    body_len: u32,
    headers: u32,
    headers_len: u32,
    grpc_status: i32,
) -> Answer {
    let details = read(caller, details, details_len)?;
    let body = read(caller, body, body_len)?;
    let headers = read(caller, headers, headers_len)?;
    let headers = HeaderMap::decode(&headers).ok_or(Status::BadArgument)?.into_pairs();
    let stream = caller.data_mut().active_stream().ok_or(Status::BadArgument)?;
    if !matches!(stream.phase, Phase::Request | Phase::Response) {
        return Err(Status::BadArgument.into());
    }
    stream.local_response = Some(LocalResponse { status, details, headers, body, grpc_status });
    Ok(())
}

fn set_effective_context(caller: &mut Caller<'_, HostState>, id: u32) -> Answer {
    let state = caller.data_mut();
    if !state.has_context(id) {
        return Err(Status::BadArgument.into());
    }
    state.effective_context = Some(id);
    Ok(())
}

/// No context is ever kept waiting for this call.
fn done(_caller: &mut Caller<'_, HostState>) -> Answer {
    Err(Status::NotFound.into())
}

/// Of Envoy's foreign functions a gray release needs one; to forget a cached route when there is none is no work.
fn call_foreign_function(
    caller: &mut Caller<'_, HostState>,
    name: u32,
    name_len: u32,
    arguments: u32,
    arguments_len: u32,
    results: u32,
    results_len: u32,
) -> Answer {
    let name = read(caller, name, name_len)?;
    check(caller, arguments, arguments_len)?;
    if name != b"clear_route_cache" {
        return Err(Status::NotFound.into());
    }
    for pointer in [results, results_len] {
        if pointer != 0 {
            write_u32(caller, pointer, 0)?;
        }
    }
    Ok(())
}
