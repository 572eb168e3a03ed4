//! A door with one good key and one that ran out, over rules that went through the catalog.

use std::future::Future;
use std::sync::{Arc, LazyLock};

use tokio::sync::watch;
use weft_broker::access::key::Hasher;
use weft_broker::access::{Access, Rules, Settings};
use weft_broker::audit::Audit;
use weft_broker::catalog::{State, encode};
use weft_proto::internal::catalog_command::Change;
use weft_proto::{Timestamp, internal, v1};

/// The key of `key:shop/writer`.
pub const KEY: &str =
    "weft_abcdefghijkm_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// A key that ran out long ago.
pub const LATE: &str =
    "weft_zyxwvutsrqpn_ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";
/// Whose the good key is.
pub const WRITER: &str = "key:shop/writer";

/// A change of the catalog; says whether it was made.
pub fn change(state: &mut State, change: Change) -> bool {
    let command = internal::CatalogCommand { change: Some(change), principal: String::new() };
    let now = Timestamp::from_micros(1);
    let applied = state.apply(&encode(&command, now), now).expect("commands of ours apply");
    applied.0.outcome.is_ok()
}

/// Puts a grant or a limit; says whether it was taken.
pub fn put(state: &mut State, kind: &str, namespace: &str, name: &str, spec: &[u8]) -> bool {
    let resource = v1::Resource {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        spec: spec.to_vec().into(),
        ..v1::Resource::default()
    };
    let put = internal::CatalogPut { resource: Some(resource), expected_generation: None };
    change(state, Change::Put(put))
}

fn key(text: &str, name: &str, expires_us: u64) -> internal::CatalogKey {
    internal::CatalogKey {
        id: text.get(5..17).expect("the id").to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        hash: Hasher::new(&[7; 32]).hash(text).into(),
        expires_us,
        ..internal::CatalogKey::default()
    }
}

static RULES: LazyLock<Arc<Rules>> = LazyLock::new(|| {
    let mut state = State::new(1);
    let (key_secret, first) = (vec![7; 32].into(), Some(key(KEY, "writer", 0)));
    let secure = internal::CatalogSecure { key_secret, key: first };
    assert!(change(&mut state, Change::Secure(secure)));
    let late = internal::CatalogAddKey { key: Some(key(LATE, "late", 2)) };
    assert!(change(&mut state, Change::AddKey(late)));
    Arc::new(Rules::of(&state))
});

/// A door that has not refused anybody yet.
pub fn access() -> Access {
    let rules = watch::channel(Arc::clone(&RULES)).1;
    let settings = Settings { enforced: true, ..Settings::default() };
    Access::new(settings, rules, None, Audit::none())
}

/// Waits for what comes at once.
pub fn wait<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}
