//! What an expression sees: values that borrow from the directory, made for one evaluation.

use std::collections::HashMap;

use cel::common::{
    types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
    value::Val,
};
use serde_json::Value;

use crate::{
    description::{ApplicationInfo, Host, NodeInfo},
    permissions::Caller,
};

/// The variables, each with its fields if these are fixed.
pub(super) const NODE: (&str, &[&str]) = ("node", &["name", "peer_id", "version", "labels", "load"]);
pub(super) const APP: (&str, &[&str]) = ("app", &["name", "version", "load", "slots", "actions"]);
pub(super) const DESCRIPTION: &str = "description";

/// Those of a rule.
pub(super) const PEER: (&str, &[&str]) = ("peer", &["id", LABELS]);
pub(super) const APPLICATION: &str = "application";
pub(super) const ACTION: &str = "action";

/// The field of a peer that it has to prove.
pub(super) const LABELS: &str = "labels";

/// The field that changes without a new record.
pub(super) const LOAD: &str = "load";

/// A node, and an application on it if that is what is asked for.
pub(super) struct Subject<'a> {
    pub(super) node: &'a NodeInfo,
    pub(super) application: Option<Application<'a>>,
}

/// An application on a node.
pub(super) struct Application<'a> {
    name: &'a str,
    version: Option<&'a str>,
    slots: Option<u32>,
    actions: &'a [String],
    description: &'a Value,
}

/// Which variables an expression uses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Variables {
    pub(super) node: bool,
    pub(super) app: bool,
    pub(super) description: bool,
    pub(super) peer: bool,
    /// What is asked for.
    pub(super) request: bool,
}

impl<'a> Caller<'a> {
    /// The variables that are used, with their values.
    pub(super) fn values(&self, used: &Variables) -> Vec<(&'static str, Boxed<'a>)> {
        let mut values = Vec::new();
        if used.peer {
            let labels = map(self.labels.iter().map(|(key, value)| (key.as_str(), text(value))));
            values.push((
                PEER.0,
                map([("id", Box::new(CelString::from(self.peer_id.to_base58())) as _), (LABELS, labels)]),
            ));
        }
        if used.request {
            values.extend([(APPLICATION, text(self.application)), (ACTION, text(self.action))]);
        }
        values
    }
}

pub(super) type Boxed<'a> = Box<dyn Val + 'a>;

impl<'a> Subject<'a> {
    pub(super) fn of(node: &'a NodeInfo, application: &'a ApplicationInfo) -> Self {
        let ApplicationInfo { name, version, description, actions, slots, .. } = application;
        let application = Application { name, version: version.as_deref(), slots: *slots, actions, description };
        Self { node, application: Some(application) }
    }

    pub(super) fn of_host(host: &'a Host, application: &'a str) -> Self {
        let ApplicationInfo { version, description, actions, slots, .. } = &*host.application;
        let application =
            Application { name: application, version: version.as_deref(), slots: *slots, actions, description };
        Self { node: &host.info, application: Some(application) }
    }

    /// The variables that are used, with their values.
    pub(super) fn values(&self, used: &Variables) -> Vec<(&'static str, Boxed<'a>)> {
        let mut values = Vec::new();
        if used.node {
            values.push((NODE.0, self.node()));
        }
        if let Some(application) = &self.application {
            if used.app {
                values.push((APP.0, self.app(application)));
            }
            if used.description {
                values.push((DESCRIPTION, json(application.description)));
            }
        }
        values
    }

    fn node(&self) -> Boxed<'a> {
        let node = self.node;
        map([
            ("name", text(&node.name)),
            ("peer_id", Box::new(CelString::from(node.peer_id.to_base58()))),
            ("version", text(&node.software)),
            ("labels", map(node.labels.iter().map(|(key, value)| (key.as_str(), text(value))))),
            (LOAD, Box::new(CelInt::from(i64::from(node.load)))),
        ])
    }

    fn app(&self, application: &Application<'a>) -> Boxed<'a> {
        let actions: Vec<Boxed<'a>> = application.actions.iter().map(|action| text(action)).collect();
        map([
            ("name", text(application.name)),
            ("version", application.version.map_or_else(null, text)),
            (LOAD, Box::new(CelInt::from(i64::from(self.node.load)))),
            ("slots", application.slots.map_or_else(null, |slots| Box::new(CelInt::from(i64::from(slots))))),
            ("actions", Box::new(CelList::from(actions))),
        ])
    }
}

/// A description as a value. Whole numbers are of CEL's `int` as far as they fit, so that users can add to them.
fn json(value: &Value) -> Boxed<'_> {
    match value {
        Value::Null => null(),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(CelUInt::from(number)),
            (None, None) => number.as_f64().map_or_else(null, |number| Box::new(CelDouble::from(number))),
        },
        Value::String(value) => text(value),
        Value::Array(values) => Box::new(CelList::from(values.iter().map(json).collect::<Vec<_>>())),
        Value::Object(values) => map(values.iter().map(|(key, value)| (key.as_str(), json(value)))),
    }
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Boxed<'a>)>) -> Boxed<'a> {
    let entries: HashMap<_, _> = entries.into_iter().map(|(key, value)| (CelMapKey::from(key), value)).collect();
    Box::new(CelMap::from(entries))
}

fn text(text: &str) -> Boxed<'_> {
    Box::new(CelString::from(text))
}

fn null<'a>() -> Boxed<'a> {
    Box::new(CelNull)
}
