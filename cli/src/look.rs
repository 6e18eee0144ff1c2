//! The objects of a bucket as they are, or as they were.

use hawser_api::v1::{ListObjectsRequest, ObjectEntry};
use tonic::{Status, Streaming};

use crate::address::Address;
use crate::args::Which;
use crate::entry;
use crate::failure::Failure;
use crate::moment::Moment;
use crate::store::Store;
use crate::units;

/// Objects in the order of their keys, one version each.
pub(crate) struct Objects {
    stream: Streaming<ObjectEntry>,
    /// With a time, the stream has every version, the newest first: the first one that is old enough counts.
    until: Option<i64>,
    decided: Option<Vec<u8>>,
}

/// Asks for the objects below `address`, of the provider and at the moment that `which` says.
pub(crate) async fn objects(store: &mut Store, address: &Address, which: &Which) -> Result<Objects, Failure> {
    let mut request = request(address, which.provider.as_deref());
    let until = match which.at {
        None => None,
        Some(Moment::Tick(tick)) => {
            request.at_tick = tick;
            None
        }
        Some(Moment::Time(unix)) => Some(unix),
        Some(Moment::Ago(ago)) => Some(units::now().saturating_sub_unsigned(ago.as_secs())),
    };
    let stream = match until {
        None => store.objects(request).await?,
        Some(_) => store.versions(request).await?,
    };
    Ok(Objects { stream, until, decided: None })
}

/// A listing of everything below `address`.
pub(crate) fn request(address: &Address, provider: Option<&str>) -> ListObjectsRequest {
    ListObjectsRequest {
        bucket: address.bucket.clone(),
        provider: provider.unwrap_or_default().to_owned(),
        prefix: address.prefix.clone().into(),
        ..ListObjectsRequest::default()
    }
}

impl Objects {
    /// The next object; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<ObjectEntry>, Status> {
        while let Some(entry) = self.stream.message().await? {
            if let Some(until) = self.until {
                let key = entry::key_bytes(&entry);
                if self.decided.as_deref() == Some(key) || entry.recorded_unix > until {
                    continue;
                }
                self.decided = Some(key.to_vec());
            }
            if !entry::is_deleted(&entry) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}
