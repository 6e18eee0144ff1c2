//! The keys of a provider: from the variables that carry its name, else from the plain ones of AWS.
use aws_sdk_s3::config::Credentials;
use hawser_api::binding::Provider;

use crate::failure::Failure;

const ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// Keys for `provider` from this process's environment.
///
/// # Errors
/// [`Failure::Credentials`] naming the variables, when a key or its secret is in neither form.
pub fn from_environment(provider: &Provider) -> Result<Credentials, Failure> {
    chosen(provider, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The provider's own pair, whole, or the plain one, whole: halves of two pairs never sign together.
fn chosen(provider: &Provider, variable: impl Fn(&str) -> Option<String>) -> Result<Credentials, Failure> {
    let own = |key: &str| variable(&provider.variable(key));
    let (id, secret, token) = match (own(ID), own(SECRET)) {
        (Some(id), Some(secret)) => (Some(id), Some(secret), own(TOKEN)),
        (None, None) => (variable(ID), variable(SECRET), variable(TOKEN)),
        (id, _) => {
            let missing = provider.variable(if id.is_none() { ID } else { SECRET });
            return Err(Failure::Credentials(format!(
                "provider {}: only half of its keys is set: set {missing} too",
                provider.name
            )));
        }
    };
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Credentials::new(id, secret, token, None, "environment")),
        _ => Err(Failure::Credentials(format!(
            "provider {} has no keys: set {} and {}, or the plain {ID} and {SECRET}",
            provider.name,
            provider.variable(ID),
            provider.variable(SECRET)
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hawser_api::binding::{Addressing, S3};

    fn provider() -> Provider {
        let s3 = S3 {
            endpoint: "http://a.test".parse().unwrap(),
            region: None,
            addressing: Addressing::Auto,
            credentials: None,
            ca: None,
        };
        Provider { name: "my-cloud".into(), s3 }
    }

    #[test]
    fn a_pair_is_taken_whole_or_not_at_all() {
        let own_id = "HAWSER_MY_CLOUD_AWS_ACCESS_KEY_ID";
        let own_secret = "HAWSER_MY_CLOUD_AWS_SECRET_ACCESS_KEY";
        let rows: &[(&str, &[&str], Option<&str>)] = &[
            ("its own", &[own_id, own_secret, ID, SECRET], Some(own_id)),
            ("the plain ones", &[ID, SECRET], Some(ID)),
            ("none", &[], None),
            ("half of its own, not mixed with plain", &[own_id, ID, SECRET], None),
            ("half of the plain ones", &[ID], None),
        ];
        for (what, set, wanted) in rows {
            let found = chosen(&provider(), |name| set.contains(&name).then(|| name.to_owned()));
            assert_eq!(found.ok().map(|keys| keys.access_key_id().to_owned()).as_deref(), *wanted, "{what}");
        }
    }
}
