//! What a target's settings do that whoever wrote them may not expect.

use crate::{
    diagnostic::{Code, Diagnostics},
    document::Target,
};
use std::time::Duration;

/// Reports what will surprise in one target.
pub(crate) fn settings(target: &Target, diagnostics: &mut Diagnostics<'_>) {
    let mut without_effect = |span, message: &str, help: &str| {
        diagnostics.report_with_help(Code::NoEffect, span, message, help);
    };
    let (settings, places) = (&target.settings, &target.places);
    if let Some(first) = places.first.as_ref().filter(|_| target.endpoints.is_empty()) {
        let message = format!("the proxy does not know where `{}` is, so this has no effect", target.name);
        return without_effect(first, &message, "give it `endpoints`, or leave its settings out");
    }
    let retries = &settings.retries;
    if let (0, Some(first)) = (retries.attempts, places.retry_on.first()) {
        without_effect(first, "`on` has no effect with `attempts: 0`", "leave it out");
    }
    if let (Some(per_try), Some(span)) = (retries.per_try_timeout, &places.per_try_timeout) {
        if settings.timeout != Duration::ZERO && per_try >= settings.timeout {
            let message = format!("it has no effect: the whole request ends after {:?}", settings.timeout);
            without_effect(span, &message, "make it shorter than `timeout`");
        } else if retries.attempts == 0 || !retries.on.iter().any(|on| on.has_timeouts()) {
            let message = "a try that takes longer is not sent once more: the request ends with 504 then";
            let help = "write it as `timeout`, or add `reset` to `on` if a request may be served twice";
            without_effect(span, message, help);
        }
    }
    if let (0, Some(span)) = (settings.outlier_detection.max_ejected, &places.consecutive_5xx) {
        without_effect(span, "it has no effect with `max_ejected: 0`", "leave one of them out");
    }
    if retries.attempts == 0 {
        return;
    }
    for (on, span) in retries.on.iter().zip(&places.retry_on).filter(|(on, _)| !on.is_safe()) {
        let message =
            format!("after `{on}` a backend may have served the request already: it then counts twice");
        let help = "keep it only if a repeated request does no harm, and counts nowhere else";
        diagnostics.report_with_help(Code::UnsafeRetry, span, message, help);
    }
}
