"""Request and response schemas of the HTTP API, used by the service, the client and the replay."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shortlist.contracts import EVENT_TYPES, MAX_VALUE, WITHOUT_ITEM
from shortlist.features.searches import MAX_QUERY
from shortlist.features.terms import words_of
from shortlist.http.cursor import MAX_LENGTH, TAKE_OVER, Cursor, asked_for
from shortlist.http.rule_config import MAX_K, RuleSet
from shortlist.ids import id_problem
from shortlist.moments import MomentType, moment_problem, number_problem

MAX_EVENTS = 1_000
MAX_POSITION = 2**31 - 1


def _id(of_user: bool = False) -> AfterValidator:
    def check(value: str) -> str:
        if problem := id_problem(value, of_user=of_user):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def _moment(kind: MomentType) -> AfterValidator:
    def check(value: int) -> int:
        if problem := moment_problem(value, kind=kind):
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def _whole(value: Any) -> Any:
    """Return the value unchanged; raise ValueError if it is no whole number."""
    if problem := number_problem(value):
        raise ValueError(problem)
    return value


def _cursor(value: str) -> str:
    """Return the cursor unchanged; raise ValueError if `Cursor.decode` refuses it."""
    Cursor.decode(value)
    return value


def _words(value: str) -> str:
    """Return the query without space around it; raise ValueError if it has no letter or digit."""
    if not words_of(value):
        raise ValueError(f"query {value!r} has no letter or digit, want words to search for")
    return value.strip()


Id = Annotated[str, _id()]
Text = Annotated[str, Field(min_length=1, max_length=1_000)]
UserId = Annotated[str, _id(of_user=True)]
Modality = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,62}$")]
Vector = Annotated[
    list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1, max_length=4_096)
]
CursorText = Annotated[str, Field(max_length=MAX_LENGTH), AfterValidator(_cursor)]
Moment = Annotated[int, BeforeValidator(_whole), _moment("event")]
Date = Annotated[int, BeforeValidator(_whole), _moment("date")]


class Body(BaseModel):
    """Base class of all request and response bodies; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


def _example(body: dict[str, Any]) -> ConfigDict:
    """Return a config with an example body for the API page.

    The key is `example`, because BentoML's generator of the API document fails on the standard key
    `examples`.
    """
    return ConfigDict(json_schema_extra={"example": body})


class Context(Body):
    """Surface and device from which the request is sent."""

    surface: str | None = Field(
        default=None, max_length=64, description="page or screen, e.g. 'home'"
    )
    device: str | None = Field(default=None, max_length=64)


class Filters(Body):
    """Hard constraints on the returned items."""

    categories: list[str] | None = Field(default=None, description="keep items with any of these")
    exclude_categories: list[str] = Field(default_factory=list)
    max_price: float | None = Field(default=None, ge=0)
    published_after: Date | None = Field(
        default=None,
        description="microseconds since 1970, UTC; may be negative. Within 63 days of 1970-01-01"
        " it must be a whole day, because other values are probably seconds or milliseconds",
    )


class RecommendRequest(Body):
    """Request for recommendations by `user_id`, by `recent_items` (anonymous visitor), or both."""

    model_config = _example(
        {"user_id": "90", "k": 10, "context": {"surface": "home", "device": "phone"}}
    )

    user_id: UserId | None = None
    recent_items: list[Id] | None = Field(
        default=None,
        max_length=1_000,
        description="item ids, oldest first; appended to the stored history",
    )
    context: Context = Field(default_factory=Context)
    k: int = Field(default=10, ge=1, le=MAX_K)
    filters: Filters = Field(default_factory=Filters)
    exclude: list[Id] = Field(default_factory=list, max_length=10_000)
    rules: RuleSet | None = Field(
        default=None, description="business rules in addition to those of the service's file"
    )
    cursor: CursorText | None = Field(
        default=None,
        description="`next_cursor` of the previous page; user_id, context, filters and rules must"
        " be the same as for that page",
    )
    explain: bool = True
    arm: str | None = Field(
        default=None,
        max_length=40,
        description="answer with this arm of the running experiment, for tests; such requests are"
        " left out of its comparisons",
    )
    at: Moment | None = Field(
        default=None, description="time of the request in microseconds, UTC; replay clock only"
    )

    @model_validator(mode="after")
    def _has_user_or_items(self) -> "RecommendRequest":
        if self.user_id is None and self.recent_items is None:
            raise ValueError("give user_id, or recent_items (a list of item ids, may be empty)")
        return self

    @model_validator(mode="after")
    def _continues_the_same_list(self) -> "RecommendRequest":
        if self.cursor is not None and Cursor.decode(self.cursor).asked != self.asked:
            raise ValueError(
                "cursor: belongs to a list with another user_id, context, filters or rules;"
                f" {TAKE_OVER}"
            )
        return self

    @model_validator(mode="after")
    def _rules_of_a_request(self) -> "RecommendRequest":
        if self.rules is not None and self.rules.not_shown:
            raise ValueError(
                "rules.not_shown: only in the rules file, because the service records"
                " shown items only for its rules; leave it out"
            )
        return self

    @property
    def asked(self) -> bytes:
        """Hash of the fields that must be the same for all pages of a list."""
        where = self.context
        rules = None if self.rules is None else self.rules.model_dump_json()
        return asked_for(
            [self.user_id, where.surface, where.device, self.filters.model_dump_json(), rules]
        )


