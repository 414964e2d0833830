"""A worker of the service doesn't import packages that only training and refreshes need."""

import subprocess
import sys

UNUSED = ("feast", "great_expectations", "lightgbm", "pandas", "prefect", "sklearn", "sqlalchemy")

WORKER = """
import sys
import services.service
import models.recommend.recommender, models.ranking.trees.base, models.training
print(*sorted(set(sys.argv[1:]) & set(sys.modules)))
"""


def test_a_worker_imports_no_package_that_it_does_not_need() -> None:
    command = [sys.executable, "-c", WORKER, *UNUSED]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
