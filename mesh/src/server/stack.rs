//! The layer stack of a server: every check of a call, from the HTTP request to the RPC.
//!
//! [`Stack::serve`] observes a call (trace, metrics, logs, audit); [`Stack::authorize`] has its checks, one statement each, in
//! order, with the reason for their position.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use drystone::contract::{Method, Subject, method::ENTRY_POINTS};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, body::Body};
use tracing::{Instrument, Span, error, info_span, warn};

use super::{
    DynService, ServerLimits,
    acceptor::PeerInfo,
    request::{self, MessageLimitBody},
    response::{self, Completion, ResponseBody},
};
use crate::{
    access::{self, Denial, RulePart, RuleTable},
    call::{self, Call, CallFields, Client, header},
    clock::Clock,
    connections::{Request as RequestInProgress, RequestBytes},
    deadline::{self, SetBy},
    error::{Error, Reason},
    identity::TrustDomain,
    limit::{self, Limit},
    node::Node,
    telemetry::{CallerLabel, LogBudget, MethodMetrics, Metrics, TraceContext},
    token::{BearerToken, Principal, TokenVerifier},
};

/// The checks and observers of every call.
pub(super) struct Stack {
    methods: HashMap<Arc<str>, Arc<RpcEntry>>,
    unknown: MethodMetrics,
    metrics: Metrics,
    verifier: TokenVerifier,
    domain: TrustDomain,
    clock: Clock,
    in_flight: Arc<Semaphore>,
    max_message_size: usize,
    default_deadline: Duration,
    max_deadline: Duration,
    streams: CancellationToken,
    tasks: TaskTracker,
    denial_lines: LogBudget,
    malformed_lines: LogBudget,
}

/// One RPC: its rule, its service and its metrics.
pub(super) struct RpcEntry {
    pub(super) rule: Arc<Method>,
    service: Arc<dyn DynService>,
    pub(super) metrics: MethodMetrics,
    limit: Option<Limit>,
    /// The budget of audit records of refused calls: any client can cause them.
    pub(super) refusal_records: LogBudget,
}

/// The peer of a connection, identified once per connection.
pub(super) struct Peer {
    info: PeerInfo,
    label: CallerLabel,
    is_entry_point: bool,
}

/// A call that passed all checks.
struct AuthorizedCall {
    call: Call,
    deadline: CallDeadline,
    permit: OwnedSemaphorePermit,
}

/// When a call must be answered, and who says so.
#[derive(Clone, Copy)]
struct CallDeadline {
    at: Option<Instant>,
    set_by: SetBy,
}

/// A received call before its checks.
struct IncomingCall<'a> {
    peer: &'a Peer,
    request_id: HeaderValue,
    trace: TraceContext,
    started: Instant,
}

impl Stack {
    pub(super) fn new(
        node: &Node,
        limits: &ServerLimits,
        rules: RuleTable,
        services: &HashMap<&'static str, Arc<dyn DynService>>,
    ) -> Self {
        let entry = |rule: Arc<Method>| {
            let service = services.get(rule.service())?.clone();
            let limit = node.limits.of(&rule);
            let refusal_records = node.metrics.log_budget("audited call");
            Some(Arc::new(RpcEntry { metrics: node.metrics.method(&rule.path), service, limit, refusal_records, rule }))
        };
        Self {
            methods: rules.into_iter().filter_map(|(path, rule)| Some((path, entry(rule)?))).collect(),
            unknown: unknown_metrics(&node.metrics),
            metrics: node.metrics.clone(),
            verifier: node.verifier.clone(),
            domain: node.identity.trust_domain(),
            clock: node.clock.clone(),
            in_flight: Arc::new(Semaphore::new(limits.max_in_flight)),
            max_message_size: limits.max_message_size,
            default_deadline: limits.default_deadline,
            max_deadline: limits.max_deadline,
            streams: CancellationToken::new(),
            denial_lines: node.metrics.log_budget("call denied"),
            malformed_lines: node.metrics.log_budget("request rejected, not gRPC"),
            tasks: node.tasks.clone(),
        }
    }

    /// Identifies the peer of a new connection.
    pub(super) fn peer(&self, info: PeerInfo) -> Peer {
        let workload = access::workload(&info.svid.id, &self.domain);
        let is_entry_point = workload.is_some_and(|name| ENTRY_POINTS.contains(&name));
        Peer { label: self.metrics.caller(workload), is_entry_point, info }
    }

    /// Ends all streams, so that the server can stop.
    pub(super) fn stop_streams(&self) {
        self.streams.cancel();
    }

