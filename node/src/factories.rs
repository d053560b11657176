//! What a node offers to make for others: applications that they have it host.
//!
//! A factory is code of the node's own program: what travels is its name, a name for the application, and a
//! configuration. Who offers none hosts nothing for others.

use std::{collections::BTreeMap, fmt, sync::Arc};

use multinodes_behaviour::wire::MAX_NAME;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    application::{AppError, Application, Context},
    node::Node,
    payload::{Budget, Payload},
    registry::{self, RegisterError},
};

/// Factories that a node offers at the most: their names stand in its record, which every other node keeps.
const MAX_FACTORIES: usize = 64;

/// Applications that others may have a node host: each has a queue, a place in the record, and a configuration here.
const MAX_INSTALLED: usize = 64;

/// The largest configuration, encoded, in bytes. It is kept as long as its application is hosted.
const MAX_CONFIG: usize = 64 * 1024;

/// What a configuration may take in memory: sixteen times its largest size, and 64 MiB for all that may be installed.
const CONFIG_BUDGET: Budget = Budget { values: MAX_CONFIG, bytes: 16 * MAX_CONFIG };

/// What an order has beside the configuration, at the most: two names and the heads of CBOR.
const MAX_NAMES: usize = 2 * MAX_NAME + 64;

/// Under this key the description of the application `node` lists the factories that are offered.
const OFFERED: &str = "installable";

/// Makes an application and hosts it.
type Make = Arc<dyn Fn(&Node, &str, Recipe) -> Result<(), AppError> + Send + Sync>;

/// Makes applications of one kind.
#[derive(Clone)]
pub(crate) struct Factory {
    name: String,
    make: Make,
}

impl Factory {
    pub(crate) fn new<C, A, E>(name: String, make: impl Fn(C) -> Result<A, E> + Send + Sync + 'static) -> Self
    where
        C: DeserializeOwned,
        A: Application,
        E: Into<AppError>,
    {
        let make = move |node: &Node, name: &str, recipe: Recipe| {
            let config = C::deserialize(&recipe.config)
                .map_err(|error| AppError::bad_arguments(format!("`{}`: {error}", recipe.factory)))?;
            let application = make(config).map_err(Into::into)?;
            node.host(name, application, Maker::Factory(recipe)).map_err(refused)
        };
        Self { name, make: Arc::new(make) }
    }
}

impl fmt::Debug for Factory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Factory").field(&self.name).finish()
    }
}

/// How an application was made: what is installed twice by the same recipe is there already.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recipe {
    factory: String,
    config: Value,
}

/// Who has made an application that is hosted: whoever takes it away has to go the same way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Maker {
    /// The node's own program.
    User,
    /// A factory, for others.
    Factory(Recipe),
    /// It is code that others have installed.
    #[cfg(feature = "wasm")]
    Code,
}

/// All factories of a node.
pub(crate) struct Factories {
    by_name: BTreeMap<String, Make>,
    /// Held while an application is made: of two that want the same one, the second finds it made.
    making: Mutex<()>,
}

