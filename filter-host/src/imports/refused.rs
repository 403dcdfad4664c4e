//! Functions that exist, so that a module which imports them loads, and that do nothing here.

use super::{Errno, PROXY, Registry, Status, WASI, enter};
use wasmtime::{FuncType, Val, ValType};

/// Name and parameters (i: i32, I: i64). What only a proxy can do answers as on a portable host without it.
const PROXY_FUNCTIONS: [(&str, &str); 13] = [
    ("proxy_continue_stream", "i"),
    ("proxy_close_stream", "i"),
    ("proxy_get_status", "iii"),
    ("proxy_http_call", "iiiiiiiiii"),
    ("proxy_grpc_call", "iiiiiiiiiiii"),
    ("proxy_grpc_stream", "iiiiiiiii"),
    ("proxy_grpc_send", "iiii"),
    ("proxy_grpc_cancel", "i"),
    ("proxy_grpc_close", "i"),
    ("proxy_register_shared_queue", "iii"),
    ("proxy_resolve_shared_queue", "iiiii"),
    ("proxy_dequeue_shared_queue", "iii"),
    ("proxy_enqueue_shared_queue", "iii"),
];

/// The rest of what Rust's standard library imports from WASI: there are no files, no directories and no waiting.
/// The C library looks for directories at start and takes `BadDescriptor` for the end of the list.
const WASI_FUNCTIONS: [(&str, &str, Errno); 31] = [
    ("clock_res_get", "ii", Errno::NotSupported),
    ("fd_advise", "iIIi", Errno::BadDescriptor),
    ("fd_allocate", "iII", Errno::BadDescriptor),
    ("fd_close", "i", Errno::BadDescriptor),
    ("fd_datasync", "i", Errno::BadDescriptor),
    ("fd_fdstat_set_flags", "ii", Errno::BadDescriptor),
    ("fd_fdstat_set_rights", "iII", Errno::BadDescriptor),
    ("fd_filestat_get", "ii", Errno::BadDescriptor),
    ("fd_filestat_set_size", "iI", Errno::BadDescriptor),
    ("fd_filestat_set_times", "iIIi", Errno::BadDescriptor),
    ("fd_pread", "iiiIi", Errno::BadDescriptor),
    ("fd_prestat_dir_name", "iii", Errno::BadDescriptor),
    ("fd_prestat_get", "ii", Errno::BadDescriptor),
    ("fd_pwrite", "iiiIi", Errno::BadDescriptor),
    ("fd_read", "iiii", Errno::NotImplemented),
    ("fd_readdir", "iiiIi", Errno::BadDescriptor),
    ("fd_renumber", "ii", Errno::BadDescriptor),
    ("fd_seek", "iIii", Errno::BadDescriptor),
    ("fd_sync", "i", Errno::BadDescriptor),
    ("fd_tell", "ii", Errno::BadDescriptor),
    ("path_create_directory", "iii", Errno::BadDescriptor),
    ("path_filestat_get", "iiiii", Errno::BadDescriptor),
    ("path_filestat_set_times", "iiiiIIi", Errno::BadDescriptor),
    ("path_link", "iiiiiii", Errno::BadDescriptor),
    ("path_open", "iiiiiIIii", Errno::BadDescriptor),
    ("path_readlink", "iiiiii", Errno::BadDescriptor),
    ("path_remove_directory", "iii", Errno::BadDescriptor),
    ("path_rename", "iiiiii", Errno::BadDescriptor),
    ("path_symlink", "iiiii", Errno::BadDescriptor),
    ("path_unlink_file", "iii", Errno::BadDescriptor),
    ("poll_oneoff", "iiii", Errno::NotImplemented),
];

pub(super) fn offer(registry: &mut Registry) -> wasmtime::Result<()> {
    for (name, params) in PROXY_FUNCTIONS {
        refuse(registry, PROXY, name, params, Status::Unimplemented as u32)?;
    }
    for (name, params, errno) in WASI_FUNCTIONS {
        refuse(registry, WASI, name, params, errno as u32)?;
    }
    Ok(())
}

fn refuse(
    registry: &mut Registry,
    module: &'static str,
    name: &'static str,
    params: &str,
    answer: u32,
) -> wasmtime::Result<()> {
    let params = params.chars().map(|kind| if kind == 'I' { ValType::I64 } else { ValType::I32 });
    let shape = FuncType::new(registry.linker.engine(), params, [ValType::I32]);
    registry.linker.func_new(module, name, shape, move |mut caller, _, results| {
        enter(caller.data_mut(), name);
        if let [result] = results {
            *result = Val::I32(answer.cast_signed());
        }
        Ok(())
    })?;
    registry.names.insert((module, name));
    Ok(())
}