    /// Serves one call, which is counted, logged and audited however it ends.
    pub(super) async fn serve(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
        in_progress: RequestInProgress,
    ) -> Response<ResponseBody> {
        let incoming = IncomingCall::of(peer, request.headers());
        let path = request.uri().path();
        let request_id = incoming.request_id.to_str().unwrap_or_default();
        let (user, target_user) = (tracing::field::Empty, tracing::field::Empty);
        let span = info_span!("call", request_id, method = path, caller = %peer.info.svid.id, user, target_user);
        let entry = self.methods.get(path);
        if let Err(error) = request::check(request.method(), request.headers()) {
            let response = span.in_scope(|| incoming.reject_malformed(error, &self.malformed_lines));
            match entry {
                Some(entry) => {
                    let client = incoming.client(request.headers());
                    incoming.completion(entry, client.address, span, None).headers(&response);
                }
                None => self.unknown.observe(peer.label, Code::Unimplemented, incoming.started.elapsed()),
            }
            self.discard(request);
            return ResponseBody::of(response, in_progress);
        }
        let Some(entry) = entry else {
            self.unknown.observe(peer.label, Code::Unimplemented, incoming.started.elapsed());
            let response =
                span.in_scope(|| incoming.reject(&self.unknown, access::unknown_method(), &self.denial_lines));
            self.discard(request);
            return ResponseBody::of(response, in_progress);
        };

        let mut head_bytes = in_progress.bytes();
        let fits = head_bytes.add_head(request.uri(), request.headers());
        let authorized = match span.in_scope(|| {
            fits.map_err(|_| request::overloaded())?;
            self.authorize(&entry.rule, &incoming, request.headers())
        }) {
            // The rate limit is last: a call denied for another reason does not count.
            Ok(authorized) => match &entry.limit {
                None => Ok(authorized),
                Some(limit) => match limit::check_call(limit, authorized.call.fields()).await {
                    Ok(()) => Ok(authorized),
                    Err(error) => Err(Rejection::Failed(error)),
                },
            },
            rejected => rejected,
        };
        let authorized = match authorized {
            Ok(authorized) => authorized,
            Err(rejection) => {
                let response = span.in_scope(|| match rejection {
                    Rejection::Denied(denial) => incoming.reject(&entry.metrics, denial, &self.denial_lines),
                    Rejection::Failed(error) => Status::from(error).into_http(),
                });
                let client = incoming.client(request.headers());
                incoming.completion(entry, client.address, span, None).headers(&response);
                self.discard(request);
                return ResponseBody::of(response, in_progress);
            }
        };

        let AuthorizedCall { call, deadline, permit } = authorized;
        let client = call.fields().client.address.clone();
        let mut completion = incoming.completion(entry, client, span.clone(), Some(permit));
        completion.deadline_set_by = deadline.set_by;
        let deadline = deadline.at;
        let mut response = self.run(entry, call, deadline, request, in_progress.bytes()).instrument(span).await;
        if entry.rule.server_streaming {
            // A stream may last for days: it releases its permit.
            completion.permit = None;
            response = response.map(|body| response::stream(body, deadline, self.streams.clone()));
        }
        completion.watch(response, in_progress)
    }

    /// Checks a call. The cheapest checks come first.
    fn authorize(
        &self,
        rule: &Method,
        incoming: &IncomingCall<'_>,
        headers: &HeaderMap,
    ) -> Result<AuthorizedCall, Rejection> {
        let now = self.clock.now();
        // The caller first: a workload that may not call learns nothing else.
        access::authorize_caller(rule, &incoming.peer.info.svid, &self.domain, now)?;
        // A malformed deadline could not be enforced.
        let deadline = self.deadline(rule, incoming, headers)?;
        // Load before the token, whose verification is expensive.
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| overloaded())?;
        // The user and their permissions.
        let (principal, authorization) = self.verify_token(rule, incoming, headers)?;
        if let Some(principal) = &principal {
            call::record_user(principal.user_id);
            access::authorize_user(rule, principal, now)?;
        }

