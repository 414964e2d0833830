"""Judge off-policy: estimates what a release would have got, before it gets traffic.

The release is judged by the backtest's models of its run, as the quality gate does, because its own
models have seen the events of the test window.
"""

from typing import Any

from prefect import flow

from flows.evaluation.champion import CHAMPION, judge_champion
from flows.evaluation.off_policy import off_policy
from flows.runtime.runs import Run
from flows.training.assemble import load_run_data
from flows.training.refit import Recipe
from models.recommend.loading import load_chain
from monitoring.off_policy.compare import CHALLENGER
from shortlist.config import Settings
from shortlist.releases.release import ReleaseStore

RESULT = "off_policy.json"


@flow(name="judge_off_policy", log_prints=True)
def judge_off_policy_flow(
    release_id: str | None = None, run_id: str | None = None
) -> dict[str, Any]:
    """Estimate what a release would have got in its run's test window, beside the champion.

    Args:
        release_id: id of a release; None: judge a run.
        run_id: id of a run; None: the newest one.

    Returns:
        The document of docs/off-policy.md, also written to off_policy.json in the run's folder.

    Raises:
        ReleaseError, RunError, LakeError: the release, its run or the run's snapshot is missing.
    """
    settings = Settings()
    if release_id is not None:
        run_id = ReleaseStore(settings.releases).open(release_id).about["run_id"]
    return judge_run(settings, Run.open(settings, run_id))


def judge_run(settings: Settings, run: Run) -> dict[str, Any]:
    """Do the work of `judge_off_policy_flow` for one run, without Prefect."""
    about = run.read("about.json", made_by="train")
    run_data = load_run_data(settings, run)
    chains = {CHALLENGER: load_chain(run.staging, about, sources=run.backtest)}
    champion, chain = judge_champion(settings, run, run_data, Recipe.from_json(about["recipe"]))
    if chain is not None:
        chains[CHAMPION] = chain
    result = {"run_id": run.run_id, "champion": champion.to_json()}
    result |= off_policy(settings, run, run_data, chains)
    run.write(RESULT, result)
    return result
