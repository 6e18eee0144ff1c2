//! Callers of a cluster: whose token this is, by the word of the API server, kept for a while. The domain of an
//! account is the UID of its namespace, so that a namespace that was made anew does not inherit.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::admin::causes;
use crate::api_server::{ApiError, ApiServer, Review};
use crate::auth::Caller;
use crate::catalog::now_unix;

/// A good token is not asked about again for so long: a pod's token that was revoked works on until then.
const GOOD_FOR: Duration = Duration::from_secs(600);

/// Neither is a bad one, so that a caller who insists costs the API server little.
const BAD_FOR: Duration = Duration::from_secs(10);

/// While the API server is away, a token that does not say when it expires works on for so long.
const AWAY_FOR: Duration = Duration::from_secs(3600);

/// After it did not answer, it is left alone for so long while there is an older verdict.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Verdicts that are kept; past it the oldest goes. A pod's token is renewed once an hour, so that this is room
/// for 5 000 pods.
const VERDICTS_MAX: usize = 10_000;

/// Questions to the API server at once.
const ASKING_MAX: usize = 16;

/// An account of a cluster: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    namespace: String,
    name: String,
}

impl Account {
    /// Reads `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(text: &str) -> Result<Account, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Account { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("write NAMESPACE/NAME".into()),
        }
    }

    /// Reads the user that a token of a service account stands for.
    fn of_user(user: &str) -> Option<Account> {
        let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        Some(Account { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// Asks the API server whose a token is. Its `Debug` holds no token.
pub struct Reviewer {
    api: ApiServer,
    audience: String,
    operator: Account,
    /// By the BLAKE3 hash of the token: memory holds none.
    verdicts: Mutex<HashMap<[u8; 32], Verdict>>,
    asking: Semaphore,
    health: Mutex<Health>,
}

#[derive(Clone, Debug)]
struct Verdict {
    reviewed: Instant,
    /// Unix seconds, as the token says.
    expires: Option<i64>,
    caller: Result<Caller, String>,
}

/// What a verdict is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// It stands.
    Good,
    /// It stands only while nobody can be asked.
    Old,
    /// Nothing.
    Nothing,
}

#[derive(Debug, Default)]
struct Health {
    ever: bool,
    away: Option<(Instant, String)>,
}

impl Verdict {
    /// The only place where a verdict grows old.
    fn worth(&self, age: Duration, now_unix: i64) -> Worth {
        let over = self.expires.is_some_and(|expires| expires <= now_unix);
        match &self.caller {
            Err(_) if age < BAD_FOR => Worth::Good,
            Err(_) => Worth::Nothing,
            Ok(_) if over => Worth::Nothing,
            Ok(_) if age < GOOD_FOR => Worth::Good,
            Ok(_) if self.expires.is_some() || age < AWAY_FOR => Worth::Old,
            Ok(_) => Worth::Nothing,
        }
    }
}

impl Reviewer {
    /// Callers are those whose tokens are for `audience`; `operator` reaches across domains.
    pub fn new(api: ApiServer, audience: &str, operator: Account) -> Reviewer {
        Reviewer {
            api,
            audience: audience.to_owned(),
            operator,
            verdicts: Mutex::default(),
            asking: Semaphore::new(ASKING_MAX),
            health: Mutex::default(),
        }
    }

    /// Whose `token` is.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when it is nobody's, `UNAVAILABLE` when nobody could be asked.
    pub(crate) async fn caller(&self, token: &str) -> Result<Caller, Status> {
        let name = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(verdict) = self.kept(&name) {
            return verdict;
        }
        let _one_of_few = self.asking.acquire().await.map_err(|_| Status::unavailable("the store closes"))?;
        // Another call with the same token may have asked meanwhile.
        if let Some(verdict) = self.kept(&name) {
            return verdict;
        }
        match self.ask(token).await {
            Ok(caller) => {
                self.answered();
                let caller_or_why = caller.clone();
                self.keep(name, Verdict { reviewed: Instant::now(), expires: expiry(token), caller });
                caller_or_why.map_err(refused)
            }
            Err(error) => {
                let why = causes(&error);
                self.away(&why);
                // An older verdict is better than sending everybody away.
                let old = self.lock_verdicts().get(&name).cloned();
                match old.filter(|old| old.worth(old.reviewed.elapsed(), now_unix()) != Worth::Nothing) {
                    Some(old) => old.caller.map_err(refused),
                    None => Err(Status::unavailable(format!("the token cannot be reviewed: {why}"))),
                }
            }
        }
    }

    /// Whether the API server has ever answered; else why not.
    ///
    /// # Errors
    /// What to do.
    pub fn ready(&self) -> Result<(), String> {
        let health = self.lock_health();
        match (&health.away, health.ever) {
            (_, true) => Ok(()),
            (Some((_, why)), false) => Err(format!("no token can be reviewed: {why}")),
            (None, false) => Err("no token can be reviewed: the API server has not been asked yet".into()),
        }
    }

    /// Asks about the store's own token until there is an answer, so that a missing right shows before the
    /// first caller comes.
    pub async fn try_out(&self) {
        let mut pause = Duration::from_millis(200);
        loop {
            let asked = async {
                let token = self.api.own_token()?;
                if let Review::User(user) = self.api.review(&token, &self.audience).await?
                    && let Some(account) = Account::of_user(&user)
                {
                    self.api.namespace_uid(&account.namespace).await?;
                }
                // The operator's namespace shows whether namespaces can be read, whoever the store itself is.
                match self.api.namespace_uid(&self.operator.namespace).await {
                    Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            };
            match asked.await {
                Ok(()) => return self.answered(),
                Err(error) => self.away(&causes(&error)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK_AGAIN);
        }
    }

    async fn ask(&self, token: &str) -> Result<Result<Caller, String>, ApiError> {
        let user = match self.api.review(token, &self.audience).await? {
            Review::User(user) => user,
            Review::Refused(why) => return Ok(Err(why)),
        };
        let Some(account) = Account::of_user(&user) else {
            return Ok(Err(format!("{user} is no service account")));
        };
        match self.api.namespace_uid(&account.namespace).await {
            Ok(domain) => {
                let operator = account == self.operator;
                Ok(Ok(Caller { domain, namespace: account.namespace, operator }))
            }
            Err(ApiError::NotFound(namespace)) => Ok(Err(format!("there is no namespace {namespace}"))),
            Err(error) => Err(error),
        }
    }

    fn kept(&self, name: &[u8; 32]) -> Option<Result<Caller, Status>> {
        let verdict = self.lock_verdicts().get(name).cloned()?;
        match verdict.worth(verdict.reviewed.elapsed(), now_unix()) {
            Worth::Good => {}
            Worth::Old if self.just_away() => {}
            Worth::Old | Worth::Nothing => return None,
        }
        Some(verdict.caller.map_err(refused))
    }

    fn keep(&self, name: [u8; 32], verdict: Verdict) {
        let mut verdicts = self.lock_verdicts();
        if verdicts.len() >= VERDICTS_MAX && !verdicts.contains_key(&name) {
            let oldest = verdicts.iter().min_by_key(|(_, verdict)| verdict.reviewed).map(|(name, _)| *name);
            if let Some(oldest) = oldest {
                verdicts.remove(&oldest);
            }
        }
        verdicts.insert(name, verdict);
    }

    fn answered(&self) {
        let mut health = self.lock_health();
        health.ever = true;
        if health.away.take().is_some() {
            tracing::info!("the API server answers");
        }
    }

    fn away(&self, why: &str) {
        let mut health = self.lock_health();
        if health.away.as_ref().is_none_or(|(_, before)| before != why) {
            tracing::warn!(why, "tokens cannot be reviewed; those that were go on working until they expire");
        }
        health.away = Some((Instant::now(), why.to_owned()));
    }

    fn just_away(&self) -> bool {
        self.lock_health().away.as_ref().is_some_and(|(since, _)| since.elapsed() < ASK_AGAIN)
    }

    fn lock_verdicts(&self) -> MutexGuard<'_, HashMap<[u8; 32], Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(why: String) -> Status {
    Status::unauthenticated(format!("the token is refused: {why}"))
}

/// When a token expires by its own word, which the API server has confirmed with it. `None` where it is no JWT.
fn expiry(token: &str) -> Option<i64> {
    let payload = token.split('.').nth(1)?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<serde_json::Value>(&payload).ok()?.get("exp")?.as_i64()
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reviewer({} verdicts of {})", self.lock_verdicts().len(), self.audience)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_verdict_is_worth_less_as_it_grows_old() {
        let good = || Ok(Caller { domain: "uid".into(), namespace: "shop".into(), operator: false });
        let bad = || Err("no".to_owned());
        let rows = [
            ("fresh", good(), Some(2000), 1, Worth::Good),
            ("after ten minutes it is asked about again", good(), Some(2000), 600, Worth::Old),
            ("an hour away, and still valid", good(), Some(2000), 3601, Worth::Old),
            ("expired by its own word, however fresh", good(), Some(1000), 1, Worth::Nothing),
            ("without an expiry", good(), None, 3599, Worth::Old),
            ("without an expiry, for too long", good(), None, 3600, Worth::Nothing),
            ("refused just now", bad(), None, 9, Worth::Good),
            ("refused a while ago", bad(), Some(2000), 10, Worth::Nothing),
        ];
        for (name, caller, expires, age, wanted) in rows {
            let verdict = Verdict { reviewed: Instant::now(), expires, caller };
            assert_eq!(verdict.worth(Duration::from_secs(age), 1000), wanted, "{name}");
        }
    }

    #[test]
    fn a_token_says_when_it_expires() {
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"exp":1795521600}"#);
        assert_eq!(expiry(&format!("e30.{payload}.sig")), Some(1_795_521_600));
        for other in ["", "opaque", "a.b.c", "e30.e30.x"] {
            assert_eq!(expiry(other), None, "{other}");
        }
    }

    #[test]
    fn accounts_are_read_from_users_and_flags() {
        assert_eq!(
            Account::parse("hawser/hawser-operator"),
            Ok(Account { namespace: "hawser".into(), name: "hawser-operator".into() })
        );
        assert_eq!(
            Account::of_user("system:serviceaccount:hawser:hawser-operator"),
            Account::parse("hawser/hawser-operator").ok()
        );
        assert_eq!(Account::of_user("kubernetes-admin"), None);
        for bad in ["", "hawser", "/x", "x/", "a/b/c"] {
            assert!(Account::parse(bad).is_err(), "{bad}");
        }
    }
}
