//! AWS's own clients below `claviger run`, unchanged; botocore says with the real key whether each request was signed rightly.

use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::aws::{Aws, python, script};
use crate::support::{Stack, soak};

const SET: &str = "aws/test/aws-bot";

async fn stack() -> Stack {
    Stack::builder()
        .log("info")
        // Python's SDK takes S3's global endpoint for us-east-1, JavaScript's the regional one.
        .host("data.s3.amazonaws.com")
        .host("data.s3.us-east-1.amazonaws.com")
        .host("ec2.us-east-1.amazonaws.com")
        .host("sqs.us-east-1.amazonaws.com")
        .start()
        .await
}

#[tokio::test]
async fn boto3_works_with_s3_dynamodb_sqs_ec2_and_sts() {
    let stack = stack().await;
    let aws = Aws::grant(&stack, true, &json!({})).await;

    let ran = stack
        .cli(&[
            "run",
            "--set",
            SET,
            "--",
            &python(),
            &script("boto3_client.py"),
        ])
        .await
        .expect_success();

    for said in [
        "s3: ok",
        "dynamodb: ok",
        "sqs: ok",
        "ec2: ok",
        "123456789012",
    ] {
        assert!(ran.stdout.contains(said), "{ran:#?}");
    }
    // What the agent presigns is signed with placeholders, and good for nothing outside.
    assert!(ran.stdout.contains("presigned:") && !ran.stdout.contains(&aws.key_id));
    let requests = stack.upstream.requests();
    aws.expect_signed(&requests).await;
    let streamed: Vec<_> = requests
        .iter()
        .filter(|request| {
            request.fields("x-amz-content-sha256") == ["STREAMING-UNSIGNED-PAYLOAD-TRAILER"]
        })
        .collect();
    assert!(streamed.len() >= 5, "{}", streamed.len());
    assert!(
        streamed
            .iter()
            .all(|request| request.is_complete() && request.chunked().is_whole())
    );
    let large: u64 = streamed
        .iter()
        .filter(|request| request.target.contains("partNumber"))
        .map(|request| request.chunked().length())
        .sum();
    assert_eq!(large, 12 << 20);
    stack.finish().await;
}

#[tokio::test]
async fn the_javascript_sdk_uploads_whole_and_streamed() {
    let stack = stack().await;
    let aws = Aws::grant(&stack, false, &json!({})).await;
    let modules = std::env::var("CLAVIGER_TEST_NODE_MODULES")
        .expect("CLAVIGER_TEST_NODE_MODULES is not set; hint: start these tests by tests/run e2e");
    let mut command = stack.command(&["run", "--set", SET, "--", "node", &script("s3_client.cjs")]);
    command.env("NODE_PATH", modules);

    let ran = stack.run(command).await.expect_success();

    let requests = stack.upstream.requests();
    assert_eq!(requests.len(), 3, "{ran:#?}");
    aws.expect_signed(&requests).await;
    let sha256 = ran.stdout.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(requests[1].chunked().sha256(), sha256);
    stack.finish().await;
}

#[tokio::test]
async fn the_rust_sdk_uploads_whole_and_streamed() {
    let stack = stack().await;
    let aws = Aws::grant(&stack, true, &json!({})).await;
    let program = std::env::var("CLAVIGER_TEST_RUST_SDK")
        .expect("CLAVIGER_TEST_RUST_SDK is not set; hint: start these tests by tests/run e2e");
    let mut command = stack.command(&["run", "--set", SET, "--", &program]);
    command.env("AWS_DEFAULT_REGION", "us-east-1");
    command.env("AWS_REGION", "us-east-1");

    let ran = stack.run(command).await.expect_success();

    for said in ["s3: ok", "123456789012"] {
        assert!(ran.stdout.contains(said), "{ran:#?}");
    }
    let requests = stack.upstream.requests();
    aws.expect_signed(&requests).await;
    assert_eq!(requests.len(), 3, "{ran:#?}");
    assert_eq!(requests[0].body(), b"hello from Rust");
    let streamed = hex::encode(Sha256::digest(vec![b'x'; 3 << 20]));
    assert_eq!(requests[1].chunked().sha256(), streamed);
    stack.finish().await;
}

