//! The functions that the module can import.

mod environment;
mod header_maps;
mod observability;
mod refused;
mod stream;
mod wasi;

use crate::state::HostState;
use std::collections::BTreeSet;
use std::fmt;
use wasmtime::{Engine, Linker};

/// Where proxy-wasm's functions are.
const PROXY: &str = "env";
/// Where WASI's functions are.
const WASI: &str = "wasi_snapshot_preview1";

/// proxy-wasm's statuses, as far as this host answers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    NotFound = 1,
    BadArgument = 2,
    InvalidMemoryAccess = 6,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// WASI's errors, as far as this host answers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Errno {
    BadDescriptor = 8,
    Fault = 21,
    Invalid = 28,
    NotImplemented = 52,
    NotSupported = 58,
}

/// Why a host function did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The module gets a status.
    Status(Status),
    /// The module gets a WASI error.
    Errno(Errno),
    /// A pointer or a size leads out of the module's memory; proxy-wasm and WASI have a number of their own for it.
    BadPointer,
    /// The module does not get to continue.
    Trap(wasmtime::Error),
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// What a host function answers: 0, or the fault's number in its own family.
type Answer = Result<(), Fault>;

fn number(answer: Answer, bad_pointer: u32) -> wasmtime::Result<u32> {
    match answer {
        Ok(()) => Ok(0),
        Err(Fault::Status(status)) => Ok(status as u32),
        Err(Fault::Errno(errno)) => Ok(errno as u32),
        Err(Fault::BadPointer) => Ok(bad_pointer),
        Err(Fault::Trap(error)) => Err(error),
    }
}

fn proxy_number(answer: Answer) -> wasmtime::Result<u32> {
    number(answer, Status::InvalidMemoryAccess as u32)
}

fn wasi_number(answer: Answer) -> wasmtime::Result<u32> {
    number(answer, Errno::Fault as u32)
}

/// Counts a call, and answers it at once if the settings take the function away.
fn enter(state: &mut HostState, name: &'static str) -> Option<u32> {
    state.usage.record(name);
    state.settings.unimplemented.contains(name).then_some(Status::Unimplemented as u32)
}

/// Offers a Rust function as an import: `proxy!(registry, "proxy_log" => log, (level: u32, message: u32, len: u32))`.
macro_rules! offer {
    ($registry:expr, $module:ident, $number:ident, $name:literal => $function:path, ($($arg:ident: $ty:ty),*)) => {
        $registry.linker.func_wrap(
            $crate::imports::$module,
            $name,
            |mut caller: wasmtime::Caller<'_, $crate::state::HostState>, $($arg: $ty),*| -> wasmtime::Result<u32> {
                if let Some(answer) = $crate::imports::enter(caller.data_mut(), $name) {
                    return Ok(answer);
                }
                $crate::imports::$number($function(&mut caller, $($arg),*))
            },
        )?;
        $registry.names.insert(($crate::imports::$module, $name));
    };
}

macro_rules! proxy {
    ($registry:expr, $name:literal => $function:path, $args:tt) => {
        $crate::imports::offer!($registry, PROXY, proxy_number, $name => $function, $args)
    };
}

macro_rules! preview1 {
    ($registry:expr, $name:literal => $function:path, $args:tt) => {
        $crate::imports::offer!($registry, WASI, wasi_number, $name => $function, $args)
    };
}

use {offer, preview1, proxy};

/// All functions of the host, and their names.
pub(crate) struct Registry {
    pub(crate) linker: Linker<HostState>,
    names: BTreeSet<(&'static str, &'static str)>,
}

impl Registry {
    pub(crate) fn of_all_functions(engine: &Engine) -> wasmtime::Result<Self> {
        let mut registry = Self { linker: Linker::new(engine), names: BTreeSet::new() };
        environment::offer(&mut registry)?;
        header_maps::offer(&mut registry)?;
        observability::offer(&mut registry)?;
        stream::offer(&mut registry)?;
        wasi::offer(&mut registry)?;
        refused::offer(&mut registry)?;
        Ok(registry)
    }

    pub(crate) fn has(&self, module: &str, name: &str) -> bool {
        self.names.contains(&(module, name))
    }
}

/// The module called `proc_exit`.
#[derive(Debug)]
pub(crate) struct ProcExit(u32);

impl fmt::Display for ProcExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it called proc_exit({})", self.0)
    }
}

impl std::error::Error for ProcExit {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FilterModule;
    use std::fmt::Write;
    use wasmtime::{Extern, Store, ValType};

    /// A filter that calls every import with one value for all arguments while it is configured.
    fn hostile_filter(argument: i64) -> Vec<u8> {
        let engine = Engine::default();
        let registry = Registry::of_all_functions(&engine).unwrap();
        let mut store = Store::new(&engine, HostState::new(crate::Settings::default()));
        let functions: Vec<_> = registry
            .linker
            .iter(&mut store)
            .map(|(module, name, item)| (module.to_owned(), name.to_owned(), item))
            .collect();
        assert_eq!(functions.len(), registry.names.len());

        let (mut imports, mut calls) = (String::new(), String::new());
        for (module, name, item) in functions {
            let Extern::Func(function) = item else { panic!("{name} is no function") };
            if name == "proc_exit" {
                continue; // it would end the tour
            }
            let shape = function.ty(&store);
            write!(imports, "(import \"{module}\" \"{name}\" (func ${name} (param").unwrap();
            for param in shape.params() {
                let (kind, value) = match param {
                    ValType::I64 => ("i64", argument.to_string()),
                    _ => ("i32", (argument & 0xFFFF_FFFF).to_string()),
                };
                write!(imports, " {kind}").unwrap();
                write!(calls, "({kind}.const {value}) ").unwrap();
            }
            writeln!(imports, ") (result i32)))").unwrap();
            writeln!(calls, "(drop (call ${name}))").unwrap();
        }
        let text = format!(
            r#"(module {imports}
                (memory (export "memory") 1)
                (func (export "proxy_abi_version_0_2_1"))
                (func (export "malloc") (param i32) (result i32) (i32.const {argument32}))
                (func (export "proxy_on_context_create") (param i32 i32))
                (func $all {calls})
                (func (export "proxy_on_configure") (param i32 i32) (result i32) (call $all) (i32.const 1))
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
                (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
                (func (export "proxy_on_log") (param i32) (call $all)))"#,
            argument32 = argument & 0xFFFF_FFFF
        );
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn no_argument_of_any_function_can_hurt_the_host() {
        for argument in [0, 1, 2, 3, 7, 1024, 65_528, 65_535, 65_536, 0x7FFF_FFFF, 0x8000_0000, -8, -1] {
            let module = FilterModule::new(&hostile_filter(argument)).unwrap();
            let mut filter = module.start().unwrap();
            filter.configure(b"0123456789").unwrap();
            let outcome = filter.request_with_response(&[("a", "b")], &[("c", "d")]).unwrap();
            assert!(outcome.usage.host_calls() > 100, "{argument}");
        }
    }

    #[test]
    fn knows_every_function_of_the_sdk() {
        let registry = Registry::of_all_functions(&Engine::default()).unwrap();
        let of_proxy = registry.names.iter().filter(|(module, _)| *module == PROXY).count();
        // 37 in SDK 0.2.5, and two that only the ABI has: get_buffer_status and get_header_map_size.
        assert_eq!(of_proxy, 39);
        assert!(registry.has(WASI, "fd_write") && !registry.has(PROXY, "fd_write"));
    }
}
