//! The first start: an organisation, its vault, a person with a key, and the keys of the service. Later starts find them.

use leases::clock::Clock;
use leases::id::{OrgId, VaultId};
use store::{
    Actor, CheckpointSigner, CreateUserError, NewUser, NewVault, PageRequest, Role, Store,
    StoreError,
};
use vault::{KeyError, Secret, Vault};
use zeroize::Zeroizing;

use crate::api_key::{ApiKey, KeyHolder};
use crate::jwt::JwtKey;
use crate::keys::{AUDIT_CHECKPOINT, JWT, KeyChest, KeyChestError, KeyRing, NewKey};

/// What a start finds or makes.
#[derive(Debug)]
pub struct Bootstrapped {
    /// The organisation made first.
    pub org: OrgId,
    /// The first person's key, at the first start alone. Write it where its owner finds it: it is shown once.
    pub admin_key: Option<ApiKey>,
    /// The lease root keys.
    pub keys: KeyRing,
    /// The key of agents' tokens.
    pub jwt: JwtKey,
    /// Signs the heads of the audit chain: for `store.audit().start_checkpoints(..)`.
    pub checkpoints: CheckpointSigner,
    /// Opens and makes further keys, such as the certificate authority's.
    pub chest: KeyChest,
}

/// Why a start fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// The key provider gave no key for the default vault.
    #[error("the key provider made no key for the default vault")]
    Kek(#[from] KeyError),
    /// A key of the service cannot be had.
    #[error(transparent)]
    Keys(#[from] KeyChestError),
    /// The first person cannot be made.
    #[error("the first person cannot be made")]
    Admin(#[from] CreateUserError),
    /// There is nobody to give a key to.
    #[error("the store has no person named `{ADMIN}`; start the server once to make it")]
    NoAdmin,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes what a first start needs and finds it again at every later one. Safe to repeat after a crash at any point.
///
/// # Errors
/// [`BootstrapError`].
pub async fn bootstrap(
    store: &Store,
    vault: &Vault,
    clock: &dyn Clock,
) -> Result<Bootstrapped, BootstrapError> {
    let org = store.orgs().ensure_first_org("default").await?.id;
    ensure_vault(store, vault, &org, clock).await?;
    let chest = KeyChest::of(store, vault, &org).await?;
    let keys = KeyRing::load_or_create(&chest).await?;
    let jwt = chest.load_or_create(JWT, |_| new_seed()).await?;
    let jwt = JwtKey::from_secret_bytes(jwt.secret.expose()).map_err(|_| malformed(JWT))?;
    let seed = chest
        .load_or_create(AUDIT_CHECKPOINT, |_| new_seed())
        .await?;
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
        seed.secret
            .expose()
            .try_into()
            .map_err(|_| malformed(AUDIT_CHECKPOINT))?,
    );
    let checkpoints = CheckpointSigner::from_seed(&seed);
    let admin_key = ensure_admin(store, &org).await?;
    Ok(Bootstrapped {
        org,
        admin_key,
        keys,
        jwt,
        checkpoints,
        chest,
    })
}

/// Ends the first person's keys and makes another: for an operator who lost the file.
///
/// # Errors
/// [`BootstrapError::NoAdmin`], [`BootstrapError::Store`].
pub async fn reissue_admin_key(store: &Store, org: &OrgId) -> Result<ApiKey, BootstrapError> {
    let people = store
        .users()
        .list(org, &PageRequest::default())
        .await?
        .items;
    let admin = people
        .into_iter()
        .find(|user| user.name == ADMIN)
        .ok_or(BootstrapError::NoAdmin)?;
    let actor = Actor::system("operator");
    store.users().revoke_keys(org, &admin.id, &actor).await?;
    let key = ApiKey::generate(KeyHolder::Person);
    store
        .users()
        .add_key(org, &admin.id, &key.hash(), &actor)
        .await?;
    Ok(key)
}

async fn ensure_vault(
    store: &Store,
    vault: &Vault,
    org: &OrgId,
    clock: &dyn Clock,
) -> Result<(), BootstrapError> {
    if store.vaults().default_vault(org).await?.is_some() {
        return Ok(());
    }
    let id = VaultId::new(clock.now());
    // The key first: a vault row without a key could never be written to, a key without a row harms nobody.
    let kek = vault.wrapper().create_kek(id.as_str()).await?;
    store
        .vaults()
        .ensure_default(
            org,
            NewVault {
                id,
                kek_id: kek.to_string(),
            },
        )
        .await?;
    Ok(())
}

/// Makes the first person, once: nobody can become it by being early, because the key goes to a file of the operator's alone.
async fn ensure_admin(store: &Store, org: &OrgId) -> Result<Option<ApiKey>, BootstrapError> {
    if !store
        .users()
        .list(
            org,
            &PageRequest {
                limit: 1,
                cursor: None,
            },
        )
        .await?
        .items
        .is_empty()
    {
        return Ok(None);
    }
    let actor = Actor::system("bootstrap");
    let admin = match store
        .users()
        .create(
            org,
            NewUser {
                name: ADMIN.to_owned(),
                role: Role::Admin,
            },
            &actor,
        )
        .await
    {
        Ok(admin) => admin,
        Err(CreateUserError::NameTaken) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let key = ApiKey::generate(KeyHolder::Person);
    store
        .users()
        .add_key(org, &admin.id, &key.hash(), &actor)
        .await?;
    Ok(Some(key))
}

fn new_seed() -> NewKey {
    let seed = JwtKey::generate();
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(
        seed.as_slice()
            .try_into()
            .expect("a generated seed has 32 bytes"),
    );
    let public = ed25519_dalek::SigningKey::from_bytes(&bytes)
        .verifying_key()
        .to_bytes()
        .to_vec();
    NewKey {
        secret: Secret::from(seed),
        public,
    }
}

fn malformed(name: &str) -> KeyChestError {
    KeyChestError::Malformed {
        name: name.to_owned(),
    }
}

const ADMIN: &str = "admin";
