//! All routes of the HTTP port, as one table: the port answers them, the API document describes them,
//! and the test of access goes through them. Pure.

use std::borrow::Cow;

use weft_proto::event::percent_decoded;
use weft_proto::resource::Verb;

/// Segments of a name in a path: `name`, or `namespace/name`.
const NAME_SEGMENTS_MAX: usize = 2;

macro_rules! routes {
    ($($(#[$doc:meta])* $name:ident = $method:literal $template:literal;)*) => {
        /// A route.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Route {
            $($(#[$doc])* $name,)*
        }

        impl Route {
            /// Every route.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name, for programs that are generated from the API document.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Its method.
            pub const fn method(self) -> &'static str {
                match self { $(Self::$name => $method,)* }
            }

            /// Its path, with the names of resources in braces.
            pub const fn template(self) -> &'static str {
                match self { $(Self::$name => $template,)* }
            }
        }
    };
}

routes! {
    /// Whether the process lives.
    Live = "GET" "/livez";
    /// Whether the node can serve.
    Ready = "GET" "/readyz";
    /// Metrics.
    Metrics = "GET" "/metrics";
    /// This table, as an API document.
    OpenApi = "GET" "/openapi.json";
    /// Appends events to a stream.
    PublishEvents = "POST" "/v1/streams/{stream}/events";
    /// Reads a stream as server-sent events.
    FollowEvents = "GET" "/v1/streams/{stream}/events";
    /// Appends events to a stream, as Event Grid does.
    PullPublish = "POST" "/topics/{topic}:publish";
    /// Lends events.
    PullReceive = "POST" "/topics/{topic}/eventsubscriptions/{subscription}:receive";
    /// Settles lent events.
    PullAcknowledge = "POST" "/topics/{topic}/eventsubscriptions/{subscription}:acknowledge";
    /// Gives lent events back.
    PullRelease = "POST" "/topics/{topic}/eventsubscriptions/{subscription}:release";
    /// Makes dead letters of lent events.
    PullReject = "POST" "/topics/{topic}/eventsubscriptions/{subscription}:reject";
    /// Keeps lent events for longer.
    PullRenewLock = "POST" "/topics/{topic}/eventsubscriptions/{subscription}:renewLock";
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The route.
    pub route: Route,
    /// The names in its path, in order, as they were meant.
    pub names: Vec<String>,
}

/// No route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing has this path.
    Path,
    /// The path has other methods.
    Method(Vec<&'static str>),
}

impl Route {
    /// The route of a request.
    ///
    /// # Errors
    ///
    /// What does not exist: the path, or the method.
    pub fn find(method: &str, path: &str) -> Result<Found, Missing> {
        let mut others = Vec::new();
        for &route in Self::ALL {
            let Some(names) = route.names(path) else { continue };
            if route.methods().contains(&method) {
                return Ok(Found { route, names });
            }
            others.extend(route.methods());
        }
        Err(if others.is_empty() { Missing::Path } else { Missing::Method(others) })
    }

    /// Its methods: what is short can be asked for without its body.
    const fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Live | Self::Ready | Self::Metrics | Self::OpenApi => &["GET", "HEAD"],
            Self::FollowEvents => &["GET"],
            Self::PublishEvents
            | Self::PullPublish
            | Self::PullReceive
            | Self::PullAcknowledge
            | Self::PullRelease
            | Self::PullReject
            | Self::PullRenewLock => &["POST"],
        }
    }

    /// What a caller must be allowed: with the whole cluster, or with what the path names. Nothing:
    /// everybody is answered.
    pub const fn needs(self) -> &'static [Verb] {
        match self {
            Self::Live | Self::Ready | Self::OpenApi => &[],
            Self::Metrics => &[Verb::Operate],
            Self::PublishEvents | Self::PullPublish => &[Verb::Publish],
            Self::FollowEvents => &[Verb::Read],
            Self::PullReceive
            | Self::PullAcknowledge
            | Self::PullRelease
            | Self::PullReject
            | Self::PullRenewLock => &[Verb::Subscribe, Verb::Read],
        }
    }

    /// Whether it speaks as Event Grid does.
    pub const fn is_pull(self) -> bool {
        match self {
            Self::PullPublish
            | Self::PullReceive
            | Self::PullAcknowledge
            | Self::PullRelease
            | Self::PullReject
            | Self::PullRenewLock => true,
            Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::OpenApi
            | Self::PublishEvents
            | Self::FollowEvents => false,
        }
    }

    /// The names in its template.
    pub fn parameters(self) -> impl Iterator<Item = &'static str> {
        self.template().split('{').skip(1).filter_map(|part| part.split('}').next())
    }

    /// The names in a path, if it is one of this route.
    fn names(self, path: &str) -> Option<Vec<String>> {
        let mut literals = self.template().split('{').map(|part| match part.split_once('}') {
            Some((_, literal)) => literal,
            None => part,
        });
        let mut rest = path.strip_prefix(literals.next()?)?;
        let mut literals: Vec<&str> = literals.collect();
        let mut names = Vec::with_capacity(literals.len());
        // From the end: a name cannot hold what stands behind it.
        while let Some(literal) = literals.pop() {
            if names.is_empty() {
                rest = rest.strip_suffix(literal)?;
            }
            let before = literals.last();
            let raw = match before {
                Some(before) => {
                    let (left, raw) = rest.rsplit_once(before)?;
                    rest = left;
                    raw
                }
                None => std::mem::take(&mut rest),
            };
            names.push(name(raw)?);
        }
        names.reverse();
        rest.is_empty().then_some(names)
    }
}

