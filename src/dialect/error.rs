//! The one error table: what a cause looks like to a caller (docs/errors.md).

use tonic::Code;

use super::{Dialect, language::Language};
use crate::core::{Error, Problem};

/// How a cause is told to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The gRPC status. Envoy makes the HTTP status of it.
    pub code: Code,
    /// The number of the supOS interface.
    pub number: u32,
    /// The reason that a gRPC caller can match on. Never renamed.
    pub reason: &'static str,
    /// The HTTP status, where it is not the one that Envoy makes of the gRPC status.
    pub http: Option<u16>,
}

impl Row {
    /// The HTTP status: the one that the row says, else what Envoy's transcoder makes of the gRPC status.
    #[must_use]
    pub const fn http(&self) -> u16 {
        if let Some(http) = self.http {
            return http;
        }
        match self.code {
            Code::Ok => 200,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            // An operation that is not offered is not there.
            Code::NotFound | Code::Unimplemented => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::ResourceExhausted => 429,
            Code::Cancelled => 499,
            Code::Unavailable => 503,
            Code::DeadlineExceeded => 504,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }
}

const fn row(code: Code, number: u32, reason: &'static str) -> Row {
    Row { code, number, reason, http: None }
}

/// Something behind us has failed, and we have not.
const fn bad_gateway(number: u32, reason: &'static str) -> Row {
    Row { code: Code::Unavailable, number, reason, http: Some(502) }
}

/// The row of a cause. There is no `_` arm: a new cause does not compile until it has its row.
#[must_use]
pub fn row_of(error: &Error, dialect: Dialect) -> Row {
    // The V2.8.1 generation has one number for everything that is wrong with a parameter, codes and tokens included.
    let by_parameter = |current: Row| match dialect {
        Dialect::V281 => row(Code::InvalidArgument, 800_003, current.reason),
        Dialect::Current | Dialect::Admin => current,
    };
    let invalid = |reason| by_parameter(row(Code::InvalidArgument, 100_106_500, reason));
    let refused = |reason| by_parameter(row(Code::Unauthenticated, 100_106_403, reason));
    match error {
        Error::Parameter { .. } => invalid("INVALID_PARAMETER"),
        Error::UnknownApp => invalid("UNKNOWN_APP"),
        Error::NoSingleApp => invalid("NO_SINGLE_APP"),
        Error::RedirectMismatch => invalid("REDIRECT_URI_MISMATCH"),
        Error::CodeRefused | Error::CodeReplayed => refused("CODE_REFUSED"),
        Error::RefreshTokenRefused | Error::RefreshTokenReplayed => refused("REFRESH_TOKEN_REFUSED"),
        Error::AccessTokenRefused => refused("ACCESS_TOKEN_REFUSED"),
        Error::CredentialRequired => row(Code::Unauthenticated, 100_106_401, "CREDENTIAL_REQUIRED"),
        Error::CredentialRefused => row(Code::Unauthenticated, 100_106_401, "CREDENTIAL_REFUSED"),
        Error::NotAllowed => row(Code::PermissionDenied, 100_106_402, "NOT_ALLOWED"),
        Error::WrongPassword => row(Code::Unauthenticated, 100_106_211, "WRONG_PASSWORD"),
        Error::UserDisabled => row(Code::PermissionDenied, 100_106_008, "USER_DISABLED"),
        Error::PasswordChangeRequired => row(Code::PermissionDenied, 100_106_008, "PASSWORD_CHANGE_REQUIRED"),
        Error::NotFound(_) => row(Code::NotFound, 100_106_404, "NOT_FOUND"),
        Error::AlreadyExists { .. } => row(Code::AlreadyExists, 100_106_409, "ALREADY_EXISTS"),
        Error::AuthorityExists => row(Code::AlreadyExists, 100_106_700, "AUTHORITY_EXISTS"),
        Error::AuthorityOff => row(Code::FailedPrecondition, 100_106_704, "AUTHORITY_OFF"),
        Error::StateRefused => invalid("STATE_REFUSED"),
        Error::AuthorityDenied => row(Code::PermissionDenied, 100_106_402, "AUTHORITY_DENIED"),
        Error::AuthorityTokenFailed(_) => bad_gateway(100_106_701, "AUTHORITY_TOKEN_FAILED"),
        Error::AuthorityUserFailed(_) => bad_gateway(100_106_702, "AUTHORITY_USER_FAILED"),
        Error::AuthorityUserUnknown => row(Code::PermissionDenied, 100_106_703, "AUTHORITY_USER_UNKNOWN"),
        Error::Precondition(_) => row(Code::FailedPrecondition, 100_106_500, "PRECONDITION_FAILED"),
        Error::NotOffered => row(Code::Unimplemented, 100_106_404, "NOT_OFFERED"),
        Error::TooManyTries { .. } => row(Code::ResourceExhausted, 100_106_429, "TOO_MANY_TRIES"),
        Error::Busy { .. } => row(Code::Unavailable, 100_106_503, "BUSY"),
        Error::StoreUnavailable(_) => row(Code::Unavailable, 100_106_503, "STORE_UNAVAILABLE"),
        Error::Timeout => row(Code::DeadlineExceeded, 100_106_504, "TIMEOUT"),
        Error::Internal(_) => row(Code::Internal, 100_106_999, "INTERNAL"),
    }
}

/// What a caller reads. It holds the names of parameters and nothing else of what he sent.
#[must_use]
pub fn text_of(error: &Error, language: Language) -> String {
    let [english, chinese] = match error {
        Error::Parameter { name, problem } => {
            return match (language, problem) {
                (Language::English, problem) => format!("{name} {problem}"),
                (Language::Chinese, Problem::Missing) => format!("{name}必填"),
                (Language::Chinese, Problem::Twice) => format!("{name}重复"),
                (Language::Chinese, Problem::Malformed) => format!("{name}格式错误"),
                (Language::Chinese, Problem::NotAllowed) => format!("{name}的值不被允许"),
                (Language::Chinese, Problem::TooLong) => format!("{name}过长"),
                (Language::Chinese, Problem::TooShort) => format!("{name}过短"),
                (Language::Chinese, Problem::TooCommon) => format!("{name}太容易被猜到"),
                (Language::Chinese, Problem::Ambiguous) => format!("{name}有歧义"),
            };
        }
        Error::AlreadyExists { name } => {
            return match language {
                Language::English => format!("{name} exists already"),
                Language::Chinese => format!("{name}已存在"),
            };
        }
        Error::UnknownApp => ["appid names no app", "appid不存在"],
        Error::NoSingleApp => ["redirectUri is that of no app or of several: appid is required", "无法由redirectUri确定应用：appid必填"],
        Error::RedirectMismatch => ["redirectUri is not registered for the app", "redirectUri未在应用中登记"],
        Error::CodeRefused | Error::CodeReplayed => ["code is unknown, used or expired", "code无效、已使用或已过期"],
        Error::RefreshTokenRefused | Error::RefreshTokenReplayed => {
            ["refreshToken is unknown, used or expired", "refreshToken无效、已使用或已过期"]
        }
        Error::AccessTokenRefused => ["accessToken is unknown or expired", "accessToken无效或已过期"],
        Error::CredentialRequired => ["a credential is required", "需要认证"],
        Error::CredentialRefused => ["the credential is not valid", "认证失败"],
        Error::NotAllowed => ["the caller is not allowed to do this", "没有权限"],
        Error::WrongPassword => ["the user name or the password is wrong", "用户名或密码错误"],
        Error::UserDisabled => ["the user is locked or disabled", "用户已被锁定或停用"],
        Error::PasswordChangeRequired => ["the password must be changed first", "必须先修改密码"],
        Error::NotFound(what) => {
            return match language {
                Language::English => format!("there is no such {what}"),
                Language::Chinese => "资源不存在".to_owned(),
            };
        }
        Error::Precondition(why) => {
            return match language {
                Language::English => (*why).to_owned(),
                Language::Chinese => format!("当前状态不允许此操作（{why}）"),
            };
        }
        Error::AuthorityExists => ["an authority of that name exists already", "同名的认证机构已存在"],
        Error::AuthorityOff => ["the authority is unknown or switched off", "认证机构不存在或已停用"],
        Error::StateRefused => [
            "state is unknown, used or expired, or the sign-in was begun in another browser: begin anew",
            "state无效、已使用或已过期，或登录是在其他浏览器中开始的：请重新登录",
        ],
        Error::AuthorityDenied => ["the authority did not sign the user in", "认证机构未允许该用户登录"],
        Error::AuthorityTokenFailed(_) => ["the authority gave no token: try again later", "认证机构未返回令牌，请稍后重试"],
        Error::AuthorityUserFailed(_) => {
            ["the authority did not say who the user is: try again later", "认证机构未返回用户信息，请稍后重试"]
        }
        Error::AuthorityUserUnknown => ["the authority's user is not known here", "认证机构的用户在本系统中不存在"],
        Error::NotOffered => ["this operation is not offered", "不提供此操作"],
        Error::TooManyTries { .. } => ["too many tries: try again later", "尝试次数过多，请稍后重试"],
        Error::Busy { .. } => ["the service is busy: try again in a moment", "服务繁忙，请稍后重试"],
        Error::StoreUnavailable(_) => ["the service is unavailable: try again later", "服务不可用，请稍后重试"],
        Error::Timeout => ["the answer took too long", "处理超时"],
        Error::Internal(_) => ["something went wrong in the service", "服务内部错误"],
    };
    match language {
        Language::English => english,
        Language::Chinese => chinese,
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
