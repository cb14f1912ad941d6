//! What administrators do with users, and users with their passwords.

use super::{
    Core, Error, Problem,
    browser::Browser,
    ids::{SessionId, UserId},
    model::User,
    password,
    rights::Rights,
    secret::Secret,
    throttle::Source,
};
use crate::store::{Kept, NewPassword};

/// The longest user name, person code and company code, in bytes.
const MAX_TEXT: usize = 128;

/// What an administrator says of a user.
#[derive(Clone, Debug, Default)]
pub struct UserSpec {
    /// The code of the person.
    pub person_code: String,
    /// The code of the company that he belongs to.
    pub company_code: String,
    /// 1 is an administrator.
    pub account_type: i32,
    /// What he may do beyond what every user may.
    pub rights: Rights,
}

/// How a new user proves who he is.
#[derive(Clone, Debug)]
pub enum NewCredential {
    /// With this password.
    Password(Secret),
    /// With this password, which he has to change first.
    OneTime(Secret),
    /// With the password that this is the hash of.
    Hash(String),
    /// Not at all, until an administrator gives him a password.
    None,
}

/// A user to make.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The name that he signs in with.
    pub name: String,
    /// How he proves who he is.
    pub credential: NewCredential,
    /// Whether he may sign in at once.
    pub enabled: bool,
    /// The rest.
    pub spec: UserSpec,
}

/// Who changes a password.
#[derive(Clone, Debug)]
pub enum PasswordOwner {
    /// Whoever knows the name and the password that is in force.
    Named(String),
    /// The user of this session.
    InSession(UserId, SessionId),
}

/// What somebody who guesses a user's password knows of him.
fn context(user: &User) -> Vec<String> {
    vec![user.name.clone(), user.person_code.clone(), user.company_code.clone()]
}

/// Checks a text of a record.
pub(super) fn check_text(field: &str, text: &str) -> Result<(), Error> {
    if text.len() > MAX_TEXT {
        return Err(Error::parameter(field, Problem::TooLong));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::parameter(field, Problem::Malformed));
    }
    Ok(())
}

impl UserSpec {
    /// Checks what an administrator said, and gives the account type.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name of the field.
    pub fn check(&self) -> Result<u8, Error> {
        check_text("person_code", &self.person_code)?;
        check_text("company_code", &self.company_code)?;
        u8::try_from(self.account_type).map_err(|_| Error::parameter("account_type", Problem::NotAllowed))
    }
}

impl Core {
    /// Makes a user, not stored yet. Everything but the password is checked before the password is hashed.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name of the field, as `user.…`, `password` or `password_hash`.
    pub async fn new_user(&self, new: NewUser) -> Result<User, Error> {
        let account_type = new.spec.check().map_err(|error| error.within("user"))?;
        if new.name.is_empty() {
            return Err(Error::parameter("user.user_name", Problem::Missing));
        }
        check_text("user.user_name", &new.name)?;
        let (password_hash, password_change_required) = match new.credential {
            NewCredential::Password(password) => {
                password::check("password", &password, self.settings.min_password_length)?;
                let context = vec![new.name.clone(), new.spec.person_code.clone(), new.spec.company_code.clone()];
                (Some(self.hasher.hash_chosen("password", password, context).await?), false)
            }
            NewCredential::OneTime(password) => (Some(self.hasher.hash(password).await?), true),
            NewCredential::Hash(hash) => {
                password::check_hash("password_hash", &hash)?;
                (Some(hash), false)
            }
            NewCredential::None => (None, false),
        };
        let now = self.now();
        Ok(User {
            id: UserId::random()?,
            name: new.name,
            person_code: new.spec.person_code,
            company_code: new.spec.company_code,
            account_type,
            enabled: new.enabled,
            password_hash,
            password_change_required,
            created_at: now,
            updated_at: now,
            rights: new.spec.rights,
        })
    }

    /// Makes a user.
    ///
    /// # Errors
    /// As [`Core::new_user`]; [`Error::AlreadyExists`].
    pub async fn create_user(&self, new: NewUser) -> Result<User, Error> {
        let user = self.new_user(new).await?;
        self.store.create_users(vec![user.clone()]).await.map_err(|error| match error {
            Error::AlreadyExists { .. } => Error::AlreadyExists { name: "user.user_name".into() },
            other => other,
        })?;
        Ok(user)
    }

    /// Changes a user.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when no enabled administrator would be left; whatever `change` refuses with.
    pub async fn update_user(
        &self,
        id: UserId,
        change: impl Fn(&mut User) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<User, Error> {
        let now = self.now();
        self.store
            .update_user(
                id,
                Box::new(move |user| {
                    change(user)?;
                    user.updated_at = now;
                    Ok(())
                }),
                now,
            )
            .await
    }

    /// Gives a user a password, as an administrator does: his sessions end.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name `password`; [`Error::NotFound`].
    pub async fn set_password(&self, id: UserId, password: Secret) -> Result<(), Error> {
        password::check("password", &password, self.settings.min_password_length)?;
        let user = self.store.user(id).await?.ok_or(Error::NotFound("user"))?;
        let hash = self.hasher.hash_chosen("password", password, context(&user)).await?;
        self.store.set_password(id, NewPassword { hash, change_required: false, replaces: None, keep: Kept::None }, self.now()).await?;
        Ok(())
    }

    /// Gives a user a one-time password: his sessions end, and he has to change it before he can sign in.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn reset_password(&self, id: UserId) -> Result<Secret, Error> {
        let password = Secret::random()?;
        let hash = self.hasher.hash(password.clone()).await?;
        self.store.set_password(id, NewPassword { hash, change_required: true, replaces: None, keep: Kept::None }, self.now()).await?;
        Ok(password)
    }

    /// Changes a user's own password. His other sessions end, unless he wants them to go on.
    ///
    /// # Errors
    /// [`Error::WrongPassword`], [`Error::UserDisabled`], [`Error::TooManyTries`], [`Error::Parameter`] with the name `new_password`.
    pub async fn change_password(
        &self,
        owner: PasswordOwner,
        current: Secret,
        new: Secret,
        keep_others: bool,
        source: &Source,
    ) -> Result<(), Error> {
        password::check("new_password", &new, self.settings.min_password_length)?;
        let (name, own, source) = match owner {
            PasswordOwner::Named(name) => (name, Kept::None, source.clone()),
            PasswordOwner::InSession(id, session) => {
                let user = self.store.user(id).await?.ok_or(Error::CredentialRefused)?;
                let browser = Some(Browser::of_session(session, id));
                (user.name, Kept::One(session), Source { browser, ..source.clone() })
            }
        };
        let user = self.check_password(&name, current.clone(), &source).await?;
        if current.matches(new.expose().as_bytes()) {
            return Err(Error::parameter("new_password", Problem::NotAllowed));
        }
        let hash = self.hasher.hash_chosen("new_password", new, context(&user)).await?;
        let keep = if keep_others { Kept::All } else { own };
        let password = NewPassword { hash, change_required: false, replaces: user.password_hash, keep };
        self.store.set_password(user.id, password, self.now()).await?;
        self.on_password_changed.password_changed(&user.name);
        Ok(())
    }
}
