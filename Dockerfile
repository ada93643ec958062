# One image for all services: which one runs is the command, `serve NAME`.

# The same release of Debian as the libraries below come from, and the oldest Rust that Cargo.toml takes.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /source

# All members of the workspace, since Cargo wants to see each; and build/, with the protoc that .cargo/config.toml names.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY build build
COPY contract contract
COPY proto proto
COPY src src
COPY mesh mesh
COPY store store
COPY services services
COPY cli cli
COPY testing testing
COPY tests tests
COPY benches benches

# What Cargo has fetched and built stays for the next time. Names of functions are left in, for backtraces.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,sharing=locked \
    cargo build --locked --release --package drystone-cli \
    && strip --strip-debug -o /drystone target/release/drystone

# The whole of the image: the program, the few libraries that it is linked to, the roots that it checks foreign certificates
# against, and how names are looked up. With no shell and no package manager there is little to attack and nothing to
# update but by building anew.
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
# REST, and health with metrics. The port of a service's gRPC is `listen` in its section of the configuration.
EXPOSE 8080 8081
ENTRYPOINT ["/drystone"]
CMD ["--help"]
