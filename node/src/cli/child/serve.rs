//! An application that long-lived child processes serve: one request at a time each, over JSON lines.

use std::sync::Arc;

use multinodes::{AppError, Application, Context, Payload, Profile};

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
        let json = super::list(&arguments)?;
        let id = self.pool.next_id();
        let caller = context.caller().to_base58();
        let line = protocol::call(id, action, json, &caller);
        drop(arguments);
        match self.pool.call(id, line.into(), context).await? {
            Reply::Answered(Ok(result)) => Ok(result),
            Reply::Answered(Err(error)) => Err(error.of(action)),
            Reply::Broken(error) => Err(error),
            Reply::NotTaken => Err(AppError::busy("no process has taken it")),
        }
    }

    async fn process(&self, context: Context, message: Payload) -> Result<(), AppError> {
        let json = message.json().map_err(AppError::bad_arguments)?;
        let id = self.pool.next_id();
        let caller = context.caller().to_base58();
        let line = protocol::tell(id, json, &caller);
        drop(message);
        match self.pool.tell(id, line.into(), context).await? {
            Reply::Answered(Ok(_)) => Ok(()),
            Reply::Answered(Err(error)) => Err(error.of("tell")),
            Reply::Broken(error) => Err(error),
            Reply::NotTaken => Err(AppError::busy("no process has taken it")),
        }
    }
}
