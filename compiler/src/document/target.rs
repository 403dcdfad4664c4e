//! Reads targets: where they are, and how proxies speak to them.

use super::{
    Places, Spanned, Target,
    fields::Fields,
    reader::Reader,
    shape::{CONCURRENCY, HEALTH_CHECK, LIMITS, OUTLIER_DETECTION, RETRIES, TARGET, protocols, retry_words},
};
use crate::{
    diagnostic::{Code, Span},
    expression::duration,
    limits::{MAX_CONCURRENCY, MAX_CONSECUTIVE, MAX_ENDPOINTS, MAX_PROBE_BYTES, MAX_RETRIES, MAX_WAIT},
    suggest::did_you_mean,
    target::{
        Concurrency, HealthCheck, Limits, OutlierDetection, Probe, Protocol, Retries, RetryOn, TargetSettings,
    },
    yaml::Node,
};
use halftone_rules::bucket::BUCKETS;
use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

/// The buckets of one percent: proxies count in whole ones.
const PERCENT: u32 = BUCKETS / 100;
/// Proxies have no finer clock.
const TICK: Duration = Duration::from_millis(1);

impl Reader<'_, '_> {
    pub(super) fn targets(&mut self, node: Node) -> Vec<Target> {
        let mut targets = Vec::new();
        for (key, node) in self.mapping(node, "`targets`") {
            if !self.check_name(&key.text, &key.span, "a target's name") {
                continue;
            }
            let mut target = Target {
                span: key.span,
                name: key.text,
                endpoints: Vec::new(),
                settings: TargetSettings::default(),
                places: Places::default(),
            };
            if !node.is_null()
                && let Some(fields) = Fields::of(node, &TARGET, self.diagnostics)
            {
                self.target(fields, &mut target);
            }
            targets.push(target);
        }
        targets
    }

    fn target(&mut self, mut fields: Fields, target: &mut Target) {
        if let Some(node) = fields.optional("endpoints") {
            target.endpoints = self.endpoints(node);
        }
        let Target { settings, places, .. } = target;
        places.first = fields.first_key().cloned();
        if let Some(protocol) = fields.optional("protocol").and_then(|node| self.protocol(&node)) {
            settings.protocol = protocol;
        }
        if let Some(node) = fields.optional("timeout") {
            // Zero is without limit.
            self.set_duration(Some(node), "timeout", Duration::ZERO..=MAX_WAIT, &mut settings.timeout);
        }
        if let Some(node) = fields.optional("retries") {
            self.retries(node, &mut settings.retries, places);
        }
        if let Some(node) = fields.optional("health_check") {
            settings.health_check = self.health_check(node, settings.protocol);
        }
        if let Some(node) = fields.optional("outlier_detection") {
            self.outlier_detection(node, &mut settings.outlier_detection, places);
        }
        if let Some(node) = fields.optional("limits") {
            self.limits(node, &mut settings.limits);
        }
    }

