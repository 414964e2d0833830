"""A service that gives a constant answer, to measure the time of BentoML and HTTP alone."""

import bentoml

from shortlist.http.api import Item, RecommendRequest, RecommendResponse

ANSWER = RecommendResponse(
    request_id="0" * 32,
    release_id="none",
    user_known=True,
    items=[
        Item(
            item_id=f"i{n}", title=f"Item {n}", score=0.5, rank=n, source="none", reason="a reason"
        )
        for n in range(1, 11)
    ],
    at=0,
)


@bentoml.service(name="noop", traffic={"timeout": 10}, logging={"access": {"enabled": False}})
class Noop:
    """Answers every /recommend request with the constant ANSWER."""

    @bentoml.api(route="/recommend")
    def recommend(self, request: RecommendRequest, /) -> RecommendResponse:
        return ANSWER
