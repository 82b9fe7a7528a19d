//! One statement for either database: its text with `$1`, `$2`, …, its values, and rows.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, SqlitePool};
use tokio_postgres::Client;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::{DatabaseError, StoreError};
use crate::postgres;

/// How long one statement may take.
const STATEMENT: Duration = Duration::from_secs(10);

/// Connections of the cold path.
#[derive(Debug, Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(postgres::Pool),
}

impl Pool {
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close(),
        }
    }
}

/// One connection, inside a transaction.
pub(crate) enum Conn<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c Client),
}

/// Where a statement runs: on its own, or inside a transaction.
pub(crate) enum On<'c> {
    Pool(&'c Pool),
    Conn(Conn<'c>),
}

impl<'c> From<&'c Pool> for On<'c> {
    fn from(pool: &'c Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'c> From<Conn<'c>> for On<'c> {
    fn from(conn: Conn<'c>) -> Self {
        Self::Conn(conn)
    }
}

/// A value of one of the three types that columns have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Value {
    #[serde(rename = "i")]
    Integer(Option<i64>),
    #[serde(rename = "t")]
    Text(Option<String>),
    #[serde(rename = "b", with = "hexadecimal")]
    Bytes(Option<Vec<u8>>),
}

impl Value {
    /// Roughly how much memory it takes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Integer(_) => 8,
            Self::Text(text) => text.as_ref().map_or(0, String::len),
            Self::Bytes(bytes) => bytes.as_ref().map_or(0, Vec::len),
        }
    }
}

/// Bytes in a text.
mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de};

    #[expect(clippy::ref_option, reason = "serde hands it over so")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(hex::encode).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| hex::decode(text).map_err(de::Error::custom))
            .transpose()
    }
}

/// A statement and its values.
///
/// On Postgres it is parsed, bound and executed in one message, with the types of its values and
/// without a name: one round trip, and nothing that a session would have to keep.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) struct Query {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// A statement; `text` is the same for both databases.
pub(crate) const fn query(text: &'static str) -> Query {
    Query {
        text: Cow::Borrowed(text),
        values: Vec::new(),
    }
}

/// A statement made from names that this program knows, never from what a caller says.
pub(crate) const fn built(text: String) -> Query {
    Query {
        text: Cow::Owned(text),
        values: Vec::new(),
    }
}

impl Query {
    /// Gives the next placeholder its value.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Gives the next placeholders their values.
    pub(crate) fn bind_all(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.values.extend(values);
        self
    }

    /// Every row.
    pub(crate) async fn fetch_all(self, on: impl Into<On<'_>>) -> Result<Vec<Row>, StoreError> {
        match on.into() {
            On::Pool(Pool::Sqlite(pool)) => {
                Ok(sqlite_rows(self.on_sqlite().fetch_all(pool).await?))
            }
            On::Conn(Conn::Sqlite(conn)) => {
                Ok(sqlite_rows(self.on_sqlite().fetch_all(conn).await?))
            }
            On::Pool(Pool::Postgres(pool)) => {
                let mut connection = pool.get().await?;
                let rows = self.rows(&connection).await;
                connection.discard_after(&rows);
                rows
            }
            On::Conn(Conn::Postgres(client)) => self.rows(client).await,
        }
    }

    /// The first row, if there is one.
    pub(crate) async fn fetch_optional(
        self,
        on: impl Into<On<'_>>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch_all(on).await?.into_iter().next())
    }

