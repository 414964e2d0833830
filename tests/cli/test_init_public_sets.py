"""`shortlist init` recognises the columns of public data sets, in files with made-up rows."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from cli.guessing.guess import OpenQuestion, guess
from flows.runtime.configuration import load_run_config
from shortlist.config import Settings
from shortlist.datasets import stage_source
from shortlist.lake.engine import connect
from shortlist.validation import Sorting, rules_for
from shortlist.validation.figures import data_now, rows_of
from shortlist.validation.hold_back import hold_back

U, P, T, V, K, S = "user_id", "item_id", "event_timestamp", "value", "event_type", "session_id"

# {name: (file, its first lines, value of --header, expected mapping, text in the TOML)}
SETS: dict[str, tuple[str, str, str, dict[str, str], str]] = {
    "movielens-25m": (
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,3.5,1147868817\n",
        "",
        {U: "userId", P: "movieId", T: "timestamp", V: "rating"},
        'event_type = "rating"',
    ),
    "movielens-1m": (
        "ratings.dat",
        "1::1193::5::978300760\n1::661::3::978302109\n",
        "user_id,item_id,rating,timestamp",
        {U: "user_id", P: "item_id", T: "timestamp", V: "rating"},
        'header = ["user_id"',
    ),
    "movielens-100k": (
        "u.data",
        "196\t242\t3\t881250949\n186\t302\t5\t891717742\n",
        "user_id,item_id,rating,timestamp",
        {U: "user_id", P: "item_id", T: "timestamp", V: "rating"},
        "like_threshold",
    ),
    "amazon-2014": (
        "reviews.json",
        '{"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1252800000,'
        ' "reviewTime": "09 13, 2009", "reviewText": "good", "helpful": [0, 1]}\n',
        "",
        {U: "reviewerID", P: "asin", T: "unixReviewTime", V: "overall", "text": "reviewText"},
        'event_type = "rating"',
    ),
    "amazon-2023": (
        "All_Beauty.jsonl",
        '{"rating": 5.0, "title": "t", "text": "x", "asin": "B0", "parent_asin": "B1",'
        ' "user_id": "AG", "timestamp": 1588687728923}\n',
        "",
        {U: "user_id", P: "parent_asin", T: "timestamp", V: "rating", "text": "text"},
        'timestamp_unit = "ms"',
    ),
    "book-crossing": (
        "BX-Book-Ratings.csv",
        '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n',
        "",
        {U: "User-ID", P: "ISBN", T: "?", V: "Book-Rating"},
        'event_type = "rating"',
    ),
    "goodreads": (
        "interactions.json",
        '{"user_id": "8842", "book_id": "2449", "rating": 4, "is_read": true,'
        ' "date_added": "Fri Sep 08 10:44:24 -0700 2017"}\n',
        "",
        {U: "user_id", P: "book_id", T: "date_added", V: "rating"},
        'timestamp_unit = "%a %b %d %H:%M:%S %z %Y"',
    ),
    "goodbooks-10k": (
        "ratings.csv",
        "user_id,book_id,rating\n1,258,5\n2,4081,4\n",
        "",
        {U: "user_id", P: "book_id", T: "?", V: "rating"},
        "# OPEN: ",
    ),
    "yelp": (
        "review.json",
        '{"review_id": "r", "user_id": "u", "business_id": "b", "stars": 4.0, "useful": 0,'
        ' "text": "x", "date": "2018-07-07 22:09:11"}\n',
        "",
        {U: "user_id", P: "business_id", T: "date", V: "stars", "event_id": "review_id"},
        'event_type = "rating"',
    ),
    "retailrocket": (
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
        "1433224214164,992329,addtocart,248676,\n1433224214999,992329,transaction,248676,1\n",
        "",
        {U: "visitorid", P: "itemid", T: "timestamp", K: "event"},
        'addtocart = "add_to_cart"',
    ),
    "h-and-m": (
        "transactions_train.csv",
        "t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,00a,0663713001,0.05,2\n",
        "",
        {U: "customer_id", P: "article_id", T: "t_dat", V: "price"},
        'event_type = "purchase"',
    ),
    "online-retail-2": (
        "online_retail_II.csv",
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
        "489434,85048,LIGHTS,12,12/1/2009 7:45,6.95,13085.0,UK\n"
        "489435,79323P,LIGHTS,12,12/13/2009 7:46,6.75,13085.0,UK\n"
        "489436,79324P,LIGHTS,12,12/13/2009 7:46,6.75,13086.0,UK\n"
        "489435,79323P,LIGHTS,12,12/13/2009 7:46,6.75,,UK\n"
        "C489449,79323P,LIGHTS,-12,12/14/2009 10:33,6.75,13085.0,UK\n",
        "",
        {U: "Customer ID", P: "StockCode", T: "InvoiceDate", V: "Price"},
        'return_if_negative = "Quantity"',
    ),
    "yoochoose": (
        "yoochoose-clicks.dat",
        "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n",
        "session_id,timestamp,item_id,category",
        {U: "session_id", P: "item_id", T: "timestamp"},
        'event_type = "view"',
    ),
    "diginetica": (
        "train-item-views.csv",
        "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n"
        "1;NA;31331;1031018;2016-05-09\n2;22;32118;243569;2016-05-09\n",
        "",
        {U: "userId", P: "itemId", T: "eventdate", S: "sessionId"},
        'no_user = ["NA"]',
    ),
    "taobao": (
        "UserBehavior.csv",
        "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n",
        "user_id,item_id,category_id,behavior,timestamp",
        {U: "user_id", P: "item_id", T: "timestamp", K: "behavior"},
        'pv = "view"',
    ),
    "tmall": (
        "user_log.csv",
        "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
        "328862,323294,833,2882,2661,0829,0\n328862,844400,1271,2882,2661,0829,0\n",
        "",
        {U: "user_id", P: "item_id", T: "time_stamp", K: "action_type"},
        "month and day without a year",
    ),
    "lastfm-1k": (
        "userid-timestamp.tsv",
        "user_000001\t2009-05-04T23:08:57Z\tf1b1\tDeep Dish\tt1\tFlashdance\n",
        "user_id,timestamp,artist_id,artist,track_id,track",
        {U: "user_id", P: "track_id", T: "timestamp"},
        'timestamp_unit = "iso"',
    ),
    "lastfm-2k": (
        "user_taggedartists-timestamps.dat",
        "userID\tartistID\ttagID\ttimestamp\n2\t52\t13\t1238536800000\n",
        "",
        {U: "userID", P: "artistID", T: "timestamp"},
        'timestamp_unit = "ms"',
    ),
    "gowalla": (
        "Gowalla_totalCheckins.txt",
        "0\t2010-10-19T23:55:27Z\t30.23\t-97.79\t22847\n",
        "user_id,time,latitude,longitude,location_id",
        {U: "user_id", P: "location_id", T: "time"},
        'event_type = "view"',
    ),
    "kuairec": (
        "big_matrix.csv",
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.27\n",
        "",
        {U: "user_id", P: "video_id", T: "timestamp"},
        'timestamp_unit = "s"',
    ),
    "kuairand": (
        "log_random.csv",
        "user_id,video_id,date,hourmin,time_ms,is_click\n0,4,20220422,1200,1650600000123,1\n",
        "",
        {U: "user_id", P: "video_id", T: "time_ms"},
        'timestamp_unit = "ms"',
    ),
    "rees46": (
        "2019-Oct.csv",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
        "user_session\n2019-10-01 00:00:00 UTC,view,44600062,21,,shiseido,35.79,54131,72d7\n",
        "",
        {U: "user_id", P: "product_id", T: "event_time", K: "event_type", S: "user_session"},
        'timestamp_unit = "iso"',
    ),
    "food.com": (
        "RAW_interactions.csv",
        'user_id,recipe_id,date,rating,review\n38094,40893,2003-02-17,4,"Great, with bread"\n',
        "",
        {U: "user_id", P: "recipe_id", T: "date", V: "rating", "text": "review"},
        'event_type = "rating"',
    ),
    "beeradvocate": (
        "beer_reviews.csv",
        "brewery_id,review_time,review_overall,review_aroma,review_profilename,beer_beerid\n"
        "10325,1234817823,1.5,2,stcules,47986\n10325,1235915097,3,2.5,stcules,48213\n",
        "",
        {U: "review_profilename", P: "beer_beerid", T: "review_time", V: "review_overall"},
        'event_type = "rating"',
    ),
    "trivago": (
        "train.csv",
        "user_id,session_id,timestamp,step,action_type,reference,platform\n"
        "00RL,aff,1541037460,1,clickout item,109038,AU\n"
        "00RL,aff,1541037461,2,filter selection,Hostel,AU\n"
        "00RL,aff,1541037462,3,clickout item,109038,AU\n00RL,aff,1541037463,4,clickout item,1,AU\n",
        "",
        {U: "user_id", P: "reference", T: "timestamp", K: "action_type", S: "session_id"},
        "failure_budget = 0.28",
    ),
    "globo": (
        "clicks_hour_000.csv",
        "user_id,session_id,session_start,session_size,click_article_id,click_timestamp\n"
        "0,1506825423271737,1506825423000,2,157541,1506826828020\n",
        "",
        {U: "user_id", P: "click_article_id", T: "click_timestamp", S: "session_id"},
        'timestamp_unit = "ms"',
    ),
    "ta-feng": (
        "ta_feng.csv",
        "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,"
        "SALES_PRICE\n11/1/2000,1104905,45-49,115,110411,4710199010372,2,24,30\n"
        "11/28/2000,418683,45-49,115,120107,4710857472535,1,48,46\n",
        "",
        {U: "CUSTOMER_ID", P: "PRODUCT_ID", T: "TRANSACTION_DT", V: "SALES_PRICE"},
        'timestamp_unit = "%m/%d/%Y"',
    ),
    "myanimelist": (
        "animelists.csv",
        "username,anime_id,my_watched_episodes,my_score,my_last_updated\n"
        "karthiga,21,586,9,1362307973\nkarthiga,59,26,-1,1362923691\n",
        "",
        {U: "username", P: "anime_id", T: "my_last_updated", V: "my_score"},
        "unrated = -1",
    ),
    "netflix": (
        "ratings.csv",
        "CustomerID,MovieID,Rating,Date\n1488844,1,3,2005-09-06\n822109,1,5,2005-05-13\n",
        "",
        {U: "CustomerID", P: "MovieID", T: "Date", V: "Rating"},
        'event_type = "rating"',
    ),
    "google-local": (
        "review-Vermont.json",
        '{"user_id": "1", "name": "A", "time": 1620085852324, "rating": 5, "text": "x",'
        ' "gmap_id": "0x89"}\n',
        "",
        {U: "user_id", P: "gmap_id", T: "time", V: "rating", "text": "text"},
        'timestamp_unit = "ms"',
    ),
}


def look(path: Path, header: str) -> dict[str, Any] | str:
    """Return the guesses of `init`, or the TOML with an open question."""
    options = {"items": None, "users": None, "columns": {}, "event_type": None, "name": None}
    headers = {"interactions": tuple(header.split(","))} if header else {}
    try:
        return guess(str(path), **options, headers=headers)
    except OpenQuestion as question:
        return question.toml


@pytest.mark.parametrize("name", SETS)
def test_a_public_set_is_recognised(tmp_path: Path, name: str) -> None:
    file, lines, header, mapping, words = SETS[name]
    path = tmp_path / file
    path.write_text(lines)
    found = look(path, header)
    toml = found if isinstance(found, str) else found["toml"]
    (line,) = [line for line in toml.splitlines() if line.startswith("columns = ")]
    for key, column in mapping.items():
        spelled = f'{key} = "{column}"'
        assert spelled in line, line
    assert words in toml, toml
    assert isinstance(found, str) == ("# OPEN: " in toml)


@pytest.mark.parametrize("name", SETS)
def test_what_init_writes_is_ingested_and_passes_validation(tmp_path: Path, name: str) -> None:
    file, lines, header, *_ = SETS[name]
    path = tmp_path / file
    path.write_text(lines)
    found = look(path, header)
    if isinstance(found, str):
        return
    (tmp_path / "run.toml").write_text(found["toml"])
    run, settings = load_run_config(tmp_path / "run.toml"), Settings(home=tmp_path / "home")
    batch = stage_source(run.data, settings, now=time.time_ns() // 1_000)
    folder = settings.lake / "incoming" / batch.batch_id
    with connect(tmp_path) as connection:
        sorting = Sorting(connection, settings.lake, folder, batch, run.validation)
        now = data_now(sorting, run.data.clock)
        limits = run.validation
        earliest = {"earliest": limits.earliest, "earliest_published": limits.earliest_published}
        rules = rules_for(limits, now=now, **earliest)
        sorting.prepare(rules)
        rows, bad = rows_of(sorting, "interactions")
        hold_back(sorting, settings.held_back)
    assert rows > 0
    assert bad <= limits.failure_budget * rows, sorting.counts["interactions"].broken


@pytest.mark.parametrize("name", [name for name, one in SETS.items() if one[2]])
def test_a_file_without_a_header_is_recognised(tmp_path: Path, name: str) -> None:
    file, lines, *_ = SETS[name]
    path = tmp_path / file
    path.write_text(lines)
    toml = look(path, "")
    assert isinstance(toml, str)
    assert re.search(r"# OPEN: .*first line is data, not names of columns.* --header", toml)
    assert 'header = ["?", "?"' in toml


def test_the_docs_have_the_commands_of_the_sets() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "data-sets.md").read_text()
    assert len(SETS) >= 25
    for name, (file, _, header, _, words) in SETS.items():
        command = f"shortlist init {file}" + (f" --header {header}" if header else "")
        (row,) = [line for line in docs.splitlines() if line.startswith(f"| {name} |")]
        assert f"| `{command}` |" in row
        is_open = words in ("# OPEN: ", "month and day without a year") or name == "book-crossing"
        assert ("open question: " in row) == is_open
