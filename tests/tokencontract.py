"""What every backend does alike that judges bearer tokens. Subclass `TokenContract`, give `backend`, and alice's `token`."""

from typing import ClassVar

import trio

from extauth.backend import Backend
from extauth.model import Accept, Answer, CheckPassword, CheckToken, Identity, Origin, Request, Secret
from tests.contract import ALICE, DOMAIN, STRANGERS, WRONG, ask, is_yes

BOB = Identity("bob", DOMAIN)
BEARER, PLAIN = Origin("contract", mechanism="OAUTHBEARER"), Origin("contract", mechanism="PLAIN")


def asked(token: str, identity: Identity) -> tuple[Request, Request]:
    """Return the two ways in which a token comes: by a bearer mechanism, and in a password's place."""
    return CheckToken(identity, BEARER, Secret(token)), CheckPassword(identity, PLAIN, Secret(token))


class TokenContract:
    """The behaviours.

    Attributes:
        says_domain: its tokens tell the domain; else they are for every domain that has the backend.
        opaque: nobody sees whether a text is one of its tokens without asking for it.
    """

    says_domain: ClassVar[bool] = True
    opaque: ClassVar[bool] = False

    async def test_it_takes_tokens_also_as_passwords(self, backend: Backend) -> None:
        assert {CheckToken, CheckPassword} <= backend.handles

    async def test_a_token_lets_in_its_user(self, backend: Backend, token: str) -> None:
        for request in asked(token, ALICE):
            assert is_yes(await ask(backend, request), "alice"), request.operation

    async def test_a_token_is_nobody_elses(self, backend: Backend, token: str) -> None:
        for other in (BOB, *STRANGERS):
            if self.says_domain or other.user != "alice":
                for request in asked(token, other):
                    answer = await ask(backend, request)
                    assert not isinstance(answer, Accept), (request.operation, other)

    async def test_what_is_no_token_lets_nobody_in(self, backend: Backend) -> None:
        for text in WRONG:
            for request in asked(text, ALICE):
                answer = await ask(backend, request)
                assert not isinstance(answer, Accept), text
                assert answer is None or self.opaque, text

    async def test_a_changed_token_lets_nobody_in(self, backend: Backend, token: str) -> None:
        changed = {
            f"{token[:place]}{'b' if token[place] in 'aA' else 'a'}{token[place + 1 :]}" for place in range(len(token) - 2)
        }
        for text in (*changed, token[:-4], token + token, token[1:]):
            for request in asked(text, ALICE):
                assert not isinstance(await ask(backend, request), Accept), text

    async def test_many_at_a_time_get_their_own_answers(self, backend: Backend, token: str) -> None:
        answers: list[tuple[Identity, Answer | None]] = []

        async def one(request: Request) -> None:
            answers.append((request.identity, await ask(backend, request)))

        async with trio.open_nursery() as nursery:
            for identity in (ALICE, BOB) * 6:
                for request in asked(token, identity):
                    nursery.start_soon(one, request)
        assert len(answers) == 24
        assert all(is_yes(answer, "alice") is (identity == ALICE) for identity, answer in answers)
