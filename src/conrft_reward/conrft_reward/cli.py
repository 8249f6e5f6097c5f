"""Subcommand ``conrft reward``: train and evaluate the success classifier on recorded episodes."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = "the success classifier, which is the reward"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``reward train`` and ``reward evaluate``."""
    reward = subparsers.add_parser("reward", help=DESCRIPTION)
    commands = reward.add_subparsers(dest="reward_command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train on recorded episodes, report on those held out")
    train.add_argument("--demos", type=Path, required=True, nargs="+", metavar="DIR", help="folders of episode bags")
    extra = "folders of further episodes, such as those of online training; successes and failures both teach"
    train.add_argument("--extra", type=Path, nargs="*", default=[], metavar="DIR", help=extra)
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="classifier to write, .safetensors")
    train.add_argument("--task-file", type=Path, required=True, metavar="FILE", help="YAML file of the task")
    train.add_argument("--seed", type=int, default=0, help="of the split and of the training (default: %(default)s)")
    train.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    train.set_defaults(run=run_train)
    evaluate = commands.add_parser("evaluate", help="count the errors of a classifier on recorded episodes")
    evaluate.add_argument("--classifier", type=Path, required=True, metavar="FILE", help="what train wrote")
    evaluate.add_argument("--episodes", type=Path, required=True, nargs="+", metavar="DIR", help="of episode bags")
    evaluate.add_argument("--task-file", type=Path, required=True, metavar="FILE", help="YAML file of the task")
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="report to write, .json; a .png lies beside it")
    evaluate.set_defaults(run=run_evaluate)


def run_train(args: argparse.Namespace) -> int:
    """Writes the classifier, ``<name>.report.json`` and ``<name>.errors.png`` beside it."""
    import torch

    from conrft_data.bags import BagError
    from conrft_data.config import ConfigError, TaskConfig, load_config
    from conrft_reward.episode_folders import recorded_episodes
    from conrft_reward.evaluation import write_report
    from conrft_reward.training import TrainingError, train_and_inspect

    torch.set_num_threads(args.threads)
    try:
        task = load_config(TaskConfig, args.task_file)
        episodes = recorded_episodes([*args.demos, *args.extra], task)
        trained = train_and_inspect(episodes, task, args.seed, progress=print)
    except (ConfigError, BagError, TrainingError) as error:
        print(error)
        return 1
    trained.classifier.save(args.out)
    write_report(args.out.with_suffix(""), trained.classifier, task, trained.report, trained.parts)
    print_errors(trained.report)
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """Prints the errors and, where asked, writes them with a sheet of frames."""
    import torch

    from conrft_data.bags import BagError
    from conrft_data.config import ConfigError, TaskConfig, load_config
    from conrft_reward.classifier import ClassifierError, SuccessClassifier
    from conrft_reward.episode_folders import recorded_episodes
    from conrft_reward.evaluation import evaluate, write_report
    from conrft_reward.labelled_frames import labelled_frames

    torch.set_num_threads(1)
    try:
        task = load_config(TaskConfig, args.task_file)
        classifier = SuccessClassifier.load(args.classifier)
        classifier.check_task(task)
        episodes = recorded_episodes(args.episodes, task)
        parts = {"episodes": labelled_frames(episodes, task, classifier.config.size)}
    except (ConfigError, BagError, ClassifierError) as error:
        print(error)
        return 1
    report = evaluate(classifier, task, parts)
    if args.out:
        write_report(args.out.with_suffix(""), classifier, task, report, parts)
    print_errors(report)
    return 0


def print_errors(report: dict[str, object]) -> None:
    """One line for each part of a report."""
    print(f"threshold {report['threshold']:.3f}, {report['consecutive']} ticks in a row")
    for name, part in report.items():
        if not isinstance(part, dict):
            continue
        frames, gated, decisions = part["frames"], part["after_gates"], part["decisions"]
        print(
            f"{name}: {part['episodes']} episodes; frames: {frames['false_positives']} of {frames['negatives']} false "
            f"positives, {frames['false_negatives']} of {frames['positives']} false negatives; after the gates: "
            f"{gated['false_positives']} and {gated['false_negatives']}; decisions: {decisions['false_successes']} "
            f"false, {decisions['missed_successes']} of {decisions['successful_episodes']} missed"
        )
