//! The reasons of failed calls: a closed set, with their gRPC codes and HTTP statuses.

use tonic::Code;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident $name:literal $code:ident $http:literal,)+) => {
        /// The reason of a failed call, as in `google.rpc.ErrorInfo.reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the wire, such as `EMAIL_TAKEN`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The gRPC code.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn http(self) -> u16 {
                match self { $(Self::$variant => $http,)+ }
            }

            /// The reason with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The request violates its contract; the fields are listed in `BadRequest`.
    InvalidRequest "INVALID_REQUEST" InvalidArgument 400,
    /// The body does not match its content type.
    MalformedBody "MALFORMED_BODY" InvalidArgument 400,
    /// The `grpc-timeout` header is malformed.
    MalformedTimeout "MALFORMED_TIMEOUT" InvalidArgument 400,
    /// The page token is malformed or of another list.
    InvalidPageToken "INVALID_PAGE_TOKEN" InvalidArgument 400,
    /// The body exceeds the maximum size.
    BodyTooLarge "BODY_TOO_LARGE" InvalidArgument 413,
    /// The body was not received within its timeout.
    BodyTooSlow "BODY_TOO_SLOW" DeadlineExceeded 408,
    /// The content type of the body is not supported.
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" InvalidArgument 415,
    /// No REST path matches.
    RouteNotFound "ROUTE_NOT_FOUND" NotFound 404,
    /// The path does not support this method.
    MethodNotAllowed "METHOD_NOT_ALLOWED" Unimplemented 405,
    /// There is no such RPC.
    MethodUnknown "METHOD_UNKNOWN" Unimplemented 404,

    /// The connection has no workload identity.
    CallerUnidentified "CALLER_UNIDENTIFIED" Unauthenticated 401,
    /// The caller's certificate has expired during the connection.
    CallerExpired "CALLER_EXPIRED" Unauthenticated 401,
    /// The calling workload or its certificate is on the denylist.
    CallerRevoked "CALLER_REVOKED" Unauthenticated 401,
    /// The access rule does not list the calling workload.
    CallerNotAllowed "CALLER_NOT_ALLOWED" PermissionDenied 403,

    /// The call requires an access token and has none.
    TokenMissing "TOKEN_MISSING" Unauthenticated 401,
    /// The access token is invalid.
    TokenInvalid "TOKEN_INVALID" Unauthenticated 401,
    /// The access token has expired.
    TokenExpired "TOKEN_EXPIRED" Unauthenticated 401,
    /// The access token has been revoked.
    TokenRevoked "TOKEN_REVOKED" Unauthenticated 401,
    /// The last authentication is too old for this call.
    ReauthenticationRequired "REAUTHENTICATION_REQUIRED" Unauthenticated 401,
    /// The user has not proved who they are with the factors that this call requires.
    FactorsRequired "FACTORS_REQUIRED" Unauthenticated 401,
    /// The user does not have the required permission.
    PermissionMissing "PERMISSION_MISSING" PermissionDenied 403,

    /// The user would give more than they have, or change a user or role that is not below them.
    AuthorityExceeded "AUTHORITY_EXCEEDED" PermissionDenied 403,
    /// The change would leave no administrator.
    LastAdministrator "LAST_ADMINISTRATOR" FailedPrecondition 400,

    /// The e-mail address is unknown or the password is wrong.
    InvalidCredentials "INVALID_CREDENTIALS" Unauthenticated 401,
    /// The new password is easy to guess, or is in a list of leaked ones.
    PasswordTooWeak "PASSWORD_TOO_WEAK" InvalidArgument 400,
    /// The link is unknown, was used, or has expired.
    LinkInvalid "LINK_INVALID" InvalidArgument 400,
    /// An administrator has disabled the account. Only who knows the password learns that.
    AccountDisabled "ACCOUNT_DISABLED" PermissionDenied 403,
    /// The e-mail address has to be verified before the sign-in. Only who knows the password learns that.
    EmailNotVerified "EMAIL_NOT_VERIFIED" PermissionDenied 403,
    /// The password no longer serves: a new one has to be chosen with a link. Only who knows the password learns that.
    PasswordResetRequired "PASSWORD_RESET_REQUIRED" PermissionDenied 403,
    /// The code of the second factor is wrong, or was used.
    CodeInvalid "CODE_INVALID" Unauthenticated 401,
    /// The challenge is unknown, was used, has expired, or had too many wrong codes: the sign-in begins anew.
    ChallengeInvalid "CHALLENGE_INVALID" Unauthenticated 401,
    /// The passkey does not prove who the user is; the message says which check failed.
    PasskeyInvalid "PASSKEY_INVALID" Unauthenticated 401,
    /// No account has the passkey: the client can have it removed (`signalUnknownCredential`).
    PasskeyUnknown "PASSKEY_UNKNOWN" Unauthenticated 401,
    /// The passkey is registered already.
    PasskeyRegistered "PASSKEY_REGISTERED" AlreadyExists 409,
    /// The server is not configured for passkeys.
    PasskeysDisabled "PASSKEYS_DISABLED" FailedPrecondition 400,
    /// The user has a second factor, so that the password alone does not suffice.
    SecondFactorRequired "SECOND_FACTOR_REQUIRED" FailedPrecondition 400,
    /// The user has a role that asks for a second factor, so that the last one stays.
    LastFactor "LAST_FACTOR" FailedPrecondition 400,
    /// The user has no second factor.
    NoSecondFactor "NO_SECOND_FACTOR" FailedPrecondition 400,
    /// There is no such second factor, or it is another user's.
    FactorNotFound "FACTOR_NOT_FOUND" NotFound 404,
    /// There is no such trusted device, or it is another user's.
    DeviceNotFound "DEVICE_NOT_FOUND" NotFound 404,
    /// There never was a signing key with this id, or it is forgotten.
    SigningKeyNotFound "SIGNING_KEY_NOT_FOUND" NotFound 404,
    /// The user has as many second factors as they may have.
    TooManyFactors "TOO_MANY_FACTORS" FailedPrecondition 400,
    /// The refresh token is invalid.
    RefreshTokenInvalid "REFRESH_TOKEN_INVALID" Unauthenticated 401,
    /// A used refresh token was presented again: the session has been ended.
    RefreshTokenReused "REFRESH_TOKEN_REUSED" Unauthenticated 401,
    /// The session has ended.
    SessionEnded "SESSION_ENDED" Unauthenticated 401,

    /// Another account has this e-mail address.
    EmailTaken "EMAIL_TAKEN" AlreadyExists 409,
    /// The request id was used for a different request before.
    RequestIdReused "REQUEST_ID_REUSED" AlreadyExists 409,
    /// The resource has changed since the etag was read.
    StaleEtag "STALE_ETAG" Aborted 409,
    /// There is no such account, or the user may not see it.
    UserNotFound "USER_NOT_FOUND" NotFound 404,
    /// The account is deleted; it can be restored.
    UserDeleted "USER_DELETED" FailedPrecondition 400,
    /// The account is not deleted, so that it cannot be removed for good.
    UserNotDeleted "USER_NOT_DELETED" FailedPrecondition 400,
    /// Another account is linked to this Telegram user.
    TelegramIdTaken "TELEGRAM_ID_TAKEN" AlreadyExists 409,
    /// There is no such role.
    RoleNotFound "ROLE_NOT_FOUND" NotFound 404,
    /// There is a role with this name.
    RoleExists "ROLE_EXISTS" AlreadyExists 409,
    /// Users have the role, or other roles inherit it.
    RoleInUse "ROLE_IN_USE" FailedPrecondition 400,
    /// A contract declares the permission, or another workload has registered it.
    PermissionExists "PERMISSION_EXISTS" AlreadyExists 409,
    /// There is no such session, or it is another user's.
    SessionNotFound "SESSION_NOT_FOUND" NotFound 404,
    /// There is no such property, or it is another user's.
    PropertyNotFound "PROPERTY_NOT_FOUND" NotFound 404,

    /// There is no template of messages with this name.
    TemplateNotFound "TEMPLATE_NOT_FOUND" NotFound 404,
    /// There is no such delivery of a message.
    DeliveryNotFound "DELIVERY_NOT_FOUND" NotFound 404,
    /// The delivery was not given up, or its message has expired, so that it cannot be attempted again.
    DeliveryNotDead "DELIVERY_NOT_DEAD" FailedPrecondition 400,

    /// Too many attempts; `RetryInfo` has the retry delay.
    RateLimited "RATE_LIMITED" ResourceExhausted 429,
    /// The user has as many of these objects, or as many bytes, as they may have.
    QuotaExceeded "QUOTA_EXCEEDED" ResourceExhausted 429,
    /// The server is overloaded; `RetryInfo` has the retry delay.
    Overloaded "OVERLOADED" ResourceExhausted 429,
    /// The disk of a database is full.
    DatabaseFull "DATABASE_FULL" ResourceExhausted 507,
    /// The deadline passed before the work was done.
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded 504,
    /// A required service or store is unavailable.
    Unavailable "UNAVAILABLE" Unavailable 503,
    /// An internal error; the log has it under the request id.
    Internal "INTERNAL" Internal 500,
}

impl Reason {
    /// The `domain` of every `google.rpc.ErrorInfo` of Drystone.
    pub const DOMAIN: &str = "drystone";
}