impl Factories {
    pub(crate) fn new(factories: Vec<Factory>, passive: bool) -> Result<Self, FactoryError> {
        if passive && !factories.is_empty() {
            return Err(FactoryError::Passive);
        }
        if factories.len() > MAX_FACTORIES {
            return Err(FactoryError::TooMany { given: factories.len() });
        }
        let mut by_name = BTreeMap::new();
        for Factory { name, make } in factories {
            if registry::check_name(&name).is_err() {
                return Err(FactoryError::Name { name: shortened(&name) });
            }
            if by_name.insert(name.clone(), make).is_some() {
                return Err(FactoryError::Twice { name });
            }
        }
        Ok(Self { by_name, making: Mutex::default() })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// What the application `node` says to others; see [`is_offered`].
    pub(crate) fn description(&self) -> Value {
        if self.by_name.is_empty() { Value::Null } else { json!({ OFFERED: self.names().collect::<Vec<_>>() }) }
    }

    /// Hosts the application that a factory makes. `Ok` means that it is hosted here, now or since before.
    pub(crate) async fn install(&self, context: &Context, arguments: Payload) -> Result<(), AppError> {
        // Those that wait have not been decoded yet.
        let _making = self.making.lock().await;
        let (factory, name, config) = read_order(&arguments)?;
        let name = name.as_str();
        let make = self.by_name.get(&factory).ok_or_else(|| self.no_such_factory(&factory))?;
        registry::check_name(name).map_err(AppError::bad_arguments)?;
        let size = Payload::encode(&config).map_err(AppError::bad_arguments)?.as_bytes().len();
        if size > MAX_CONFIG {
            return Err(too_large(size));
        }
        let recipe = Recipe { factory, config };
        let node = context.node();
        if let Some(hosted) = node.core().registry.find(name) {
            return if hosted.maker == Maker::Factory(recipe) { Ok(()) } else { Err(taken(name)) };
        }
        if node.core().registry.made_by_factories() >= MAX_INSTALLED {
            let text = format!("{MAX_INSTALLED} applications are installed here, which is the limit");
            return Err(AppError::new("too_many_installed", text));
        }
        let factory = recipe.factory.clone();
        make(node, name, recipe)?;
        tracing::info!(application = %name, %factory, caller = %context.caller(), "an application was installed");
        Ok(())
    }

    fn no_such_factory(&self, name: &str) -> AppError {
        let text = match self.names().map(|name| format!("`{name}`")).collect::<Vec<_>>() {
            none if none.is_empty() => "this node offers no factories".to_owned(),
            some => format!("no factory `{}` is offered here, only {}", shortened(name), some.join(", ")),
        };
        AppError::new("no_such_factory", text)
    }
}

/// Reads which factory is to make what, and of which configuration. What is too large is refused before it is read.
fn read_order(arguments: &Payload) -> Result<(String, String, Value), AppError> {
    let size = arguments.as_bytes().len();
    if size > MAX_CONFIG + MAX_NAMES {
        return Err(too_large(size));
    }
    arguments.decode_arguments_within(CONFIG_BUDGET).map_err(AppError::bad_arguments)
}

fn too_large(size: usize) -> AppError {
    AppError::bad_arguments(format!("the configuration has {size} bytes, the limit is {MAX_CONFIG}"))
}

/// Hosts no longer what a factory has made. Whatever the node's own program has registered stays, and so does code: there
/// a rule says who may install and uninstall.
pub(crate) fn uninstall(context: &Context, name: &str) -> Result<(), AppError> {
    context.node().unhost(name, |maker| matches!(maker, Maker::Factory(_))).map_err(|_| {
        AppError::new("not_installed", format!("no application `{}` was installed here by others", shortened(name)))
    })?;
    tracing::info!(application = %name, caller = %context.caller(), "an application was uninstalled");
    Ok(())
}

/// Whether a node whose application `node` says this offers a factory.
pub(crate) fn is_offered(factory: &str, description: &Value) -> bool {
    description[OFFERED].as_array().is_some_and(|offered| offered.iter().any(|name| name == factory))
}

fn refused(error: RegisterError) -> AppError {
    match error {
        RegisterError::Taken { name } => taken(&name),
        error => AppError::new("not_registered", error.to_string()),
    }
}

fn taken(name: &str) -> AppError {
    let text = format!("another application `{name}` is registered here, or one of another factory or configuration");
    AppError::new("name_taken", text)
}

fn shortened(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Why a factory cannot be offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactoryError {
    /// The name is empty, too long, or has control characters.
    #[error("`{name}` cannot name a factory: 1 to {MAX_NAME} bytes without control characters can")]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// Two factories have one name.
    #[error("a factory `{name}` is offered already")]
    Twice {
        /// The name.
        name: String,
    },
    /// There are too many.
    #[error("{given} factories are too many: a node offers {MAX_FACTORIES} at the most")]
    TooMany {
        /// How many.
        given: usize,
    },
    /// Passive nodes host nothing.
    #[error("a passive node hosts nothing, so it offers no factories")]
    Passive,
}
