//! The layer stack of a server: every check of a call, from the HTTP request to the RPC.
//!
//! [`Stack::serve`] observes a call (trace, metrics, logs, audit); [`Stack::authorize`] has its checks: [`access::decide`] applies
//! the rule, with those of the server between its parts.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use drystone::contract::{
    Method,
    method::{ENTRY_POINTS, OPERATOR},
};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body as _, Incoming};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, body::Body};
use tracing::{Instrument, Span, error, info_span, warn};

use super::{
    DynService, ServerLimits,
    acceptor::PeerInfo,
    adaptive::{self, AdaptiveLimit, LatencyWindow},
    concurrency::{CallKind, Concurrency, Permit, ReachedLimit, Share},
    request::{self, MessageLimitBody},
    response::{self, Completion, ResponseBody},
};
use crate::{
    access::{self, AccessRequest, Denial, RuleTable, ShadowRule},
    call::{self, Call, CallFields, Client, header},
    clock::Clock,
    connections::{Request as RequestInProgress, RequestBytes},
    deadline::{self, SetBy},
    error::{Error, Reason},
    identity::{Identity, TrustDomain},
    limit::{self, Key, Limit},
    node::Node,
    telemetry::{CallerLabel, LogBudget, MethodMetrics, Metrics, TraceContext},
    token::{Principal, TokenVerifier},
};

/// The checks and observers of every call.
pub(super) struct Stack {
    methods: HashMap<Arc<str>, Arc<RpcEntry>>,
    unknown: MethodMetrics,
    metrics: Metrics,
    verifier: TokenVerifier,
    identity: Identity,
    domain: TrustDomain,
    clock: Clock,
    concurrency: Concurrency,
    max_message_size: usize,
    default_deadline: Duration,
    max_deadline: Duration,
    streams: CancellationToken,
    tasks: TaskTracker,
    denial_lines: LogBudget,
    shadow_lines: LogBudget,
    malformed_lines: LogBudget,
    overload_lines: LogBudget,
}

/// One RPC: its rule, its service and its metrics.
pub(super) struct RpcEntry {
    pub(super) rule: Arc<Method>,
    /// The rule of a coming contract, which denies nothing.
    shadow: Option<ShadowRule>,
    service: Arc<dyn DynService>,
    pub(super) metrics: MethodMetrics,
    limit: Option<Limit>,
    /// Whether it is a health check or reflection, which every server has.
    is_built_in: bool,
    /// The latencies of its calls; `None` for streams, which last as long as their callers want, and for what is built in.
    pub(super) latency: Option<LatencyWindow>,
    /// The budget of audit records of refused calls: any client can cause them.
    pub(super) refusal_records: LogBudget,
}

/// The peer of a connection, identified once per connection.
pub(super) struct Peer {
    info: PeerInfo,
    label: CallerLabel,
    /// Its share of the calls in flight.
    share: Arc<Share>,
    is_entry_point: bool,
    is_operator: bool,
    /// Ends the streams of the connection.
    streams: CancellationToken,
}

impl Peer {
    /// Ends the streams of the connection.
    pub(super) fn streams(&self) -> &CancellationToken {
        &self.streams
    }
}

