"""Which images role chat has kept on the cluster hosts."""

import json
from pathlib import Path

from ansible_runs import ROOT, ansible_playbook


def test_the_current_image_comes_before_those_of_earlier_rollouts(tmp_path: Path) -> None:
    earlier = [f"localhost:32000/chat@sha256:{number}" for number in range(8)]
    pods = [{"spec": {"template": {"spec": {"containers": [{"image": i}]}}}} for i in earlier]
    facts = {
        "chat_image": "localhost:32000/chat@sha256:new",
        "__chat_rollouts": {"resources": pods},
    }
    tasks = [
        {"ansible.builtin.include_vars": str(ROOT / "roles/chat/vars/main.yml")},
        {"ansible.builtin.assert": {"that": f"__chat_images == {[facts['chat_image'], *earlier]}"}},
    ]
    play = tmp_path / "play.json"
    play.write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": facts, "tasks": tasks}])
    )
    done = ansible_playbook(play)
    assert done.returncode == 0, done.stdout + done.stderr
