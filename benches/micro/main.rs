//! What each part of a request costs by itself, in one thread.
#![expect(clippy::print_stdout, reason = "the tables are this program's output")]

mod credential;
mod ledger;
mod measure;
mod token;

#[path = "../support/mod.rs"]
mod support;

use measure::Report;

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    println!("{}\n", support::machine());
    let mut report = Report::new();
    token::measure(&mut report)?;
    credential::measure(&mut report, &runtime)?;
    println!("{}", report.table());
    println!("{}", ledger::measure(&runtime)?);
    Ok(())
}
