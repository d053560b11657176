//! Without the feature `cel` nobody can make a predicate.

pub(crate) mod matching {
    use std::sync::Arc;

    use crate::description::Host;

    pub(crate) type Hosts = Arc<[Arc<Host>]>;

    /// There is none.
    pub(crate) enum Matching {}

    impl Matching {
        pub(crate) fn takes(&self, _: &Host) -> bool {
            match *self {}
        }

        pub(crate) fn first_false(&self, _: &Host) -> Option<String> {
            match *self {}
        }

        pub(crate) fn select(&self, _: &Hosts) -> Option<Hosts> {
            match *self {}
        }

        pub(crate) fn retain(&self, _: &mut Vec<Arc<Host>>, _: Option<&Hosts>) {
            match *self {}
        }
    }
}
