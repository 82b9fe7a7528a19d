#![doc = include_str!("../README.md")]

mod command;
mod pooler;
mod server;
mod shared;

pub use pooler::Pooler;
pub use server::{Certificates, Server};

/// The role that owns the databases of tests.
pub const USER: &str = "claviger";
/// Its password.
pub const PASSWORD: &str = "test-password";

/// A database of a test's own, dropped with this value.
#[derive(Debug)]
pub struct Database<'s> {
    server: &'s Server,
    name: String,
}

impl Database<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, with user and password.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Runs statements in it as its superuser, as an administrator with `psql` would; gives the
    /// rows as text without headings, columns parted by `|`.
    ///
    /// # Panics
    /// If one fails.
    pub fn admin(&self, statements: &str) -> String {
        self.server.admin(&self.name, statements)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        self.server.drop_database(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_databases_of_the_shared_server_are_apart() {
        let server = Server::shared();
        let (one, other) = (server.database(), server.database());
        one.admin("CREATE TABLE a (b BIGINT); INSERT INTO a VALUES (7)");
        assert_eq!(one.admin("SELECT b FROM a").trim(), "7");
        let found = other.admin("SELECT to_regclass('a') IS NULL");
        assert_eq!(found.trim(), "t");
    }

    #[test]
    fn what_was_committed_is_there_after_a_kill() {
        let server = Server::start();
        let database = server.database();
        database.admin("CREATE TABLE a (b BIGINT); INSERT INTO a VALUES (7)");
        server.kill();
        server.resume();
        assert_eq!(database.admin("SELECT b FROM a").trim(), "7");
    }

    #[test]
    fn a_pooler_answers_before_its_server() {
        let server = Server::shared();
        let database = server.database();
        let pooler = Pooler::start(server, 2);
        assert!(pooler.url(database.name()).contains(database.name()));
    }
}
