-- Times are milliseconds since 1970. Ids and hashes are bytes. Texts that callers choose freely (scopes, logout URIs) are bytes, too:
-- they may hold a NUL, which a text of PostgreSQL cannot. Names sort by their bytes, whatever the database's locale.

-- What the store was made for, and its root key, sealed under the master key.
CREATE TABLE IF NOT EXISTS identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    origin text NOT NULL,
    root bytea NOT NULL
);

-- Rows that a step locks which must not run beside another of its kind, because it looks at several rows and changes one.
CREATE TABLE IF NOT EXISTS guards (
    name text PRIMARY KEY
);
INSERT INTO guards (name) VALUES ('administrators'), ('authorities'), ('signing_keys') ON CONFLICT DO NOTHING;

-- Written to find out whether the database takes writes.
CREATE TABLE IF NOT EXISTS probes (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    probed_at bigint NOT NULL
);
INSERT INTO probes (probed_at) VALUES (0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS apps (
    id text COLLATE "C" PRIMARY KEY,
    incarnation bytea NOT NULL,
    display_name text NOT NULL,
    redirect_uris text[] NOT NULL,
    logout_uris text[] NOT NULL,
    enabled boolean NOT NULL,
    refresh_requires_app_credential boolean NOT NULL,
    secrets jsonb NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    rights text[] NOT NULL,
    signature_requires_date boolean NOT NULL
);

-- How often an app does what it should do no more: a deprecated operation, or (the empty name) a signature without a checked date.
CREATE TABLE IF NOT EXISTS app_usage (
    app text COLLATE "C" NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    operation text NOT NULL,
    times bigint NOT NULL,
    last_at bigint NOT NULL,
    PRIMARY KEY (app, operation)
);

CREATE TABLE IF NOT EXISTS users (
    id bytea PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    person_code text NOT NULL,
    company_code text NOT NULL,
    account_type bigint NOT NULL,
    enabled boolean NOT NULL,
    password_hash text,
    password_change_required boolean NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    rights text[] NOT NULL,
    -- Whether he is enabled and may administer the service, as the service judged it when it wrote the row.
    administrator boolean NOT NULL
);
CREATE INDEX IF NOT EXISTS users_administrators ON users (id) WHERE administrator;

CREATE TABLE IF NOT EXISTS signing_keys (
    kid text COLLATE "C" PRIMARY KEY,
    sealed bytea NOT NULL,
    x text NOT NULL,
    y text NOT NULL,
    created_at bigint NOT NULL,
    activates_at bigint NOT NULL,
    retired_at bigint,
    expires_at bigint,
    forgotten_at bigint
);

CREATE TABLE IF NOT EXISTS authorities (
    id bytea PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    client_id text NOT NULL,
    client_secret bytea NOT NULL,
    authorization_uri text NOT NULL,
    token_uri text NOT NULL,
    userinfo_uri text NOT NULL,
    logout_uri text NOT NULL,
    enabled boolean NOT NULL,
    -- When it goes unless an administrator enables it, and where it was registered from; null: it waits for nobody.
    pending_until bigint,
    pending_network text,
    link_by_name boolean NOT NULL,
    create_users boolean NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS authorities_pending ON authorities (pending_until) WHERE pending_until IS NOT NULL;

CREATE TABLE IF NOT EXISTS links (
    authority_id bytea NOT NULL REFERENCES authorities (id) ON DELETE CASCADE,
    subject text COLLATE "C" NOT NULL,
    user_id bytea NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    origin text NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (authority_id, subject)
);
CREATE INDEX IF NOT EXISTS links_of_user ON links (user_id, authority_id, subject);

-- Whoever changes something that belongs to a session (a family, that it was ended) has locked its row before.
CREATE TABLE IF NOT EXISTS sessions (
    id bytea PRIMARY KEY,
    user_id bytea NOT NULL REFERENCES users (id),
    ticket bytea NOT NULL UNIQUE,
    created_at bigint NOT NULL,
    last_used_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    idle_lifetime bigint NOT NULL,
    next_family bigint NOT NULL,
    authority_id bytea,
    -- When to see whether it has ended. Not moved with each use, so that a use changes no index.
    look_at bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS sessions_of_user ON sessions (user_id, id);
CREATE INDEX IF NOT EXISTS sessions_to_look_at ON sessions (look_at);

CREATE TABLE IF NOT EXISTS families (
    session_id bytea NOT NULL REFERENCES sessions (id),
    number bigint NOT NULL,
    app text NOT NULL,
    incarnation bytea NOT NULL,
    scope bytea NOT NULL,
    logout_uri bytea NOT NULL,
    redirect_origin text NOT NULL,
    generation bigint NOT NULL,
    rotated_at bigint NOT NULL,
    PRIMARY KEY (session_id, number)
) WITH (fillfactor = 80);

-- Families that were ended by a replay: their apps are told when the session ends. Those that would be told alike share a row.
CREATE TABLE IF NOT EXISTS ended_families (
    session_id bytea NOT NULL REFERENCES sessions (id),
    hash bytea NOT NULL,
    app text NOT NULL,
    incarnation bytea NOT NULL,
    scope bytea NOT NULL,
    logout_uri bytea NOT NULL,
    redirect_origin text NOT NULL,
    generation bigint NOT NULL,
    rotated_at bigint NOT NULL,
    PRIMARY KEY (session_id, hash)
);

-- A code outlives its session, and refers to nothing: it is judged by what is there when it is used.
CREATE TABLE IF NOT EXISTS codes (
    hash bytea PRIMARY KEY,
    app text NOT NULL,
    incarnation bytea NOT NULL,
    session_id bytea NOT NULL,
    redirect_uri text NOT NULL,
    scope bytea NOT NULL,
    expires_at bigint NOT NULL,
    -- The number of the family that its use gave out; null: it has not been used.
    used bigint,
    kept_until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS codes_kept_until ON codes (kept_until);

-- What works once, and was used.
CREATE TABLE IF NOT EXISTS used_up (
    hash bytea PRIMARY KEY,
    kept_until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS used_up_kept_until ON used_up (kept_until);

-- Calls that are owed to apps, and those that were given up.
CREATE TABLE IF NOT EXISTS logouts (
    id bytea PRIMARY KEY,
    lane bytea NOT NULL,
    app text NOT NULL,
    incarnation bytea NOT NULL,
    uri text NOT NULL,
    user_id bytea NOT NULL,
    session_id bytea NOT NULL,
    created_at bigint NOT NULL,
    next_try_at bigint NOT NULL,
    tries bigint NOT NULL,
    last_error text NOT NULL,
    given_up_at bigint
);
CREATE INDEX IF NOT EXISTS logouts_owed ON logouts (id) WHERE given_up_at IS NULL;
CREATE INDEX IF NOT EXISTS logouts_turns ON logouts (lane, next_try_at, id) WHERE given_up_at IS NULL;
CREATE INDEX IF NOT EXISTS logouts_given_up ON logouts (given_up_at) WHERE given_up_at IS NOT NULL;
