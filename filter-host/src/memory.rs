//! The module's linear memory, seen from the host. No pointer of the module is believed.

use crate::imports::Fault;
use crate::state::HostState;
use std::ops::Range;
use wasmtime::{Caller, Memory, ResourceLimiter, TypedFunc};

/// Copies up to this size are free, so that the fuel of an ordinary request is the module's own.
const FREE_COPY: usize = 4 << 10;
/// What one unit of fuel pays for beyond that. Without a price a loop of large copies would keep the host busy for
/// minutes on a budget that the module itself uses up in milliseconds.
const BYTES_PER_FUEL: usize = 16;

/// The exports that host functions need, known once the module is instantiated.
#[derive(Default)]
pub(crate) struct Guest {
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
}

/// Copies bytes out of the module.
pub(crate) fn read(caller: &mut Caller<'_, HostState>, pointer: u32, len: u32) -> Result<Vec<u8>, Fault> {
    let memory = memory(caller)?;
    let range = range(pointer, len)?;
    let bytes = memory.data(&*caller).get(range).ok_or(Fault::BadPointer)?.to_vec();
    charge(caller, bytes.len())?;
    Ok(bytes)
}

/// Checks that the module owns a range, without copying it.
pub(crate) fn check(caller: &mut Caller<'_, HostState>, pointer: u32, len: u32) -> Result<(), Fault> {
    let memory = memory(caller)?;
    let range = range(pointer, len)?;
    memory.data(&*caller).get(range).map(|_| ()).ok_or(Fault::BadPointer)
}

/// Copies bytes into the module.
pub(crate) fn write(caller: &mut Caller<'_, HostState>, pointer: u32, bytes: &[u8]) -> Result<(), Fault> {
    let memory = memory(caller)?;
    let start = usize::try_from(pointer).map_err(|_| Fault::BadPointer)?;
    let end = start.checked_add(bytes.len()).ok_or(Fault::BadPointer)?;
    memory.data_mut(&mut *caller).get_mut(start..end).ok_or(Fault::BadPointer)?.copy_from_slice(bytes);
    charge(caller, bytes.len())
}

/// Writes a 32-bit word.
pub(crate) fn write_u32(caller: &mut Caller<'_, HostState>, pointer: u32, value: u32) -> Result<(), Fault> {
    write(caller, pointer, &value.to_le_bytes())
}

/// Writes a 64-bit word.
pub(crate) fn write_u64(caller: &mut Caller<'_, HostState>, pointer: u32, value: u64) -> Result<(), Fault> {
    write(caller, pointer, &value.to_le_bytes())
}

/// Hands bytes over: into memory that the module's own allocator gives, whose address and size go to the two
/// pointers. Nothing is allocated for no bytes; the address is then null, as in Envoy.
pub(crate) fn hand_over(
    caller: &mut Caller<'_, HostState>,
    bytes: &[u8],
    address_pointer: u32,
    size_pointer: u32,
) -> Result<(), Fault> {
    let size = u32::try_from(bytes.len()).map_err(|_| Fault::BadPointer)?;
    let mut address = 0;
    if size > 0 {
        let allocate = caller.data().guest.allocate.clone().ok_or(Fault::BadPointer)?;
        caller.data_mut().usage.allocations += 1;
        address = allocate.call(&mut *caller, size).map_err(Fault::Trap)?;
        if address == 0 {
            return Err(Fault::BadPointer);
        }
        write(caller, address, bytes)?;
    }
    write_u32(caller, address_pointer, address)?;
    write_u32(caller, size_pointer, size)
}

fn memory(caller: &Caller<'_, HostState>) -> Result<Memory, Fault> {
    caller.data().guest.memory.ok_or(Fault::BadPointer)
}

fn range(pointer: u32, len: u32) -> Result<Range<usize>, Fault> {
    let start = usize::try_from(pointer).map_err(|_| Fault::BadPointer)?;
    let len = usize::try_from(len).map_err(|_| Fault::BadPointer)?;
    Ok(start..start.checked_add(len).ok_or(Fault::BadPointer)?)
}

fn charge(caller: &mut Caller<'_, HostState>, bytes: usize) -> Result<(), Fault> {
    let paid = bytes.saturating_sub(FREE_COPY) / BYTES_PER_FUEL;
    if paid > 0 {
        let fuel = caller.get_fuel().map_err(Fault::Trap)?;
        let rest = u64::try_from(paid).ok().and_then(|paid| fuel.checked_sub(paid));
        caller.set_fuel(rest.unwrap_or(0)).map_err(Fault::Trap)?;
        if rest.is_none() {
            return Err(Fault::Trap(wasmtime::Trap::OutOfFuel.into()));
        }
    }
    Ok(())
}

/// Bounds the module's memory and remembers what it refused: most modules answer a refusal with a trap, and the
/// trap alone would not say why.
pub(crate) struct Limiter {
    limit: usize,
    pub(crate) refused: Option<usize>,
}

impl Limiter {
    /// A Rust filter has one table of a few hundred functions.
    const MAX_TABLE: usize = 1 << 20;

    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, refused: None }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= self.limit;
        if !allowed {
            self.refused = Some(desired);
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= Self::MAX_TABLE)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }
}