/// Bytes that no two parts of the file share, and the SHA-256 of each part.
fn write_file(path: &Path, size: usize, part: usize) -> Vec<String> {
    use std::io::Write as _;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut state = 1_u64;
    let mut block = vec![0; 1 << 20];
    let mut sums = Vec::new();
    for _ in 0..size / part {
        let mut sum = Sha256::new();
        for _ in 0..part / block.len() {
            for bytes in block.chunks_exact_mut(8) {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                bytes.copy_from_slice(&state.to_be_bytes());
            }
            sum.update(&block);
            file.write_all(&block).unwrap();
        }
        sums.push(hex::encode(sum.finalize()));
    }
    file.flush().unwrap();
    sums
}

/// The part that `aws s3 cp` cuts files into.
const PART: usize = 8 << 20;
const GROWTH_MAX: u64 = 96 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cli_copies_a_large_file_in_parts_byte_by_byte_in_bounded_memory() {
    let stack = stack().await;
    let aws = Aws::grant(&stack, false, &json!({})).await;
    let size = soak(1 << 30, 48 << 20);
    let file = stack.home.path().join("large.bin");
    let sums = write_file(&file, size, PART);
    let before = stack.process().resident();
    let source = file.display().to_string();
    let python = python();
    let arguments = ["run", "--set", SET, "--", &python, "-m", "awscli"];
    let copy = ["s3", "cp", "--no-progress", &source, "s3://data/large.bin"];
    let mut command = stack.command(&[&arguments[..], &copy].concat());
    command.env("AWS_DEFAULT_REGION", "us-east-1");

    let running = tokio::spawn({
        let ends = stack.ends.clone();
        async move { ends.run(command).await.expect_success() }
    });
    let mut peak = before;
    while !running.is_finished() {
        peak = peak.max(stack.process().resident());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    running.await.unwrap();
    std::fs::remove_file(&file).unwrap();

    let requests = stack.upstream.requests();
    let mut parts: Vec<(usize, String)> = requests
        .iter()
        .filter_map(|request| {
            let (_, number) = request.target.split_once("partNumber=")?;
            let number = number.split('&').next()?.parse().ok()?;
            Some((number, request.chunked().sha256()))
        })
        .collect();
    parts.sort_unstable();
    let sent: Vec<String> = parts.into_iter().map(|(_, sum)| sum).collect();
    assert_eq!(sent, sums);
    aws.expect_signed(&requests).await;
    assert!(
        peak - before < GROWTH_MAX,
        "grew by {} MiB",
        (peak - before) >> 20
    );
    stack.finish().await;
}

/// What the program below asks for: an object, another one stored, and an item of a table.
const SCRIPT: &str = r#"
import boto3
s3 = boto3.client("s3", "us-east-1")
s3.get_object(Bucket="data", Key="a/b c.txt")["Body"].read()
s3.put_object(Bucket="data", Key="out", Body=b"x")
boto3.client("dynamodb", "us-east-1").get_item(TableName="t", Key={"a": {"S": "b"}})
print("done")
"#;

#[tokio::test]
async fn what_is_learned_of_aws_is_a_grant_that_is_enough_and_bound() {
    let stack = stack().await;
    let aws = Aws::grant(&stack, false, &json!({})).await;
    let python = python();
    let run = async |options: &[&str], script: &str| {
        let program = ["--", &python, "-c", script];
        let arguments = [&["run", "--set", SET][..], options, &program].concat();
        stack.cli(&arguments).await
    };

    let ran = run(&["--learn"], SCRIPT).await.expect_success();

    let line = ran.stderr.lines().find_map(|line| {
        let (_, command) = line.split_once("claviger grant create ")?;
        Some(command.to_owned())
    });
    let command = line.unwrap_or_else(|| panic!("no command: {ran:#?}"));
    for part in [
        "--aws-service dynamodb,s3",
        "--aws-region us-east-1",
        "--aws-bucket data",
        "--aws-action 'dynamodb:*,s3:GetObject,s3:PutObject'",
    ] {
        assert!(command.contains(part), "{part} is missing: {command}");
    }
    assert!(ran.stderr.contains("every operation of dynamodb"));
    let old = format!("/v1/vault/grants/{}", aws.access.grant);
    stack.admin().delete(&old).await.expect_status(204);
    let words: Vec<String> = command
        .split(' ')
        .map(|word| word.trim_matches('\'').to_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    stack
        .cli(&[&["grant", "create"], &words[..]].concat())
        .await
        .expect_success();
    let again = run(&[], SCRIPT).await.expect_success();
    assert!(again.stdout.contains("done"), "{again:#?}");
    let refused = run(
        &[],
        "import boto3; boto3.client('s3', 'us-east-1').delete_object(Bucket='data', Key='out')",
    )
    .await;
    assert_ne!(refused.status, Some(0), "{refused:#?}");
    stack.finish().await;
}
