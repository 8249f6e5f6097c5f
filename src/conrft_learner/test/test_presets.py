"""Every shipped preset loads, and a mistake in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from conrft_data.config import ConfigError, load_config
from conrft_learner.offline import within_cores
from conrft_learner.presets import Preset

PRESETS = Path(__file__).parents[2] / "conrft_bringup" / "config" / "presets"


@pytest.mark.parametrize("name", ["stable", "paper", "official_code"])
def test_shipped_presets_load(name: str) -> None:
    assert load_config(Preset, PRESETS / f"{name}.yaml").name == name


def test_paper_and_official_code_have_their_published_weights() -> None:
    paper, code = (load_config(Preset, PRESETS / f"{name}.yaml") for name in ("paper", "official_code"))
    assert (paper.offline_bc_weight, paper.offline_q_weight, paper.online_bc_weight, paper.online_q_weight) == (
        1.0,
        0.1,
        0.5,
        1.0,
    )
    assert (code.offline_bc_weight, code.offline_q_weight, code.online_bc_weight, code.online_q_weight) == (
        1.0,
        0.0,
        0.1,
        1.0,
    )
    assert (paper.offline_cql_alpha, code.offline_cql_alpha) == (0.01, 0.1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("tua: 0.1", "tua: is not a known key"),
        ("updates_per_tick: 0", "updates_per_tick: .*greater than 0"),
        ("updates_per_tick: 101", "updates_per_tick: .*less than or equal to 100"),
        ("critic_steps_per_actor_step: 0", "critic_steps_per_actor_step: .*greater than or equal to 1"),
        ("critic_steps_per_actor_step: 101", "critic_steps_per_actor_step: .*less than or equal to 100"),
        ("offline_critic_steps: -1", "offline_critic_steps: .*greater than or equal to 0"),
        ("online_critic_warmup: 1000001", "online_critic_warmup: .*less than or equal to 1000000"),
        ("online_bc_weight: -0.1", "online_bc_weight: .*greater than or equal to 0"),
        ("online_bc_weight_final: 1001", "online_bc_weight_final: .*less than or equal to 1000"),
        ("online_q_weight: 1001", "online_q_weight: .*less than or equal to 1000"),
        ("online_q_weight_final: -1", "online_q_weight_final: .*greater than or equal to 0"),
        ("schedule_start: -1", "schedule_start: .*greater than or equal to 0"),
        ("schedule_end: 5", "schedule_end 5 must not lie before schedule_start 20"),
        ("tau: 0.0", "tau: .*greater than 0"),
        ("tau: 2.0", "tau: .*less than or equal to 1"),
        ("critic_members: 21", "critic_members: .*less than or equal to 20"),
        ("critic_subset: 0", "critic_subset: .*greater than or equal to 1"),
        ("critic_subset: 3", "critic_subset 3 must not exceed critic_members 2"),
        ("best_episodes: 0", "best_episodes: .*greater than or equal to 1"),
        ("keep_checkpoints: 0", "keep_checkpoints: .*greater than or equal to 1"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"name: wrong\n{line}\n")
    with pytest.raises(ConfigError, match=f"wrong.yaml: {complaint}"):
        load_config(Preset, file)


def test_every_setting_is_described() -> None:
    assert [name for name, field in Preset.model_fields.items() if not field.description] == []


def test_every_number_is_bounded_on_both_sides() -> None:
    numbers = {"integer", "number"}
    unbounded = []
    for name, schema in Preset.model_json_schema()["properties"].items():
        for kind in schema.get("anyOf", [schema]):
            sides = {side for side in kind if side.lower().endswith(("minimum", "maximum"))}
            if kind.get("type") in numbers and len(sides) != 2:
                unbounded.append(name)
    assert unbounded == []


def test_a_schedule_is_linear_between_its_episodes() -> None:
    preset = Preset(name="test", schedule_start=20, schedule_end=50)
    values = [preset.scheduled(0.1, 0.01, episodes) for episodes in (0, 20, 35, 50, 99)]
    assert values == pytest.approx([0.1, 0.1, 0.055, 0.01, 0.01])


def test_a_subset_larger_than_the_ensemble_is_an_error() -> None:
    with pytest.raises(ValueError, match="critic_subset 3 must not exceed critic_members 2"):
        Preset(name="test", critic_members=2, critic_subset=3)


def test_paper_and_official_code_use_the_papers_critic_and_the_demo_the_light_one() -> None:
    presets = {name: load_config(Preset, PRESETS / f"{name}.yaml") for name in ("stable", "paper", "official_code")}
    assert {name: preset.critic for name, preset in presets.items()} == {
        "stable": "light",
        "paper": "paper",
        "official_code": "paper",
    }
    assert presets["official_code"].critic_shared_output and not presets["paper"].critic_shared_output


@pytest.mark.parametrize(("cores", "ahead", "threads"), [(1, 0, 1), (2, 3, 1), (4, 3, 3)])
def test_the_thread_that_makes_batches_ahead_is_one_of_the_cores(cores: int, ahead: int, threads: int) -> None:
    preset, torch_threads = within_cores(Preset(name="test", prefetch_batches=3), cores)
    assert (preset.prefetch_batches, torch_threads) == (ahead, threads)
    assert within_cores(Preset(name="test"), cores)[1] == cores, "there is no such thread"
