//! ECDS: the wasm filter with its bundle.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    AsyncDataSource, BackoffStrategy, DataSource, TypedExtensionConfig, async_data_source, data_source,
};
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::wasm::v3::{
    FailurePolicy, PluginConfig, ReloadConfig, VmConfig, plugin_config,
};
use envoy_types::pb::google::protobuf::BytesValue;
use envoy_types::util::pack_any;
use serde_json::json;

use super::resource::Resource;
use super::snapshot::{ProxySettings, SnapshotError, TraceSample};
use super::wire::duration;

/// How long a proxy waits before it reloads a VM that trapped again. Requests in that time fail, so it is the least that
/// Envoy takes: with 1 ms, Envoy 1.40 divides by zero. See `docs/envoy.md`.
const RELOAD_BACKOFF: Duration = Duration::from_millis(2);

/// The resource, packed.
pub(super) fn resource(bundle: &[u8], settings: &ProxySettings) -> Result<Arc<Resource>, SnapshotError> {
    let extension = TypedExtensionConfig {
        name: settings.filter_name.clone(),
        typed_config: Some(pack_any(wasm(bundle, settings)?)),
    };
    Ok(Resource::new(settings.filter_name.clone(), &pack_any(extension)))
}

/// What the filter reads (`filter/src/configuration.rs`): settings as JSON, then the bundle.
pub fn plugin_configuration(bundle: &[u8], settings: &ProxySettings) -> Vec<u8> {
    let ProxySettings { tracing, trace_sample, override_keys, control_plane_cluster, .. } = settings;
    let mut object = json!({
        "tracing": tracing,
        "override_keys": override_keys,
        "report": { "cluster": control_plane_cluster },
    });
    // A module of before there was such a setting would refuse it.
    if *trace_sample != TraceSample::default() {
        object["trace_sample"] = json!(trace_sample);
    }
    [object.to_string().as_bytes(), b"\n", bundle].concat()
}

fn wasm(bundle: &[u8], settings: &ProxySettings) -> Result<Wasm, SnapshotError> {
    let file = settings.wasm_file.to_str().ok_or(SnapshotError::BadWasmFile)?;
    let code = DataSource {
        specifier: Some(data_source::Specifier::Filename(file.to_owned())),
        ..DataSource::default()
    };
    let vm = VmConfig {
        vm_id: settings.vm_id.clone(),
        runtime: "envoy.wasm.runtime.v8".to_owned(),
        code: Some(AsyncDataSource { specifier: Some(async_data_source::Specifier::Local(code)) }),
        ..VmConfig::default()
    };
    let reload = ReloadConfig {
        backoff: Some(BackoffStrategy { base_interval: Some(duration(RELOAD_BACKOFF)), max_interval: None }),
    };
    let plugin = PluginConfig {
        name: settings.filter_name.clone(),
        root_id: settings.root_id.clone(),
        // The proxy unwraps BytesValue, so the filter sees exactly these bytes.
        configuration: Some(pack_any(BytesValue { value: plugin_configuration(bundle, settings) })),
        failure_policy: FailurePolicy::FailReload.into(),
        reload_config: Some(reload),
        vm: Some(plugin_config::Vm::VmConfig(vm)),
        ..PluginConfig::default()
    };
    Ok(Wasm { config: Some(plugin) })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Any;
    use prost::Message;

    use super::*;

    #[test]
    fn xds_filter_carries_the_bundle_and_names_the_wasm_file() {
        let settings = ProxySettings::new("/opt/halftone/filter.wasm");
        let config = wasm(b"bundle", &settings).unwrap().config.unwrap();

        assert_eq!((config.name.as_str(), config.root_id.as_str()), ("halftone", "halftone"));
        let configuration = config.configuration.clone().unwrap();
        assert_eq!(configuration.type_url, "type.googleapis.com/google.protobuf.BytesValue");
        let value = BytesValue::decode(configuration.value.as_slice()).unwrap().value;
        assert_eq!(value, plugin_configuration(b"bundle", &settings));
        let text = String::from_utf8(value).unwrap();
        let (object, bundle) = text.split_once('\n').unwrap();
        assert_eq!(bundle, "bundle");
        let expected = json!({
            "tracing": "filter", "override_keys": [], "report": {"cluster": "halftone-control-plane"},
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(object).unwrap(), expected);
        assert_eq!(config.failure_policy(), FailurePolicy::FailReload);
        let backoff = config.reload_config.unwrap().backoff.unwrap();
        assert_eq!(backoff.base_interval.unwrap().nanos, 2_000_000);

        let plugin_config::Vm::VmConfig(vm) = config.vm.unwrap();
        assert_eq!((vm.vm_id.as_str(), vm.runtime.as_str()), ("halftone", "envoy.wasm.runtime.v8"));
        let async_data_source::Specifier::Local(source) = vm.code.unwrap().specifier.unwrap() else {
            panic!("the code must be a local file");
        };
        assert_eq!(
            source.specifier,
            Some(data_source::Specifier::Filename("/opt/halftone/filter.wasm".to_owned()))
        );
    }

    #[test]
    fn xds_filter_resource_has_the_filters_name_and_type() {
        let resource = resource(b"x", &ProxySettings::new("f.wasm")).unwrap();
        assert_eq!(resource.name, "halftone");
        let any = Any::decode(resource.any.clone()).unwrap();
        assert_eq!(any.type_url, super::super::Kind::Filter.type_url());
    }
}
