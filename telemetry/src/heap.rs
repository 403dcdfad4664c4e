//! What the process takes of memory.

use serde::Serialize;
use std::fs;

/// What the process takes of memory, in bytes.
///
/// The allocator's numbers are of the C library, which Rust and ONNX Runtime share, so they cover both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeapStatistics {
    /// Held in memory by the whole process, with its code.
    pub resident_bytes: u64,
    /// The most that ever was.
    pub resident_peak_bytes: u64,
    /// Handed out by the allocator and not given back; absent where the C library does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
    /// Kept by the allocator for what may come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Of what is handed out: large pieces, which go back to the system when they are given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapped_bytes: Option<u64>,
}

impl HeapStatistics {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let bytes = |key| kilobytes(key).map_or(0, |kilobytes| kilobytes * 1024);
        let process =
            Self { resident_bytes: bytes("VmRSS:"), resident_peak_bytes: bytes("VmHWM:"), ..Self::default() };
        allocator(process)
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn allocator(process: HeapStatistics) -> HeapStatistics {
    #[allow(unsafe_code, reason = "the C library's function takes nothing and gives numbers")]
    let info = unsafe { libc::mallinfo2() };
    HeapStatistics {
        allocated_bytes: Some((info.uordblks + info.hblkhd) as u64),
        free_bytes: Some(info.fordblks as u64),
        mapped_bytes: Some(info.hblkhd as u64),
        ..process
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn allocator(process: HeapStatistics) -> HeapStatistics {
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_what_is_allocated() {
        let before = HeapStatistics::now();
        let large = std::hint::black_box(vec![1_u8; 64 << 20]);
        let during = HeapStatistics::now();
        assert!(during.resident_bytes >= before.resident_bytes + (60 << 20), "{before:?} {during:?}");
        assert!(during.resident_peak_bytes >= during.resident_bytes - (1 << 20), "{during:?}");
        if let (Some(before), Some(during)) = (before.allocated_bytes, during.allocated_bytes) {
            assert!(during >= before + (60 << 20), "{before} {during}");
        }
        drop(large);
    }
}
