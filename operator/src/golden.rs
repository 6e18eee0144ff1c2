//! Objects as the operator makes them, compared with files. `UPDATE=1 cargo test` writes these anew.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::path::Path;

use hawser_api::CloudBinding;
use serde::Serialize;

use crate::flags::Jobs;

/// A binding with everything that changes a Job.
pub(crate) fn binding() -> CloudBinding {
    let text = r#"
apiVersion: hawser.dev/v1alpha1
kind: CloudBinding
metadata: {name: photos, namespace: shop, uid: 5f2b1c4e-0000-4000-8000-000000000001, generation: 2}
spec:
  provider: aws
  providers:
  - name: aws
    s3: {endpoint: "https://s3.eu-central-1.amazonaws.com", credentials: {secretName: photos-aws}}
  - name: hetzner
    s3:
      endpoint: https://fsn1.your-objectstorage.com
      region: fsn1
      credentials: {secretName: photos-hetzner}
      ca: {configMapName: own-roots, key: ca.pem}
  buckets: [{name: photos, names: {hetzner: photos-eu}}]
  retention: {versions: 10, days: 90}
  migration: {bandwidth: 200Mi}
"#;
    hawser_api::binding::load::parse(text).unwrap()
}

/// How Jobs run in the files.
pub(crate) fn jobs() -> Jobs {
    Jobs {
        migrate_image: "docker.io/hawser/migrate:0.1.0".into(),
        migrate_pull_policy: "IfNotPresent".into(),
        migrate_pull_secrets: Vec::new(),
        jobs_max: 10,
    }
}

/// Compares `object` with `golden/NAME.yaml`, or writes it there.
pub(crate) fn check(name: &str, object: &impl Serialize) {
    let text = serde_saphyr::to_string(object).unwrap();
    same(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name).with_extension("yaml"), &text);
}

/// Compares a text with a file of the tree, or writes it there.
pub(crate) fn same(path: &Path, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(kept, text, "{} differs: UPDATE=1 writes it anew", path.display());
}
