//! Why a call was refused: one closed set, and one table from it to gRPC and HTTP.

use tonic::Code;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident $name:literal $code:ident $http:literal,)+) => {
        /// Why a call was refused, as `google.rpc.ErrorInfo.reason` says it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the wire, such as `EMAIL_TAKEN`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The gRPC code that goes with it.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)+ }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn http(self) -> u16 {
                match self { $(Self::$variant => $http,)+ }
            }

            /// The reason of this name, if there is one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// A message breaks its contract; the fields are listed in `BadRequest`.
    InvalidRequest "INVALID_REQUEST" InvalidArgument 400,
    /// The body is not what its content type promises.
    MalformedBody "MALFORMED_BODY" InvalidArgument 400,
    /// The `grpc-timeout` header cannot be read.
    MalformedTimeout "MALFORMED_TIMEOUT" InvalidArgument 400,
    /// A page token was not made by this list.
    InvalidPageToken "INVALID_PAGE_TOKEN" InvalidArgument 400,
    /// The body is larger than is taken.
    BodyTooLarge "BODY_TOO_LARGE" InvalidArgument 413,
    /// The body did not arrive in time.
    BodyTooSlow "BODY_TOO_SLOW" DeadlineExceeded 408,
    /// The body's content type is not served.
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" InvalidArgument 415,
    /// No REST call has this path.
    RouteNotFound "ROUTE_NOT_FOUND" NotFound 404,
    /// The path exists, but not with this method.
    MethodNotAllowed "METHOD_NOT_ALLOWED" Unimplemented 405,
    /// No RPC has this path.
    MethodUnknown "METHOD_UNKNOWN" Unimplemented 404,

    /// The connection has no workload identity.
    CallerUnidentified "CALLER_UNIDENTIFIED" Unauthenticated 401,
    /// The caller's certificate has expired while the connection stood.
    CallerExpired "CALLER_EXPIRED" Unauthenticated 401,
    /// The rule does not list this workload.
    CallerNotAllowed "CALLER_NOT_ALLOWED" PermissionDenied 403,

    /// The call needs an access token and has none.
    TokenMissing "TOKEN_MISSING" Unauthenticated 401,
    /// The access token is not one of ours, or damaged.
    TokenInvalid "TOKEN_INVALID" Unauthenticated 401,
    /// The access token has ended.
    TokenExpired "TOKEN_EXPIRED" Unauthenticated 401,
    /// The access token has been revoked.
    TokenRevoked "TOKEN_REVOKED" Unauthenticated 401,
    /// The sign-in is too long ago for this call.
    ReauthenticationRequired "REAUTHENTICATION_REQUIRED" Unauthenticated 401,
    /// The user lacks the permission that the rule asks for.
    PermissionMissing "PERMISSION_MISSING" PermissionDenied 403,

    /// Unknown e-mail address or wrong password.
    InvalidCredentials "INVALID_CREDENTIALS" Unauthenticated 401,
    /// The refresh token is not one of ours, or damaged.
    RefreshTokenInvalid "REFRESH_TOKEN_INVALID" Unauthenticated 401,
    /// A used refresh token came again: the session has been ended.
    RefreshTokenReused "REFRESH_TOKEN_REUSED" Unauthenticated 401,
    /// The session is over.
    SessionEnded "SESSION_ENDED" Unauthenticated 401,

    /// Another account has this e-mail address.
    EmailTaken "EMAIL_TAKEN" AlreadyExists 409,
    /// The request id was used for something else before.
    RequestIdReused "REQUEST_ID_REUSED" AlreadyExists 409,
    /// The thing has changed since the etag was read.
    StaleEtag "STALE_ETAG" Aborted 409,
    /// There is no such account, or none that the user may see.
    UserNotFound "USER_NOT_FOUND" NotFound 404,
    /// There is no such session, or it is somebody else's.
    SessionNotFound "SESSION_NOT_FOUND" NotFound 404,
    /// There is no such property, or it is somebody else's.
    PropertyNotFound "PROPERTY_NOT_FOUND" NotFound 404,

    /// Too many attempts in a while; `RetryInfo` says when to come back.
    RateLimited "RATE_LIMITED" ResourceExhausted 429,
    /// Too much work at once; `RetryInfo` says when to come back.
    Overloaded "OVERLOADED" ResourceExhausted 429,
    /// The disk of a database is full.
    DatabaseFull "DATABASE_FULL" ResourceExhausted 507,
    /// The deadline passed before the work was done.
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded 504,
    /// A service or store that the call needs is unavailable.
    Unavailable "UNAVAILABLE" Unavailable 503,
    /// Something went wrong inside; the log has it under the request id.
    Internal "INTERNAL" Internal 500,
}

impl Reason {
    /// The `domain` of every `google.rpc.ErrorInfo` of ours.
    pub const DOMAIN: &str = "drystone";
}
