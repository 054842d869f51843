"""`/-/usage`: what was used, out of the ledger. An operator's key sees sums of all; whoever may read records
sees users and sessions too; a team's key sees its own part."""

from collections.abc import Sequence

from litestar import Response, get
from litestar.types import ControllerRouterHandler
from msgspec.structs import replace

from routeproxy.ledger.question import asked
from routeproxy.ledger.report import document
from routeproxy.ledger.usage import IN_ROWS, Question
from routeproxy.messages.errors import ApiError
from routeproxy.observe import Observer
from routeproxy.policy.secrets import Role
from routeproxy.proxy import Proxy
from routeproxy.web.auth import Authenticator, Caller
from routeproxy.web.headers import request_headers
from routeproxy.web.ledger_questions import LedgerQuestions
from routeproxy.web.replies import AnyRequest, json_reply
from routeproxy.web.small_requests import note_caller

PATH = "/-/usage"


def usage_handlers(
    proxy: Proxy, authenticator: Authenticator, observer: Observer, questions: LedgerQuestions
) -> list[ControllerRouterHandler]:

    @get(PATH)
    async def usage(request: AnyRequest) -> Response[bytes]:
        if proxy.rules.policy.ledger is None:
            raise ApiError(404, f"{PATH} is not here: `[ledger]` turns it on")
        caller = authenticator.authenticate(request_headers(request.scope), admin=True)
        note_caller(request.scope, caller)
        question, top = _question(request)
        question = _for(caller, question)
        if names_people(question):
            looked_at = ", ".join(sorted({*question.columns, *question.only} & {*IN_ROWS}))
            observer.admin_action(f"view {looked_at}", caller.key_name, "shown")
        return json_reply(document(await questions.usage(question), top))

    return [usage]


def _question(request: AnyRequest) -> tuple[Question, int | None]:
    """Raises `ApiError` for what is none."""
    query = request.query_params
    known = {"by", "since", "until", "month", "time_zone", "only", "top"}
    if unknown := sorted({*query} - known):
        raise ApiError(400, f"{', '.join(unknown)}: expected some of {', '.join(sorted(known))}")
    only: Sequence[str] = query.getall("only") if "only" in query else ()
    top = query.get("top")
    try:
        if top is not None and not (top.isascii() and top.isdigit() and int(top[:9])):
            raise ValueError(f"top {top}: expected a number above 0")
        question = asked(
            query.get("by") or "team",
            query.get("since"),
            query.get("until"),
            query.get("month"),
            only,
            query.get("time_zone") or "UTC",
        )
    except ValueError as problem:
        raise ApiError(400, str(problem)) from None
    return question, int(top[:9]) if top is not None else None


def names_people(question: Question) -> bool:
    """Whether its answer tells of single users or sessions."""
    return bool({*question.columns, *question.only} & {*IN_ROWS})


def _for(caller: Caller, question: Question) -> Question:
    """What this caller may see of it. Raises `ApiError`."""
    if caller.team is not None:
        if names_people(question):
            raise ApiError(403, "users and sessions take an admin key with the role `audit`")
        if question.only.get("team", caller.team) != caller.team:
            raise ApiError(403, f"this key sees the usage of its team, {caller.team}")
        return replace(question, only={**question.only, "team": caller.team})
    if not caller.admin:
        raise ApiError(401, "x-api-key header is required: an admin key, or a team's for its own part")
    needed: Role = "audit" if names_people(question) else "usage"
    if not caller.may(needed):
        raise ApiError(403, f"this takes an admin key with the role `{needed}`, this one has `{caller.role}`")
    return question
