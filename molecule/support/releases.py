"""The two releases of Kafka in the scenarios: the roles' default, and the previous one."""

import yaml
from hosts import ROOT

_DEFAULTS = yaml.safe_load((ROOT / "roles/kafka_distribution/defaults/main.yml").read_text())

NEW: str = _DEFAULTS["kafka_distribution_version"]
[OLD] = (path.name.removeprefix("kafka-") for path in ROOT.glob("sandbox/test-artifacts/kafka-*"))