/// A name in a path: each segment is decoded once, and a slash may be encoded or not.
fn name(raw: &str) -> Option<String> {
    let segments = raw.split('/').map(|segment| {
        let decoded = String::from_utf8(percent_decoded(segment.as_bytes())).ok()?;
        (!decoded.is_empty()).then_some(decoded)
    });
    let segments: Vec<String> = segments.collect::<Option<_>>()?;
    (segments.len() <= NAME_SEGMENTS_MAX).then(|| segments.join("/"))
}

/// The query of a request, decoded: of two values with one name both are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part behind `?`.
    pub fn of(text: Option<&str>) -> Self {
        let decode = |text: &str| {
            let text: Cow<'_, str> =
                if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
            String::from_utf8_lossy(&percent_decoded(text.as_bytes())).into_owned()
        };
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The names of all values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The value of a name.
    ///
    /// # Errors
    ///
    /// `Invalid` when there are two.
    pub fn one(&self, name: &'static str) -> weft_proto::Result<Option<&str>> {
        let mut values = self.0.iter().filter(|(own, _)| own == name);
        let first = values.next();
        if values.next().is_some() {
            let message = format!("the query has {name} twice");
            return Err(weft_proto::Error::invalid(message).with_field(name));
        }
        Ok(first.map(|(_, value)| value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(Route, String)> {
        Route::find(method, path).ok().map(|found| (found.route, found.names.join(" ")))
    }

    #[test]
    fn names_are_one_segment_or_two_encoded_or_not() {
        use Route::{FollowEvents, PublishEvents, PullPublish, PullReceive};
        let cases = [
            ("POST", "/v1/streams/orders/events", PublishEvents, "orders"),
            ("GET", "/v1/streams/shop/orders/events", FollowEvents, "shop/orders"),
            ("POST", "/v1/streams/shop%2Forders/events", PublishEvents, "shop/orders"),
            ("POST", "/v1/streams/shop%2forders/events", PublishEvents, "shop/orders"),
            ("POST", "/v1/streams/events/events", PublishEvents, "events"),
            ("POST", "/v1/streams/%252F/events", PublishEvents, "%2F"),
            ("POST", "/topics/orders:publish", PullPublish, "orders"),
            ("POST", "/topics/shop/orders:publish", PullPublish, "shop/orders"),
            ("POST", "/topics/a/eventsubscriptions/b:receive", PullReceive, "a b"),
            ("POST", "/topics/x%2Fa/eventsubscriptions/x%2Fb:receive", PullReceive, "x/a x/b"),
            ("POST", "/topics/x/a/eventsubscriptions/x/b:receive", PullReceive, "x/a x/b"),
            (
                "POST",
                "/topics/eventsubscriptions/a/eventsubscriptions/b:receive",
                PullReceive,
                "eventsubscriptions/a b",
            ),
        ];
        for (method, path, route, names) in cases {
            assert_eq!(found(method, path), Some((route, names.to_owned())), "{path}");
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "",
            "/",
            "/livez/",
            "//livez",
            "/%6civez",
            "/v1/streams//events",
            "/v1/streams/events",
            "/v1/streams/a/b/c/events",
            "/v1/streams/a/",
            "/v1/streams/a/events/",
            "/v1/streams/%ff/events",
            "/topics/:publish",
            "/topics/a:take",
            "/topics/a%3Apublish",
            "/topics/a/eventsubscriptions/:receive",
            "/topics/a/eventsubscriptions/b",
            "/topics/a/b/c:publish",
        ] {
            assert_eq!(Route::find("POST", path), Err(Missing::Path), "{path}");
        }
    }

    #[test]
    fn other_methods_are_told_which_there_are() {
        let wrong = |method, path| Route::find(method, path).unwrap_err();

        assert_eq!(wrong("PUT", "/livez"), Missing::Method(vec!["GET", "HEAD"]));
        assert_eq!(wrong("HEAD", "/v1/streams/a/events"), Missing::Method(vec!["POST", "GET"]));
        assert_eq!(wrong("GET", "/topics/a:publish"), Missing::Method(vec!["POST"]));
        assert_eq!(wrong("get", "/livez"), Missing::Method(vec!["GET", "HEAD"]));
    }

    #[test]
    fn every_route_is_found_by_its_own_path() {
        for &route in Route::ALL {
            let mut path = route.template().to_owned();
            for name in route.parameters() {
                path = path.replace(&format!("{{{name}}}"), "a/b");
            }
            let found = Route::find(route.method(), &path).unwrap();
            assert_eq!((found.route, found.names.len()), (route, route.parameters().count()));
        }
    }

    #[test]
    fn a_query_is_decoded_once() {
        let query = Query::of(Some("a=1&b=x%2526+y&a=2&c&=d&e=%ff"));

        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.one("b").unwrap(), Some("x%26 y"));
        assert_eq!(query.one("c").unwrap(), Some(""));
        assert_eq!(query.one("d").unwrap(), None);
        assert_eq!(query.one("a").unwrap_err().field(), Some("a"));
    }
}
