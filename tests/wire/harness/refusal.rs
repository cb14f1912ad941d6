//! What a refusal has to look like on each surface: the table of errors that callers may rely on (docs/errors.md).

use serde_json::Value;
use tonic::Code;

use super::call::{Call, Op, Reply, Status};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// A parameter is missing, empty, given twice, not allowed or ambiguous; an app or a redirect URI does not fit.
    Parameter,
    /// A code, refresh token or access token (operations 7 and 9) that is unknown, used, expired, ended or another's.
    Grant,
    /// No credential, or one that is not good.
    Caller,
    /// A known caller who may not.
    Forbidden,
    /// Wrong user name or password.
    Password,
    /// The right password of a disabled user.
    Disabled,
    /// Too many were wrong before.
    Tries,
    /// The name of an authority is taken.
    NameTaken,
    /// An authority's token call has failed.
    TokenCall,
    /// An authority's user call has failed.
    UserCall,
    /// An authority's user is nobody here.
    Stranger,
    /// The authority is unknown or off.
    Off,
}

impl Case {
    pub(crate) fn expected(self, op: Op) -> (u16, Code, i64) {
        match (self, op.is_v281()) {
            (Self::Parameter, false) => (400, Code::InvalidArgument, 100_106_500),
            (Self::Parameter | Self::Grant, true) => (400, Code::InvalidArgument, 800_003),
            (Self::Grant, false) => (401, Code::Unauthenticated, 100_106_403),
            (Self::Caller, _) => (401, Code::Unauthenticated, 100_106_401),
            (Self::Forbidden, _) => (403, Code::PermissionDenied, 100_106_402),
            (Self::Password, _) => (401, Code::Unauthenticated, 100_106_211),
            (Self::Disabled, _) => (403, Code::PermissionDenied, 100_106_008),
            (Self::NameTaken, _) => (409, Code::AlreadyExists, 100_106_700),
            (Self::TokenCall, _) => (502, Code::Unavailable, 100_106_701),
            (Self::UserCall, _) => (502, Code::Unavailable, 100_106_702),
            (Self::Stranger, _) => (403, Code::PermissionDenied, 100_106_703),
            (Self::Off, _) => (400, Code::FailedPrecondition, 100_106_704),
            (Self::Tries, _) => (429, Code::ResourceExhausted, 100_106_429),
        }
    }
}

/// Words that a message may hold although a caller sent them: the contract's own.
const VOCABULARY: [&str; 4] = ["authorization_code", "refresh_token", "application/json", "suposTicket"];

impl Reply {
    /// Checks that this is the refusal of `case` in every respect that a caller may rely on.
    #[track_caller]
    pub(crate) fn refused(&self, case: Case) {
        if let Err(wrong) = self.check_refusal(case) {
            panic!("operation {:?}, {case:?}: {wrong}\n{:?} {}", self.op, self.status, self.text);
        }
    }

    /// As `refused`, where the contract leaves open which of two refusals it is.
    #[track_caller]
    pub(crate) fn refused_as_one_of(&self, cases: &[Case]) {
        let wrong: Vec<String> = cases.iter().filter_map(|case| self.check_refusal(*case).err()).collect();
        assert!(wrong.len() < cases.len(), "operation {:?}, {cases:?}: {wrong:?}\n{:?} {}", self.op, self.status, self.text);
    }

    /// What is wrong with this reply as the refusal of `case`.
    pub(crate) fn check_refusal(&self, case: Case) -> Result<(), String> {
        let (http, grpc, number) = case.expected(self.op);
        let expected = match self.status {
            Status::Http(_) => Status::Http(http),
            Status::Grpc(_) => Status::Grpc(grpc),
        };
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        check(self.status == expected, &format!("the status should be {expected:?}"))?;
        check(self.body["code"].as_i64() == Some(number), &format!("code should be the number {number}"))?;
        check(self.body["message"].as_str().is_some_and(|message| !message.is_empty()), "there should be a message")?;
        match self.status {
            Status::Http(_) => {
                let content_type = self.header("content-type").unwrap_or_default();
                check(content_type.starts_with("application/json"), "the content type should be application/json")?;
                let challenges = self.headers_of("www-authenticate").join(", ");
                let challenged = challenges.contains("Sign ") && challenges.contains("Bearer ");
                check(case != Case::Caller || challenged, "www-authenticate should name Sign and Bearer")?;
                let wait = self.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
                check(case != Case::Tries || wait.is_some_and(|seconds| seconds > 0), "retry-after should say how long")?;
                check(self.header("location").is_none(), "an error never redirects")
            }
            Status::Grpc(_) => {
                check(self.body["domain"] == "supos-auth", "ErrorInfo should have the domain supos-auth")?;
                check(self.body["reason"].as_str().is_some_and(is_reason), "ErrorInfo should have a reason in capitals")?;
                let wait = self.body["retryAfter"].as_u64();
                check(case != Case::Tries || wait.is_some_and(|seconds| seconds > 0), "RetryInfo should say how long")?;
                check(self.body["conforms"] == true, "the google.rpc.Status in the details should have the code of the status")
            }
        }
    }

    /// Checks that the message, and over gRPC a field violation, name the parameter.
    #[track_caller]
    pub(crate) fn names(&self, parameter: &str) {
        let message = self.body["message"].as_str().unwrap_or_default();
        assert!(message.contains(parameter), "operation {:?}: the message should name {parameter}: {message:?}", self.op);
        if matches!(self.status, Status::Grpc(_)) {
            let fields: Vec<String> = self.body["fields"].as_array().into_iter().flatten().filter_map(Value::as_str).map(plain).collect();
            assert_eq!(fields, [plain(parameter)], "operation {:?}: the field violations", self.op);
        }
    }

    /// Checks that nothing that the caller sent comes back.
    #[track_caller]
    pub(crate) fn echoes_nothing_of(&self, call: &Call) {
        let secrets = call.who.signers.iter().map(|signer| &signer.sk);
        let sent = call.parameters.iter().chain(&call.who.headers).map(|(_, value)| value).chain(secrets);
        for value in sent.filter(|value| value.len() >= 6 && !VOCABULARY.contains(&value.as_str())) {
            assert!(!self.text.contains(value.as_str()), "operation {:?}: the answer to an error quotes {value:?}: {}", self.op, self.text);
            for (name, header) in &self.headers {
                let header = header.to_str().unwrap_or_default();
                assert!(!header.contains(value.as_str()), "operation {:?}: the header {name} quotes {value:?}", self.op);
            }
        }
    }
}

fn is_reason(reason: &str) -> bool {
    reason.starts_with(|first: char| first.is_ascii_uppercase())
        && reason.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// A parameter's name whether it is written as in JSON or as in the proto.
fn plain(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}
