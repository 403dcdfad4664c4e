//! The part of WASI that a filter really uses: it prints, reads the clock and wants randomness. Its environment and
//! its arguments are empty.

use super::{Answer, Errno, Fault, ProcExit, Registry, WASI, preview1};
use crate::logs::{LogLevel, MAX_LINE_BYTES};
use crate::memory::{check, read, write, write_u32, write_u64};
use crate::state::HostState;
use wasmtime::Caller;

/// Envoy's limit on one call.
const MAX_RANDOM_BYTES: u32 = 64 << 10;
/// More parts than any writer uses; each costs the host work that the module's fuel does not pay for.
const MAX_PARTS: u32 = 1024;

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

pub(super) fn offer(registry: &mut Registry) -> wasmtime::Result<()> {
    preview1!(registry, "fd_write" => fd_write, (fd: u32, parts: u32, count: u32, written: u32));
    preview1!(registry, "fd_fdstat_get" => fd_fdstat_get, (fd: u32, stat: u32));
    preview1!(registry, "environ_sizes_get" => sizes_get, (count: u32, size: u32));
    preview1!(registry, "environ_get" => nothing, (pointers: u32, buffer: u32));
    preview1!(registry, "args_sizes_get" => sizes_get, (count: u32, size: u32));
    preview1!(registry, "args_get" => nothing, (pointers: u32, buffer: u32));
    preview1!(registry, "clock_time_get" => clock_time_get, (clock: u32, precision: u64, time: u32));
    preview1!(registry, "random_get" => random_get, (buffer: u32, len: u32));
    preview1!(registry, "sched_yield" => sched_yield, ());
    // The only one without an answer.
    registry.linker.func_wrap(WASI, "proc_exit", |mut caller: Caller<'_, HostState>, code: u32| {
        caller.data_mut().usage.record("proc_exit");
        Err::<(), _>(wasmtime::Error::new(ProcExit(code)))
    })?;
    registry.names.insert((WASI, "proc_exit"));
    Ok(())
}

/// Standard output and error end up in the log, as in Envoy.
fn fd_write(caller: &mut Caller<'_, HostState>, fd: u32, parts: u32, count: u32, written: u32) -> Answer {
    let level = match fd {
        1 => LogLevel::Info,
        2 => LogLevel::Error,
        _ => return Err(Errno::BadDescriptor.into()),
    };
    if count > MAX_PARTS {
        return Err(Errno::Invalid.into());
    }
    let parts = read(caller, parts, count * 8)?;
    let (mut line, mut total) = (Vec::new(), 0u32);
    for part in parts.as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *part;
        let (pointer, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        check(caller, pointer, len)?;
        total = total.checked_add(len).ok_or(Errno::Invalid)?;
        let room = u32::try_from(MAX_LINE_BYTES.saturating_sub(line.len())).unwrap_or(0);
        line.extend(read(caller, pointer, len.min(room))?);
    }
    if total > 0 {
        caller.data_mut().logs.push(level, &line);
    }
    write_u32(caller, written, total)
}

/// Standard output and error can be written to; that is all there is to say.
fn fd_fdstat_get(caller: &mut Caller<'_, HostState>, fd: u32, stat: u32) -> Answer {
    const RIGHTS_FD_WRITE: u8 = 64;
    if !matches!(fd, 1 | 2) {
        return Err(Errno::BadDescriptor.into());
    }
    let mut bytes = [0; 24];
    bytes[8] = RIGHTS_FD_WRITE;
    write(caller, stat, &bytes)
}

fn sizes_get(caller: &mut Caller<'_, HostState>, count: u32, size: u32) -> Answer {
    write_u32(caller, count, 0)?;
    write_u32(caller, size, 0)
}

fn nothing(_caller: &mut Caller<'_, HostState>, _pointers: u32, _buffer: u32) -> Answer {
    Ok(())
}

fn clock_time_get(caller: &mut Caller<'_, HostState>, clock: u32, _precision: u64, time: u32) -> Answer {
    if !matches!(clock, REALTIME | MONOTONIC) {
        return Err(Errno::NotSupported.into());
    }
    let now = caller.data().settings.now_ns;
    write_u64(caller, time, now)
}

fn random_get(caller: &mut Caller<'_, HostState>, buffer: u32, len: u32) -> Answer {
    if len > MAX_RANDOM_BYTES {
        return Err(Errno::Invalid.into());
    }
    check(caller, buffer, len)?;
    let len = usize::try_from(len).map_err(|_| Fault::BadPointer)?;
    let bytes = caller.data_mut().random.bytes(len);
    write(caller, buffer, &bytes)
}

fn sched_yield(_caller: &mut Caller<'_, HostState>) -> Answer {
    Ok(())
}
