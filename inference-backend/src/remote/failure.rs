//! What a server's status means to who asked us.

use crate::{failure::Failure, rejections::Reason};
use halftone_telemetry::breaker::REFUSAL;
use tonic::{Code, Status};

/// Seconds after which to try again, where the server does not say.
const RETRY_AFTER: u32 = 1;

/// What to answer to who asked us. `place`: which model and which server.
#[must_use]
pub fn failure(place: &str, status: &Status) -> Failure {
    // One of ours says so too.
    let reason = status.message().trim_end_matches("; try again later");
    let says = |what: &str| format!("{place} {what}: {reason}");
    match status.code() {
        Code::InvalidArgument => Failure::BadRequest(says("refuses the request")),
        Code::ResourceExhausted => {
            Failure::Overloaded { problem: says("is overloaded"), reason: Reason::RemoteOverloaded }
        }
        Code::DeadlineExceeded => Failure::DeadlineExceeded(says("was too slow")),
        // It was there when the model was loaded.
        Code::Unavailable | Code::NotFound | Code::FailedPrecondition | Code::Unimplemented => {
            Failure::Unavailable {
                problem: says("cannot be reached"),
                reason: reason_of(status),
                retry_after: seconds(status).unwrap_or(RETRY_AFTER),
            }
        }
        _ => Failure::Internal(says("failed")),
    }
}

/// Whether to try again at once: there was no answer, and nobody says to wait. An inference changes nothing, so that it may
/// be done twice.
#[must_use]
pub fn may_retry(status: &Status) -> bool {
    let metadata = status.metadata();
    let told = metadata.contains_key("retry-after") || metadata.contains_key("grpc-retry-pushback-ms");
    status.code() == Code::Unavailable && !told
}

/// Whether it was asked at all.
fn reason_of(status: &Status) -> Reason {
    if status.message() == REFUSAL { Reason::BreakerOpen } else { Reason::RemoteUnavailable }
}

fn seconds(status: &Status) -> Option<u32> {
    status.metadata().get("retry-after")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_its_meaning_and_names_the_server() {
        for (code, expected) in [
            (Code::InvalidArgument, Code::InvalidArgument),
            (Code::ResourceExhausted, Code::ResourceExhausted),
            (Code::DeadlineExceeded, Code::DeadlineExceeded),
            (Code::Unavailable, Code::Unavailable),
            (Code::NotFound, Code::Unavailable),
            (Code::Internal, Code::Internal),
            (Code::Unknown, Code::Internal),
        ] {
            let answer = Status::from(failure("m:1 at http://a:1", &Status::new(code, "why")));
            assert_eq!(answer.code(), expected, "{code:?}");
            let text = answer.message();
            assert!(text.starts_with("m:1 at http://a:1 ") && text.contains(": why"), "{text}");
        }
    }

    #[test]
    fn it_is_known_whether_the_server_was_asked() {
        for (status, expected) in [
            (Status::unavailable(REFUSAL), Some(Reason::BreakerOpen)),
            (Status::unavailable("connection refused"), Some(Reason::RemoteUnavailable)),
            (Status::resource_exhausted("full"), Some(Reason::RemoteOverloaded)),
            (Status::deadline_exceeded(""), Some(Reason::Deadline)),
            (Status::invalid_argument(""), None),
            (Status::internal(""), None),
        ] {
            assert_eq!(failure("m:1", &status).reason(), expected, "{status}");
        }
    }

    #[test]
    fn only_what_had_no_answer_is_tried_again_and_not_when_told_to_wait() {
        assert!(may_retry(&Status::unavailable("")));
        let mut told = Status::unavailable("");
        told.metadata_mut().insert("retry-after", "7".parse().unwrap());
        assert!(!may_retry(&told));
        let failure = failure("m:1", &told);
        assert!(matches!(failure, Failure::Unavailable { retry_after: 7, .. }), "{failure:?}");
        for code in [Code::Internal, Code::Unknown, Code::ResourceExhausted, Code::DeadlineExceeded] {
            assert!(!may_retry(&Status::new(code, "")), "{code:?}");
        }
    }
}
