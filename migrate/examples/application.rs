//! A Rust application: AWS's SDK as it comes, told an endpoint by the variables that every SDK reads, and nothing
//! else. Its connections to the cloud are its own business: it knows no proxy, no CA and no Hawser.
//!
//!     application BUCKET PREFIX SMALL LARGE
//!
//! It leaves PREFIX/small and PREFIX/copy, which is tagged, with the content of the file SMALL, and PREFIX/parts with
//! that of LARGE, reads them back, and writes and deletes PREFIX/gone.

use std::error::Error;
use std::path::Path;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Tag, Tagging};

/// The least that S3 takes as a part that is not the last one.
const PART_LEN: usize = 5 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bucket, prefix, small, large] = &arguments[..] else {
        return Err("application BUCKET PREFIX SMALL LARGE".into());
    };
    let application = Application { s3: client()?, bucket: bucket.clone(), prefix: prefix.clone() };
    application.run(Path::new(small), Path::new(large)).await
}

fn client() -> Result<Client, Box<dyn Error>> {
    let keys = Credentials::new(
        std::env::var("AWS_ACCESS_KEY_ID")?,
        std::env::var("AWS_SECRET_ACCESS_KEY")?,
        None,
        None,
        "environment",
    );
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(std::env::var("AWS_ENDPOINT_URL")?)
        .region(Region::new(std::env::var("AWS_DEFAULT_REGION")?))
        .credentials_provider(keys)
        .force_path_style(true)
        .build();
    Ok(Client::from_conf(config))
}

struct Application {
    s3: Client,
    bucket: String,
    prefix: String,
}

impl Application {
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn run(&self, small: &Path, large: &Path) -> Result<(), Box<dyn Error>> {
        let content = std::fs::read(small)?;
        let put = self.s3.put_object().bucket(&self.bucket).key(self.key("small")).metadata("from", "rust");
        put.body(ByteStream::from_path(small).await?).send().await?;
        self.parts(&std::fs::read(large)?).await?;

        let source = format!("{}/{}", self.bucket, self.key("small"));
        self.s3.copy_object().bucket(&self.bucket).key(self.key("copy")).copy_source(source).send().await?;
        let tag = Tag::builder().key("language").value("rust").build()?;
        let tagging = Tagging::builder().tag_set(tag).build()?;
        self.s3.put_object_tagging().bucket(&self.bucket).key(self.key("copy")).tagging(tagging).send().await?;

        let gone = self.s3.put_object().bucket(&self.bucket).key(self.key("gone"));
        gone.body(ByteStream::from_static(b"x")).send().await?;
        self.s3.delete_object().bucket(&self.bucket).key(self.key("gone")).send().await?;

        let whole = self.s3.get_object().bucket(&self.bucket).key(self.key("small")).send().await?;
        let range = self.s3.get_object().bucket(&self.bucket).key(self.key("parts")).range("bytes=5000000-6000000");
        let range = range.send().await?.body.collect().await?.into_bytes();
        if whole.body.collect().await?.into_bytes() != content || range != std::fs::read(large)?[5_000_000..=6_000_000]
        {
            return Err("it reads otherwise than it wrote".into());
        }
        Ok(())
    }

    async fn parts(&self, content: &[u8]) -> Result<(), Box<dyn Error>> {
        let key = self.key("parts");
        let created = self.s3.create_multipart_upload().bucket(&self.bucket).key(&key).send().await?;
        let upload = created.upload_id().ok_or("no upload id")?;
        let mut done = CompletedMultipartUpload::builder();
        for (number, part) in (1..).zip(content.chunks(PART_LEN)) {
            let sent = self.s3.upload_part().bucket(&self.bucket).key(&key).upload_id(upload).part_number(number);
            let sent = sent.body(ByteStream::from(part.to_vec())).send().await?;
            let part = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(sent.e_tag)
                .set_checksum_crc32(sent.checksum_crc32);
            done = done.parts(part.build());
        }
        let complete = self.s3.complete_multipart_upload().bucket(&self.bucket).key(&key).upload_id(upload);
        complete.multipart_upload(done.build()).send().await?;
        Ok(())
    }
}
