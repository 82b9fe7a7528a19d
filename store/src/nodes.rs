//! The processes that share a database.

use time::OffsetDateTime;

use crate::db::{Row, optional_time, query, time};
use crate::ledger::ThisNode;
use crate::timekeeper::at;
use crate::{Location, Store, StoreError};

/// A heartbeat comes at least every few seconds; a node without one for longer is silent.
const SILENT_AFTER_MS: i64 = 15_000;

/// A process, or the last one of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, the first part of its audit streams' names.
    pub name: String,
    /// What it does and where.
    pub facts: NodeFacts,
    /// When it began, by the database's clock.
    pub started_at: OffsetDateTime,
    /// When it was last heard of, by the database's clock.
    pub heartbeat: OffsetDateTime,
    /// Whether it runs.
    pub state: NodeState,
}

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// Which planes it serves, e.g. `control-plane` and `injector`.
    pub planes: Vec<String>,
    /// The program's version.
    pub version: String,
    /// Where it answers the API.
    pub api_address: Option<String>,
    /// Where it takes agents' requests.
    pub proxy_address: Option<String>,
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It was heard of in the last 15 s.
    Running,
    /// It did not end in order, and is not heard of.
    Silent,
    /// It ended, or was taken for dead.
    Ended,
}

impl NodeState {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Silent => "silent",
            Self::Ended => "ended",
        }
    }
}

/// The nodes of a store.
#[derive(Debug, Clone, Copy)]
pub struct Nodes<'a> {
    pub(crate) store: &'a Store,
}

impl Nodes<'_> {
    /// Every process that has used this database, by name; of a file that is this one alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self) -> Result<Vec<Node>, StoreError> {
        match self.store.location() {
            Location::Sqlite(_) => Ok(vec![self.this().as_node(self.store.inner.time.now())]),
            Location::Postgres(_) => {
                let rows = query(LIST).fetch_all(self.store.pool()).await?;
                rows.iter().map(read).collect()
            }
        }
    }

    /// Says what this process does and where it listens.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn announce(&self, facts: NodeFacts) -> Result<(), StoreError> {
        let this = self.this();
        if let Location::Postgres(_) = self.store.location() {
            query("SELECT node_announce($1, $2, $3, $4, $5, $6)")
                .bind(&this.name)
                .bind(&*self.store.inner.run)
                .bind(facts.planes.join(","))
                .bind(&facts.version)
                .bind(&facts.api_address)
                .bind(&facts.proxy_address)
                .fetch_all(self.store.pool())
                .await?;
        }
        this.is(facts);
        Ok(())
    }

    fn this(&self) -> &ThisNode {
        self.store.inner.ledger.this_node()
    }
}

const LIST: &str = "SELECT name, planes, version, api_address, proxy_address, started_at, heartbeat, \
    ended_at, ledger_clock() AS clock FROM nodes ORDER BY name";

fn read(row: &Row) -> Result<Node, StoreError> {
    let text = |column: &'static str| row.try_get::<Option<String>>(column);
    let planes: String = row.try_get("planes")?;
    let (heartbeat, clock): (i64, i64) = (row.try_get("heartbeat")?, row.try_get("clock")?);
    let state = if optional_time(row, "ended_at")?.is_some() {
        NodeState::Ended
    } else if clock - heartbeat > SILENT_AFTER_MS {
        NodeState::Silent
    } else {
        NodeState::Running
    };
    Ok(Node {
        name: row.try_get("name")?,
        facts: NodeFacts {
            planes: planes
                .split(',')
                .filter(|plane| !plane.is_empty())
                .map(str::to_owned)
                .collect(),
            version: row.try_get("version")?,
            api_address: text("api_address")?,
            proxy_address: text("proxy_address")?,
        },
        started_at: time(row, "started_at")?,
        heartbeat: at(heartbeat),
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn facts() -> NodeFacts {
        NodeFacts {
            planes: vec!["control-plane".to_owned(), "injector".to_owned()],
            version: "1.2.3".to_owned(),
            api_address: Some("127.0.0.1:8181".to_owned()),
            proxy_address: None,
        }
    }

    async fn a_node_is_listed_as_it_announced_itself(world: World) {
        let nodes = world.store.nodes();
        nodes.announce(facts()).await.unwrap();
        let listed = nodes.list().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((&*listed[0].name, &listed[0].facts), ("local", &facts()));
        assert_eq!(listed[0].state, NodeState::Running);
        assert_eq!(listed[0].started_at, START);
    }

    on_both!(a_node_is_listed_as_it_announced_itself);

    #[tokio::test]
    async fn a_node_is_silent_when_it_is_not_heard_of_and_ended_when_it_said_so() {
        let world = World::on_postgres().await;
        let location = world.location();
        let Location::Postgres(_) = &location else {
            panic!("a URL of Postgres");
        };
        let state = async |store: &Store, name: &str| {
            let listed = store.nodes().list().await.unwrap();
            listed
                .into_iter()
                .find(|node| node.name == name)
                .unwrap()
                .state
        };
        let clock = std::sync::Arc::<leases::clock::ManualClock>::clone(&world.clock);
        let mut options =
            crate::StoreOptions::at(location, world.directory.path().join("other"), clock);
        options.node = "other".to_owned();
        let other = Store::open(options).await.unwrap();
        assert_eq!(state(&world.store, "other").await, NodeState::Running);
        other.close().await;
        assert_eq!(state(&world.store, "other").await, NodeState::Ended);
        world.tamper("UPDATE nodes SET ended_at = NULL, heartbeat = 0 WHERE name = 'other'");
        assert_eq!(state(&world.store, "other").await, NodeState::Silent);
        assert_eq!(state(&world.store, "local").await, NodeState::Running);
    }
}
