//! The double as a process: it prints its URL, obeys lines on standard input, and ends with it.
#![expect(
    clippy::print_stdout,
    reason = "standard output is the channel to the test"
)]

use std::{env, error::Error, io::Write, net::SocketAddr};

use kms_double::{KmsDouble, console};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = match env::args().nth(1) {
        Some(text) => text.parse()?,
        None => SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let double = KmsDouble::start_at(address)?;
    say(&format!("listening {}", double.endpoint()))?;
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        say(&console::obey(&double, &line).await)?;
    }
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    println!("{line}");
    std::io::stdout().flush()
}
