//! Sealed secrets of the contract `agentex` whose key is gone.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::house::{Catalog, House};
use doorbell_core::keys::{self, Key, Kind};
use doorbell_core::registration::Registration;
use doorbell_core::seal::{Earlier, MasterKey, MasterKeys, SecretName};
use doorbell_core::vault::Vault;
use doorbell_core::{Clock, Secret, Timestamp};
use doorbell_server::contracts::agentex::sweep;
use doorbell_store::MemoryStore;

use crate::world::name;

#[tokio::test]
async fn a_secret_whose_key_is_gone_is_removed_when_it_is_an_hour_old_and_no_other() {
    let clock = Clock::by_hand(Timestamp::from_secs(1_800_000_000));
    let store = MemoryStore::new(&clock);
    let master = Secret::new("0123456789abcdef".repeat(4));
    let master = Arc::new(MasterKeys::new(MasterKey::parse(&master).unwrap(), Vec::new()));
    let vault = Vault::open(Arc::clone(&store) as _, clock.clone(), master).await.unwrap();
    let house = House::open(store, clock.clone(), Catalog::default(), vault).await.unwrap();
    let put = async |text: &str| {
        let name = SecretName::new(text).unwrap();
        house.vault().put(&name, &Secret::new("signs"), Earlier::MustNotBe).await.unwrap();
    };
    let id = keys::new_id(&clock);
    let (_, hash) = keys::new_secret(&id, &clock);
    let key = Key {
        id: id.clone(),
        agent: Some(name("reviewer")),
        name: "agentex github acme/x".into(),
        kind: Kind::External,
        rights: Vec::new(),
        created_at: clock.now(),
        expires_at: None,
        last_used_at: None,
        hash,
        before: None,
    };
    house.store.add_key(key).await.unwrap();
    let agent = Registration {
        name: name("late"),
        acp_url: "http://late".into(),
        acp_type: "async".into(),
        description: String::new(),
        input_type: None,
        metadata: None,
        created_at: clock.now(),
        registered_at: clock.now(),
    };
    house.store.put_registration(agent).await.unwrap();
    let owned = [format!("agentex/reviewer/github/{id}"), "agentex/late/internal/registered".into()];
    for text in ["agentex/reviewer/github/key_gone", "agentex/gone/internal/registered", "user/agentex"] {
        put(text).await;
    }
    for text in &owned {
        put(text).await;
    }
    assert_eq!(sweep(&house).await.unwrap(), 0, "a key that is being made has its secret first");
    clock.advance(Duration::from_secs(3600));
    put("agentex/reviewer/github/key_young").await;
    assert_eq!(sweep(&house).await.unwrap(), 2);
    let left: Vec<String> =
        house.vault().list("agentex").await.unwrap().iter().map(|i| i.name.as_str().to_owned()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(owned.iter().all(|text| left.contains(text)), "{left:?}");
    assert_eq!(house.vault().list("user").await.unwrap().len(), 1);
    assert_eq!(sweep(&house).await.unwrap(), 0);
}