/// A call that passed all checks.
struct AuthorizedCall {
    call: Call,
    deadline: CallDeadline,
    permit: Permit,
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
            let (metrics, is_built_in) = (node.metrics.method(&rule.path), rule.service().starts_with("grpc."));
            let shadow = node.shadow_rules.of(&rule);
            let latency = (!is_built_in && !rule.is_streaming()).then(LatencyWindow::default);
            Some(Arc::new(RpcEntry { rule, shadow, service, metrics, limit, is_built_in, latency, refusal_records }))
        };
        Self {
            methods: rules.into_iter().filter_map(|(path, rule)| Some((path, entry(rule)?))).collect(),
            unknown: unknown_metrics(&node.metrics),
            metrics: node.metrics.clone(),
            verifier: node.verifier.clone(),
            domain: node.identity.trust_domain(),
            identity: node.identity.clone(),
            clock: node.clock.clone(),
            concurrency: Concurrency::new(node, limits),
            max_message_size: limits.max_message_size,
            default_deadline: limits.default_deadline,
            max_deadline: limits.max_deadline,
            streams: CancellationToken::new(),
            denial_lines: node.metrics.log_budget("call denied"),
            shadow_lines: node.metrics.log_budget("call would be denied"),
            malformed_lines: node.metrics.log_budget("request rejected, not gRPC"),
            overload_lines: node.metrics.log_budget("call refused, overloaded"),
            tasks: node.tasks.clone(),
        }
    }

    /// Identifies the peer of a new connection, a workload with this key.
    pub(super) fn peer(&self, info: PeerInfo, key: Key) -> Peer {
        let workload = access::workload(&info.svid.id, &self.domain);
        let is_entry_point = workload.is_some_and(|name| ENTRY_POINTS.contains(&name));
        let (label, is_operator) = (self.metrics.caller(workload), workload == Some(OPERATOR));
        Peer {
            label,
            share: self.concurrency.share(key, label),
            is_entry_point,
            is_operator,
            info,
            streams: self.streams.child_token(),
        }
    }

    /// Ends all streams, so that the server can stop.
    pub(super) fn stop_streams(&self) {
        self.streams.cancel();
    }

    /// Lets the limit of calls in flight follow latency, if it does, until it is cancelled.
    pub(super) async fn follow_latency(self: Arc<Self>, limits: ServerLimits) {
        let windows: Vec<&LatencyWindow> = self.methods.values().filter_map(|entry| entry.latency.as_ref()).collect();
        let Some(mut limit) = AdaptiveLimit::new(&limits, windows.len()) else { return };
        let mut interval = tokio::time::interval(adaptive::INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let samples: Vec<_> = windows.iter().map(|window| window.take()).collect();
            self.concurrency.update(limit.update(&samples, self.concurrency.is_loaded()));
        }
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
            self.authorize(entry, &incoming, request.headers())
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
        let is_stream = entry.rule.server_streaming;
        let is_read_as_stream = entry.rule.client_streaming;
        // The one message of a server stream has to arrive in time, although the stream itself has no deadline.
        let head_deadline = deadline.or_else(|| {
            (is_stream && !is_read_as_stream).then(|| incoming.started.checked_add(self.max_deadline)).flatten()
        });
        let user = call.fields().principal.clone().filter(|_| is_stream || is_read_as_stream);
        let answer = self.run(entry, call, head_deadline, request, in_progress.bytes()).instrument(span);
        let mut response = match user.clone().filter(|_| is_read_as_stream) {
            None => answer.await,
            Some(user) => tokio::select! {
                response = answer => response,
                error = self.verifier.invalidation(user) => Status::from(Error::from(error)).into_http(),
            },
        };
        if is_stream {
            let invalidation = user.map(|user| self.verifier.invalidation(user));
            // A stream may last for days: it releases its permit.
            completion.permit = None;
            response = response.map(|body| response::stream(body, deadline, invalidation, peer.streams.clone()));
        }
        completion.watch(response, in_progress)
    }

    /// Checks a call. The cheapest checks come first.
    fn authorize(
        &self,
        entry: &RpcEntry,
        incoming: &IncomingCall<'_>,
        headers: &HeaderMap,
    ) -> Result<AuthorizedCall, Rejection> {
        let (rule, caller) = (&*entry.rule, &incoming.peer.info.svid);
        if self.identity.denies(caller) {
            return Err(access::denied_caller(caller).into());
        }
        let request =
            AccessRequest { caller, domain: &self.domain, headers, verifier: &self.verifier, now: self.clock.now() };
        let checks = || {
            // A malformed deadline could not be enforced.
            let deadline = self.deadline(rule, incoming, headers)?;
            // Load before the token, whose verification is expensive.
            let kind =
                if entry.is_built_in || incoming.peer.is_operator { CallKind::Essential } else { CallKind::Ordinary };
            let permit = incoming.peer.share.try_acquire(kind).map_err(|limit| self.refuse(incoming.peer, limit))?;
            Ok::<_, Rejection>((deadline, permit))
        };
        let record = |user: &Principal| call::record_user(user.user_id);
        let ((deadline, permit), user) = access::decide(rule, &request, checks, record)?;
        if let Some(denial) = entry.shadow.as_ref().and_then(|shadow| shadow.denial(&request)) {
            incoming.report_shadow(&entry.metrics, &denial, &self.shadow_lines);
        }

        let call = Call::new(CallFields {
            request_id: incoming.request_id.clone(),
            trace: incoming.trace,
            deadline: deadline.at,
            caller: Some(incoming.peer.info.svid.id.clone()),
            authorization: user.as_ref().map(|user| user.authorization.clone()),
            principal: user.map(|user| user.principal),
            client: incoming.client(headers),
        });
        Ok(AuthorizedCall { call, deadline, permit })
    }

    /// Counts and logs a call that is refused because too many are in flight. The span has caller, method and request id.
    fn refuse(&self, peer: &Peer, limit: ReachedLimit) -> Error {
        peer.share.refused(limit);
        if self.overload_lines.allows() {
            warn!(limit = limit.name(), remote = %peer.info.remote, "call refused, overloaded");
        }
        overloaded(limit)
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
    fn completion(&self, entry: &Arc<RpcEntry>, client: String, span: Span, permit: Option<Permit>) -> Completion {
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

    /// Reports that the shadow rules would deny the call, which goes on.
    fn report_shadow(&self, metrics: &MethodMetrics, denial: &Denial, lines: &LogBudget) {
        metrics.shadow_denied(denial.part.name(), self.peer.label);
        // The span has caller, method and request id.
        let (rule, reason) = (denial.part.name(), denial.error.reason().name());
        if lines.allows() {
            warn!(rule, reason, remote = %self.peer.info.remote, "call would be denied by the shadow rules");
        }
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

fn overloaded(limit: ReachedLimit) -> Error {
    let text = match limit {
        ReachedLimit::Workload => "the calling workload has too many concurrent calls; try again shortly",
        ReachedLimit::Server => "too many concurrent calls; try again shortly",
        ReachedLimit::Latency => "too many concurrent calls while calls are slow; try again shortly",
    };
    Error::new(Reason::Overloaded, text).retry_after(Duration::from_secs(1))
}

fn unknown_metrics(metrics: &Metrics) -> MethodMetrics {
    metrics.method("/unknown/unknown")
}
