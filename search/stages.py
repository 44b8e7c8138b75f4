"""The stages of a search as steps of one study: warm-up, coarse, fine, fine by weight sharing (paper, section 3.3)."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.pruners import SuccessiveHalvingPruner

from efficientbert.search.material import Material
from efficientbert.search.result import Row, result_folders, write_result
from efficientbert.search.samplers import SAMPLERS, Sampler
from efficientbert.search.score_choice import make_score
from efficientbert.search.scores.score import Score
from efficientbert.search.scores.trained_candidates import TrainedCandidates
from efficientbert.search.space.architecture import FORMAT, Architecture
from efficientbert.search.space.neighbourhood import Neighbourhood
from efficientbert.search.space.space import SearchSpace
from efficientbert.search.study.record import Record
from efficientbert.search.study.report import write_report
from efficientbert.search.study.study import ReportStep, StageStudy
from efficientbert.search.supernet.few_shot import FewShotSupernet
from efficientbert.search.supernet.supernet import Supernet
from efficientbert.search.supernets import sampled_supernet, task_supernet, warm_supernet
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.student import Student


PLACES = ("output_dir", "storage", "name")  # where a study is kept; not what it is


@dataclass(frozen=True)
class Winner:
    """The candidate that a stage hands on."""

    architecture: Architecture
    losses: tuple[float, ...]


class Stages:
    """Runs the stages of a search in its folder, beside any number of other workers that do the same.

    Args:
        material: What it works with.
    """

    def __init__(self, material: Material):
        self.material = material
        self.trained = TrainedCandidates(material.folder / "trained", material.losses)

    def run(self) -> None:
        """Runs the stages that were asked for, as far as they are not done; then writes the result of the last.

        Raises:
            InputError: if a stage needs another's result that is not there, or came to nothing.
        """
        args = self.material.args
        wanted = [stage for stage in args.stages if args.only_stage in (None, stage)]
        start: Winner | None = None
        for stage in args.stages[: args.stages.index(wanted[0])]:
            start = self._winner(stage)
        warm = warm_supernet(self.material)
        for stage in wanted:
            start = self._run_stage(stage, warm, start)

    def _run_stage(self, stage: int, warm: Supernet, start: Winner | None) -> Winner:
        """Searches one stage, writes its result and gives its winner."""
        material = self.material
        space, args = material.space, material.args
        supernet: Supernet | FewShotSupernet = warm
        first: tuple[Architecture, ...] = ()
        rated = None  # by an earlier stage, as all are here
        if stage == 2:
            space = space.fix_sizes(start.architecture if start else Architecture.from_config(space.base))
            rated = start
        elif start is None:
            first = space.familiar(args.seed)
        else:
            space, first = space.fix_expressions(start.architecture), (start.architecture,)
        if stage == 3:
            material.remembered.forget()
            supernet = sampled_supernet(material, warm, space)
            on_tasks = None
            if "tasks" in args.supernet_scores:
                assert isinstance(supernet, Supernet)  # the arguments refuse several of them with tasks
                on_tasks = task_supernet(material, supernet, space)
            score = make_score(material, args.supernet_scores, supernet, self.trained, on_tasks)
        else:
            score = make_score(material, args.scores, warm, self.trained)
        words = args.supernet_scores if stage == 3 else args.scores
        material.tell(f"stage {stage}: rating candidates by {', then '.join(words)}")
        records = self._search(stage, space, score, first, rated)
        rows = [(Architecture.from_json(record.candidate), record.losses) for record in records if record.losses]
        if rated is not None:
            rows.append((rated.architecture, rated.losses))
        winner = self._winner(stage, rows)
        if stage == args.stages[-1]:
            # One of all workers writes; with more candidates, of a search that was taken up again, it is written anew.
            material.group.once(
                material.storage,
                f"{material.name}/result of {len(records)} candidates",
                lambda: self._write(stage, rows, supernet) if material.group.leads else None,
                lasts=lambda: all(folder.exists() for folder in result_folders(material)),
            )
        if material.group.leads:
            metric = material.space.budgets[0].metric if material.space.budgets else "parameters"
            report = write_report(material.storage, material.name, material.folder, metric)
            best = min(rows, key=lambda row: row[1])
            complete = sum(record.losses is not None for record in records)
            print(f"stage {stage}: {complete} of {len(records)} candidates complete, best loss {best[1][0]:.4f}")
            print(f"report: {report}")
            if stage == args.stages[-1]:
                print(*result_folders(material), sep="\n")
        return winner

    def _search(
        self, stage: int, space: SearchSpace, score: Score, first: tuple[Architecture, ...], rated: Winner | None
    ) -> list[Record]:
        """Evaluates the candidates of a stage: some first, then those of the sampler, who knows what is rated."""
        material, args, factor = self.material, self.material.args, self.material.args.reduction_factor

        def evaluate(architecture: Architecture, report: ReportStep) -> dict[str, float]:
            def at_rung(loss: float, rung: int) -> None:
                assert factor is not None
                report(loss, factor**rung)  # the pruner's rungs are the powers of its factor

            loss = score(architecture, None if factor is None else at_rung)
            return material.figures(architecture, loss)

        study = StageStudy(
            material.storage,
            f"{material.name}/stage-{stage}",
            self._sampler(space, rated),
            to_json=Architecture.to_json,
            from_json=Architecture.from_json,
            objectives=tuple(args.objectives),
            seed=args.seed,
            settings={key: value for key, value in args.decisive().items() if key not in PLACES} | {"format": FORMAT},
            first=first,
            numbers=numbers,
            pruner=None if factor is None else SuccessiveHalvingPruner(1, factor),
        )
        return material.group.run(study, evaluate, args.stop_rule())

    def _sampler(self, space: SearchSpace, start: Winner | None) -> Sampler[Architecture]:
        """Who proposes candidates; in stage 2 around the winner of stage 1, which was rated as they are."""
        args = self.material.args
        settings: dict[str, dict[str, int]] = {
            "evolution": {"initial": args.initial},
            "nsga2": {"initial": args.initial},
            "action_space": {"first": args.initial, "interval": args.refit_interval},
        }
        drawn = space if start is None else Neighbourhood(space, start.architecture)
        sampler = SAMPLERS[args.sampler](drawn, args.seed, **settings.get(args.sampler, {}))
        if start is not None:
            sampler.tell(start.architecture, start.losses)
        return sampler

    def _winner(self, stage: int, rows: Sequence[Row] = ()) -> Winner:
        """The candidate that a stage hands on: that of the lowest loss. Once chosen it stays.

        Args:
            stage: The stage.
            rows: Its complete candidates, where they are at hand.

        Raises:
            InputError: if none was chosen yet, and there is nothing to choose from.
        """
        material = self.material

        def job() -> list[Any]:
            if not rows:
                raise InputError(f"stage {stage}: no candidate of it is complete; run it first: --only_stage {stage}")
            candidate, losses = min(rows, key=lambda row: row[1][0])
            return [candidate.to_json(), losses]

        candidate, losses = material.group.once(material.storage, f"{material.name}/winner of stage {stage}", job)
        return Winner(Architecture.from_json(candidate), tuple(losses))

    def _write(self, stage: int, rows: Sequence[Row], supernet: Supernet | FewShotSupernet) -> None:
        """Writes the result of the last stage, of candidates that were trained with what they have learned."""
        args = self.material.args
        is_trained = stage != 3 and args.scores[-1] == "short" and args.general_steps > 0

        def extract(architecture: Architecture) -> Student:
            student = supernet.extract(architecture)
            if is_trained and not self.trained.load(architecture, student):
                warnings.warn(f"'{self.trained.folder}': lacks a candidate's weights; it is as it began", stacklevel=2)
            return student

        write_result(self.material, rows, extract)


def numbers(architecture: Architecture) -> dict[str, int]:
    """What a dashboard plots of an architecture."""
    found = {"num_layers": len(architecture.layers)} | asdict(architecture.shape)
    for index, layer in enumerate(architecture.layers):
        found |= {f"stack {index}": layer.stack, f"width {index}": layer.intermediate_size}
        found |= {f"heads {index}": layer.heads, f"head width {index}": layer.head_dim}
    return found
