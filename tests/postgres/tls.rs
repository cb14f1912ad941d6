//! The way to the database, encrypted to whom it is meant for.

use std::time::{Duration, Instant};

use supos_auth::store::postgres::PostgresStore;

use crate::{
    address,
    postgres_server::{PASSWORD, PostgresServer, is_wanted},
};

/// Run by the server itself, in its folder: an authority, a certificate of its for `localhost`, and another authority.
const CERTIFICATES: &str = "cat > /dev/null; umask 077; new=\"-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes\"; \
    openssl req -x509 $new -days 2 -subj /CN=authority -keyout ca.key -out ca.pem && \
    openssl req -x509 $new -days 2 -subj /CN=another -keyout other.key -out other.pem && \
    openssl req $new -subj /CN=localhost -keyout server.key -out server.csr && \
    echo subjectAltName=DNS:localhost > names && \
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_speaks_tls_to_the_server_that_the_url_names_and_to_no_other() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::start(Vec::new());
    server.psql("postgres", &format!("COPY (SELECT 1) TO PROGRAM '{CERTIFICATES}'"));
    server.psql("postgres", "ALTER SYSTEM SET ssl = on");
    server.psql("postgres", "SELECT pg_reload_conf()");
    let data = server.folder().join("data").to_string_lossy().replace('/', "%2F");
    let open = async |host: &str, authority: &str| {
        let port = server.port();
        let url = format!("postgres://postgres:{PASSWORD}@{host}:{port}/postgres?sslmode=verify-full{authority}");
        PostgresStore::open(address(&url), 2).await
    };
    let (right, other) = (format!("&sslrootcert={data}%2Fca.pem"), format!("&sslrootcert={data}%2Fother.pem"));
    // It takes a moment until it knows its settings.
    let deadline = Instant::now() + Duration::from_secs(30);
    let store = loop {
        match open("localhost", &right).await {
            Ok(store) => break store,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    let plain = "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'supos-auth' AND NOT ssl";
    assert_eq!(server.psql("postgres", plain), "0");
    assert_ne!(server.psql("postgres", &plain.replace("AND NOT ssl", "AND ssl")), "0");
    drop(store);
    for (host, authority, why) in [
        ("localhost", other.as_str(), "another authority's certificate"),
        ("localhost", "", "an authority that the machine does not know"),
        ("127.0.0.1", right.as_str(), "a certificate for another name"),
    ] {
        let refused = open(host, authority).await.expect_err(why).to_string();
        assert!(refused.to_lowercase().contains("certificate"), "{why}: {refused}");
        assert!(!refused.contains(PASSWORD), "{refused}");
    }
}
