//! An application that long-lived child processes serve: one request at a time each, over JSON lines.

use std::sync::Arc;

use multinodes::{AppError, Application, Context, Payload, Profile};
use serde_json::Value;

use super::{
    pool::{Pool, Reply},
    protocol,
};

/// The application as the node hosts it.
pub(super) struct Serve {
    pub(super) pool: Arc<Pool>,
    pub(super) profile: Profile,
}

impl Application for Serve {
    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    async fn call(&self, context: Context, action: &str, arguments: Payload) -> Result<Payload, AppError> {
        let arguments: Vec<Value> = arguments.decode().map_err(AppError::bad_arguments)?;
        let id = self.pool.next_id();
        let caller = context.caller().to_base58();
        let line = protocol::call(id, action, &arguments, &caller).map_err(AppError::bad_arguments)?;
        match self.pool.call(id, line, context).await? {
            Reply::Answered(Ok(result)) => Payload::encode(&result).map_err(AppError::of),
            Reply::Answered(Err(error)) => Err(error.of(action)),
            Reply::Broken(error) => Err(error),
            Reply::NotTaken => Err(AppError::busy("no process has taken it")),
        }
    }

    async fn process(&self, context: Context, message: Payload) -> Result<(), AppError> {
        let message = message.to_json().map_err(AppError::bad_arguments)?;
        let id = self.pool.next_id();
        let caller = context.caller().to_base58();
        let line = protocol::tell(id, &message, &caller).map_err(AppError::bad_arguments)?;
        match self.pool.tell(id, line, context).await? {
            Reply::Answered(Ok(_)) => Ok(()),
            Reply::Answered(Err(error)) => Err(error.of("tell")),
            Reply::Broken(error) => Err(error),
            Reply::NotTaken => Err(AppError::busy("no process has taken it")),
        }
    }
}
