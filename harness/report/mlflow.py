"""Trials as runs of MLflow: parameters, final numbers and curves, each trial once."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from harness import plain
from harness.errors import InputError
from harness.results.files import Tables
from harness.results.schema import TRIALS

#: What tells a trial, in the order of the schema; every other number is a result.
_PARAMETERS = [column.name for column in TRIALS.columns if column.group in ("identity", "environment")]
_RESULTS = [
    column.name for column in TRIALS.columns if column.kind in ("int", "float") and column.name not in _PARAMETERS
]
#: MLflow keeps no longer values.
_LONGEST = 500


def log(tables: Tables) -> tuple[int, int]:
    """Log every trial that is not there yet to where ``MLFLOW_TRACKING_URI`` says: how many, and how many were there.

    The experiment has the name of the sweep. Raises :class:`InputError` without MLflow, and where MLflow cannot log.
    """
    try:
        mlflow: Any = importlib.import_module("mlflow")
    except ImportError as error:
        raise InputError("--to mlflow: MLflow is not installed; pip install 'tunebench[mlflow]'") from error
    try:
        return _log_all(mlflow, tables)
    except ImportError as error:  # a store's own requirement, such as alembic
        raise InputError(f"--to mlflow: {error}; pip install 'tunebench[mlflow]'") from error
    except mlflow.exceptions.MlflowException as error:
        what = plain.bounded(str(error).splitlines()[0])
        raise InputError(
            f"--to mlflow: {what}; set MLFLOW_TRACKING_URI, such as sqlite:///mlflow.db or http://host:5000"
        ) from error


def _log_all(mlflow: Any, tables: Tables) -> tuple[int, int]:
    logged = there = 0
    for sweep, trials in tables["trials"].groupby("sweep", sort=False):
        experiment = mlflow.set_experiment(str(sweep))
        runs = mlflow.search_runs([experiment.experiment_id], output_format="list")
        known = {run.data.tags.get(_ID) for run in runs}
        curves = {str(one): rows for one, rows in tables["curves"].groupby("trial_id", sort=False)}
        for row in trials.to_dict("records"):
            if row["trial_id"] in known:
                there += 1
                continue
            with mlflow.start_run(run_name=f"{row['method']} {row['task']} {row['model']} seed {row['seed']}"):
                _log_one(mlflow, row, curves.get(row["trial_id"]))
            logged += 1
    return logged, there


_ID = "tunebench.trial_id"


def _log_one(mlflow: Any, row: Mapping[Any, Any], curves: pd.DataFrame | None) -> None:
    told = {"status": row["status"], "reason": row["reason"], "note": row["note"]}
    mlflow.set_tags({_ID: row["trial_id"], **{name: str(value) for name, value in told.items() if not pd.isna(value)}})
    mlflow.log_params({name: str(row[name])[:_LONGEST] for name in _PARAMETERS if not pd.isna(row[name])})
    mlflow.log_metrics({name: float(row[name]) for name in _RESULTS if _is_number(row[name])})
    for step, values in [] if curves is None else curves.groupby("step", sort=True):
        known = zip(values.split, values.metric, values.value, strict=True)
        finite = {f"{split}.{metric}": value for split, metric, value in known if _is_number(value)}
        mlflow.log_metrics(finite, step=int(str(step)))


def _is_number(value: Any) -> bool:
    return not pd.isna(value) and math.isfinite(value)
