//! Stores an object whole and one from a file, and asks who it is.

use aws_config::BehaviorVersion;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The SDK heeds no HTTPS_PROXY by itself; this is its own way to say so.
    let http = Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build()
    });
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .load()
        .await;

    let s3 = aws_sdk_s3::Client::new(&config);
    let object = || s3.put_object().bucket("data");
    object()
        .key("whole.txt")
        .body(ByteStream::from_static(b"hello from Rust"))
        .send()
        .await?;
    let path = std::env::temp_dir().join(format!("claviger-rust-{}", std::process::id()));
    std::fs::write(&path, vec![b'x'; 3 << 20])?;
    let streamed = object()
        .key("streamed.bin")
        .body(ByteStream::from_path(&path).await?)
        .send()
        .await;
    std::fs::remove_file(&path)?;
    streamed?;
    println!("s3: ok");

    let sts = aws_sdk_sts::Client::new(&config);
    let who = sts.get_caller_identity().send().await?;
    println!("{}", who.account().unwrap_or("nobody"));
    Ok(())
}