class SimilarRequest(Body):
    """Request for items similar to `item_id`."""

    model_config = _example({"item_id": "50", "k": 10})

    item_id: Id
    k: int = Field(default=10, ge=1, le=MAX_K)
    filters: Filters = Field(default_factory=Filters)
    exclude: list[Id] = Field(default_factory=list, max_length=10_000)


class SearchRequest(Body):
    """Search for items by a text, ordered for a user or a visitor if one is given."""

    model_config = _example({"query": "green tea", "user_id": "90", "k": 10})

    query: Annotated[str, Field(max_length=MAX_QUERY), AfterValidator(_words)] = Field(
        description="words that items should have, or what they should be about"
    )
    user_id: UserId | None = None
    recent_items: list[Id] | None = Field(
        default=None,
        max_length=1_000,
        description="item ids of a visitor, oldest first; appended to the stored history",
    )
    context: Context = Field(default_factory=lambda: Context(surface="search"))
    k: int = Field(default=10, ge=1, le=MAX_K)
    filters: Filters = Field(default_factory=Filters)
    exclude: list[Id] = Field(default_factory=list, max_length=10_000)
    at: Moment | None = Field(
        default=None, description="time of the request in microseconds, UTC; replay clock only"
    )


class Item(Body):
    """One recommended item.

    `source` is the candidate source (retrieval model) that ranked it best, or "explore" for an item
    that was picked at random. `rank` counts over all pages of a list.
    """

    item_id: str
    title: str
    score: float
    rank: int = Field(ge=1)
    source: str
    sources: list[str] = Field(default_factory=list, description="all sources that retrieved it")
    reason: str = ""
    rules: list[str] = Field(
        default_factory=list, description="business rules that pinned, moved or kept the item"
    )


class RecommendResponse(Body):
    request_id: str
    release_id: str
    arm: str = Field(default="main", description="the user's arm in the running experiment")
    user_known: bool
    items: list[Item]
    skipped_stages: list[str] = Field(default_factory=list)
    rules: list[str] = Field(
        default_factory=list,
        description="business rules that excluded items, and caps that passed over one",
    )
    at: int = Field(description="time for which the list was made, in microseconds, UTC")
    next_cursor: str | None = Field(
        default=None,
        description="`cursor` of a request for the next page; null if the list ends here",
    )


class SearchResponse(Body):
    """Items found by a search; `items` is empty if none matches."""

    request_id: str
    release_id: str
    user_known: bool
    items: list[Item]
    skipped_stages: list[str] = Field(default_factory=list)
    at: int = Field(description="time for which the list was made, in microseconds, UTC")


class SimilarResponse(Body):
    request_id: str
    release_id: str
    items: list[Item]


class Event(Body):
    """One event of a user.

    An event whose `event_id` was posted before is ignored, so posts can be repeated safely.
    `request_id` and `position` identify the list that showed the item.
    """

    model_config = _example(
        {"event_id": "e-1", "user_id": "90", "item_id": "50", "event_type": "rating", "value": 5}
    )

    event_id: Id | None = None
    user_id: UserId
    item_id: Id | None = Field(default=None, description="required except for a search")
    event_type: str = Field(json_schema_extra={"enum": list(EVENT_TYPES)})
    event_timestamp: Moment | None = Field(
        default=None, description="microseconds, UTC; default: now"
    )
    value: float | None = Field(default=None, allow_inf_nan=False)
    text: str | None = None
    query: str | None = None
    session_id: str | None = Field(default=None, max_length=256)
    request_id: str | None = Field(default=None, max_length=256)
    position: int | None = Field(
        default=None, ge=0, le=MAX_POSITION, description="place in the list, as the client counts"
    )
    surface: str | None = Field(default=None, max_length=64)
    device: str | None = Field(default=None, max_length=64)

    @model_validator(mode="after")
    def _known_type(self) -> "Event":
        if self.event_type not in EVENT_TYPES:
            raise ValueError(
                f"event_type '{self.event_type}' is unknown, want one of {', '.join(EVENT_TYPES)}"
            )
        if self.item_id is None and self.event_type not in WITHOUT_ITEM:
            raise ValueError(f"item_id is missing; an event of type '{self.event_type}' needs one")
        return self


class EventsRequest(Body):
    """Events in the order in which they happened; either all of them are stored or none."""

    model_config = _example(
        {
            "events": [
                {
                    "event_id": "e-1",
                    "user_id": "90",
                    "item_id": "50",
                    "event_type": "rating",
                    "value": 5,
                }
            ]
        }
    )

    events: list[Event] = Field(min_length=1, max_length=MAX_EVENTS)


