//! Java, which reads neither proxy variables nor the system's roots: the JDK's own client, and Maven.

use super::Language::Java;
use super::STRIPE;
use super::packages::Registry;
use crate::sdk::script;
use crate::support::Stack;
use crate::support::stack::Ran;

/// Runs a program of one file.
pub(super) async fn program(stack: &Stack, set: &str, name: &str) -> Ran {
    let words = ["run", "--set", set, "--", "java", &script(name)];
    stack.cli(&words).await.expect_success()
}

#[tokio::test]
async fn the_http_client_of_the_jdk() {
    STRIPE
        .is_called(Java, "JavaClient.java", 2, &["java: ok"])
        .await;
}

#[tokio::test]
async fn maven_inherits_from_a_pom_of_a_private_repository() {
    let registry = Registry::basic("maven.acme.example").await;
    registry.serve("maven").await;
    registry.write(
        "settings.xml",
        "<settings><mirrors><mirror><id>acme</id><mirrorOf>*</mirrorOf>\
         <url>https://maven.acme.example/releases</url></mirror></mirrors></settings>",
    );
    registry.write(
        "pom.xml",
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <parent><groupId>com.acme</groupId><artifactId>widgets-parent</artifactId><version>1.0.0</version>\
         <relativePath/></parent><artifactId>shop</artifactId><packaging>pom</packaging></project>",
    );

    // The JVM takes its home from the system's list of users, so the local repository is named.
    let ran = registry
        .run("mvn -B -s settings.xml -Dmaven.repo.local=repository validate")
        .await;

    assert!(ran.stdout.contains("BUILD SUCCESS"), "{ran:#?}");
    registry
        .finish(&["/releases/com/acme/widgets-parent/1.0.0/widgets-parent-1.0.0.pom"])
        .await;
}
