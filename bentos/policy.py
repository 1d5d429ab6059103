"""What a caller may do: nothing that is not written here."""

from pydantic import BaseModel

from bentos.identity import Principal, Scope, is_id
from bentos.problems import ProblemError
from hallmark.records.database import Viewer

SUBJECT = "subject_id"


def require(principal: Principal, scope: Scope) -> None:
    """Check that the caller may do this at all.

    Raises:
        ProblemError: 403.
    """
    if scope not in principal.scopes:
        raise forbidden(f"This token may not do this: it lacks the scope {scope!r}.")


def with_subject(principal: Principal, request: BaseModel) -> tuple[BaseModel, str]:
    """Decide whose model answers a request.

    A person is always the token's own subject. A clinician, a service or an admin names the subject, or leaves it out.

    Returns:
        The request with its subject, and the owner of the answer: the subject, or the client if it is not personal.

    Raises:
        ProblemError: 403; the request names a subject that the caller may not see.
    """
    if SUBJECT not in type(request).model_fields:
        return request, principal.client_id
    named = getattr(request, SUBJECT)
    if named is not None and not is_id(named):
        raise ProblemError(422, "invalid_request", "subject_id is blank, or holds characters that cannot be printed.")
    if principal.role == "person":
        if named not in (None, principal.client_id):
            raise forbidden("A person's token answers for that person alone: leave subject_id out.")
        return request.model_copy(update={SUBJECT: principal.client_id}), principal.client_id
    if named is None:
        return request, principal.client_id
    if principal.subjects is not None and named not in principal.subjects:
        raise forbidden("This token may not ask for this subject.")
    return request, named


def viewer(principal: Principal) -> Viewer:
    """Return whose records the caller sees: those of its subjects; a service also those that it asked for itself."""
    if principal.role == "admin":
        return Viewer(principal.client_id, None)
    if principal.role == "service":
        return Viewer(principal.client_id, frozenset())
    return Viewer(None, (principal.subjects or frozenset()) | {principal.client_id})


def may_export(principal: Principal, subject_id: str) -> bool:
    """Tell whether the caller may have everything that is recorded about a subject."""
    return principal.subjects is None or subject_id in principal.subjects


def forbidden(detail: str) -> ProblemError:
    """Make the error of a caller that may not do this."""
    return ProblemError(403, "forbidden", detail)
