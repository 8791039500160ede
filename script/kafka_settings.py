"""Write roles/kafka/files/settings.json: the name and type of each setting that Kafka knows.

    script/kafka_settings.py HOME

HOME is an unpacked archive of Kafka. Its classes print the documentation of their settings, and
that is where names and types are taken from.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "roles/kafka/files/settings.json"
DOCUMENTED = {
    "broker": "kafka.server.KafkaConfig",
    "topic": "org.apache.kafka.storage.internals.log.LogConfig",
}
# Of the authorizer that comes with Kafka, whose documentation no class prints.
OF_THE_AUTHORIZER = {"allow.everyone.if.no.acl.found": "boolean", "super.users": "string"}


def documented(home: Path, program: str) -> dict[str, str]:
    """Type of each setting, by name, from the table that the class prints."""
    page = subprocess.run(
        ["java", "-cp", f"{home}/libs/*", program], check=True, capture_output=True, text=True
    ).stdout
    pattern = r'<h4><a id="([^"]+)"></a>.*?<tr><th>Type:</th><td>(\w+)</td></tr>'
    return dict(re.findall(pattern, page, re.DOTALL))


def settings(home: Path) -> str:
    """Content of the file, for this version of Kafka."""
    found = {of: documented(home, program) for of, program in DOCUMENTED.items()}
    found["broker"] |= OF_THE_AUTHORIZER
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    FILE.write_text(settings(Path(sys.argv[1])))