    fn endpoints(&mut self, node: Node) -> Vec<SocketAddr> {
        let nodes = self.list(node, "`endpoints`");
        if let Some(first) = nodes.get(MAX_ENDPOINTS) {
            let message = format!("{} endpoints, but at most {MAX_ENDPOINTS} are allowed", nodes.len());
            self.diagnostics.report(Code::TooLarge, &first.span, message);
            return Vec::new();
        }
        let mut endpoints: Vec<SocketAddr> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(endpoint) = self.text(&node, "an endpoint") else { continue };
            match endpoint.value.parse::<SocketAddr>() {
                Ok(address) if endpoints.contains(&address) => {
                    let message = format!("{address} stands twice");
                    self.diagnostics.report(Code::DuplicateName, &endpoint.span, message);
                }
                Ok(address) if address.port() != 0 => endpoints.push(address),
                _ => {
                    let help = "write an IP address and a port, for example 127.0.0.1:8001 or \"[::1]:8001\"";
                    let message = format!("{:?} is not an endpoint", endpoint.value);
                    self.diagnostics.report_with_help(Code::InvalidEndpoint, &endpoint.span, message, help);
                }
            }
        }
        endpoints
    }

    fn protocol(&mut self, node: &Node) -> Option<Protocol> {
        let word = self.text(node, "`protocol`")?;
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.word() == word.value);
        if protocol.is_none() {
            let help = match word.value.as_str() {
                "grpc" | "h2" | "h2c" => "gRPC is spoken over `http2`; targets speak clear text".into(),
                "http" | "https" => "write `http1` or `http2`; targets speak clear text".into(),
                other => did_you_mean(other, protocols()),
            };
            let message = format!("there is no protocol {:?}", word.value);
            self.diagnostics.report_with_help(Code::WrongForm, &word.span, message, help);
        }
        protocol
    }

    fn retries(&mut self, node: Node, retries: &mut Retries, places: &mut Places) {
        let Some(mut fields) = Fields::of(node, &RETRIES, self.diagnostics) else { return };
        self.set_count(fields.optional("attempts"), "attempts", 0..=MAX_RETRIES, &mut retries.attempts);
        if let Some(node) = fields.optional("on") {
            retries.on.clear();
            for node in self.some(node, "`on`") {
                let Some(Spanned { span, value }) = self.retry_on(&node) else { continue };
                if retries.on.contains(&value) {
                    let message = "it is in the list already";
                    self.diagnostics.report(Code::DuplicateName, &span, message);
                }
                retries.on.push(value);
                places.retry_on.push(span);
            }
        }
        if let Some(node) = fields.optional("per_try_timeout") {
            places.per_try_timeout = Some(node.span.clone());
            retries.per_try_timeout = self.duration(&node, "per_try_timeout", TICK..=MAX_WAIT);
        }
    }

    fn retry_on(&mut self, node: &Node) -> Option<Spanned<RetryOn>> {
        let Spanned { span, value: text } = self.text(node, "what a request is sent once more after")?;
        let word = RetryOn::WORDS.into_iter().find(|on| on.word() == Some(text.as_str()));
        let status = || text.parse().ok().filter(|status| (400..=599).contains(status)).map(RetryOn::Status);
        if let Some(value) = word.or_else(status) {
            return Some(Spanned { span, value });
        }
        let help = match text.as_str() {
            "retriable-4xx" => "write `409`, which is what Envoy means by it".into(),
            "retriable-status-codes" => {
                "write the codes themselves, as in `on: [connect-failure, 503]`".into()
            }
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                "a status after which a request is sent once more is 400 to 599".into()
            }
            other => did_you_mean(other, retry_words()),
        };
        let message = format!("{text:?} is nothing that a request is sent once more after");
        self.diagnostics.report_with_help(Code::WrongForm, &span, message, help);
        None
    }

    fn health_check(&mut self, node: Node, protocol: Protocol) -> Option<HealthCheck> {
        let place = node.span.start..node.span.start;
        let mut fields = Fields::of(node, &HEALTH_CHECK, self.diagnostics)?;
        let probe = match (fields.optional("path"), fields.optional("grpc")) {
            (Some(path), None) => self.probe_path(&path).map(Probe::Http),
            (None, Some(grpc)) => self.probe_service(&grpc, protocol).map(Probe::Grpc),
            (Some(_), Some(second)) => {
                let message = "an endpoint is asked one thing";
                let help = "keep one of `path` and `grpc`";
                self.diagnostics.report_with_help(Code::WrongForm, &second.span, message, help);
                None
            }
            (None, None) => {
                let message = "`health_check` needs the field `path`, or `grpc`";
                let help = "add `path: /v2/health/ready`, or `grpc: \"\"` for gRPC's health service";
                self.diagnostics.report_with_help(Code::MissingField, &place, message, help);
                None
            }
        };
        let mut interval = Duration::from_secs(5);
        let mut timeout = Duration::from_secs(1);
        let (mut healthy_after, mut unhealthy_after) = (2, 3);
        let often = Duration::from_millis(100);
        self.set_duration(fields.optional("interval"), "interval", often..=MAX_WAIT, &mut interval);
        self.set_duration(fields.optional("timeout"), "timeout", TICK..=MAX_WAIT, &mut timeout);
        let node = fields.optional("healthy_after");
        self.set_count(node, "healthy_after", 1..=MAX_CONSECUTIVE, &mut healthy_after);
        let node = fields.optional("unhealthy_after");
        self.set_count(node, "unhealthy_after", 1..=MAX_CONSECUTIVE, &mut unhealthy_after);
        Some(HealthCheck { probe: probe?, interval, timeout, healthy_after, unhealthy_after })
    }

    fn probe_path(&mut self, node: &Node) -> Option<String> {
        let Spanned { span, value: path } = self.text(node, "`path`")?;
        let visible = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if path.starts_with('/') && visible && path.len() <= MAX_PROBE_BYTES {
            return Some(path);
        }
        let help = "a path starts with `/`, for example /v2/health/ready";
        self.diagnostics.report_with_help(Code::WrongForm, &span, "this is not a path", help);
        None
    }

    fn probe_service(&mut self, node: &Node, protocol: Protocol) -> Option<String> {
        let Spanned { span, value: service } = self.text(node, "`grpc`")?;
        if protocol == Protocol::Http1 {
            // A proxy would refuse the whole cluster.
            let message = "gRPC's health service is asked over HTTP/2, but the target speaks `http1`";
            let help = "write `protocol: http2` or `protocol: same-as-client`, or ask for a `path`";
            self.diagnostics.report_with_help(Code::WrongForm, &span, message, help);
            return None;
        }
        if service.len() > MAX_PROBE_BYTES || !service.bytes().all(|byte| byte.is_ascii_graphic()) {
            let help = "write it like package.Service, or \"\" for the whole server";
            self.diagnostics.report_with_help(
                Code::WrongForm,
                &span,
                "this is not the name of a service",
                help,
            );
            return None;
        }
        Some(service)
    }

    fn outlier_detection(&mut self, node: Node, detection: &mut OutlierDetection, places: &mut Places) {
        let Some(mut fields) = Fields::of(node, &OUTLIER_DETECTION, self.diagnostics) else { return };
        if let Some(node) = fields.optional("consecutive_5xx") {
            places.consecutive_5xx = Some(node.span.clone());
            detection.consecutive_5xx = self.count(&node, "consecutive_5xx", 1..=MAX_CONSECUTIVE);
        }
        let node = fields.optional("base_ejection");
        let second = Duration::from_secs(1);
        self.set_duration(node, "base_ejection", second..=MAX_WAIT, &mut detection.base_ejection);
        if let Some(node) = fields.optional("max_ejected")
            && let Some(share) = self.share(&node, "max_ejected")
        {
            if !share.is_multiple_of(PERCENT) {
                let message = "the endpoints that may be left out are counted in whole percent";
                let percent = (share / PERCENT).max(1);
                let help = format!("write {}", f64::from(percent) / 100.0);
                self.diagnostics.report_with_help(Code::OutOfRange, &node.span, message, help);
            }
            detection.max_ejected = share / PERCENT;
        }
    }

    fn limits(&mut self, node: Node, limits: &mut Limits) {
        let Some(mut fields) = Fields::of(node, &LIMITS, self.diagnostics) else { return };
        limits.total = self.concurrency(&mut fields);
        if let Some(node) = fields.optional("per_endpoint")
            && let Some(mut fields) = Fields::of(node, &CONCURRENCY, self.diagnostics)
        {
            limits.per_endpoint = self.concurrency(&mut fields);
        }
    }

    fn concurrency(&mut self, fields: &mut Fields) -> Concurrency {
        let mut limit = |name: &str| {
            let node = fields.optional(name)?;
            self.count(&node, name, 1..=MAX_CONCURRENCY)
        };
        Concurrency {
            connections: limit("connections"),
            pending: limit("pending"),
            requests: limit("requests"),
        }
    }

    /// Takes a duration that is written and right.
    fn set_duration(
        &mut self,
        node: Option<Node>,
        what: &str,
        range: RangeInclusive<Duration>,
        place: &mut Duration,
    ) {
        if let Some(duration) = node.and_then(|node| self.duration(&node, what, range)) {
            *place = duration;
        }
    }

    /// A duration as conditions write it: numbers with their units.
    pub(super) fn duration(
        &mut self,
        node: &Node,
        what: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Spanned { span, value: text } = self.text(node, &format!("`{what}`"))?;
        let Ok(nanoseconds) = duration(&text) else {
            let help = match text.parse::<f64>() {
                Ok(_) => format!("write {text}s if seconds are meant, {text}ms if milliseconds"),
                Err(_) => "write numbers with units: 15s, 1m30s, 250ms".into(),
            };
            self.out_of_range(&span, &format!("{text:?} is not a duration"), &help);
            return None;
        };
        let found = u64::try_from(nanoseconds).ok().map(Duration::from_nanos);
        // A part of a millisecond would be cut off, and nothing would be left of what is shorter.
        let whole = |time: &Duration| time.subsec_nanos().is_multiple_of(1_000_000);
        let duration = found.filter(|found| range.contains(found) && whole(found));
        if duration.is_none() {
            let message =
                format!("`{what}` is {:?} to {:?}, in whole milliseconds", range.start(), range.end());
            self.out_of_range(&span, &message, "write numbers with units: 15s, 1m30s, 250ms");
        }
        duration
    }

    /// Takes a count that is written and right.
    fn set_count(&mut self, node: Option<Node>, what: &str, range: RangeInclusive<u32>, place: &mut u32) {
        if let Some(count) = node.and_then(|node| self.count(&node, what, range)) {
            *place = count;
        }
    }

    fn count(&mut self, node: &Node, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let Spanned { span, value: text } = self.text(node, &format!("`{what}`"))?;
        let count = text.parse().ok().filter(|count| range.contains(count));
        if count.is_none() {
            let message = format!("`{what}` is a whole number from {} to {}", range.start(), range.end());
            self.out_of_range(&span, &message, "leave it out for what holds without it");
        }
        count
    }

    fn out_of_range(&mut self, span: &Span, message: &str, help: &str) {
        self.diagnostics.report_with_help(Code::OutOfRange, span, message, help);
    }
}
