//! Which hosts on the wire belong to a provider, and which of them carry the bucket in their name.
//!
//! A service is reached under more names than its endpoint: `BUCKET.HOST`, and at AWS the dual-stack, FIPS,
//! accelerated and old global names too. All of them lead to the same objects, so all are bound with the endpoint.
//! Names that stand for something else (access points, zonal buckets, websites, control) are not: a host
//! that cannot be understood is passed by, never guessed at.
use std::net::Ipv4Addr;

use crate::binding::Provider;

/// How a host on the wire belongs to a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMatch {
    /// The bucket that the host's name carries; `None` when it is the first segment of the path.
    pub bucket: Option<String>,
}

/// Says whether (`host`, `port`) is one of `provider`'s, and which bucket the host names.
///
/// `host` is a name or address as it came from SNI, CONNECT or a Host header, without its port; case and one
/// trailing dot make no difference.
pub fn classify(provider: &Provider, host: &str, port: u16) -> Option<HostMatch> {
    let endpoint = &provider.s3.endpoint;
    if port != endpoint.port() {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let by_path = HostMatch { bucket: None };
    if host == endpoint.host() {
        return Some(by_path);
    }
    if endpoint.host().parse::<Ipv4Addr>().is_ok() {
        return None; // an address has no names below it
    }
    let Some(aws) = Aws::of(endpoint.host()) else {
        return bucket_below(&host, endpoint.host());
    };
    aws.names().iter().find_map(|name| if host == *name { Some(by_path.clone()) } else { bucket_below(&host, name) })
}

/// The region that a host of AWS's own S3 belongs to; `None` for every other host.
pub fn aws_region(host: &str) -> Option<&str> {
    Aws::of(host).map(|aws| aws.region)
}

/// The bucket of `BUCKET.HOST`; it may have dots of its own.
fn bucket_below(host: &str, service: &str) -> Option<HostMatch> {
    let bucket = host.strip_suffix(service)?.strip_suffix('.')?;
    let whole = !bucket.is_empty() && bucket.split('.').all(|label| !label.is_empty());
    whole.then(|| HostMatch { bucket: Some(bucket.to_owned()) })
}

/// A region of AWS's own S3.
struct Aws<'a> {
    region: &'a str,
    /// `amazonaws.com`, or `amazonaws.com.cn` for the regions in China.
    domain: &'a str,
}

/// The region behind AWS's old name without one.
const GLOBAL_REGION: &str = "us-east-1";

