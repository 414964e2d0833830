"""Known names of columns in public and private data, and known words for event types.

Names are in the form that `plain` returns. If several columns match, the column whose name comes
first in the list is used.
"""

import re

from shortlist import columns as c
from shortlist.datasets.config import OPERATION

NAMES: dict[str, tuple[str, ...]] = {
    c.USER_ID: (
        *("userid", "user", "customerid", "customer", "visitorid", "uid", "accountid", "memberid"),
        *("reviewerid", "clientid", "buyerid", "personid", "who", "username", "householdkey"),
        *("householdid", "profileid", "playerid", "custid", "customerno", "customernumber"),
        *("fullvisitorid", "cookieid", "subscriberid", "readerid", "listenerid", "reviewers"),
        *(
            "reviewer",
            "reviewprofilename",
            "visitor",
            "client",
            "reader",
            "listener",
            "viewer",
            "shopper",
            "shopperid",
            "userhash",
        ),
    ),
    c.ITEM_ID: (
        *("itemid", "item", "productid", "product", "movieid", "sku", "parentasin", "asin"),
        *("articleid", "bookid", "songid", "trackid", "contentid", "videoid", "isbn", "what"),
        *("stockcode", "itemcode", "productcode", "businessid", "gmapid", "recipeid", "animeid"),
        *("artistid", "beerbeerid", "beerid", "gameid", "appid", "courseid", "newsid", "aid"),
        *("clickarticleid", "clickedarticleid", "locationid", "venueid", "poiid", "jokeid"),
        *("hotelid", "postid", "repoid", "traid", "offerid", "adid", "variantid", "reference"),
        *("lineitemsku", "episodeid", "podcastid", "showid", "streamid"),
        *("movie", "book", "song", "article", "track", "video", "artist", "episode", "id"),
    ),
    c.EVENT_TIMESTAMP: (
        *("eventtimestamp", "timestamp", "eventtime", "datetime", "time", "ts", "createdat"),
        *("unixreviewtime", "timems", "clicktimestamp", "invoicedate", "orderdate", "tdat"),
        *("transactiondt", "transactiondate", "purchasedate", "reviewtime", "reviewdate"),
        *("eventdate", "timestampms", "dateadded", "datereviews", "ratedat", "ratingtimestamp"),
        *(
            "mylastupdated",
            "playedat",
            "watchedat",
            "startedat",
            "visittime",
            "checkintime",
            "submissiondate",
        ),
        *("unixtime", "utctime", "timest", "date", "when", "at", "day"),
    ),
    c.EVENT_TYPE: (
        *("eventtype", "event", "action", "behavior", "behaviour", "type", "kind"),
        *("actiontype", "behaviortype", "eventname", "interactiontype", "transactiontype"),
        *("eventaction",),
    ),
    c.VALUE: (
        *("rating", "stars", "overall", "bookrating", "star", "starrating", "reviewoverall"),
        *("userrating", "myscore", "ratings", "value", "score", "reviewscore", "grade", "price"),
        *("salesprice", "unitprice", "amount", "quantity", "qty", "seconds"),
    ),
    c.EVENT_ID: ("eventid", "reviewid"),
    c.TEXT: ("reviewtext", "text", "review", "comment"),
    c.QUERY: ("query", "searchterm", "search"),
    c.SESSION_ID: ("sessionid", "session", "usersession", "basketid", "visitid"),
    c.REQUEST_ID: ("requestid",),
    c.POSITION: ("position", "rank"),
    c.SURFACE: ("surface", "page", "channel", "saleschannelid"),
    c.DEVICE: ("device", "platform", "devicetype"),
    OPERATION: (),  # never guessed
}
ITEM_NAMES: dict[str, tuple[str, ...]] = {
    c.ITEM_ID: NAMES[c.ITEM_ID],
    c.TITLE: (
        *("title", "name", "productname", "itemname", "movietitle", "booktitle", "prodname"),
        "originaltitle",
    ),
    c.DESCRIPTION: ("description", "overview", "summary", "details", "detaildesc", "abstract"),
    c.CATEGORIES: (
        *("categories", "category", "genres", "genre", "tags", "department", "categorycode"),
        *("producttypename", "maincategory", "categoryid"),
    ),
    c.BRAND: ("brand", "store", "manufacturer", "author", "artist", "bookauthor", "publisher"),
    c.PRICE: ("price", "cost", "unitprice"),
    c.PUBLISHED_AT: (
        *("publishedat", "published", "year", "releasedate", "releaseyear", "yearofpublication"),
        *("originalpublicationyear", "date"),
    ),
    c.AVAILABLE: ("available", "instock"),
    c.IMAGE: ("image", "imageurl", "imurl", "picture", "imageurll"),
    c.UPDATED_AT: (),  # never guessed: its time unit can't be guessed from a few rows
    OPERATION: (),
}
USER_NAMES: dict[str, tuple[str, ...]] = {
    c.USER_ID: (*NAMES[c.USER_ID], "id"),
    c.CREATED_AT: ("createdat", "registered", "joined", "yelpingsince"),
}
TABLES = {"interactions": NAMES, "items": ITEM_NAMES, "users": USER_NAMES}
WORDS = {
    **{"buy": "purchase", "order": "purchase", "transaction": "purchase", "sale": "purchase"},
    **{"orders": "purchase", "clicks": "click", "carts": "add_to_cart", "views": "view"},
    **{"addtocart": "add_to_cart", "cart": "add_to_cart", "basket": "add_to_cart"},
    **{"pv": "view", "pageview": "view", "viewed": "view", "detail": "view", "refund": "return"},
    **{"clicked": "click", "fav": "like", "favorite": "like", "favourite": "like", "play": "watch"},
    **{"rate": "rating", "rated": "rating", "purchased": "purchase", "impressions": "impression"},
    **{"clickoutitem": "click", "interactionitemimage": "view", "interactioniteminfo": "view"},
    **{"interactionitemrating": "view", "interactionitemdeals": "view"},
}
WORDS |= {"listen": "watch", "listened": "watch", "read": "watch", "played": "watch"}
WORDS |= {"stream": "watch", "watched": "watch"}
SAID = {
    **{"listen": "listened to", "listened": "listened to", "read": "read", "stream": "streamed"},
    **{"play": "played", "played": "played", "order": "ordered", "orders": "ordered"},
}
"""{word for an event type in a log: verb in the past tense that reasons use}."""
RATING = re.compile(r"(rating|ratings|star|stars|score|overall|grade)$")
NO_ID = ("na", "nan", "null", "none", "n/a", "undefined", "unknown", "anonymous", "guest", "nil")
NO_ID += ("not logged in", "logged out", "no user", "nobody", "not available", "n.a.", "#null!")
NO_ID += ("00000000-0000-0000-0000-000000000000",)
NO_ID += ("(null)", "<na>", "-", "?", "\\n", "-1", "not set", "(not set)", "#n/a", "missing")
"""Values that programs write if no user was logged in, in lower case."""


def plain(name: str) -> str:
    """Return a name in lower case with only letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
