"""The gRPC shell of identity: `Certify`, and the issuer that is current."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import grpc
import grpc.aio

from linkerd.identity import metrics
from linkerd.identity.certifying import CheckedRequest, InvalidRequest, RequestMismatch, Validity, check_request, issue
from linkerd.identity.events import Event, Recorder
from linkerd.identity.issuer import Issuer, IssuerFiles, IssuerUnavailable
from linkerd.identity.tokens import NotAuthenticated, ReviewFailed, TokenReviewer, TooManyTokens
from linkerd.kit.files import changes
from linkerd.kit.logging import Sparing, fields
from linkerd.kit.rpc import peer_name
from linkerd.kit.x509 import Certificate, CertificateError, certificate_der
from linkerd.proto.identity_pb2 import CertifyRequest, CertifyResponse

log = logging.getLogger(__name__)

_RELOAD_SECONDS = 600.0
"""The files are read again at this pace even if nothing seems to have changed."""


class CurrentIssuer:
    """The issuer in force; kept so by `run`."""

    def __init__(self, files: IssuerFiles, recorder: Recorder, namespace: str) -> None:
        self._files = files
        self._recorder = recorder
        self._namespace = namespace
        self._issuer: Issuer | None = None
        self._overtaken: Certificate | None = None
        self._reason = "not loaded yet"
        metrics.ISSUER_TTL.set_function(self._seconds_left)
        metrics.ISSUER_LOADED.set_function(lambda: float(self._issuer is not None))

    @property
    def loaded(self) -> bool:
        return self._issuer is not None

    def get(self) -> Issuer:
        """Raises IssuerUnavailable."""
        if self._issuer is None:
            raise IssuerUnavailable(self._reason)
        return self._issuer

    def reload(self) -> None:
        """Takes up what is in the files, if it can be used; else the one we have goes on."""
        try:
            issuer = self._files.load()
        except IssuerUnavailable as error:
            self._reason = str(error)
            metrics.ISSUER_RELOADS.labels("failed").inc()
            log.error("cannot load the issuer", extra=fields(error=error, keeps_old=self.loaded))
            self._tell("IssuerUpdateSkipped" if self.loaded else "IssuerValidationFailed", str(error), "Warning")
            return
        metrics.ISSUER_RELOADS.labels("ok").inc()
        if issuer.authority.certificate == self._overtaken:
            return  # the file has not been brought up to date yet
        self._take(issuer)

    def take(self, issuer: Issuer) -> None:
        """One that is in the cluster already, and in the files only when the kubelet has brought it there."""
        if issuer.authority.certificate == _certificate(self._issuer):
            return
        try:
            in_files = self._files.certificate()
        except IssuerUnavailable:
            in_files = None
        self._overtaken = in_files if in_files != issuer.authority.certificate else None
        self._take(issuer)

    def _take(self, issuer: Issuer) -> None:
        if issuer.authority.certificate == _certificate(self._issuer) and issuer.anchors == _anchors(self._issuer):
            return
        first, self._issuer = self._issuer is None, issuer
        certificate = issuer.authority.certificate
        log.info(
            "issuer loaded",
            extra=fields(
                subject=certificate.subject.rfc4514_string(),
                expires=certificate.not_valid_after_utc.isoformat(),
                anchors=len(issuer.anchors),
            ),
        )
        if not first:
            self._tell("IssuerUpdated", f"issuer now valid until {certificate.not_valid_after_utc.isoformat()}")

    async def run(self) -> None:
        """Follows the files for ever, from what they are now: they may have changed since they were read."""
        self.reload()
        async for _ in changes(self._files.paths(), at_least_every=_RELOAD_SECONDS):
            self.reload()

    def _seconds_left(self) -> float:
        return self._issuer.seconds_left(datetime.now(UTC)) if self._issuer else 0.0

    def _tell(self, reason: str, message: str, kind: str = "Normal") -> None:
        event = Event(reason, message, self._namespace, "Deployment", "linkerd-identity", "apps/v1", kind)
        self._recorder.record_nowait(event)


class _Refused(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class IdentityService:
    def __init__(
        self,
        issuer: CurrentIssuer,
        reviewer: TokenReviewer,
        recorder: Recorder,
        validity: Validity,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._issuer = issuer
        self._reviewer = reviewer
        self._recorder = recorder
        self._validity = validity
        self._now = now
        self._sparing = Sparing()

    def handler(self) -> grpc.GenericRpcHandler:
        certify = grpc.unary_unary_rpc_method_handler(
            self.certify,
            request_deserializer=CertifyRequest.FromString,
            response_serializer=CertifyResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("io.linkerd.proxy.identity.Identity", {"Certify": certify})

    async def certify(self, request: CertifyRequest, context: grpc.aio.ServicerContext) -> CertifyResponse:
        try:
            response = await self._certify(request)
        except _Refused as refusal:
            metrics.CERTIFICATIONS.labels(refusal.code.name).inc()
            self._log_refusal(request, refusal, context)
            await context.abort(refusal.code, str(refusal))
        metrics.CERTIFICATIONS.labels("OK").inc()
        return response

    def _log_refusal(self, request: CertifyRequest, refusal: _Refused, context: grpc.aio.ServicerContext) -> None:
        more = self._sparing.take()
        if more is None:
            return
        level = logging.ERROR if refusal.code == grpc.StatusCode.UNKNOWN else logging.WARNING
        found = fields(
            identity=request.identity, peer=peer_name(context), code=refusal.code.name, error=refusal, **more
        )
        log.log(level, "certificate refused", extra=found)

    async def _certify(self, request: CertifyRequest) -> CertifyResponse:
        issuer = self._current()
        checked = _checked(request)
        await self._authenticate(request)
        try:
            leaf = issue(checked, issuer, self._validity, self._now())
        except CertificateError as error:
            # Linkerd answers this one without a status of its own.
            raise _Refused(grpc.StatusCode.UNKNOWN, f"the issuer cannot be used: {error}") from error
        except ValueError as error:
            raise _Refused(grpc.StatusCode.INTERNAL, f"signing failed: {error}") from error
        self._note(request.identity, leaf)
        return _response(leaf, issuer)

    def _current(self) -> Issuer:
        try:
            return self._issuer.get()
        except IssuerUnavailable as error:
            raise _Refused(grpc.StatusCode.UNAVAILABLE, f"no issuer: {error}") from error

    async def _authenticate(self, request: CertifyRequest) -> None:
        try:
            token = request.token.decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, "token is not text") from error
        try:
            self._check_same(self._reviewer.claimed(token), request)
            self._check_same(await self._reviewer.identity(token), request)
        except NotAuthenticated as error:
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, f"token refused: {error}") from error
        except ReviewFailed as error:
            raise _Refused(grpc.StatusCode.INTERNAL, f"the token could not be reviewed: {error}") from error
        except TooManyTokens as error:
            raise _Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error

    def _check_same(self, found: str, request: CertifyRequest) -> None:
        if found != request.identity:
            message = f"the token is that of `{found}`, not of `{request.identity}`"
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, message)

    def _note(self, identity: str, leaf: Certificate) -> None:
        until = leaf.not_valid_after_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
        log.info("certificate issued", extra=fields(identity=identity, until=until))
        account, _, namespace = identity.partition(".serviceaccount.identity.")[0].rpartition(".")
        message = f"issued certificate for {identity} until {until}: serial {leaf.serial_number:x}"
        self._recorder.record_nowait(Event("IssuedLeafCertificate", message, namespace, "ServiceAccount", account))


def _checked(request: CertifyRequest) -> CheckedRequest:
    for name in ("identity", "token", "certificate_signing_request"):
        if not getattr(request, name):
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, f"missing {name}")
    try:
        return check_request(request.identity, request.certificate_signing_request)
    except InvalidRequest as error:
        raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
    except RequestMismatch as error:
        raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from error


def _response(leaf: Certificate, issuer: Issuer) -> CertifyResponse:
    response = CertifyResponse(
        leaf_certificate=certificate_der(leaf),
        intermediate_certificates=[certificate_der(c) for c in issuer.authority.chain],
        trust_anchors_pem=issuer.anchors_pem,
    )
    response.valid_until.FromDatetime(leaf.not_valid_after_utc.replace(tzinfo=None))
    return response


def _certificate(issuer: Issuer | None) -> Certificate | None:
    return issuer.authority.certificate if issuer else None


def _anchors(issuer: Issuer | None) -> tuple[Certificate, ...]:
    return issuer.anchors if issuer else ()
