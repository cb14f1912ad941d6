# syntax=docker/dockerfile:1

# --- Build -----------------------------------------------------------------------------------------------------------
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src

# The dependencies first, in a layer of their own that stays until Cargo.lock or the protos change: the real manifest, and
# sources that are there but empty. No tests or benches are copied, so none may be looked for.
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY proto proto
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && sed -i '/^\[\[\(bench\|test\|example\)\]\]/,/^$/d' Cargo.toml \
    && cargo build --release --locked --bin supos-auth \
    && rm -r src

COPY templates templates
COPY assets assets
COPY src src
# cargo goes by times, and the empty sources are younger than the real ones.
RUN find src -type f -exec touch {} + \
    && cargo build --release --locked --bin supos-auth

# --- Run -------------------------------------------------------------------------------------------------------------
FROM debian:bookworm-slim

# Envoy has to run as the same user: the edge socket is open to its owner alone.
RUN groupadd --gid 10001 supos-auth \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin supos-auth \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/supos-auth /run/supos-auth

# Whom outgoing calls over https trust. Mount others over it, or name a file in SSL_CERT_FILE.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/supos-auth /usr/local/bin/supos-auth

USER 10001:10001
# A new volume takes over owner and mode from here.
VOLUME ["/var/lib/supos-auth", "/run/supos-auth"]

# Asks the gRPC port inside the container. No shell is involved.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["supos-auth", "health"]

ENTRYPOINT ["supos-auth"]
CMD ["serve", "--data-dir", "/var/lib/supos-auth", "--edge-listen", "unix:/run/supos-auth/edge.sock"]