        let call = Call::new(CallFields {
            request_id: incoming.request_id.clone(),
            trace: incoming.trace,
            deadline: deadline.at,
            caller: Some(incoming.peer.info.svid.id.clone()),
            principal,
            authorization,
            client: incoming.client(headers),
        });
        Ok(AuthorizedCall { call, deadline, permit })
    }

    /// Calls the RPC within its deadline. A panicking handler fails its own call only.
    async fn run(
        &self,
        entry: &RpcEntry,
        call: Call,
        deadline: Option<Instant>,
        request: Request<Incoming>,
        body_bytes: RequestBytes,
    ) -> Response<Body> {
        let RpcEntry { rule, service, .. } = entry;
        let single = !rule.client_streaming;
        let mut request =
            request.map(|body| Body::new(MessageLimitBody::new(body, single, self.max_message_size, body_bytes)));
        request::bound_encoding(request.headers_mut());
        request.extensions_mut().insert(call);
        let answer = AssertUnwindSafe(service.call(request)).catch_unwind();
        let outcome = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), answer).await,
            None => Ok(answer.await),
        };
        match outcome {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_panic)) => {
                error!("the handler panicked");
                Status::from(Error::internal("the handler panicked")).into_http()
            }
            Err(_elapsed) => Status::from(deadline::exceeded()).into_http(),
        }
    }

    /// Drains the body of a denied request.
    fn discard(&self, request: Request<Incoming>) {
        let body = request.into_body();
        if !body.is_end_stream() {
            self.tasks.spawn(request::discard(body));
        }
    }

    fn deadline(
        &self,
        rule: &Method,
        incoming: &IncomingCall<'_>,
        headers: &HeaderMap,
    ) -> Result<CallDeadline, Rejection> {
        let requested = deadline::parse_timeout(headers)?;
        let policy = rule.policy.deadline;
        let timeout = |requested| {
            if rule.is_streaming() {
                return deadline::for_stream(policy, requested);
            }
            Some(deadline::for_unary(policy, requested, self.default_deadline, self.max_deadline))
        };
        let applied = timeout(requested);
        let at = applied.and_then(|timeout| incoming.started.checked_add(timeout));
        Ok(CallDeadline { at, set_by: SetBy::of(applied, timeout(None)) })
    }

    fn verify_token(
        &self,
        rule: &Method,
        incoming: &IncomingCall<'_>,
        headers: &HeaderMap,
    ) -> Result<(Option<Arc<Principal>>, Option<HeaderValue>), Rejection> {
        let caller = access::workload(&incoming.peer.info.svid.id, &self.domain);
        let is_optional = !rule.requires_token(caller);
        if rule.subject == Subject::None || (is_optional && !headers.contains_key(AUTHORIZATION)) {
            return Ok((None, None));
        }
        let deny = |error: Error| Rejection::Denied(Denial::new(RulePart::Subject, error));
        let BearerToken { header, token } = BearerToken::of(headers).map_err(deny)?;
        let principal = self.verifier.verify(token).map_err(|error| deny(error.into()))?;
        Ok((Some(principal), Some(header.clone())))
    }
}

impl<'a> IncomingCall<'a> {
    fn of(peer: &'a Peer, headers: &HeaderMap) -> Self {
        let given = headers.get(header::REQUEST_ID).filter(|id| call::valid_request_id(id));
        let trace = headers.get(header::TRACEPARENT).and_then(TraceContext::parse);
        Self {
            peer,
            request_id: given.cloned().unwrap_or_else(call::new_request_id),
            trace: trace.map_or_else(TraceContext::new_root, |trace| trace.child()),
            started: Instant::now(),
        }
    }

    /// The outside client, as reported by an entry point; other callers are not trusted with it.
    fn client(&self, headers: &HeaderMap) -> Client {
        let trusted_header = |name| {
            let value = headers.get(name).filter(|_| self.peer.is_entry_point);
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        Client { address: trusted_header(header::CLIENT_ADDRESS), agent: trusted_header(header::CLIENT_AGENT) }
    }

    /// Records the call when it ends.
    fn completion(
        &self,
        entry: &Arc<RpcEntry>,
        client: String,
        span: Span,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Completion {
        let (entry, caller, remote) = (entry.clone(), self.peer.label, self.peer.info.remote);
        let deadline_set_by = SetBy::Server;
        let started = self.started;
        Completion { entry, caller, started, client, remote, span, permit, deadline_set_by, is_recorded: false }
    }

    /// Rejects a request that is not gRPC.
    fn reject_malformed(&self, error: Error, lines: &LogBudget) -> Response<Body> {
        if lines.allows() {
            warn!(reason = error.reason().name(), remote = %self.peer.info.remote, "request rejected, not gRPC");
        }
        request::reject(error)
    }

    fn reject(&self, metrics: &MethodMetrics, denial: Denial, lines: &LogBudget) -> Response<Body> {
        metrics.denied(denial.part.name(), self.peer.label);
        // The span has caller, method and request id.
        let (rule, reason) = (denial.part.name(), denial.error.reason().name());
        if lines.allows() {
            warn!(rule, reason, remote = %self.peer.info.remote, "call denied");
        }
        Status::from(denial.error).into_http()
    }
}

/// Why a call was rejected: denied by its rule, or malformed.
enum Rejection {
    Denied(Denial),
    Failed(Error),
}

impl From<Denial> for Rejection {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn overloaded() -> Error {
    Error::new(Reason::Overloaded, "too many concurrent calls; try again shortly").retry_after(Duration::from_secs(1))
}

fn unknown_metrics(metrics: &Metrics) -> MethodMetrics {
    metrics.method("/unknown/unknown")
}