    /// The first column of the first row, if there is one.
    pub(crate) async fn fetch_value<T>(self, on: impl Into<On<'_>>) -> Result<Option<T>, StoreError>
    where
        T: for<'r> Column<'r>,
    {
        let row = self.fetch_optional(on).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    /// Does it, and gives the number of rows that it changed.
    pub(crate) async fn execute(self, on: impl Into<On<'_>>) -> Result<u64, StoreError> {
        match on.into() {
            On::Pool(Pool::Sqlite(pool)) => {
                Ok(self.on_sqlite().execute(pool).await?.rows_affected())
            }
            On::Conn(Conn::Sqlite(conn)) => {
                Ok(self.on_sqlite().execute(conn).await?.rows_affected())
            }
            On::Pool(Pool::Postgres(pool)) => {
                let mut connection = pool.get().await?;
                let changed = self.change(&connection).await;
                connection.discard_after(&changed);
                changed
            }
            On::Conn(Conn::Postgres(client)) => self.change(client).await,
        }
    }

    fn on_sqlite(self) -> sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments> {
        let mut query = match self.text {
            Cow::Borrowed(text) => sqlx::query(text),
            Cow::Owned(text) => sqlx::query(AssertSqlSafe(text)),
        };
        for value in self.values {
            query = match value {
                Value::Integer(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            };
        }
        query
    }

    fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values
            .iter()
            .map(|value| match value {
                Value::Integer(value) => (value as &(dyn ToSql + Sync), Type::INT8),
                Value::Text(value) => (value as _, Type::TEXT),
                Value::Bytes(value) => (value as _, Type::BYTEA),
            })
            .collect()
    }

    async fn rows(&self, client: &Client) -> Result<Vec<Row>, StoreError> {
        let values = self.typed();
        let rows = in_time(client.query_typed(&self.text, &values)).await?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    async fn change(&self, client: &Client) -> Result<u64, StoreError> {
        let values = self.typed();
        in_time(client.execute_typed(&self.text, &values)).await
    }
}

/// Inserts rows, all of the same columns. On Postgres in one statement, whatever time it takes.
pub(crate) async fn insert_many(
    conn: Conn<'_>,
    table: &str,
    columns: &[&str],
    rows: Vec<Vec<Value>>,
) -> Result<(), StoreError> {
    let places: Vec<String> = (1..=columns.len())
        .map(|place| format!("${place}"))
        .collect();
    let (names, places) = (columns.join(", "), places.join(", "));
    match conn {
        Conn::Sqlite(conn) => {
            let text = format!("INSERT INTO {table} ({names}) VALUES ({places})");
            for values in rows {
                let row = Query {
                    text: Cow::Owned(text.clone()),
                    values,
                };
                row.execute(Conn::Sqlite(&mut *conn)).await?;
            }
        }
        Conn::Postgres(client) => {
            let text = format!("INSERT INTO {table} ({names}) SELECT * FROM unnest({places})");
            let mut arrays: Vec<Array> = Vec::new();
            for row in rows {
                for (place, value) in row.into_iter().enumerate() {
                    if arrays.len() == place {
                        arrays.push(Array::of_kind(&value));
                    }
                    arrays[place].push(value);
                }
            }
            let values: Vec<(&(dyn ToSql + Sync), Type)> =
                arrays.iter().map(Array::typed).collect();
            client.execute_typed(&text, &values).await?;
        }
    }
    Ok(())
}

/// The values of one column.
enum Array {
    Integer(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Array {
    const fn of_kind(value: &Value) -> Self {
        match value {
            Value::Integer(_) => Self::Integer(Vec::new()),
            Value::Text(_) => Self::Text(Vec::new()),
            Value::Bytes(_) => Self::Bytes(Vec::new()),
        }
    }

    /// The caller has seen to it that a column's values are of one kind.
    fn push(&mut self, value: Value) {
        match (self, value) {
            (Self::Integer(values), Value::Integer(value)) => values.push(value),
            (Self::Text(values), Value::Text(value)) => values.push(value),
            (Self::Bytes(values), Value::Bytes(value)) => values.push(value),
            _ => {}
        }
    }

    fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Integer(values) => (values, Type::INT8_ARRAY),
            Self::Text(values) => (values, Type::TEXT_ARRAY),
            Self::Bytes(values) => (values, Type::BYTEA_ARRAY),
        }
    }
}

/// Waits for an answer of Postgres, but not for ever.
pub(crate) async fn in_time<T>(
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(STATEMENT, answer)
        .await
        .map_err(|_| DatabaseError::Late(STATEMENT))?
        .map_err(StoreError::from)
}

fn sqlite_rows(rows: Vec<SqliteRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Sqlite).collect()
}

/// One row of a result.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(tokio_postgres::Row),
}

impl Row {
    /// Reads a column.
    pub(crate) fn try_get<'r, T: Column<'r>>(
        &'r self,
        column: impl Index,
    ) -> Result<T, StoreError> {
        let value = match self {
            Self::Sqlite(row) => row.try_get(column).ok(),
            Self::Postgres(row) => row.try_get(column).ok(),
        };
        value.ok_or(StoreError::Corrupt { what: "row" })
    }
}

/// A column's name or place.
pub(crate) trait Index:
    sqlx::ColumnIndex<SqliteRow> + tokio_postgres::row::RowIndex + std::fmt::Display
{
}

impl<T: sqlx::ColumnIndex<SqliteRow> + tokio_postgres::row::RowIndex + std::fmt::Display> Index
    for T
{
}

/// A type that a column can be read as: `i64`, text, bytes, or an option of those.
pub(crate) trait Column<'r>:
    sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + FromSql<'r>
{
}

impl<'r, T> Column<'r> for T where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + FromSql<'r>
{
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_owned()))
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

impl From<&Vec<u8>> for Value {
    fn from(value: &Vec<u8>) -> Self {
        Self::Bytes(Some(value.clone()))
    }
}
