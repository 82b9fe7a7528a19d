//! The REST API as the commands see it: which server, which key, and refusals as [`Failure`]s.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::data_dir::{DataDir, Record};
use crate::failure::Failure;
use crate::logins::Logins;
use crate::units::SetName;

/// Which server and key to use, from the options and variables that every command takes.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
pub(crate) struct Connection {
    /// The server's API [default: the one that this data directory recorded, else <http://127.0.0.1:8181>]
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_URL",
        value_name = "URL",
        help_heading = "Server"
    )]
    pub(crate) url: Option<String>,

    /// A file that holds the key; `CLAVIGER_KEY` holds the key itself [default: DIR/admin.key]
    #[arg(
        long,
        global = true,
        env = "CLAVIGER_KEY_FILE",
        value_name = "FILE",
        help_heading = "Server"
    )]
    pub(crate) key_file: Option<PathBuf>,

    /// The data directory of a server on this machine [default: the platform's place for data] [env: CLAVIGER_DATA]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Server")]
    pub(crate) data: Option<PathBuf>,
}

/// Whose key the commands act with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Person,
    Agent,
}

/// A server and the right to speak to it.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    bearer: Zeroizing<String>,
    caller: Caller,
    record: Option<Record>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

/// Bytes of a path segment that cannot be mistaken for structure.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// No answer of the API is longer than this, the audit export aside, which is streamed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// For how long a command waits by itself where it is asked to.
const A_MOMENT: Duration = Duration::from_secs(5);

impl Connection {
    /// The data directory that this invocation means.
    pub(crate) fn data_dir(&self) -> Result<DataDir, Failure> {
        // The variable is read here and not by clap, so that `config check` can tell it from the option.
        DataDir::or_default(
            self.data
                .clone()
                .or_else(|| std::env::var_os("CLAVIGER_DATA").map(PathBuf::from)),
        )
    }

    /// The API's address, and the local server's record if it is that one.
    pub(crate) fn server(&self) -> Result<(String, Option<Record>), Failure> {
        let record = self.data_dir().ok().and_then(|data| data.record());
        if let Some(url) = &self.url {
            let url = base_url(url)?;
            let record = record.filter(|record| url == format!("http://{}", record.api));
            return Ok((url, record));
        }
        let url = record.as_ref().map_or_else(
            || "http://127.0.0.1:8181".to_owned(),
            |record| format!("http://{}", record.api),
        );
        Ok((url, record))
    }

    /// The key: `CLAVIGER_KEY`, else a file named, else the data directory's `admin.key`, else that of a sign-in.
    pub(crate) fn key(&self) -> anyhow::Result<Zeroizing<String>> {
        if let Ok(key) = std::env::var("CLAVIGER_KEY")
            && !key.trim().is_empty()
        {
            return Ok(Zeroizing::new(key.trim().to_owned()));
        }
        if let Some(file) = &self.key_file {
            return read_key(file);
        }
        let data = self.data_dir()?;
        let (url, record) = self.server()?;
        // The key of the server on this machine is not sent to another, where somebody has signed in.
        let is_elsewhere = self.url.is_some() && record.is_none();
        if (is_elsewhere || !data.admin_key().exists())
            && let Some(login) = Logins::read()?.of(&url)
        {
            return Ok(Zeroizing::new(login.key.clone()));
        }
        if !data.admin_key().exists() {
            return Err(Failure::new(format!("no key: CLAVIGER_KEY is not set and {} does not exist", data.admin_key().display()))
                .code("no_key")
            .hint("start a server with `claviger serve`, sign in to one with `claviger login`, or set CLAVIGER_URL and CLAVIGER_KEY (or CLAVIGER_KEY_FILE)")
                .into());
        }
        read_key(&data.admin_key())
    }

    /// Asks for something that everybody may have.
    pub(crate) async fn public(&self, path: &str) -> anyhow::Result<Response> {
        let (base, _) = self.server()?;
        let request = http()?.get(format!("{base}{path}")).timeout(TIMEOUT);
        Ok(request
            .send()
            .await
            .map_err(|error| unreachable(&base, &error))?)
    }

    /// A client without any key, for what signs somebody in.
    pub(crate) fn nobody(&self) -> anyhow::Result<Client> {
        let (base, _) = self.server()?;
        Ok(Client {
            http: http()?,
            base,
            bearer: Zeroizing::default(),
            caller: Caller::Person,
            record: None,
        })
    }

    /// A client with its key; an agent's key is turned into a token first.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let (base, record) = self.server()?;
        let key = self.key()?;
        Client::new(base, key, record).await
    }
}

