# One image for all services: the command `serve NAME` selects the service.

# The Debian release of the libraries below, and the minimum Rust version of Cargo.toml.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /source

# All workspace members, since Cargo reads each manifest; and build/, with the protoc of .cargo/config.toml.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY build build
COPY contract contract
COPY proto proto
COPY src src
COPY mesh mesh
COPY store store
COPY webauthn webauthn
COPY workload-api workload-api
COPY services services
COPY cli cli
COPY testing testing
COPY tests tests
COPY benches benches

# Features of drystone-cli, such as `workload-api`.
ARG FEATURES=
# Caches the registry and the build. The symbol table is kept for backtraces.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,sharing=locked \
    cargo build --locked --release --package drystone-cli --features "$FEATURES" \
    && strip --strip-debug -o /drystone target/release/drystone

# The content of the image: the program, the libraries that it is linked to, the CA certificates for public servers, and the
# name service configuration. No shell and no package manager: little attack surface, updated only by a new build.
RUN set -eu; \
    for file in /drystone /etc/ssl/certs/ca-certificates.crt $(ldd /drystone | grep --only-matching '/[^ ]*'); do \
        mkdir -p "/image$(dirname "$file")"; \
        cp --dereference "$file" "/image$file"; \
    done; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    echo 'drystone:x:65532:65532:drystone:/:/drystone' >/image/etc/passwd; \
    echo 'drystone:x:65532:' >/image/etc/group

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Drystone" \
    org.opencontainers.image.description="An identity mesh: accounts, sign-in, sessions, roles and owned resources" \
    org.opencontainers.image.source="https://github.com/drystone/drystone" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
USER 65532:65532
# REST, and the admin port. The gRPC port of a service is `listen` in its section of the configuration.
EXPOSE 8080 8081
ENTRYPOINT ["/drystone"]
CMD ["--help"]
