//! A service with its own store, and the calls of its clients. Deliveries are attempted when a test says so.

use std::{any::Any, collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use drystone::{
    Reason,
    notification::v1::{
        Delivery, ListDeliveriesRequest, Recipient, SendRequest, SendResponse,
        notification_service_server::NotificationService,
    },
};
use drystone_backends::Postgres;
use drystone_mesh::{
    call::{self, Call, CallFields, Client},
    clock::Clock,
    error::reason_of,
    limit::LimiterFactory,
    telemetry::{Metrics, TraceContext},
    token::Principal,
};
use drystone_store::{
    Db, Location,
    sealing::{MasterKeys, Sealer},
};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{Config, Deps, MIGRATIONS, NotificationStore, Service, dispatch::Dispatcher};

/// Messages about the product, which users can switch off.
const NEWS: [(&str, &str); 2] = [
    (
        "template.toml",
        r#"
        category = "product"
        channels = ["mail", "inbox", "webhook"]
        senders = ["shop"]
        [parameters.word]
        kind = "text"
        sample = "sample"
        "#,
    ),
    (
        "en.toml",
        r#"
        subject = "News: {{ word }}"
        paragraphs = ["Hello {{ name }}", "{{ word }}"]
        inbox = { title = "News", body = "{{ word }}" }
        "#,
    ),
];

/// A database, and what keeps it.
pub(super) type Database = (Location, Box<dyn Any + Send + Sync>);

pub(super) async fn sqlite() -> Database {
    let directory = TempDir::new().unwrap();
    (Location::File(directory.path().join("notification.db")), Box::new(directory))
}

pub(super) async fn postgres() -> Database {
    let database = Postgres::shared().await.database().await;
    (Location::server("notification", database.as_str()).unwrap(), Box::new(database))
}

/// Runs tests on each engine.
macro_rules! on_each_engine {
    ($($test:ident,)+) => {
        on_each_engine! { sqlite: $($test,)+ }
        on_each_engine! { postgres: $($test,)+ }
    };
    ($engine:ident: $($test:ident,)+) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let database = crate::tests::fixture::$engine().await;
                    super::$test(crate::tests::fixture::Fixture::new(database).await).await;
                }
            )+
        }
    };
}
pub(super) use on_each_engine;

pub(super) struct Fixture {
    pub(super) service: Service,
    pub(super) store: NotificationStore,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
    pub(super) directory: Arc<TempDir>,
    location: Location,
    database: Arc<Box<dyn Any + Send + Sync>>,
}

impl Fixture {
    /// Mails are written into files.
    pub(super) async fn new((location, database): Database) -> Self {
        let directory = TempDir::new().unwrap();
        for (file, text) in NEWS {
            let path = directory.path().join("templates/news").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let clock = Clock::manual(Clock::system().now());
        Self::start(Arc::new(directory), location, Arc::new(database), clock, |_| ()).await
    }

    /// Another instance on the same database, with another configuration.
    pub(super) async fn another(&self, change: impl FnOnce(&mut Config)) -> Self {
        let (directory, location) = (Arc::clone(&self.directory), self.location.clone());
        Self::start(directory, location, Arc::clone(&self.database), self.clock.clone(), change).await
    }

    async fn start(
        directory: Arc<TempDir>,
        location: Location,
        database: Arc<Box<dyn Any + Send + Sync>>,
        clock: Clock,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config { templates: directory.path().join("templates"), ..Config::default() };
        change(&mut config);
        config.check().unwrap();
        let store = NotificationStore::new(Db::open(location.clone(), MIGRATIONS).await.unwrap());
        let keys = MasterKeys::parse("test AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let (metrics, stop) = (Metrics::default(), CancellationToken::new());
        let (service, _housekeeping) = Service::assemble(Deps {
            store: store.clone(),
            templates: config.load_templates().unwrap(),
            sealer: Sealer::new(Arc::new(keys)),
            limits: LimiterFactory::in_process(&metrics),
            mail_folder: directory.path().join("mail"),
            config,
            clock: clock.clone(),
            metrics,
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            stop_serving: stop.clone(),
        })
        .unwrap();
        Self { service, store, clock, stop, directory, location, database }
    }

    pub(super) async fn send(&self, sender: &str, request: SendRequest) -> Result<Vec<Delivery>, Status> {
        let sent = NotificationService::send(&self.service, by_workload(sender, request)).await;
        sent.map(|response: Response<SendResponse>| response.into_inner().deliveries)
    }

    /// All deliveries, newest first.
    pub(super) async fn deliveries(&self, filter: &str) -> Vec<Delivery> {
        let request = ListDeliveriesRequest { filter: filter.to_owned(), page_size: 200, ..Default::default() };
        self.service.list_deliveries(by_workload("operator", request)).await.unwrap().into_inner().deliveries
    }

    pub(super) fn dispatcher(&self) -> &Dispatcher {
        &self.service.sending().dispatcher
    }

    /// Attempts what is due now. Returns how many deliveries that were.
    pub(super) async fn attempt(&self) -> usize {
        self.dispatcher().run_once().await
    }

    /// The mails in the folder, in the order of their names.
    pub(super) fn mails(&self) -> Vec<String> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(self.directory.path().join("mail")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort_unstable();
        paths.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }
}

pub(super) fn ada() -> Recipient {
    Recipient {
        user_id: Uuid::now_v7().to_string(),
        email: "ada@example.com".to_owned(),
        display_name: "Ada".to_owned(),
        locale: String::new(),
    }
}

/// A message about the product.
pub(super) fn news(recipient: Recipient) -> SendRequest {
    SendRequest {
        message_id: Uuid::now_v7().to_string(),
        template: "news".to_owned(),
        parameters: [("word".to_owned(), "spring".to_owned())].into(),
        recipient: Some(recipient),
        expire_time: None,
    }
}

/// A message with a secret link.
pub(super) fn reset(recipient: Recipient) -> SendRequest {
    let parameters = [("link", "https://id.example.com/reset?token=s3cret"), ("minutes", "30")];
    SendRequest {
        template: "password_reset".to_owned(),
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..news(recipient)
    }
}

/// A request of this workload after the server stack.
pub(super) fn by_workload<T>(workload: &str, message: T) -> Request<T> {
    let caller = format!("spiffe://drystone.local/service/{workload}").parse().unwrap();
    with_call(message, CallFields { caller: Some(caller), ..fields() })
}

/// A request of this user after the server stack.
pub(super) fn by_user<T>(user: &str, clock: &Clock, message: T) -> Request<T> {
    let now = clock.now();
    let principal = Principal {
        user_id: user.parse().unwrap(),
        session_id: Uuid::now_v7(),
        token_id: Uuid::now_v7(),
        key_id: "key-1".into(),
        issued_at: now,
        expires_at: now + Duration::from_mins(5),
        auth_time: now,
        amr: Vec::new(),
        roles: Vec::new(),
        permissions: Vec::new(),
        properties: BTreeMap::new(),
    };
    with_call(message, CallFields { principal: Some(Arc::new(principal)), ..fields() })
}

fn fields() -> CallFields {
    CallFields {
        request_id: call::new_request_id(),
        trace: TraceContext::new_root(),
        deadline: None,
        caller: None,
        principal: None,
        authorization: None,
        client: Client::default(),
    }
}

fn with_call<T>(message: T, fields: CallFields) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Call::new(fields));
    request
}

/// The reason of an error.
pub(super) fn reason<T>(result: Result<T, Status>) -> Reason {
    reason_of(&result.err().expect("an error")).expect("every error has a reason")
}