impl Client {
    /// Speaks to `base` with a personal key, an agent's key, or a token.
    pub(crate) async fn new(
        base: String,
        key: Zeroizing<String>,
        record: Option<Record>,
    ) -> anyhow::Result<Self> {
        let http = http()?;
        let caller = if key.starts_with("ocv_") {
            Caller::Agent
        } else {
            Caller::Person
        };
        let mut client = Self {
            http,
            base,
            bearer: key,
            caller,
            record,
        };
        if caller == Caller::Agent {
            let answer = client
                .post(
                    "/v1/auth/agent-token",
                    &json!({ "api_key": client.bearer.as_str() }),
                )
                .await?;
            client.bearer = Zeroizing::new(text(&answer, "access_token").to_owned());
        }
        Ok(client)
    }

    pub(crate) fn caller(&self) -> Caller {
        self.caller
    }

    /// What the local server recorded, if the client speaks to it.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::GET, path)).await
    }

    /// A POST under an idempotency key of its own.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self
            .request(Method::POST, path)
            .header("idempotency-key", nonce()?)
            .json(body);
        self.json(request).await
    }

    /// A POST that is done at most once, without an idempotency key, and whose answer may take `patience`.
    pub(crate) async fn post_once(
        &self,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path).timeout(patience);
        self.json(request.json(body)).await
    }

    /// A POST of nobody: what it brings is in its body. A sign-in is several of them, and an address may ask once a second: what the
    /// server holds back for a moment was not looked at, and is sent again when it says.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut patience = A_MOMENT;
        loop {
            let request = self.http.post(format!("{}{path}", self.base));
            let answer = self.json(request.timeout(TIMEOUT).json(body)).await;
            let failure = answer.as_ref().err().and_then(|error| error.downcast_ref());
            match failure.and_then(Failure::wait) {
                Some(wait) if wait <= patience => {
                    patience -= wait;
                    tokio::time::sleep(wait).await;
                }
                _ => return answer,
            }
        }
    }

    /// The same server, asked with a token.
    pub(crate) fn as_holder_of(&self, token: Zeroizing<String>) -> Self {
        Self {
            http: self.http.clone(),
            base: self.base.clone(),
            bearer: token,
            caller: Caller::Person,
            record: None,
        }
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::PATCH, path).json(body))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.json(self.request(Method::DELETE, path))
            .await
            .map(drop)
    }

    /// An answer whose body is read by the caller as it comes; no time bound on the whole.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<Response> {
        let request = self
            .request(Method::GET, path)
            .timeout(Duration::from_hours(24));
        self.answer(request).await
    }

    /// All items of a list, page by page.
    pub(crate) async fn all(&self, path: &str, plural: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = None::<String>;
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let after = cursor
                .as_deref()
                .map_or_else(String::new, |cursor| format!("&cursor={}", segment(cursor)));
            let mut page = self.get(&format!("{path}{joint}limit=200{after}")).await?;
            if let Some(Value::Array(found)) = page.get_mut(plural).map(Value::take) {
                items.extend(found);
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) if cursor.as_deref() != Some(next) => cursor = Some(next.to_owned()),
                _ => return Ok(items),
            }
        }
    }

    /// The secret set of this name.
    pub(crate) async fn set(&self, name: &SetName) -> anyhow::Result<Value> {
        let found = self.all("/v1/vault/secret-sets", "secret_sets").await?;
        let is_it = |set: &Value| {
            text(set, "provider") == name.provider
                && text(set, "environment") == name.environment
                && text(set, "name") == name.name
        };
        found.into_iter().find(is_it).ok_or_else(|| {
            Failure::new(format!("there is no secret set {name}"))
                .code("not_found")
                .hint(format!("`claviger set list` shows those there are; `claviger set put {name} KEY=-` makes it"))
                .into()
        })
    }

    /// The agent of this id or name.
    pub(crate) async fn agent(&self, name: &str) -> anyhow::Result<Value> {
        if name.starts_with("agt_") {
            return self.get(&format!("/v1/agents/{}", segment(name))).await;
        }
        let found = self.all("/v1/agents", "agents").await?;
        found.into_iter().find(|agent| text(agent, "name") == name).ok_or_else(|| {
            Failure::new(format!("there is no agent `{}`", crate::output::clean(name)))
                .code("not_found")
                .hint(format!("`claviger agent list` shows those there are; `claviger agent create {name}` makes it"))
                .into()
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(self.bearer.as_str())
            .timeout(TIMEOUT)
    }

    async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.answer(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        response
            .json()
            .await
            .with_context(|| format!("{} answered what is no JSON", self.base))
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request
            .send()
            .await
            .map_err(|error| unreachable(&self.base, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = response.headers().get(RETRY_AFTER);
        let wait = wait.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        let problem = response.json::<Value>().await.unwrap_or(Value::Null);
        let failure = self.refused(status, &problem);
        Err(match wait {
            Some(seconds) if status == StatusCode::TOO_MANY_REQUESTS => {
                failure.after(Duration::from_secs(seconds))
            }
            _ => failure,
        }
        .into())
    }

    fn refused(&self, status: StatusCode, problem: &Value) -> Failure {
        let detail = [text(problem, "detail"), text(problem, "title")]
            .into_iter()
            .find(|text| !text.is_empty());
        let reason =
            detail.map_or_else(|| format!("{} answered {status}", self.base), str::to_owned);
        let code = text(problem, "error");
        Failure::new(reason)
            .code(if code.is_empty() { "refused" } else { code })
            .hint(next_action(status, code))
    }
}

fn http() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        // The proxy of the environment may be the injector itself.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .user_agent(concat!("claviger/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("the HTTP client cannot start")
}

fn unreachable(base: &str, error: &reqwest::Error) -> Failure {
    // reqwest's own text repeats the URL; its cause is what helps.
    let cause =
        std::iter::successors(std::error::Error::source(error), |cause| cause.source()).last();
    let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
    Failure::new(format!("no server answers at {base}: {cause}"))
        .code("unreachable")
        .hint("start one with `claviger serve`, or set CLAVIGER_URL to one that runs")
}

fn next_action(status: StatusCode, code: &str) -> &'static str {
    match (status.as_u16(), code) {
        (401, _) => {
            "the key is unknown to this server: check CLAVIGER_KEY, CLAVIGER_KEY_FILE and CLAVIGER_URL, or sign in again with `claviger login`"
        }
        (403, "minting_paused") => {
            "`claviger kill-switch status` shows who paused what, and since when"
        }
        (403, "policy_denied") => {
            "`claviger policy explain` says which policy decides; a person makes one with `claviger policy create`"
        }
        (403, "resource_limit_exceeded") => {
            "`claviger usage` shows how it stands; the operator gives more with `claviger quota set`"
        }
        (403, "address_denied") => {
            "`claviger ip-rule list`, from an address that is let in, shows the rules"
        }
        (403, "identity_not_admitted") => {
            "an owner or admin invites with `claviger member invite`; the server's section `oidc` says whom it lets in"
        }
        (409, "identity_not_linked") => {
            "sign in as before, with `claviger login --email`, then run `claviger account link`"
        }
        (403, "forbidden") => {
            "`claviger whoami` shows whose key this is and its role; an owner or admin changes roles with `claviger member role`"
        }
        (403, "export_denied") => {
            "what leaves in plaintext takes a word more: `--export` for a share, a grant with export_plaintext for a lease"
        }
        (403, _) => {
            "`claviger grant list` shows what is granted; a person grants more with `claviger grant create`"
        }
        (404, "oidc_not_configured") => {
            "sign in with `claviger login --email`; an operator sets the section `oidc`, which `claviger config check` shows"
        }
        (404, _) => {
            "`claviger set list`, `agent list`, `grant list` and `lease list` show what there is"
        }
        (409, "name_taken") => {
            "it is there already: choose another name, or change the one there is"
        }
        (409, _) => "nothing was changed: look at it as it stands now, then decide anew",
        (429, _) => "wait a moment and try again",
        (500..=599, _) => "the server's log has the cause; `claviger doctor` looks for it",
        _ => "mend what the reason names, then run the command again",
    }
}

/// A string field, or the empty string.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A path segment or query value, percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn base_url(url: &str) -> Result<String, Failure> {
    let trimmed = url.trim().trim_end_matches('/');
    let parsed = reqwest::Url::parse(trimmed)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match parsed {
        Some(_) => Ok(trimmed.to_owned()),
        None => Err(Failure::new("the server's URL is no http or https URL")
            .hint("set CLAVIGER_URL as http://127.0.0.1:8181")),
    }
}

