//! The service `{{name}}`. Its API and access rules are in `proto/`, its SQL in `store.rs`.
mod store;
use drystone_mesh::module::{Context, Module, NoConfig, StartError, Started};
use drystone_mesh::{call::Call, clock::Clock, display_name::DisplayName, error::Error, page, server::Server, time};
use drystone_store::{ContextExt, Db, Migration, migration};
use tonic::{Request, Response, Status};
use uuid::Uuid;

drystone::include_contract!();
use acme::{{name}}::v1::{self as api, {{singular}}_service_server as grpc};

/// The service as a module of a binary: `App::new().with({{name}}::module())`.
pub const fn module() -> Module {
    Module::of::<Service>()
}

struct Service(Db, Clock);

impl drystone_mesh::module::Service for Service {
    const NAME: &'static str = "{{name}}";
    const CONTRACT: Option<&'static drystone::contract::EncodedContract> = Some(&CONTRACT);
    const MIGRATIONS: &'static [Migration] = &[migration!("0001", "{{plural}}")];
    type Config = NoConfig;

    async fn start(context: Context<NoConfig>) -> Result<Started, StartError> {
        let node = context.node()?;
        let service = grpc::{{Singular}}ServiceServer::new(Self(context.database()?, node.clock.clone()));
        Ok(Server::new(&node)?.add_service(service).into())
    }
}

type RpcResult<T> = Result<Response<T>, Status>;

// The contract is enforced before a handler runs: there is a user, and every field is valid.
#[tonic::async_trait]
impl grpc::{{Singular}}Service for Service {
    async fn create_{{singular}}(&self, request: Request<api::Create{{Singular}}Request>) -> RpcResult<api::{{Singular}}> {
        let owner = Call::of(&request)?.principal()?.user_id;
        let name = DisplayName::parse(&request.get_ref().display_name)
            .map_err(|error| Error::invalid_field("display_name", error.to_string()))?;
        let row = (Uuid::now_v7(), name.into_string(), time::to_micros(self.1.now()));
        store::insert(&self.0, owner, &row).await?;
        Ok(Response::new(message(row)))
    }

    async fn list_{{plural}}(&self, request: Request<api::List{{Plural}}Request>) -> RpcResult<api::List{{Plural}}Response> {
        let owner = Call::of(&request)?.principal()?.user_id;
        let list = page::List::new("{{plural}}").bound_to(&owner.to_string());
        let page = page::Page::parse(&list, request.get_ref().page_size, &request.get_ref().page_token)?;
        let rows = store::list(&self.0, owner, &page).await?;
        let ({{plural}}, next_page_token) = page::paginate(&list, rows, page.size, |row| row.0, message);
        Ok(Response::new(api::List{{Plural}}Response { {{plural}}, next_page_token }))
    }
}

fn message((id, display_name, created_at): store::Row) -> api::{{Singular}} {
    let create_time = Some(time::to_proto(time::from_micros(created_at)));
    api::{{Singular}} { id: id.to_string(), display_name, create_time }
}
