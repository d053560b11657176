//! The functions of `wit/node.wit` that a guest can call.

use wasmtime::{
    Engine,
    component::{Linker, LinkerInstance},
};

use super::guest::{Caller, Guest};

/// The longest line for the log that is passed on, in bytes; of a longer one the beginning is.
const MAX_LOG: usize = 4096;

type Answer = (Result<Vec<u8>, String>,);
type Done = (Result<(), String>,);

/// Links all of them.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    host(linker.instance("multinodes:guest/host@0.1.0")?)?;
    this(linker.instance("multinodes:guest/this@0.1.0")?)?;
    Ok(linker)
}

fn host(mut host: LinkerInstance<'_, Guest>) -> wasmtime::Result<()> {
    host.func_wrap_async(
        "call",
        |mut guest: Caller<'_>, (application, action, arguments): (String, String, Vec<u8>)| {
            Box::new(async move {
                let guest = guest.data_mut();
                guest.ask()?;
                let answer = guest.away(guest.surroundings.call(application, action, arguments));
                Ok::<Answer, _>((answer.await,))
            })
        },
    )?;
    host.func_wrap_async("tell", |mut guest: Caller<'_>, (application, message): (String, Vec<u8>)| {
        Box::new(async move {
            let guest = guest.data_mut();
            guest.ask()?;
            let done = guest.away(guest.surroundings.tell(application, message));
            Ok::<Done, _>((done.await,))
        })
    })?;
    host.func_wrap("describe-node", |mut guest: Caller<'_>, (): ()| {
        guest.data_mut().ask()?;
        Ok((guest.data().surroundings.describe_node(),))
    })?;
    host.func_wrap("log", |mut guest: Caller<'_>, (mut text,): (String,)| {
        guest.data_mut().ask()?;
        text.truncate(text.floor_char_boundary(MAX_LOG));
        guest.data().surroundings.log(text);
        Ok(())
    })
}

fn this(mut this: LinkerInstance<'_, Guest>) -> wasmtime::Result<()> {
    this.func_wrap("name", |mut guest: Caller<'_>, (): ()| {
        guest.data_mut().ask()?;
        Ok((guest.data().surroundings.this_name(),))
    })?;
    this.func_wrap_async("call", |mut guest: Caller<'_>, (action, arguments): (String, Vec<u8>)| {
        Box::new(async move {
            let guest = guest.data_mut();
            guest.ask()?;
            let answer = guest.away(guest.surroundings.this_call(action, arguments));
            Ok::<Answer, _>((answer.await,))
        })
    })?;
    this.func_wrap_async("tell", |mut guest: Caller<'_>, (message,): (Vec<u8>,)| {
        Box::new(async move {
            let guest = guest.data_mut();
            guest.ask()?;
            let done = guest.away(guest.surroundings.this_tell(message));
            Ok::<Done, _>((done.await,))
        })
    })
}
