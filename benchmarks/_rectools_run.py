"""Trains SASRec of the library RecTools, for comparison; run by `shortlist bench sequence_speed`.

    PYTHON -m benchmarks._rectools_run FILE --loss softmax --out FILE.jsonl

PYTHON is that of an environment with RecTools, so this module doesn't import Shortlist. FILE has
lines "user item item ...". The output has one JSON line per epoch: training seconds, and validation
nDCG@10 by the protocol of `sequence_model.protocol` (second-to-last item, whole catalogue, history
masked, ties count against the model). The last line is the speed of recommending.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-not-found]
import torch


def read(path: Path) -> list[tuple[str, list[str]]]:
    lines = (line.split() for line in path.read_text().splitlines())
    return [(parts[0], parts[1:]) for parts in lines if parts]


def frame(histories: list[tuple[str, list[str]]], *, held_out: int) -> pd.DataFrame:
    """Return the interactions table of RecTools.

    Users with more than two items lose their last `held_out` items. Consecutive events of a user
    get times one day apart, because the file has no times.
    """
    users, items, days = [], [], []
    for user, history in histories:
        kept = history[:-held_out] if len(history) > 2 else history
        users += [user] * len(kept)
        items += kept
        days += range(len(kept))
    return pd.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "weight": 1.0,
            "datetime": pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D"),
        }
    )


def ndcg(model, histories: list[tuple[str, list[str]]], *, max_history: int) -> float:
    """Return the mean nDCG@10 of the second-to-last item, over users with more than two items."""
    net = model.lightning_model.torch_model.eval()
    ids = model.data_preparator.item_id_map.to_internal
    known = {str(item): int(index) for item, index in ids.items()}
    judged = [h for _, h in histories if len(h) > 2]
    gains = []
    with torch.no_grad():
        items = net.item_model.get_all_embeddings()
        for i in range(0, len(judged), 256):
            part = judged[i : i + 256]
            x = np.zeros((len(part), max_history), dtype=np.int64)
            for row, history in enumerate(part):
                newest = [known.get(item, 0) for item in history[:-2]][-max_history:]
                x[row, -len(newest) :] = newest
            states = net.encode_sessions({"x": torch.from_numpy(x)}, items)[:, -1]
            scores = (states @ items.T).numpy()
            for row, history in enumerate(part):
                wanted = known.get(history[-2])
                if wanted is None:  # the item is not in the training data, so it can't be ranked
                    gains.append(0.0)
                    continue
                value = scores[row, wanted]
                scores[row, [known.get(item, 0) for item in history[:-2]]] = -np.inf
                scores[row, 0] = -np.inf
                rank = int((scores[row] >= value).sum())
                gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    net.train()
    return float(np.mean(gains))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--loss", choices=["softmax", "sampled_softmax", "BCE", "gBCE"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--batches", type=int, help="end each epoch after so many batches, without validation"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    import pytorch_lightning as pl  # type: ignore[import-not-found]
    import rectools  # type: ignore[import-not-found]
    from rectools.dataset import Dataset  # type: ignore[import-not-found]
    from rectools.models import SASRecModel  # type: ignore[import-not-found]

    torch.set_num_threads(arguments.threads)
    pl.seed_everything(arguments.seed, verbose=False)
    histories = read(arguments.interactions)
    interactions = frame(histories, held_out=2)

    class Report(pl.Callback):
        def on_train_epoch_start(self, trainer, module) -> None:
            self._start()

        def _start(self) -> None:
            self.started, self.cpu = time.perf_counter(), time.process_time()
            self.positions = 0

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            self.positions += int((batch["y"] > 0).sum())
            if arguments.batches and batch_idx == 0:
                self._start()  # don't count the first batch, which is a warm-up

        def on_train_epoch_end(self, trainer, module) -> None:
            seconds = time.perf_counter() - self.started
            cpu = time.process_time() - self.cpu
            line = {
                "rectools": rectools.__version__,
                "loss": arguments.loss,
                "epoch": trainer.current_epoch + 1,
                "train_seconds": round(seconds, 2),
                "cpu_seconds": round(cpu, 2),
                "real_positions": self.positions,
                "tokens_per_s": round(self.positions / seconds, 1),
                "tokens_per_cpu_s": round(self.positions / cpu, 1),
            }
            if not arguments.batches:
                line["validation_ndcg@10"] = round(ndcg(model, histories, max_history=50), 5)
            print(json.dumps(line), flush=True)
            with arguments.out.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def trainer() -> pl.Trainer:
        return pl.Trainer(
            max_epochs=arguments.epochs,
            min_epochs=arguments.epochs,
            limit_train_batches=arguments.batches,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Report()],
        )

    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=50,
        batch_size=256,
        dropout_rate=arguments.dropout,
        lr=arguments.learning_rate,
        loss=arguments.loss,
        n_negatives=256,
        epochs=arguments.epochs,
        get_trainer_func=trainer,
    )
    dataset = Dataset.construct(interactions)
    model.fit(dataset)
    users = [user for user, _ in histories]
    if arguments.batches:
        users = users[:4096]
    started, cpu = time.perf_counter(), time.process_time()
    model.recommend(users, dataset, k=20, filter_viewed=True)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    line = {
        "rectools": rectools.__version__,
        "recommend_k": 20,
        "users": len(users),
        "users_per_s": round(len(users) / seconds, 1),
        "users_per_cpu_s": round(len(users) / cpu, 1),
    }
    print(json.dumps(line), flush=True)
    with arguments.out.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
