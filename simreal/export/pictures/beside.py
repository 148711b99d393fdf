"""The estimators of a policy's sensors, exported beside its bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simreal.common.json_io import read_json
from simreal.deploy.seeing.estimator import ESTIMATOR
from simreal.export.pictures.estimator import export_estimator
from simreal.export.source import ExportError
from simreal.training.checkpoint import EVALUATION
from simreal.vision.estimator.loading import load_estimator
from simreal.vision.sensors.config import SensorConfig


def export_beside(sensors: Mapping[str, SensorConfig], bundle: Path) -> tuple[dict[str, Any], ...]:
    """Write the estimators of some components to BUNDLE_NAME each; returns what a contract says of them.

    Raises:
        UserError, ExportError: there is no such estimator, or it cannot be exported.
    """
    folders: dict[str, Path] = {}
    entries = []
    for component, sensor in sensors.items():
        if sensor.estimator not in folders:
            estimator = load_estimator(sensor.estimator)
            folder = bundle.parent / f"{bundle.name}_{estimator.name}"
            folders[sensor.estimator] = export_estimator(estimator, folder, read_json(estimator.run / EVALUATION))
        folder = folders[sensor.estimator]
        contract = json.loads((folder / ESTIMATOR).read_bytes())
        if component not in {entry["name"] for entry in contract["targets"] + contract["follows"]}:
            raise ExportError(
                f"{component}: follows from what {sensor.estimator} reads by arithmetic of the task that no bundle "
                "knows; expected an estimator that reads it"
            )
        entries.append({
            "component": component, "bundle": folder.name,
            "contract_sha256": contract["contract_sha256"],
            "rate_hz": sensor.rate_hz, "latency_s": sensor.latency_s, "drop": sensor.drop,
        })  # fmt: skip
    return tuple(entries)