impl<'a> Aws<'a> {
    /// Reads any of the names that an endpoint at AWS is written with.
    fn of(host: &'a str) -> Option<Aws<'a>> {
        let domain =
            ["amazonaws.com", "amazonaws.com.cn"].into_iter().find(|domain| host.ends_with(&format!(".{domain}")))?;
        let service = host.strip_suffix(domain)?.strip_suffix('.')?;
        let region = match service {
            "s3" | "s3-external-1" | "s3-accelerate" | "s3-accelerate.dualstack" => GLOBAL_REGION,
            _ => ["s3.dualstack.", "s3-fips.dualstack.", "s3-fips.", "s3.", "s3-"]
                .iter()
                .find_map(|prefix| service.strip_prefix(prefix))?,
        };
        let known_form = !region.is_empty() && !region.contains('.') && region.contains('-');
        known_form.then_some(Aws { region, domain })
    }

    /// Every name of this region's S3, and those of no region: a bucket of any region answers under them.
    fn names(&self) -> Vec<String> {
        let Aws { region, domain } = self;
        let mut names: Vec<String> = [
            format!("s3.{region}"),
            format!("s3-{region}"),
            format!("s3.dualstack.{region}"),
            format!("s3-fips.{region}"),
            format!("s3-fips.dualstack.{region}"),
        ]
        .into_iter()
        .map(|service| format!("{service}.{domain}"))
        .collect();
        if *domain == "amazonaws.com" {
            names.extend(
                ["s3", "s3-external-1", "s3-accelerate", "s3-accelerate.dualstack"]
                    .map(|service| format!("{service}.{domain}")),
            );
        }
        names
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::binding::{Addressing, S3};

    fn at(endpoint: &str) -> Provider {
        let s3 = S3 {
            endpoint: endpoint.parse().unwrap(),
            region: None,
            addressing: Addressing::Auto,
            credentials: None,
            ca: None,
        };
        Provider { name: "p".into(), s3 }
    }

    #[test]
    fn a_host_belongs_to_a_provider_by_each_of_its_names_and_by_no_other() {
        const PATH: Option<Option<&str>> = Some(None);
        let aws = "https://s3.eu-central-1.amazonaws.com";
        let rows: &[(&str, &str, u16, Option<Option<&str>>)] = &[
            ("https://cloud.test:8443", "cloud.test", 8443, PATH),
            ("https://cloud.test:8443", "CLOUD.test.", 8443, PATH),
            ("https://cloud.test:8443", "cloud.test", 443, None),
            ("https://cloud.test:8443", "photos.cloud.test", 8443, Some(Some("photos"))),
            ("https://cloud.test:8443", "my.photos.cloud.test", 8443, Some(Some("my.photos"))),
            ("https://cloud.test:8443", "evilcloud.test", 8443, None),
            ("https://cloud.test:8443", ".cloud.test", 8443, None),
            ("https://cloud.test:8443", "a..cloud.test", 8443, None),
            ("http://127.0.0.1:9000", "127.0.0.1", 9000, PATH),
            ("http://127.0.0.1:9000", "photos.127.0.0.1", 9000, None),
            ("http://minio", "minio", 80, PATH),
            (aws, "s3.eu-central-1.amazonaws.com", 443, PATH),
            (aws, "photos.s3.eu-central-1.amazonaws.com", 443, Some(Some("photos"))),
            (aws, "photos.s3-eu-central-1.amazonaws.com", 443, Some(Some("photos"))),
            (aws, "s3.dualstack.eu-central-1.amazonaws.com", 443, PATH),
            (aws, "a.b.s3.dualstack.eu-central-1.amazonaws.com", 443, Some(Some("a.b"))),
            (aws, "photos.s3-fips.eu-central-1.amazonaws.com", 443, Some(Some("photos"))),
            (aws, "photos.s3-accelerate.amazonaws.com", 443, Some(Some("photos"))),
            (aws, "photos.s3-accelerate.dualstack.amazonaws.com", 443, Some(Some("photos"))),
            (aws, "s3.amazonaws.com", 443, PATH),
            (aws, "photos.s3.amazonaws.com", 443, Some(Some("photos"))),
            (aws, "photos.s3.us-west-2.amazonaws.com", 443, None),
            (aws, "point-123456789012.s3-accesspoint.eu-central-1.amazonaws.com", 443, None),
            (aws, "photos--euc1-az1--x-s3.s3express-euc1-az1.eu-central-1.amazonaws.com", 443, None),
            (aws, "photos.s3-website-eu-central-1.amazonaws.com", 443, None),
            (aws, "123456789012.s3-control.eu-central-1.amazonaws.com", 443, None),
            (aws, "sts.eu-central-1.amazonaws.com", 443, None),
            ("https://s3.amazonaws.com", "photos.s3.us-east-1.amazonaws.com", 443, Some(Some("photos"))),
            (
                "https://s3.cn-north-1.amazonaws.com.cn",
                "photos.s3.dualstack.cn-north-1.amazonaws.com.cn",
                443,
                Some(Some("photos")),
            ),
            ("https://s3.cn-north-1.amazonaws.com.cn", "photos.s3.amazonaws.com", 443, None),
        ];
        for (endpoint, host, port, wanted) in rows {
            let wanted = wanted.map(|bucket| HostMatch { bucket: bucket.map(str::to_owned) });
            assert_eq!(classify(&at(endpoint), host, *port), wanted, "{host}:{port} of {endpoint}");
        }
    }
}
