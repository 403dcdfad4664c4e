//! The exports of a proxy-wasm HTTP filter.

use crate::error::HostError;
use wasmtime::{AsContextMut, ExternType, FuncType, Instance, Memory, Module, TypedFunc, ValType};

/// The ABI versions that mean what this host does.
const ABI_VERSIONS: [&str; 2] = ["proxy_abi_version_0_2_1", "proxy_abi_version_0_2_0"];

/// Every export that this host calls: name, how many i32 it takes, how many it returns, whether a filter must have it.
/// Envoy requires less; but for a module without `proxy_on_configure` any configuration would be good.
const SHAPES: [(&str, usize, usize, bool); 16] = [
    ("_initialize", 0, 0, false),
    ("_start", 0, 0, false),
    ("main", 2, 1, false),
    ("malloc", 1, 1, false),
    ("proxy_on_memory_allocate", 1, 1, false),
    ("proxy_on_context_create", 2, 0, true),
    ("proxy_on_vm_start", 2, 1, false),
    ("proxy_on_configure", 2, 1, true),
    ("proxy_on_request_headers", 3, 1, true),
    ("proxy_on_response_headers", 3, 1, false),
    ("proxy_on_done", 1, 1, false),
    ("proxy_on_log", 1, 0, false),
    ("proxy_on_tick", 1, 0, false),
    ("proxy_on_delete", 1, 0, false),
    ("proxy_abi_version_0_2_1", 0, 0, false),
    ("proxy_abi_version_0_2_0", 0, 0, false),
];

/// Checks a module's exports, so that no later call can miss one.
pub(crate) fn check(module: &Module) -> Result<(), HostError> {
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        return Err(HostError::MissingExport("memory"));
    }
    for (name, params, results, required) in SHAPES {
        match module.get_export(name) {
            Some(ExternType::Func(found)) if has_shape(&found, params, results) => {}
            Some(_) => {
                return Err(HostError::WrongExport { name, expected: describe(params, results) });
            }
            None if required => return Err(HostError::MissingExport(name)),
            None => {}
        }
    }
    if !ABI_VERSIONS.iter().any(|name| module.get_export(name).is_some()) {
        return Err(HostError::MissingExport("proxy_abi_version_0_2_1"));
    }
    if module.get_export("malloc").is_none() && module.get_export("proxy_on_memory_allocate").is_none() {
        return Err(HostError::MissingExport("proxy_on_memory_allocate"));
    }
    Ok(())
}

fn has_shape(found: &FuncType, params: usize, results: usize) -> bool {
    found.params().len() == params
        && found.results().len() == results
        && found.params().chain(found.results()).all(|value| matches!(value, ValType::I32))
}

fn describe(params: usize, results: usize) -> String {
    format!("({}) -> ({})", vec!["i32"; params].join(", "), vec!["i32"; results].join(", "))
}

/// The exports of an instance. Ids, sizes, flags and answers are all i32.
pub(crate) struct Callbacks {
    pub(crate) memory: Memory,
    pub(crate) allocate: TypedFunc<u32, u32>,
    pub(crate) initialize: Option<TypedFunc<(), ()>>,
    pub(crate) start: Option<TypedFunc<(), ()>>,
    pub(crate) main: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) context_create: TypedFunc<(u32, u32), ()>,
    pub(crate) vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) configure: TypedFunc<(u32, u32), u32>,
    pub(crate) request_headers: TypedFunc<(u32, u32, u32), u32>,
    pub(crate) response_headers: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(crate) done: Option<TypedFunc<u32, u32>>,
    pub(crate) log: Option<TypedFunc<u32, ()>>,
    pub(crate) tick: Option<TypedFunc<u32, ()>>,
    pub(crate) delete: Option<TypedFunc<u32, ()>>,
}

impl Callbacks {
    /// Looks the exports up in an instance of a module that [`check`] found good.
    pub(crate) fn of(instance: &Instance, mut store: impl AsContextMut) -> Result<Self, HostError> {
        let store = &mut store;
        let malloc = function(instance, store, "malloc");
        Ok(Self {
            memory: instance.get_memory(&mut *store, "memory").ok_or(HostError::MissingExport("memory"))?,
            allocate: match malloc {
                Some(malloc) => malloc,
                None => required(instance, store, "proxy_on_memory_allocate")?,
            },
            initialize: function(instance, store, "_initialize"),
            start: function(instance, store, "_start"),
            main: function(instance, store, "main"),
            context_create: required(instance, store, "proxy_on_context_create")?,
            vm_start: function(instance, store, "proxy_on_vm_start"),
            configure: required(instance, store, "proxy_on_configure")?,
            request_headers: required(instance, store, "proxy_on_request_headers")?,
            response_headers: function(instance, store, "proxy_on_response_headers"),
            done: function(instance, store, "proxy_on_done"),
            log: function(instance, store, "proxy_on_log"),
            tick: function(instance, store, "proxy_on_tick"),
            delete: function(instance, store, "proxy_on_delete"),
        })
    }
}

fn function<P, R>(instance: &Instance, store: &mut impl AsContextMut, name: &str) -> Option<TypedFunc<P, R>>
where
    P: wasmtime::WasmParams,
    R: wasmtime::WasmResults,
{
    instance.get_typed_func(store, name).ok()
}

fn required<P, R>(
    instance: &Instance,
    store: &mut impl AsContextMut,
    name: &'static str,
) -> Result<TypedFunc<P, R>, HostError>
where
    P: wasmtime::WasmParams,
    R: wasmtime::WasmResults,
{
    function(instance, store, name).ok_or(HostError::MissingExport(name))
}
