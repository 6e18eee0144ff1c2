//! Listing buckets and the objects in them, page by page.
use aws_sdk_s3::primitives::DateTimeFormat;
use aws_sdk_s3::types::EncodingType;
use hawser_api::ObjectKey;
use hawser_api::v1;

use super::read::bare;
use super::{Cloud, Fault, Place};

/// Most buckets that a `*` stands for.
const BUCKET_PAGES_MAX: usize = 100;

/// One page of a listing, keys in order.
pub struct Page {
    /// The objects.
    pub objects: Vec<v1::ListedObject>,
    /// What asks for the next page; `None` on the last one.
    pub next: Option<String>,
}

impl Cloud {
    /// One page of the objects whose key begins with `prefix`, after the page that gave `next`, of at most
    /// 1 000 keys.
    pub async fn list_page(&self, bucket: &str, prefix: &str, next: Option<&str>) -> Result<Page, Fault> {
        let answer = self
            .client
            .list_objects_v2()
            .bucket(bucket)
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            // XML cannot hold every character that a key can.
            .encoding_type(EncodingType::Url)
            .set_continuation_token(next.map(str::to_owned))
            .send()
            .await
            .map_err(Fault::of)?;
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let objects = answer
            .contents()
            .iter()
            .map(|object| v1::ListedObject {
                key: key(object.key().unwrap_or_default(), encoded).into_bytes().into(),
                etag: bare(object.e_tag()),
                size: u64::try_from(object.size().unwrap_or_default()).unwrap_or_default(),
                last_modified: object
                    .last_modified()
                    .and_then(|time| time.fmt(DateTimeFormat::DateTime).ok())
                    .unwrap_or_default(),
                version_id: String::new(),
            })
            .collect();
        let next = match (answer.is_truncated().unwrap_or_default(), answer.next_continuation_token()) {
            (false, _) => None,
            (true, Some(token)) if Some(token) != next => Some(token.to_owned()),
            // Taken for the end, it would delete everything behind it.
            (true, _) => return Err(Fault::Unreachable("a listing that goes on says not how".to_owned())),
        };
        Ok(Page { objects, next })
    }

    /// Whether the bucket can be listed and whether anything is in it, in one small request that has a body,
    /// so that a refusal says why.
    pub async fn is_empty(&self, bucket: &str) -> Result<bool, Fault> {
        let answer = self.client.list_objects_v2().bucket(bucket).max_keys(1).send().await.map_err(|error| {
            match Fault::of(error) {
                Fault::NotFound => Fault::NoBucket,
                fault => fault,
            }
        })?;
        Ok(answer.contents().is_empty())
    }

    /// Whether the listing shows this very key.
    pub async fn lists(&self, place: &Place) -> Result<bool, Fault> {
        let request = self.client.list_objects_v2().bucket(&place.bucket).prefix(place.text()?).max_keys(1);
        let answer = request.encoding_type(EncodingType::Url).send().await.map_err(Fault::of)?;
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let first = answer.contents().first().and_then(|object| object.key());
        Ok(first.is_some_and(|text| key(text, encoded) == place.key))
    }

    /// The buckets that these credentials see.
    pub async fn buckets(&self) -> Result<Vec<String>, Fault> {
        let mut names = Vec::new();
        let mut next = None;
        for _ in 0..BUCKET_PAGES_MAX {
            let answer = self.client.list_buckets().set_continuation_token(next).send().await.map_err(Fault::of)?;
            names.extend(answer.buckets().iter().filter_map(|bucket| bucket.name().map(str::to_owned)));
            next = answer.continuation_token().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

/// The key in a listing. Where the service says that it encoded it, `+` is a space, as in a form.
fn key(text: &str, encoded: bool) -> ObjectKey {
    if encoded {
        ObjectKey::from_path(text.replace('+', " ").as_bytes())
    } else {
        ObjectKey::from_bytes(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_key_is_decoded_only_where_the_service_encoded_it() {
        for (text, encoded, wanted) in [
            ("a%2Fb", true, "a/b"),
            ("a%2Fb", false, "a%2Fb"),
            ("a+b", true, "a b"),
            ("a%2Bb", true, "a+b"),
            ("a+b", false, "a+b"),
            ("a%252Fb", true, "a%2Fb"),
        ] {
            assert_eq!(key(text, encoded).as_bytes(), wanted.as_bytes(), "{text} {encoded}");
        }
    }
}