fn read_key(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let failure = |error: std::io::Error| {
        Failure::new(format!(
            "cannot read the key file {}: {error}",
            path.display()
        ))
        .hint(
            "name a readable file with CLAVIGER_KEY_FILE, or start a server with `claviger serve`",
        )
    };
    let mode = fs::metadata(path).map_err(failure)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::new(format!(
            "{} is readable by others (mode {:04o})",
            path.display(),
            mode & 0o7777
        ))
        .hint(format!("run `chmod 600 {}`", path.display()))
        .into());
    }
    let content = Zeroizing::new(fs::read_to_string(path).map_err(failure)?);
    Ok(Zeroizing::new(content.trim().to_owned()))
}

fn nonce() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_slash_and_need_a_scheme() {
        assert_eq!(
            base_url("http://127.0.0.1:8181/").unwrap(),
            "http://127.0.0.1:8181"
        );
        assert!(base_url("127.0.0.1:8181").is_err());
        assert!(base_url("ftp://host").is_err());
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(segment("../a?b#c/d e"), "..%2Fa%3Fb%23c%2Fd%20e");
    }

    #[test]
    fn a_key_file_open_to_others_is_refused_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "1ck_x\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_key(&path).unwrap_err();
        assert!(
            error
                .downcast_ref::<Failure>()
                .unwrap()
                .next_action()
                .unwrap()
                .starts_with("run `chmod 600")
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_key(&path).unwrap().as_str(), "1ck_x");
    }
}
