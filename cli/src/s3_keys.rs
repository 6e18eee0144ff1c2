//! `hawser s3-keys`: the key with which tools that speak S3 read the copy.

use serde_json::json;

use crate::Found;
use crate::args::S3KeysArgs;
use crate::failure::Failure;
use crate::print::Out;
use crate::store::Store;

pub(crate) async fn run(args: &S3KeysArgs, out: &mut Out) -> Result<Found, Failure> {
    let mut store = Store::at(&args.store).await?;
    let key = store.s3_key().await?;
    let release = args.store.in_cluster().then_some(&args.store.kube.hawser_namespace);
    let endpoint = release.map(|release| format!("https://hawser-store.{release}.svc:7071"));
    if out.json() {
        out.object(&json!({ "accessKey": key.access_key, "secretKey": key.secret, "endpoint": endpoint }))?;
    } else {
        if let Some(endpoint) = endpoint {
            out.line(&format!("# in the cluster: {endpoint}, path style, read-only"))?;
        }
        out.line(&format!("export AWS_ACCESS_KEY_ID={}", key.access_key))?;
        out.line(&format!("export AWS_SECRET_ACCESS_KEY={}", key.secret))?;
    }
    out.flush()?;
    Ok(Found::Fine)
}
