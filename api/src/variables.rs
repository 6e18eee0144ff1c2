//! The variables by which clients are told whose certificates to trust. The sidecar sets them for a command, the
//! webhook for the containers of a pod.

/// Variables whose file is added to what a client trusts.
pub const ADDITIVE: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Variables whose file takes the place of what a client trusts.
pub const REPLACING: [&str; 10] = [
    "SSL_CERT_FILE",
    "AWS_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "PIP_CERT",
    "NIX_SSL_CERT_FILE",
    "HTTPLIB2_CA_CERTS",
];

/// Options for every Java process: Java reads no file of certificates from another variable.
pub const JAVA: &str = "JAVA_TOOL_OPTIONS";

/// The option of [`JAVA`] that names a truststore. Who sets it has roots of their own.
pub const JAVA_TRUSTSTORE: &str = "-Djavax.net.ssl.trustStore=";

/// The password of the truststores that we write: it protects nothing, and Java wants one.
pub const TRUSTSTORE_PASSWORD: &str = "changeit";

/// The options that make Java trust what is in the PKCS12 file `truststore`.
pub fn java_options(truststore: &str) -> String {
    format!(
        "{JAVA_TRUSTSTORE}{truststore} -Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD} \
         -Djavax.net.ssl.trustStoreType=PKCS12"
    )
}
