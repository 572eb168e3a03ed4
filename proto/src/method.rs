//! All methods of the public API, as one enum that grows with the protocol files.

macro_rules! methods {
    ($($name:ident = $path:literal, $up:literal, $down:literal;)*) => {
        /// A method of the public API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the protocol files say what each does")]
        pub enum Method {
            $($name,)*
        }

        impl Method {
            /// Every method.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The path of its requests, `/package.Service/Name`.
            pub const fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)* }
            }

            /// The method of a path.
            pub fn from_path(path: &str) -> Option<Self> {
                match path { $($path => Some(Self::$name),)* _ => None }
            }

            /// Whether the caller sends many messages.
            pub const fn is_client_streaming(self) -> bool {
                match self { $(Self::$name => $up,)* }
            }

            /// Whether the answer has many messages.
            pub const fn is_server_streaming(self) -> bool {
                match self { $(Self::$name => $down,)* }
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_path() {
        for &method in Method::ALL {
            assert_eq!(Method::from_path(method.path()), Some(method));
        }
        assert_eq!(Method::PublishPublishStream.path(), "/weft.v1.Publish/PublishStream");
        assert!(Method::PublishPublishStream.is_client_streaming());
        assert!(Method::ReadRead.is_server_streaming() && !Method::ReadRead.is_client_streaming());
        for wrong in ["", "/", "/weft.v1.Publish/publish", "/weft.v1.Publish/Publish/"] {
            assert_eq!(Method::from_path(wrong), None, "{wrong}");
        }
    }
}
