"""HTTP requests that bring a token (RFC 6750).

The token in `Authorization` says who somebody is. No other header does, whoever wrote it: not even
a proxy is believed.
"""

from __future__ import annotations

from typing import NamedTuple

from chat.auth.identity import BannedError, Identity, TokenError, UnverifiableError, Verifier
from chat.headers import PublicHandler

RETRY_SECONDS = 5


class Refusal(NamedTuple):
    status: int
    why: str


class BearerHandler(PublicHandler):
    """Answers people whose token counts: `verifier` of the application says whose does. If that is
    None, everybody is answered, and nobody is known.
    """

    identity: Identity | None = None

    @property
    def verifier(self) -> Verifier | None:
        found: Verifier | None = self.settings["verifier"]
        return found

    async def authenticate(self) -> Refusal | None:
        """Find out who it is (`identity`), or with what to refuse the request: never a redirect,
        which programs would follow. The headers that go with it are set.
        """
        if self.verifier is None:
            return None
        try:
            self.identity = await self.verifier.verify(self._token())
        except _NoTokenError:
            self.set_header("WWW-Authenticate", "Bearer")
            return Refusal(401, "sign in: this chat wants Authorization: Bearer TOKEN")
        except BannedError as error:
            return Refusal(403, str(error))
        except TokenError as error:
            self.set_header("WWW-Authenticate", 'Bearer error="invalid_token"')
            return Refusal(401, f"the token does not count: {error}")
        except UnverifiableError as error:
            self.set_header("Retry-After", str(RETRY_SECONDS))
            return Refusal(503, str(error))
        return None

    def _token(self) -> str:
        given = self.request.headers.get_list("Authorization")
        if not given:
            raise _NoTokenError
        if len(given) > 1:
            raise TokenError("there are several Authorization headers: send one")
        scheme, _, token = given[0].partition(" ")
        if scheme.lower() != "bearer":
            raise _NoTokenError
        return token.strip()


class _NoTokenError(Exception):
    pass