class EventsResponse(Body):
    request_id: str
    release_id: str
    accepted: int
    duplicates: int = 0
    unknown_items: int = Field(
        default=0, description="accepted events whose item is not in the catalogue yet"
    )
    forgotten: int = Field(
        default=0,
        description="events that were not stored, because their user was forgotten after them",
    )
    waiting: int = Field(
        default=0,
        description="accepted events of this and earlier posts that the worker could not add to the"
        " users' states yet; it retries",
    )


class ItemChange(Body):
    """A new item, a change of a known one, or a deletion.

    Fields that are left out keep their value; null removes it (`categories`: send an empty list).
    An unknown `item_id` creates the item, by default available and without categories. A deleted
    item stays known but is never shown; a later change with `"available": true` brings it back.
    """

    model_config = _example(
        {
            "item_id": "new-1",
            "title": "Green tea",
            "categories": ["tea"],
            "price": 4.5,
            "available": True,
        }
    )

    item_id: Id
    title: str | None = Field(default=None, max_length=10_000)
    description: str | None = Field(default=None, max_length=100_000)
    categories: list[Text] = Field(default_factory=list, max_length=100)
    brand: str | None = Field(default=None, max_length=1_000)
    price: float | None = Field(default=None, ge=0, le=MAX_VALUE, allow_inf_nan=False)
    published_at: Date | None = Field(
        default=None, description="microseconds since 1970, UTC; may be negative"
    )
    available: bool = True
    image: str | None = Field(default=None, max_length=10_000, description="path or URI")
    attributes: dict[Text, str] | None = Field(default=None, max_length=1_000)
    vectors: dict[Modality, Vector | None] = Field(
        default_factory=dict,
        max_length=20,
        description="vectors made by your own encoders, e.g. {'audio': [0.1, ...]} for the"
        " catalogue's column vector_audio; null removes one",
    )
    deleted: Literal[True] | None = Field(
        default=None, description="true: delete the item; no other fields are allowed"
    )

    @model_validator(mode="after")
    def _whole(self) -> "ItemChange":
        if self.deleted and self.model_fields_set > {"item_id", "deleted"}:
            more = sorted(self.model_fields_set - {"item_id", "deleted"})
            raise ValueError(f"deleted: leave out {', '.join(more)}, or deleted")
        twice = {name for name in self.categories if self.categories.count(name) > 1}
        if twice:
            raise ValueError(f"categories: {sorted(twice)[0]!r} is there twice")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The fields that the client sent."""
        return self.model_dump(exclude_unset=True)


class ItemsRequest(Body):
    """Changes of items in the order in which they apply; either all are stored or none."""

    model_config = _example(
        {
            "items": [
                {"item_id": "new-1", "title": "Green tea", "categories": ["tea"], "price": 4.5},
                {"item_id": "50", "available": False},
                {"item_id": "51", "deleted": True},
            ]
        }
    )

    items: list[ItemChange] = Field(min_length=1, max_length=MAX_EVENTS)


class ItemsResponse(Body):
    request_id: str
    release_id: str
    accepted: int
    applied: bool = Field(
        description="whether the lists of this worker reflect the changes already; the other"
        " workers follow within seconds"
    )
    pending: int = Field(
        description="stored changes, also of earlier posts, that wait for the next refresh to be"
        " added to the lake; lists reflect them before"
    )


class ForgetResponse(Body):
    request_id: str
    release_id: str
    forgotten_at: int = Field(
        description="microseconds, UTC; events of the user dated before it are ignored from now on"
    )
    removed: dict[str, int] = Field(
        description="rows that were deleted at once, by place; the next refresh removes the user"
        " from the lake, and the next compaction from all other files"
    )


class RefusedRelease(Body):
    """A promoted release that the worker could not load; it keeps serving the previous one."""

    release_id: str
    reason: str


class Refusal(Body):
    """Response body of a refused request."""

    error: str = Field(description="what is wrong, where, and what would be right")
    request_id: str | None = None
    release_id: str | None = None


class Readiness(Body):
    """Status of one service worker: its release, feature pack, clock and business rules."""

    status: Literal["ready"] = "ready"
    release_id: str
    pack_id: str
    pack_as_of: int
    clock: Literal["wall", "replay"]
    pid: int = 0
    pinned_by: str | None = None
    """Reason why the worker does not follow the release pointer; None if it follows it."""
    refused: RefusedRelease | None = None
    stages_off: list[str] = Field(
        default_factory=list, description="stages that are switched off because they keep failing"
    )
    items_pending: int = Field(
        default=0, description="posted changes of items that wait for the next refresh"
    )
    rules_id: str = Field(default="", description="id of the business rules in force")
    rules_refused: str | None = Field(
        default=None,
        description="why the rules file is not used; the rules before it stay in force",
    )
