//! What can go wrong with a request to a cloud, sorted once, by what the caller does about it.
use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::failure::Failure;

/// Why a cloud did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The keys are unknown, expired or wrong.
    #[error("the credentials were refused ({code})")]
    Credentials {
        /// The service's word for it.
        code: String,
    },
    /// The keys are right and may not do this.
    #[error("access was denied ({code})")]
    Denied {
        /// The service's word for it.
        code: String,
    },
    /// There is no such bucket.
    #[error("the bucket does not exist")]
    NoBucket,
    /// There is no such key, version or upload.
    #[error("there is no such object or upload")]
    NotFound,
    /// A condition did not hold (412).
    #[error("the object is not in the expected state (412)")]
    Precondition,
    /// Another write was under way (409): try the upload again.
    #[error("another write was under way ({code})")]
    Conflict {
        /// The service's word for it.
        code: String,
    },
    /// The service does not know this operation or header.
    #[error("the service does not support this ({code})")]
    Unsupported {
        /// The service's word for it.
        code: String,
    },
    /// The service answered with another refusal.
    #[error("the service answered {status} ({code}) {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The service's word for it.
        code: String,
        /// What it says to people.
        message: String,
    },
    /// No answer: no connection, no TLS, a time-out, a broken body.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// S3 keys are UTF-8; this one is not.
    #[error("the key is not UTF-8, which S3 cannot have")]
    KeyNotText,
    /// The store could not give the bytes to send.
    #[error("the store could not give the content: {0}")]
    Source(String),
}

impl Fault {
    /// Sorts what the SDK says.
    pub fn of<E>(error: SdkError<E, HttpResponse>) -> Fault
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        match (&error, status) {
            (SdkError::ServiceError(_), Some(status)) => {
                sorted(status, error.code().unwrap_or(""), error.message().unwrap_or(""))
            }
            _ => Fault::Unreachable(causes(&error)),
        }
    }

    /// Whether the provider did not answer at all, as one that is switched off.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Fault::Unreachable(_) => true,
            Fault::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// The end of a run because of this, said of `place` at `provider`.
    pub fn failure(self, provider: &str, place: &str) -> Failure {
        let text = format!("provider {provider}, {place}: {self}");
        match self {
            Fault::Credentials { .. } | Fault::Denied { .. } => Failure::Credentials(text),
            Fault::NoBucket => Failure::BucketMissing(text),
            _ => Failure::failed(text),
        }
    }
}

/// The service's answer, by its code where it has one (HEAD has no body, so no code) and its status.
fn sorted(status: u16, code: &str, message: &str) -> Fault {
    let word = || if code.is_empty() { status.to_string() } else { code.to_owned() };
    match code {
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "InvalidClientTokenId"
        | "NotSignedUp"
        | "RequestTimeTooSkewed"
        | "AuthorizationHeaderMalformed" => {
            return Fault::Credentials { code: word() };
        }
        "NoSuchBucket" => return Fault::NoBucket,
        "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" | "NotFound" => return Fault::NotFound,
        "NotImplemented" | "MethodNotAllowed" | "UnsupportedOperation" => return Fault::Unsupported { code: word() },
        "PreconditionFailed" => return Fault::Precondition,
        _ => {}
    }
    match status {
        401 => Fault::Credentials { code: word() },
        403 => Fault::Denied { code: word() },
        404 => Fault::NotFound,
        405 | 501 => Fault::Unsupported { code: word() },
        409 => Fault::Conflict { code: word() },
        412 => Fault::Precondition,
        _ => Fault::Refused { status, code: word(), message: message.to_owned() },
    }
}

/// The chain of causes in one line; the SDK's outer errors say nothing by themselves.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn a_refusal_is_sorted_by_what_is_done_about_it() {
        let rows = [
            (403, "InvalidAccessKeyId", Exit::Credentials),
            (403, "SignatureDoesNotMatch", Exit::Credentials),
            (403, "AccessDenied", Exit::Credentials),
            (403, "", Exit::Credentials),
            (401, "", Exit::Credentials),
            (404, "NoSuchBucket", Exit::BucketMissing),
            (404, "NoSuchKey", Exit::Failed),
            (404, "", Exit::Failed),
            (409, "ConditionalRequestConflict", Exit::Failed),
            (412, "PreconditionFailed", Exit::Failed),
            (501, "NotImplemented", Exit::Failed),
            (503, "SlowDown", Exit::Failed),
        ];
        for (status, code, exit) in rows {
            assert_eq!(sorted(status, code, "").failure("p", "b").exit(), exit, "{status} {code}");
        }
        assert!(sorted(503, "SlowDown", "").is_unreachable());
        assert!(!sorted(404, "", "").is_unreachable());
    }
}
