//! Which hosts have a version that is wanted.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use semver::{Version, VersionReq};

use crate::{description::Host, predicate::matching::Hosts};

/// A condition on the application's version, and what it gave for the last list of hosts.
pub(crate) struct Versions {
    wanted: VersionReq,
    last: ArcSwapOption<Selected>,
}

/// A list, and those of it that fit.
struct Selected {
    from: Hosts,
    fitting: Hosts,
}

impl Versions {
    pub(crate) fn new(wanted: VersionReq) -> Self {
        Self { wanted, last: ArcSwapOption::empty() }
    }

    /// The condition as it was said.
    pub(crate) fn wanted(&self) -> &VersionReq {
        &self.wanted
    }

    /// Whether a host has one of the versions. One without a version, or with one that is no semantic version, has not.
    pub(crate) fn takes(&self, host: &Host) -> bool {
        let version = host.version.as_deref().and_then(|version| Version::parse(version).ok());
        version.is_some_and(|version| self.wanted.matches(&version))
    }

    /// Those of a list that have, found out once for each list.
    pub(crate) fn select(&self, hosts: &Hosts) -> Hosts {
        if let Some(last) = &*self.last.load()
            && Arc::ptr_eq(&last.from, hosts)
        {
            return last.fitting.clone();
        }
        let fitting: Hosts = hosts.iter().filter(|host| self.takes(host)).cloned().collect();
        self.last.store(Some(Arc::new(Selected { from: hosts.clone(), fitting: fitting.clone() })));
        fitting
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::description::tests::host;

    #[test]
    fn a_host_without_a_semantic_version_does_not_match() {
        let hosts: Hosts =
            [Some("1.2.0"), Some("1.10.3"), Some("2.0.0"), Some("1.3.0-rc1"), Some("1.4"), Some("new"), None]
                .into_iter()
                .map(|version| {
                    let mut host = host("n", Value::Null);
                    Arc::make_mut(&mut host.application).version = version.map(str::to_owned);
                    Arc::new(host)
                })
                .collect();
        let takes = |wanted: &str| {
            let versions = Versions::new(VersionReq::parse(wanted).unwrap());
            let fitting = versions.select(&hosts);
            assert!(Arc::ptr_eq(&fitting, &versions.select(&hosts)), "it is found out once");
            fitting.iter().map(|host| host.version.clone().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(takes("^1.2"), ["1.2.0", "1.10.3"]);
        assert_eq!(takes("*"), ["1.2.0", "1.10.3", "2.0.0"]);
        assert_eq!(takes(">=1.10, <3"), ["1.10.3", "2.0.0"]);
    }
}
