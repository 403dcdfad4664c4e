//! Configurations: accepted, refused, replaced.

use crate::wat_filter::{NONE, WatFilter, said};
use halftone_filter_host::{FilterInstance, FilterModule, HostError};

/// Accepts what starts with `y`; says why it refuses the rest.
const CRITIC: WatFilter = WatFilter {
    imports: r#"(import "env" "proxy_get_buffer_bytes"
        (func $buffer (param i32 i32 i32 i32 i32) (result i32)))"#,
    items: r#"(data (i32.const 100) "no y in front")"#,
    create: "",
    vm_start: "(i32.const 1)",
    configure: "
        (drop (call $buffer (i32.const 7) (i32.const 0) (local.get $size) (i32.const 8) (i32.const 12)))
        (if (i32.eq (i32.load8_u (i32.load (i32.const 8))) (i32.const 121)) (then (return (i32.const 1))))
        (drop (call $log (i32.const 4) (i32.const 100) (i32.const 13)))
        (i32.const 0)",
    request: "(i32.const 0)",
    response: "(i32.const 0)",
    log: "",
    delete: "",
    allocate: "(global.get $heap) (global.set $heap (i32.add (global.get $heap) (local.get $size)))",
};

#[test]
fn a_configuration_is_accepted_or_refused_with_the_reason_in_the_log() {
    let mut filter = CRITIC.module().start().unwrap();
    assert!(filter.configure(b"yes").unwrap());
    assert_eq!(filter.usage().allocations, 1);
    assert!(!filter.configure(b"no").unwrap());
    let logs = filter.take_logs();
    assert_eq!(logs.last().unwrap().message, "no y in front");
    assert!(filter.configure(b"yes, again").unwrap());
}

#[test]
fn the_gate_says_why() {
    let module = CRITIC.module();
    module.check(b"yes").unwrap();
    let error = module.check(b"no").unwrap_err();
    assert!(matches!(error, HostError::Refused { .. }));
    assert_eq!(error.to_string(), "the filter refused the configuration; its last log line: no y in front");
    module.check(b"yes").unwrap();
}

#[test]
fn the_largest_configurations_fit() {
    let mut filter = WatFilter {
        allocate: "(local $address i32)
            (local.set $address (i32.mul (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16))
                (i32.const 1))) (i32.const 65536)))
            (local.get $address)",
        ..CRITIC
    }
    .module()
    .start()
    .unwrap();
    assert!(filter.configure(&vec![b'y'; 32 << 20]).unwrap());
}

#[test]
fn each_configuration_gets_a_root_context_and_the_old_one_goes_after_it_is_replaced() {
    let mut filter = WatFilter {
        create: "(call $say (local.get $id))",
        delete: "(call $say (i32.add (local.get $id) (i32.const 10)))",
        ..CRITIC
    }
    .module()
    .start()
    .unwrap();
    assert_eq!(said(&mut filter), [1]);
    assert!(filter.configure(b"yes").unwrap());
    assert_eq!(said(&mut filter), []);
    filter.request(NONE).unwrap();
    assert_eq!(said(&mut filter), [2, 12]);
    assert!(filter.configure(b"y").unwrap());
    assert_eq!(said(&mut filter), [3, 11]);
    // Refused: its own context goes, the one before stays.
    assert!(!filter.configure(b"no").unwrap());
    assert_eq!(said(&mut filter).first(), Some(&4));
    filter.request(NONE).unwrap();
    assert_eq!(said(&mut filter), [5, 15]);
}

#[test]
fn there_are_no_requests_before_a_configuration() {
    let mut filter = CRITIC.module().start().unwrap();
    assert!(matches!(filter.request(NONE), Err(HostError::NotConfigured)));
    assert!(!filter.configure(b"no").unwrap());
    assert!(matches!(filter.request(NONE), Err(HostError::NotConfigured)));
    assert!(filter.configure(b"yes").unwrap());
    filter.request(NONE).unwrap();
}

#[test]
fn a_filter_can_refuse_to_start() {
    let module = WatFilter { vm_start: "(call $say (i32.const 3)) (i32.const 0)", ..CRITIC }.module();
    let error = module.start().unwrap_err();
    assert_eq!(error.to_string(), "the filter module refused to start; its last log line: 3");
}

#[test]
fn modules_and_instances_go_to_other_threads() {
    fn is_shared<T: Clone + Send + Sync + 'static>() {}
    fn is_sent<T: Send + 'static>() {}
    is_shared::<FilterModule>();
    is_sent::<FilterInstance>();

    let module = CRITIC.module();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| module.check(b"yes").unwrap());
        }
    });
}

#[test]
fn the_module_tells_what_it_imports() {
    let module = CRITIC.module();
    let names: Vec<_> = module.imports().iter().map(|(module, name)| format!("{module}.{name}")).collect();
    assert_eq!(names, ["env.proxy_log", "env.proxy_get_buffer_bytes"]);
}
